//! A Redis of the test's own, to be stopped, paused and emptied.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::skip;

/// A Redis that keeps its port over restarts.
pub(crate) struct RedisServer {
    program: String,
    port: u16,
    /// Where it writes when it is told to.
    directory: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one, if the program is there.
    pub(crate) fn spawn() -> Option<Self> {
        let program = std::env::var("BLIND_RELAY_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        if Command::new(&program)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            skip("redis-server is not there; name it in BLIND_RELAY_TEST_REDIS_SERVER");
            return None;
        }
        // Another process may take the port in between, so a few are tried.
        (0..5).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut redis = Self {
                program: program.clone(),
                port,
                directory: tempfile::tempdir().unwrap(),
                child: None,
            };
            redis.start().then_some(redis)
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it on its port; returns whether it listens.
    pub(crate) fn start(&mut self) -> bool {
        let mut command = Command::new(&self.program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ]);
        let mut child = command
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept connections"));
        // Its later lines go nowhere, but must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
        ready
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Freezes it: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// A connection to it.
    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// What it writes when it saves all that it stores.
    pub(crate) async fn saved(&self) -> Vec<u8> {
        let mut connection = self.connection().await;
        redis::cmd("SAVE").query_async::<()>(&mut connection).await.unwrap();
        std::fs::read(self.directory.path().join("dump.rdb")).unwrap()
    }

    /// Everything it stores.
    pub(crate) async fn stored_keys(&self) -> usize {
        let mut connection = self.connection().await;
        redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap()
    }

    /// Empties it and cuts every subscription.
    pub(crate) async fn flush_and_cut(&self) {
        let mut connection = self.connection().await;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
        redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("pubsub")
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
