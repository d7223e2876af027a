//! A TURN server of the test's own: coturn, if it is installed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::until;

/// coturn, letting in whoever has credentials made of the secret.
pub(crate) struct TurnServer {
    port: u16,
    child: Child,
    log: Arc<Mutex<String>>,
    _dir: TempDir,
}

impl TurnServer {
    /// Starts one, if the programs are there.
    pub(crate) async fn start(secret: &str) -> Option<Self> {
        let there = |program: &str| {
            let found = Command::new(program)
                .arg("-h")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            found.is_ok()
        };
        if !there("turnserver") || !there("turnutils_uclient") {
            eprintln!("skipped: coturn is not there");
            return None;
        }
        // coturn takes the port by UDP as well; nobody else asks for just this one meanwhile.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).into_os_string();
        let mut child = Command::new("turnserver")
            .args(["-n", "--use-auth-secret", "--realm=test", "-L", "127.0.0.1"])
            .args(["--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers"])
            .args(["--log-file=stdout", "-v", "-p"])
            .arg(port.to_string())
            .arg(format!("--static-auth-secret={secret}"))
            .args(["--pidfile".into(), file("pid"), "--userdb".into(), file("users")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, out) = (Arc::clone(&log), child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let server = Self {
            port,
            child,
            log,
            _dir: dir,
        };
        until("a TURN server that listens", async || {
            server.log().contains("UDP listener opened")
        })
        .await;
        Some(server)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Whether these credentials get a client its relay, and packets through it.
    pub(crate) async fn lets_in(&self, username: &str, password: &str) -> bool {
        let mut client = Command::new("turnutils_uclient");
        client
            .args(["-u", username, "-w", password, "-p", &self.port.to_string()])
            .args(["-e", "127.0.0.1", "-n", "1", "-m", "1", "-c", "-y", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        tokio::task::spawn_blocking(move || client.status().unwrap().success())
            .await
            .unwrap()
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
