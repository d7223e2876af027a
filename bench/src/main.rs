//! Measures blind-relay beside the limits of the machine it runs on, in one run.
//!
//! Machines differ, so the numbers to look at are the ratios to what the least program does on the same machine in the same run,
//! and CPU time for a message. Run it with `cargo run --release -p bench`; it starts and stops everything itself. What each row
//! means: `docs/performance.md`.

mod abuse;
mod audit;
mod claims;
mod client;
mod cluster;
mod content;
mod cores;
mod frames;
mod goals;
mod growth;
mod http;
mod lean;
mod limits;
mod load;
mod machine;
mod nodes;
mod people;
mod percentiles;
mod process;
mod report;
mod rows;
mod scrape;
mod sealing;
mod server;
mod steady;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use cluster::Cluster;
use limits::Bare;
use people::Template;
use rows::{Machine, Place, Plan};
use server::Backend;

#[derive(Parser)]
#[command(
    about = "Measures blind-relay beside the limits of this machine, in one run.",
    after_help = AFTER_HELP
)]
struct Options {
    /// A Postgres to measure on. A database is created beside the one named, and dropped afterwards. Without it the table has
    /// a Postgres of its own, if the programs are installed; tasks have none.
    #[arg(long, global = true, env = "BLIND_RELAY_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,

    /// The server to measure. Built in release mode first, if it is not given.
    #[arg(long, global = true)]
    server: Option<PathBuf>,

    /// Only on this database.
    #[arg(long, value_name = "DATABASE")]
    only: Option<Only>,

    /// Only these rows: names as in the table, or the words that they begin with, with commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    rows: Vec<String>,

    /// Without the limits of this machine, and so without ratios.
    #[arg(long)]
    no_limits: bool,

    /// Write everything to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Seconds of each measurement that goes by time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Concurrent senders, each with a receiver, and connections of the single-row inserts.
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=400))]
    senders: usize,

    /// Numbers of idle sockets.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 20_000], value_name = "COUNT,...",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    idle: Vec<usize>,

    /// Devices that come back at once.
    #[arg(long, default_value_t = 5_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    logins: usize,

    /// The tick on which the server answers sends: `default` for the server's own, or milliseconds. With another than 0, few
    /// senders that wait for each answer measure the tick. The rows with `tick` in their names have the server's own.
    #[arg(long, default_value = "0", value_name = "MILLIS")]
    answer_tick: String,

    /// Let the server, its database and the load generator share all cores. Otherwise the first two have a core to themselves,
    /// if there are two cores.
    #[arg(long)]
    no_pin: bool,

    /// What else to measure. Without one: the table.
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
    /// Whether a message costs more when there are more devices, or when more waits. What does not fit the disk is left out.
    Growth {
        /// Registered devices to measure with.
        #[arg(long, value_delimiter = ',', default_values_t = [100, 10_000, 1_000_000], value_name = "COUNT,...")]
        devices: Vec<u64>,
        /// Queued rows to measure with.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000_000, 10_000_000], value_name = "COUNT,...")]
        queued: Vec<u64>,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Not on SQLite.
        #[arg(long)]
        no_sqlite: bool,
        /// Write everything to this file, too, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What a second node adds, and what it costs to cross from one to the other.
    Nodes {
        /// A Redis that joins them. Without it one is started.
        #[arg(long)]
        redis: Option<String>,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Whether tables, files and logs stay as large as they are under a steady load.
    Steady {
        /// For how long.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Not on SQLite.
        #[arg(long)]
        no_sqlite: bool,
    },
    /// What stands for a limit of this machine.
    #[command(hide = true)]
    Bare {
        #[command(subcommand)]
        bare: Bare,
    },
    /// What sealing the queue costs: the same queue sealed and unsealed, in turns.
    Sealing {
        /// Rounds of each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

/// A kind of database.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Sqlite,
    Postgres,
}

impl Options {
    /// The server's setting; `None` for its default.
    fn answer_tick(&self) -> Option<&str> {
        Some(&*self.answer_tick).filter(|tick| *tick != "default")
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    server::raise_descriptor_limit();
    // Threads have the cores of the thread that starts them, so this comes before there are any.
    let pinned = matches!(&options.task, None | Some(Task::Growth { .. } | Task::Steady { .. }));
    if pinned && !options.no_pin {
        cores::part()?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = if cores == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    runtime.enable_all().build()?.block_on(async {
        tokio::select! {
            done = Box::pin(work(options)) => done,
            // Servers and files go as if everything had been done.
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}

async fn work(mut options: Options) -> anyhow::Result<()> {
    let Some(task) = options.task.take() else {
        return run_table(&options).await;
    };
    let sealing = match task {
        Task::Abuse => return abuse::run().await,
        Task::Bare { bare } => return limits::be(bare).await,
        Task::Sealing { rounds } => Some(rounds),
        _ => None,
    };
    if let Some(rounds) = sealing {
        run_sealing(&options, Backend::sqlite()?, rounds).await?;
        if let Some(url) = &options.postgres {
            run_sealing(&options, Backend::postgres(url).await?, rounds).await?;
        }
        return Ok(());
    }
    let binary = binary(&options)?;
    match task {
        Task::Growth {
            devices,
            queued,
            seconds,
            no_sqlite,
            json,
        } => {
            let sizes = growth::Sizes {
                devices: growth::in_order(devices)?,
                rows: growth::in_order(queued)?,
                time: Duration::from_secs(seconds),
            };
            return run_growth(&options, &binary, &sizes, !no_sqlite, json.as_deref()).await;
        }
        Task::Nodes { redis, seconds } => {
            let (url, cluster) = postgres(&options).await?;
            let backend = Backend::postgres(&url).await?;
            let (template, time) = (Template::load()?, Duration::from_secs(seconds));
            let lines = nodes::run(&binary, &template, &backend, redis.as_deref(), time).await;
            backend.remove().await?;
            stop(cluster).await?;
            lines?.iter().for_each(|line| say(line));
            return Ok(());
        }
        Task::Steady { minutes, no_sqlite } => {
            return run_steady(&options, &binary, Duration::from_secs(minutes * 60), !no_sqlite).await;
        }
        _ => {}
    }
    let mut backends = vec![Backend::sqlite()?];
    if let Some(url) = &options.postgres {
        backends.push(Backend::postgres(url).await?);
    }
    for backend in backends {
        match task {
            Task::Audit { rows } => run_audit(&binary, &Template::load()?, backend, rows).await?,
            Task::Claims { claims } => run_claims(&binary, backend, claims).await?,
            _ => {}
        }
    }
    Ok(())
}

/// The server to measure.
fn binary(options: &Options) -> anyhow::Result<PathBuf> {
    match &options.server {
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("there is no {}", binary.display())),
        None => server::build().context("cannot build the server"),
    }
}

/// The default: one table for each kind of database.
async fn run_table(options: &Options) -> anyhow::Result<()> {
    let unknown = rows::unknown(&options.rows);
    if !unknown.is_empty() {
        note(&format!(
            "there are no rows called {unknown:?}; there are {}",
            rows::names().join(", ")
        ));
        std::process::exit(2);
    }
    let plan = Plan {
        binary: binary(options)?,
        template: Template::load()?,
        time: Duration::from_secs(options.seconds),
        pairs: options.senders,
        idle: options.idle.clone(),
        logins: options.logins,
        chosen: options.rows.clone(),
        limits: !options.no_limits,
        answer_tick: options.answer_tick().map(str::to_owned),
    };
    let facts = machine::Facts::of(&plan.binary);
    let settings = settings(options);
    say(&format!("{}\n{settings}", facts.described()));
    note("limits of this machine");
    let machine = Machine::measure(&plan).await?;
    let mut reports = Vec::new();
    if options.only != Some(Only::Postgres) {
        note("on SQLite");
        let report = rows::run(&plan, &machine, &Place::Sqlite).await?;
        say(&format!("\n{}", table::of(&report)));
        reports.push(report.json());
    }
    if options.only != Some(Only::Sqlite) {
        match postgres(options).await {
            Ok((url, cluster)) => {
                note("on Postgres");
                let place = Place::Postgres { url };
                let report = rows::run(&plan, &machine, &place).await?;
                say(&format!("\n{}", table::of(&report)));
                reports.push(report.json());
                if let Some(cluster) = cluster {
                    cluster.stop().await?;
                }
            }
            Err(why) if options.postgres.is_none() && options.only.is_none() => {
                say(&format!("\nPostgres was not measured: {why:#}"));
            }
            Err(why) => return Err(why),
        }
    }
    say(table::LEGEND);
    if let Some(file) = &options.json {
        let all = serde_json::json!({
            "machine": facts.json(),
            "settings": settings,
            "seconds": options.seconds,
            "senders": options.senders,
            "backends": reports,
        });
        std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The Postgres to measure on, and that which has to be stopped afterwards.
async fn postgres(options: &Options) -> anyhow::Result<(String, Option<Cluster>)> {
    if let Some(url) = &options.postgres {
        return Ok((url.clone(), None));
    }
    let programs = cluster::programs().context(
        "its programs initdb and postgres are neither under /usr/lib/postgresql nor in PATH; install them, or name a server \
         with --postgres",
    )?;
    note("starting a Postgres");
    let cluster = Cluster::start(&programs).await?;
    Ok((cluster.url.clone(), Some(cluster)))
}

/// How it was measured, in words.
fn settings(options: &Options) -> String {
    let tick = match options.answer_tick() {
        None => "on the server's default tick".to_owned(),
        Some("0") => "when they are ready, but in the rows with `tick`".to_owned(),
        Some(millis) => format!("on a tick of {millis} ms"),
    };
    format!(
        "{} pairs, 1 KiB, {} s each; {}; answers of sends leave {tick}",
        options.senders,
        options.seconds,
        cores::described()
    )
}

async fn run_growth(
    options: &Options,
    binary: &std::path::Path,
    sizes: &growth::Sizes,
    sqlite: bool,
    json: Option<&std::path::Path>,
) -> anyhow::Result<()> {
    let template = Template::load()?;
    let mut found = serde_json::Map::new();
    if sqlite {
        let (text, value) = growth::run(binary, &template, async || Backend::sqlite(), sizes).await?;
        say(&text);
        found.insert("sqlite".to_owned(), value);
    }
    match postgres(options).await {
        Ok((url, cluster)) => {
            let (text, value) = growth::run(binary, &template, async || Backend::postgres(&url).await, sizes).await?;
            say(&text);
            found.insert("postgres".to_owned(), value);
            stop(cluster).await?;
        }
        Err(why) => say(&format!("Postgres was not measured: {why:#}")),
    }
    json.map_or(Ok(()), |file| growth::write(file, &found.into()))
}

async fn run_steady(options: &Options, binary: &std::path::Path, time: Duration, sqlite: bool) -> anyhow::Result<()> {
    let mut grown = Vec::new();
    if sqlite {
        grown.extend(run_steady_on(binary, Backend::sqlite()?, time).await?);
    }
    match postgres(options).await {
        Ok((url, cluster)) => {
            grown.extend(run_steady_on(binary, Backend::postgres(&url).await?, time).await?);
            stop(cluster).await?;
        }
        Err(why) => say(&format!("Postgres was not measured: {why:#}")),
    }
    ensure!(grown.is_empty(), "something grows");
    Ok(())
}

/// What did not stay as it was.
async fn run_steady_on(binary: &std::path::Path, backend: Backend, time: Duration) -> anyhow::Result<Vec<String>> {
    let name = backend.name();
    note(&format!("{name}: {} s of steady load", time.as_secs()));
    let outcome = steady::run(binary, Template::load()?, &backend, time).await;
    backend.remove().await?;
    let outcome = outcome?;
    say(&format!("{name}\n{}", outcome.lines.join("\n")));
    say(&match outcome.grown.is_empty() {
        true => format!("{name}: flat"),
        false => format!("{name}: grows: {}", outcome.grown.join("; ")),
    });
    Ok(outcome.grown)
}

async fn stop(cluster: Option<Cluster>) -> anyhow::Result<()> {
    match cluster {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    }
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

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

/// How far it is, for whoever waits.
fn note(line: &str) {
    eprintln!("{line}");
}

const AFTER_HELP: &str = "\
The table: one for SQLite, and one for Postgres if its programs are installed or --postgres names a server. The server and its
database have one core, the load generator the others. Beside each row are the limits of this machine, measured in the same run:
a relay that only moves frames, an HTTP server that only answers, inserts without a server in front. docs/performance.md explains
every row.

Rows: online-1 online-16 online-sealed-1 online-sealed-16 online-tick-1 online-tick-16 offline-1 offline-16 offline-sealed-1
offline-sealed-16 offline-http-1 offline-http-sealed-1 drain-one drain-many bundles-1 bundles-16 login-cold login-warm idle

  bench                                       everything; some minutes
  bench --rows online --only sqlite           six rows and their limits
  bench --rows online-16 --no-limits --server target/release/blind-relay
  bench --json figures.json                   the table, and everything as JSON";
