//! Measures blind-relay beside the limits of the machine it runs on, in one run.
//!
//! Machines differ, so the numbers to look at are the ratios: accepted envelopes against single-row inserts of the same
//! database with the same durability. Run it with `cargo run --release -p bench`; it starts and stops everything itself,
//! except Postgres, which is measured when a URL is given.

mod client;
mod idle;
mod people;
mod relay;
mod server;
mod single_rows;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use people::{People, Template};
use server::{Backend, Server};

#[derive(Parser)]
#[command(about = "Measures blind-relay beside the limits of this machine, in one run.")]
struct Options {
    /// Also measure on this Postgres. A database is created beside the one named, and dropped afterwards.
    #[arg(long, env = "BLIND_RELAY_BENCH_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,

    /// The server to measure. Built in release mode first, if it is not given.
    #[arg(long)]
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    server::raise_descriptor_limit();
    let binary = match &options.server {
        Some(binary) => binary.clone(),
        None => server::build().context("cannot build the server")?,
    };
    let template = Template::load()?;
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

    let server = Server::start(binary, &backend).await?;
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

    let server = Server::start(binary, &backend).await?;
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
