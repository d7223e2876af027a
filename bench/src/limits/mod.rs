//! The limits of this machine, measured in the same run: what the least program does that could do the same work.
//!
//! Each is a process of its own, this program again, on the cores where the server runs, so that what it costs is its own.

pub(crate) mod bare_http;
pub(crate) mod bare_relay;
pub(crate) mod inserts;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Subcommand;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::cores::{self, Side};
use crate::load::Cost;
use crate::process::{cpu_seconds, resident_kib};

/// What this program is when it stands for a limit.
#[derive(Subcommand, Clone, Copy)]
pub(crate) enum Bare {
    /// Frames of one socket go to another, through memory.
    Relay {
        /// Bytes of a connection's read buffer.
        #[arg(long)]
        read_buffer: usize,
    },
    /// Requests are read and answered.
    Http,
    /// Rows are inserted, at the place that standard input names.
    Inserts {
        /// Connections.
        #[arg(long)]
        connections: usize,
        /// Rows of a transaction: 1 or 100.
        #[arg(long)]
        batch: usize,
        /// Milliseconds.
        #[arg(long)]
        millis: u64,
    },
}

/// Is such a program, until its standard input ends.
pub(crate) async fn be(bare: Bare) -> anyhow::Result<()> {
    match bare {
        Bare::Relay { read_buffer } => until_stdin_ends(bare_relay::serve(read_buffer)).await,
        Bare::Http => until_stdin_ends(bare_http::serve()).await,
        Bare::Inserts {
            connections,
            batch,
            millis,
        } => inserts::be(connections, batch, Duration::from_millis(millis)).await,
    }
}

/// The parent holds the other end of standard input, and dies with it open or not at all.
async fn until_stdin_ends(serve: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut ended = [0; 1];
    tokio::select! {
        served = serve => served,
        _ = stdin.read(&mut ended) => Ok(()),
    }
}

/// Such a program, seen from outside. Ends when it is dropped.
pub(crate) struct BareServer {
    /// `host:port`.
    pub(crate) address: String,
    child: Child,
    /// Held, because its end is the program's.
    _stdin: ChildStdin,
}

impl BareServer {
    /// A relay whose connections have read buffers of so many bytes.
    pub(crate) async fn relay(read_buffer: usize) -> anyhow::Result<Self> {
        Self::start(&["relay", "--read-buffer", &read_buffer.to_string()]).await
    }

    /// An HTTP server.
    pub(crate) async fn http() -> anyhow::Result<Self> {
        Self::start(&["http"]).await
    }

    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = cores::spawn(
            Command::new(std::env::current_exe()?)
                .arg("bare")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true),
            Side::Server,
        )?;
        let stdin = child.stdin.take().context("its input is a pipe")?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await??;
        let address = line.context("a bare server says where it listens")?;
        Ok(Self {
            address,
            child,
            _stdin: stdin,
        })
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        resident_kib(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the bare server has ended")
    }
}

impl Cost for BareServer {
    fn cpu(&self) -> anyhow::Result<(f64, Option<f64>)> {
        Ok((cpu_seconds(self.pid()?)?, None))
    }
}

/// Runs such a program to its end and returns what it prints.
pub(crate) async fn output(arguments: &[String], stdin: &str, side: Side) -> anyhow::Result<String> {
    let mut child = cores::spawn(
        Command::new(std::env::current_exe()?)
            .arg("bare")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true),
        side,
    )?;
    let mut pipe = child.stdin.take().context("its input is a pipe")?;
    tokio::io::AsyncWriteExt::write_all(&mut pipe, stdin.as_bytes()).await?;
    drop(pipe);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "a bare program failed");
    Ok(String::from_utf8(output.stdout)?)
}
