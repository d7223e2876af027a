//! Servers: the built program on ports of its own, with data of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::Postgres;
use sqlx::migrate::MigrateDatabase;
use tempfile::TempDir;

use super::{ask, hex, random, setting, until};

/// Where a server keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Data that outlives a server process, and is gone with the test.
pub(crate) struct Place {
    dir: TempDir,
    database_url: Option<String>,
}

impl Place {
    pub(crate) async fn new(backend: Backend) -> Arc<Self> {
        let database_url = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => {
                let server = postgres_url().unwrap();
                let (server, _) = server.rsplit_once('/').unwrap();
                let url = format!("{server}/blind_relay_it_{}", hex(&random::<8>()));
                Postgres::create_database(&url).await.unwrap();
                Some(url)
            }
        };
        Arc::new(Self {
            dir: tempfile::tempdir().unwrap(),
            database_url,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The PostgreSQL database, if it is there.
    pub(crate) fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref()
    }

    /// The SQLite file.
    pub(crate) fn sqlite(&self) -> PathBuf {
        self.path().join("data").join("relay.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(url) = self.database_url.take() else { return };
        // A runtime of its own: the test's may be ending.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            (0..5).any(|_| runtime.block_on(Postgres::force_drop_database(&url)).is_ok())
        });
        let _ = dropping.join();
    }
}

/// The Postgres server for tests, if there is one.
pub(crate) fn postgres_url() -> Option<String> {
    setting("BLIND_RELAY_TEST_POSTGRES_URL")
}

/// A running server, killed if the test ends before it.
pub(crate) struct Server {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
    said: Arc<Mutex<String>>,
    place: Arc<Place>,
    settings: Vec<(String, String)>,
    client: reqwest::Client,
}

impl Server {
    /// A server with an empty database and the default settings.
    pub(crate) async fn spawn(backend: Backend) -> Self {
        Self::spawn_with(backend, &[]).await
    }

    /// A server with an empty database. Settings are named as in the environment, without `BLIND_RELAY_`.
    pub(crate) async fn spawn_with(backend: Backend, settings: &[(&str, &str)]) -> Self {
        Self::start(Place::new(backend).await, "data", settings)
    }

    /// A server over existing data. Nodes of one place share its database, its pepper and its trust root, not the
    /// data directory.
    pub(crate) fn start(place: Arc<Place>, data_dir: &str, settings: &[(&str, &str)]) -> Self {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = [("DATA_DIR".to_owned(), text(&place.path().join(data_dir)))]
            .into_iter()
            .chain(settings);
        Self::start_with(place, settings.collect())
    }

    /// The program with the settings of a server.
    fn command(place: &Place, settings: &[(String, String)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blind-relay"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BLIND_RELAY_")) {
            command.env_remove(name);
        }
        command
            .current_dir(place.path())
            .env("BLIND_RELAY_LISTEN", "127.0.0.1:0")
            .env("BLIND_RELAY_ADMIN_LISTEN", "127.0.0.1:0")
            .env("BLIND_RELAY_DATABASE_POOL_SIZE", "8")
            // Most tests ask for what is answered, not when, and thousands of answers in a row would wait.
            .env("BLIND_RELAY_RELAY__ANSWER_TICK_MILLIS", "1")
            // They come from one network and ask more than people do. Tests of the limits switch them on.
            .env("BLIND_RELAY_RATE_LIMITS", "off")
            .env("BLIND_RELAY_PEPPER_FILE", place.path().join("pepper"))
            .env("BLIND_RELAY_TRUST_ROOT_FILE", place.path().join("trust-root"))
            .envs(place.database_url.iter().map(|url| ("BLIND_RELAY_DATABASE_URL", url)))
            .envs(
                settings
                    .iter()
                    .map(|(name, value)| (format!("BLIND_RELAY_{name}"), value)),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start_with(place: Arc<Place>, settings: Vec<(String, String)>) -> Self {
        let mut command = Self::command(&place, &settings);
        let mut child = command.spawn().unwrap();
        let log = keep_log(child.stderr.take().unwrap());
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let line = first.trim_end();
        let address = line.strip_prefix("listening on http://");
        let Some(address) = address.or_else(|| line.strip_prefix("listening on https://")) else {
            let _ = child.wait();
            panic!("the server did not start: {first}{}", log.lock().unwrap());
        };
        let address = address.to_owned();
        Self {
            child,
            address,
            log,
            said: keep_log(out),
            place,
            settings,
            client: reqwest::Client::new(),
        }
    }

    /// Another run of the program with this server's settings, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command_line(arguments).output().unwrap()
    }

    /// The same, not started yet.
    pub(crate) fn command_line(&self, arguments: &[&str]) -> Command {
        let mut command = Self::command(&self.place, &self.settings);
        command.args(arguments);
        command
    }

    /// The same, not run yet.
    pub(crate) fn command_of(&self, arguments: &[&str]) -> Command {
        let mut command = Self::command(&self.place, &self.settings);
        command.args(arguments);
        command
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        PathBuf::from(&self.settings[0].1)
    }

    /// Host and port of the main listener.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where its data is.
    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// A request by plain HTTP.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("http://{}{path}", self.address))
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it has written to standard output so far, after its first line.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where it serves metrics.
    pub(crate) async fn admin_url(&self) -> String {
        let mut admin = None;
        until("the admin address in the log", async || {
            admin = admin_address(&self.log());
            admin.is_some()
        })
        .await;
        format!("http://{}", admin.unwrap())
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let answer = ask(self.client.get(format!("{}/metrics", self.admin_url().await)))
            .await
            .expect(200);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// The value of one metric, named with its labels as in the text; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Ends the connections that requests have left open.
    pub(crate) fn hang_up(&mut self) {
        self.client = reqwest::Client::new();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code, once it has exited.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        until("the server's end", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }

    /// The process, for whoever kills it while others hold the server.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Starts another over the same data, after this one has ended.
    pub(crate) fn restart(&self) -> Self {
        Self::start_with(Arc::clone(&self.place), self.settings.clone())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A paused process must be able to die.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.address, self.log());
        }
    }
}

/// Two nodes on one Postgres and one Redis.
pub(crate) async fn spawn_pair(redis_url: &str, settings: &[(&str, &str)]) -> (Server, Server) {
    let place = Place::new(Backend::Postgres).await;
    let mut all = vec![("REDIS_URL", redis_url)];
    all.extend_from_slice(settings);
    (
        Server::start(Arc::clone(&place), "one", &all),
        Server::start(place, "two", &all),
    )
}

/// Reads what a process writes for as long as it lives.
fn keep_log(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = kept.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    log
}

/// The address in `admin=127.0.0.1:1`, or in `"admin":"127.0.0.1:1"`.
fn admin_address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("admin=").or_else(|| log.split_once("\"admin\":\""))?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
    Some(rest[..end].to_owned())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
