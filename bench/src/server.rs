//! The server under measurement, and what it costs.

use std::path::{Path, PathBuf};
use std::process::{Command as Build, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Where a server keeps its rows.
pub(crate) enum Backend {
    /// A file of its own.
    Sqlite(TempDir),
    /// A database of its own.
    Postgres {
        /// The database that was named.
        beside: String,
        /// The database that was made.
        url: String,
        /// Its name.
        name: String,
        /// For the pepper.
        dir: TempDir,
    },
}

impl Backend {
    /// In the working directory's file system: the one for temporary files may be memory.
    pub(crate) fn sqlite() -> anyhow::Result<Self> {
        Ok(Self::Sqlite(tempfile::tempdir_in(".")?))
    }

    /// A fresh database on the server of the URL.
    pub(crate) async fn postgres(beside: &str) -> anyhow::Result<Self> {
        let name = format!("blind_relay_bench_{}", std::process::id());
        let (base, _) = beside.rsplit_once('/').context("a Postgres URL ends with /database")?;
        let mut connection = PgConnection::connect(beside).await.context("cannot reach Postgres")?;
        administrate(&mut connection, format!("CREATE DATABASE {name}")).await?;
        Ok(Self::Postgres {
            beside: beside.to_owned(),
            url: format!("{base}/{name}"),
            name,
            dir: tempfile::tempdir_in(".")?,
        })
    }

    /// For the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres { .. } => "postgres",
        }
    }

    /// A directory of its own.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Sqlite(dir) | Self::Postgres { dir, .. } => dir.path(),
        }
    }

    /// Drops the database; files go by themselves.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        if let Self::Postgres { beside, name, .. } = &self {
            let mut connection = PgConnection::connect(beside).await?;
            administrate(&mut connection, format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        }
        Ok(())
    }
}

/// A database's name is no parameter; this one is our own.
async fn administrate(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    child: Child,
}

impl Server {
    /// Starts it with limits that do not get in the way of load, and waits for its address. Without an `answer_tick` it has
    /// its own.
    pub(crate) async fn start(binary: &Path, backend: &Backend, answer_tick: Option<&str>) -> anyhow::Result<Self> {
        Self::start_node(binary, backend, "data", answer_tick, "127.0.0.1:0").await
    }

    /// One of several nodes of one database, each with a data directory of its own and the keys of all.
    pub(crate) async fn start_node(
        binary: &Path,
        backend: &Backend,
        data_dir: &str,
        answer_tick: Option<&str>,
        listen: &str,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command
            .args([
                "serve",
                "--listen",
                listen,
                "--admin-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(backend.dir().join(data_dir))
            .env("BLIND_RELAY_QUEUE__MAX_ENVELOPES", "1000000")
            .env("BLIND_RELAY_QUEUE__MAX_BYTES", "10000000000")
            .env("BLIND_RELAY_LOG_LEVEL", "warn")
            // All load comes from one place, and is what is measured.
            .env("BLIND_RELAY_RATE_LIMITS", "off")
            .envs(answer_tick.map(|millis| ("BLIND_RELAY_RELAY__ANSWER_TICK_MILLIS", millis)))
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Backend::Postgres { url, .. } = backend {
            command.env("BLIND_RELAY_DATABASE_URL", url);
        }
        if data_dir != "data" {
            command
                .env("BLIND_RELAY_PEPPER_FILE", backend.dir().join("pepper"))
                .env("BLIND_RELAY_TRUST_ROOT_FILE", backend.dir().join("trust-root"));
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the server's output is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??;
        // The pipe stays open: a server that cannot write its output should not stumble over it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        match line
            .as_deref()
            .and_then(|line| line.strip_prefix("listening on http://"))
        {
            Some(address) => Ok(Self {
                address: address.to_owned(),
                child,
            }),
            None => bail!("the server did not say where it listens"),
        }
    }

    /// Ends it and waits until it has: the next one wants its files.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end the server")
    }

    /// CPU seconds used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid()?)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("a process has memory")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the server has ended")
    }
}

/// Builds the server as a user would run it, and says where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let status = Build::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bin", "blind-relay"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    anyhow::ensure!(status.success(), "cargo build failed");
    // This program lies where the server does.
    Ok(std::env::current_exe()?.with_file_name("blind-relay"))
}

/// Every socket is a descriptor.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// Seconds of CPU that a process has used.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; the times are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(')').context("a stat line has a name")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap_or(0.0))
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a hundred ticks a second")]
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
