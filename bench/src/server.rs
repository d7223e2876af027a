//! The server under measurement, and what it costs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command as Build, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cores::{self, Side};
pub(crate) use crate::process::cpu_seconds;
use crate::process::{parent_called, resident_kib, tree_cpu_seconds};

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
        /// The process that started the database's processes, if it is on this machine.
        postmaster: Option<u32>,
    },
}

impl Backend {
    /// In the working directory's file system: the one for temporary files may be memory.
    pub(crate) fn sqlite() -> anyhow::Result<Self> {
        Ok(Self::Sqlite(tempfile::tempdir_in(".")?))
    }

    /// A fresh database on the server of the URL.
    pub(crate) async fn postgres(beside: &str) -> anyhow::Result<Self> {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("blind_relay_bench_{}_{number}", std::process::id());
        let (base, _) = beside.rsplit_once('/').context("a Postgres URL ends with /database")?;
        let mut connection = PgConnection::connect(beside).await.context("cannot reach Postgres")?;
        administrate(&mut connection, format!("CREATE DATABASE {name}")).await?;
        // On another machine the same number may be any process, but hardly a postgres of a postgres.
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        Ok(Self::Postgres {
            postmaster: u32::try_from(backend)
                .ok()
                .and_then(|backend| parent_called(backend, "postgres")),
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

    /// The database and its version.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        match self {
            Self::Sqlite(_) => {
                let mut memory = SqliteConnection::connect("sqlite::memory:").await?;
                let version: String = sqlx::query_scalar("SELECT sqlite_version()")
                    .fetch_one(&mut memory)
                    .await?;
                Ok(format!("SQLite {version}"))
            }
            Self::Postgres { url, .. } => {
                let mut connection = PgConnection::connect(url).await?;
                let version: String = sqlx::query_scalar("SHOW server_version")
                    .fetch_one(&mut connection)
                    .await?;
                Ok(format!("PostgreSQL {version}"))
            }
        }
    }

    /// A directory of its own.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Sqlite(dir) | Self::Postgres { dir, .. } => dir.path(),
        }
    }

    /// CPU seconds that the database has used so far; `None` where it is part of the server, or cannot be seen.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<Option<f64>> {
        match self {
            Self::Postgres {
                postmaster: Some(postmaster),
                ..
            } => tree_cpu_seconds(*postmaster).map(Some),
            _ => Ok(None),
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
    /// `host:port` of the operator's listener.
    pub(crate) admin: String,
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
        Self::start_with(binary, backend, data_dir, answer_tick, listen, None).await
    }

    /// One of several nodes that hear of each other through a Redis.
    pub(crate) async fn start_joined(
        binary: &Path,
        backend: &Backend,
        data_dir: &str,
        redis_url: &str,
    ) -> anyhow::Result<Self> {
        Self::start_with(binary, backend, data_dir, Some("0"), "127.0.0.1:0", Some(redis_url)).await
    }

    async fn start_with(
        binary: &Path,
        backend: &Backend,
        data_dir: &str,
        answer_tick: Option<&str>,
        listen: &str,
        redis_url: Option<&str>,
    ) -> anyhow::Result<Self> {
        // The server does not say where its operator's listener is, so it is told.
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", listen, "--admin-listen", &admin, "--data-dir"])
            .arg(backend.dir().join(data_dir))
            .env("BLIND_RELAY_QUEUE__MAX_ENVELOPES", "1000000")
            .env("BLIND_RELAY_QUEUE__MAX_BYTES", "10000000000")
            .env("BLIND_RELAY_LIMITS__MAX_CONNECTIONS", "1000000")
            // The two settings below are warned of.
            .env("BLIND_RELAY_LOG_LEVEL", "error")
            // All load comes from one place, and is what is measured.
            .env("BLIND_RELAY_RATE_LIMITS", "off")
            .envs(answer_tick.map(|millis| ("BLIND_RELAY_RELAY__ANSWER_TICK_MILLIS", millis)))
            .envs(redis_url.map(|url| ("BLIND_RELAY_REDIS_URL", url)))
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Backend::Postgres { url, .. } = backend {
            command.env("BLIND_RELAY_DATABASE_URL", url);
        }
        if data_dir == "data" {
            // It is the only node, which with PostgreSQL it cannot know.
            command.env("BLIND_RELAY_RELAY__DIRECT", "on");
        } else {
            command
                .env("BLIND_RELAY_PEPPER_FILE", backend.dir().join("pepper"))
                .env("BLIND_RELAY_TRUST_ROOT_FILE", backend.dir().join("trust-root"));
        }
        let mut child =
            cores::spawn(&mut command, Side::Server).with_context(|| format!("cannot start {}", binary.display()))?;
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
                admin,
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
        resident_kib(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the server has ended")
    }
}

/// Builds the server as a user would run it, and says where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let mut build = Build::new(env!("CARGO"));
    build
        .args(["build", "--release", "--locked", "--bin", "blind-relay"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cores::on_all(|| build.status())?;
    anyhow::ensure!(status.success(), "cargo build failed");
    // This program lies where the server does.
    Ok(std::env::current_exe()?.with_file_name("blind-relay"))
}

/// Every socket is a descriptor. Root may have more than it was given.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Some(DESCRIPTORS.max(limit.maximum.unwrap_or(u64::MAX)));
    for maximum in [most, limit.maximum] {
        let current = maximum;
        if setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok() {
            return;
        }
    }
}

/// How many descriptors a process may have.
pub(crate) fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Databases that this process has made.
static DATABASES: AtomicU32 = AtomicU32::new(0);
const DESCRIPTORS: u64 = 200_000;
