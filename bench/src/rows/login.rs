//! Devices that all come back at once: upgrade, credentials, until the queue is said to be empty.
//!
//! First with credentials that the server has not seen since it started, then with the same ones again.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::frames::Stamp;
use crate::goals;
use crate::lean::Lean;
use crate::load::Stretch;
use crate::note;
use crate::people::Person;
use crate::percentiles::Times;
use crate::report::Row;
use crate::scrape::Counters;
use crate::server::{Backend, Server};

use super::idle::source;
use super::{Accounts, Plan, Probe, done};

pub(super) const ROWS: [&str; 2] = ["login-cold", "login-warm"];

pub(super) async fn run(
    plan: &Plan,
    backend: &Backend,
    accounts: &mut Accounts,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    if !ROWS.iter().any(|row| plan.wants(row)) {
        return Ok(());
    }
    let server = plan.start(backend, Some("0")).await?;
    let people = accounts.take(&server, &plan.template, plan.logins).await?;
    server.stop().await?;
    note(&format!("{} logins", people.len()));
    let server = plan.start(backend, plan.answer_tick.as_deref()).await?;
    for (name, kind) in ROWS.into_iter().zip(["new to the server", "known to it"]) {
        let row = measure(
            &server,
            backend,
            people,
            Row::new(name, format!("login, credentials {kind}")),
        )
        .await?;
        if plan.wants(name) {
            done(rows, row);
        }
        everyone_has_left(&server).await?;
    }
    server.stop().await
}

async fn measure(server: &Server, backend: &Backend, people: &[Person], row: Row) -> anyhow::Result<Row> {
    let probe = Probe { server, backend };
    let stretch = Stretch::begin(&probe)?;
    let times = Times::default();
    let sockets: Vec<Lean> = stream::iter(people.iter().enumerate())
        .map(|(at, person)| {
            let times = &times;
            async move {
                let began = Stamp::now();
                let mut socket = Lean::open_quiet(&server.address, source(at), &person.authorization).await?;
                socket.drain().await?;
                times.add(began.age());
                anyhow::Ok(socket)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut measured = stretch.end(&probe, people.len() as u64)?;
    drop(sockets);
    measured.spread = Times::spread([&times]);
    let mut row = row.with(&measured);
    let each = row.cpu().map(|cpu| cpu / 10_000.0 * 1000.0);
    row.more.extend(each.map(|millis| ("CPU", millis, "ms each")));
    row.goal(goals::login_cpu, each);
    Ok(row)
}

async fn everyone_has_left(server: &Server) -> anyhow::Result<()> {
    let began = Instant::now();
    let connected = |counters: &Counters| counters.sum("blind_relay_sockets", "kind=\"device\"").unwrap_or(0.0);
    while connected(&Counters::of(server).await?) > 0.0 {
        ensure!(began.elapsed() < LONGEST, "sockets that were closed are still open");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Logins under way.
const AT_ONCE: usize = 100;
const LOOK: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(60);
