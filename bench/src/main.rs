//! Measures blind-relay beside the limits of the machine it runs on, in one run.
//!
//! Machines differ, so the numbers to look at are the ratios: accepted envelopes against single-row inserts of the same
//! database with the same durability. Run it with `cargo run --release -p bench`; it starts and stops everything itself,
//! except Postgres, which is measured when a URL is given.

mod abuse;
mod audit;
mod claims;
mod client;
mod idle;
mod people;
mod relay;
mod sealing;
mod server;
mod single_rows;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

use people::{People, Template};
use server::{Backend, Server};

#[derive(Parser)]
#[command(about = "Measures blind-relay beside the limits of this machine, in one run.")]
struct Options {
    /// Also measure on this Postgres. A database is created beside the one named, and dropped afterwards.
    #[arg(long, global = true, env = "BLIND_RELAY_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,

    /// The server to measure. Built in release mode first, if it is not given.
    #[arg(long, global = true)]
    server: Option<PathBuf>,

    /// Seconds per measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Concurrent senders, and connections of the single-row yardstick.
    #[arg(long, default_value_t = 50)]
    senders: usize,

    /// Idle sockets.
    #[arg(long, default_value_t = 5_000)]
    idle: usize,

    /// The tick on which the server answers sends: `default` for the server's own, or milliseconds. With another than 0, few
    /// senders that wait for each answer measure the tick.
    #[arg(long, default_value = "0", value_name = "MILLIS")]
    answer_tick: String,

    /// What to measure. Without one: sends, deliveries and idle sockets.
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// A flood by a thousand accounts in ten simulated minutes: what it takes from its target, and what others feel of it.
    Abuse,
    /// How long an audit takes over queues that hold so many envelopes together.
    Audit {
        /// Envelopes.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// Whether racing claims of one-time keys ever get one twice, while nodes are killed at random.
    Claims {
        /// Claims.
        #[arg(long, default_value_t = 1_000_000)]
        claims: u64,
    },
    /// What sealing the queue costs: the same queue sealed and unsealed, in turns.
    Sealing {
        /// Rounds of each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

impl Options {
    /// The server's setting; `None` for its default.
    fn answer_tick(&self) -> Option<&str> {
        Some(&*self.answer_tick).filter(|tick| *tick != "default")
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    server::raise_descriptor_limit();
    if let Some(Task::Abuse) = options.task {
        return Box::pin(abuse::run()).await;
    }
    if let Some(Task::Sealing { rounds }) = options.task {
        run_sealing(&options, Backend::sqlite()?, rounds).await?;
        if let Some(url) = &options.postgres {
            run_sealing(&options, Backend::postgres(url).await?, rounds).await?;
        }
        return Ok(());
    }
    let binary = match &options.server {
        Some(binary) => binary.clone(),
        None => server::build().context("cannot build the server")?,
    };
    let template = Template::load()?;
    if let Some(Task::Audit { rows }) = options.task {
        run_audit(&binary, &template, Backend::sqlite()?, rows).await?;
        if let Some(url) = &options.postgres {
            run_audit(&binary, &template, Backend::postgres(url).await?, rows).await?;
        }
        return Ok(());
    }
    if let Some(Task::Claims { claims }) = options.task {
        run_claims(&binary, Backend::sqlite()?, claims).await?;
        if let Some(url) = &options.postgres {
            run_claims(&binary, Backend::postgres(url).await?, claims).await?;
        }
        return Ok(());
    }
    say(&match options.answer_tick() {
        None => "answers of sends leave on the server's default tick".to_owned(),
        Some("0") => "answers of sends leave when they are ready, not on a tick".to_owned(),
        Some(millis) => format!("answers of sends leave on a tick of {millis} ms"),
    });
    say("backend   measurement                                        per second   CPU-s per 10,000 (server)");
    run(&options, &binary, &template, Backend::sqlite()?).await?;
    if let Some(url) = &options.postgres {
        run(&options, &binary, &template, Backend::postgres(url).await?).await?;
    }
    Ok(())
}

async fn run(options: &Options, binary: &std::path::Path, template: &Template, backend: Backend) -> anyhow::Result<()> {
    let name = backend.name();
    let alone = single_rows::measure(&backend, 1, options.seconds).await?;
    report(name, "single-row inserts, 1 connection", alone, None);
    let single = single_rows::measure(&backend, options.senders, options.seconds).await?;
    report(
        name,
        &format!("single-row inserts, {} connections", options.senders),
        single,
        None,
    );

    let server = Server::start(binary, &backend, options.answer_tick()).await?;
    let people = People::register(&server, template, options.senders * 2, RECIPIENTS).await?;
    for window in [1, 16] {
        let measured = relay::offline(&server, &people, options, window).await?;
        report(
            name,
            &format!("accepted for offline devices, window {window}"),
            measured.rate,
            Some(measured.cpu),
        );
        if window == 1 {
            say(&format!(
                "{name:<9} {:<50} {:>10.2}",
                "  ratio to single-row inserts",
                measured.rate / single
            ));
        }
    }
    for window in [1, 16] {
        let measured = relay::online(&server, &people, options, window).await?;
        report(
            name,
            &format!("delivered to online devices, window {window}"),
            measured.rate,
            Some(measured.cpu),
        );
    }
    server.stop().await?;

    let server = Server::start(binary, &backend, options.answer_tick()).await?;
    let idle = idle::measure(&server, template, options.idle).await?;
    say(&format!(
        "{name:<9} memory: {:.1} MiB with no socket, {:.1} MiB with {} idle device sockets, {:.1} KiB per socket",
        idle.before_kib / 1024.0,
        idle.after_kib / 1024.0,
        options.idle,
        idle.per_socket_kib,
    ));
    server.stop().await?;
    backend.remove().await
}

async fn run_sealing(options: &Options, backend: Backend, rounds: usize) -> anyhow::Result<()> {
    let name = backend.name();
    let measured = sealing::measure(&backend, options.senders, options.seconds, rounds).await?;
    for (what, [sealed, unsealed]) in [("enqueue", measured.enqueue), ("drain", measured.drain)] {
        say(&format!(
            "{name:<9} {what:<8} sealed {:>8.0}/s ({:.3} CPU-s per 10,000), unsealed {:>8.0}/s ({:.3}), ratio {:.2}",
            sealed.per_second,
            sealed.cpu,
            unsealed.per_second,
            unsealed.cpu,
            sealed.per_second / unsealed.per_second,
        ));
    }
    backend.remove().await
}

async fn run_audit(binary: &std::path::Path, template: &Template, backend: Backend, rows: u64) -> anyhow::Result<()> {
    let measured = audit::measure(binary, &backend, template, rows).await?;
    say(&format!(
        "{:<9} audit of {rows} queued rows, {} MB: {:.1} s",
        backend.name(),
        measured.bytes / 1_000_000,
        measured.took.as_secs_f64(),
    ));
    backend.remove().await
}

async fn run_claims(binary: &std::path::Path, backend: Backend, claims: u64) -> anyhow::Result<()> {
    let measured = claims::measure(binary, &backend, Template::load()?, claims).await?;
    say(&format!(
        "{:<9} claims: {} answered at {:.0} per second, {} one-time keys and {} last-resort answers, {} cut off by {} kills, \
         {} keys handed out twice",
        backend.name(),
        measured.answered,
        measured.per_second,
        measured.one_time,
        measured.last_resort,
        measured.lost,
        measured.kills,
        measured.doubles,
    ));
    anyhow::ensure!(measured.doubles == 0, "keys were handed out twice");
    backend.remove().await
}

fn report(backend: &str, what: &str, rate: f64, cpu: Option<f64>) {
    let cpu = cpu.map(|cpu| format!("{cpu:>10.3}")).unwrap_or_default();
    say(&format!("{backend:<9} {what:<50} {rate:>10.0}   {cpu}"));
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Devices that are written to while they are offline.
const RECIPIENTS: usize = 400;
