//! The program as an auditor starts it, and what it said.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::Server;

/// An audit that has ended.
pub(super) struct Audit {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs `blind-relay audit blindness` over the server's database, with more arguments and settings.
pub(super) async fn audit(server: &Server, arguments: &[&str], settings: &[(&str, &str)]) -> Audit {
    run(command(
        server,
        &[&["audit", "blindness"], arguments].concat(),
        settings,
    ))
    .await
}

/// Runs `blind-relay audit verify`.
pub(super) async fn verify(server: &Server, arguments: &[&str]) -> Audit {
    run(command(server, &[&["audit", "verify"], arguments].concat(), &[])).await
}

/// A file in a place that goes with the server's.
pub(super) fn file(server: &Server, name: &str) -> PathBuf {
    server.place().path().join(name)
}

/// Where the operator's listener is.
pub(super) async fn admin(server: &Server) -> String {
    // Once it answers, the log has named it.
    server.metrics().await;
    let log = server.log();
    let (_, rest) = log
        .split_once("admin=")
        .or_else(|| log.split_once("\"admin\":\""))
        .unwrap();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')
        .unwrap();
    format!("http://{}", &rest[..end])
}

impl Audit {
    /// Fails unless the audit found nothing.
    #[track_caller]
    pub(super) fn expect_clean(&self) {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        assert!(self.out.contains("\nclean: "), "{}", self.out);
    }

    /// Fails unless the audit found this, and nothing else.
    #[track_caller]
    pub(super) fn expect(&self, violation: &str) {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        let mut found = self.out.lines().filter(|line| line.starts_with("VIOLATION "));
        let first = found.next().unwrap();
        assert!(first.contains(violation), "{violation}: {first}");
        assert_eq!(found.next(), None, "{}", self.out);
    }
}

fn command(server: &Server, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let place = server.place();
    let mut command = Command::new(env!("CARGO_BIN_EXE_blind-relay"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BLIND_RELAY_")) {
        command.env_remove(name);
    }
    command
        .current_dir(place.path())
        .env("BLIND_RELAY_DATA_DIR", place.path().join("data"))
        // Nobody listens there.
        .env("BLIND_RELAY_ADMIN_LISTEN", "127.0.0.1:1")
        .envs(place.database_url().map(|url| ("BLIND_RELAY_DATABASE_URL", url)))
        .envs(
            settings
                .iter()
                .map(|(name, value)| (format!("BLIND_RELAY_{name}"), value)),
        )
        .args(arguments);
    command
}

/// Beside the test's own tasks, which may be what is audited.
async fn run(mut command: Command) -> Audit {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    Audit {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
