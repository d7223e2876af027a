//! Senders to devices that are away: each send counts when its success, which says that it is durable, has come.

use std::sync::Arc;

use crate::content::Kind;
use crate::frames::Stamped;
use crate::goals;
use crate::http::Http;
use crate::lean::Lean;
use crate::load::{Load, Measured};
use crate::note;
use crate::people::Person;
use crate::report::Row;
use crate::server::{Backend, Server};

use super::{Accounts, Machine, OnDatabase, Place, Plan, Probe, done};

/// One of these rows.
pub(super) struct Offline {
    pub(super) name: &'static str,
    kind: Kind,
    window: usize,
    http: bool,
}

pub(super) const ROWS: [Offline; 6] = [
    row("offline-1", Kind::Unsealed, 1, false),
    row("offline-16", Kind::Unsealed, 16, false),
    row("offline-sealed-1", Kind::Sealed, 1, false),
    row("offline-sealed-16", Kind::Sealed, 16, false),
    row("offline-http-1", Kind::Unsealed, 1, true),
    row("offline-http-sealed-1", Kind::Sealed, 1, true),
];

const fn row(name: &'static str, kind: Kind, window: usize, http: bool) -> Offline {
    Offline {
        name,
        kind,
        window,
        http,
    }
}

pub(super) async fn run(
    plan: &Plan,
    machine: &Machine,
    database: &OnDatabase,
    place: &Place,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut chosen = ROWS.iter().filter(|row| plan.wants(row.name)).peekable();
    if chosen.peek().is_some() {
        note("offline accept");
    }
    for offline in chosen {
        // Nobody fetches what is sent, so every row has a database of its own, which goes with it.
        let backend = place.backend().await?;
        let server = plan.start(&backend, plan.answer_tick.as_deref()).await?;
        let mut accounts = Accounts::default();
        let people = accounts.take(&server, &plan.template, plan.pairs + RECIPIENTS).await?;
        let (senders, recipients) = people.split_at(plan.pairs);
        let measured = accepted(plan, &server, &backend, senders, recipients, offline).await?;
        server.stop().await?;
        backend.remove().await?;
        done(rows, described(machine, database, place, offline, &measured));
    }
    Ok(())
}

async fn accepted(
    plan: &Plan,
    server: &Server,
    backend: &Backend,
    senders: &[Person],
    recipients: &[Person],
    offline: &Offline,
) -> anyhow::Result<Measured> {
    let mut load = Load::default();
    let to_all = recipients.iter().map(|to| Stamped::send(offline.kind, to));
    let to_all: Arc<Vec<Stamped>> = Arc::new(to_all.collect::<Result<_, _>>()?);
    for (index, sender) in senders.iter().enumerate() {
        if offline.http {
            // Each says who it is in every request, so that no two have the same.
            let some = recipients.iter().skip(index * EACH % recipients.len()).take(EACH);
            let frames = some.map(|to| Stamped::http(offline.kind, sender, to));
            let frames = Arc::new(frames.collect::<Result<Vec<_>, _>>()?);
            load.add_http_sender(Http::open(&server.address).await?, frames, 0);
        } else {
            let authorization = (offline.kind == Kind::Unsealed).then_some(&*sender.authorization);
            let mut socket = Lean::open(&server.address, authorization).await?;
            if authorization.is_some() {
                socket.drain().await?;
            }
            load.add_sender(socket, Arc::clone(&to_all), index * EACH, offline.window);
        }
    }
    load.measure(&Probe { server, backend }, plan.time).await
}

fn described(machine: &Machine, database: &OnDatabase, place: &Place, offline: &Offline, measured: &Measured) -> Row {
    let over = if offline.http { " over HTTP" } else { "" };
    let kind = if offline.kind == Kind::Sealed { "sealed, " } else { "" };
    let what = format!("offline accept{over}, {kind}window {}", offline.window);
    let mut row = Row::new(offline.name, what).with(measured);
    let is_sqlite = matches!(place, Place::Sqlite);
    let single = if is_sqlite {
        database.single()
    } else {
        database.together.map(|inserts| inserts.per_second)
    };
    let ratio = single.and_then(|single| row.beside_rate("single-row inserts", single));
    if let Some(batches) = database.batches {
        row.beside_rate("inserts of 100 rows", batches.per_second);
    }
    if let Some(http) = machine.http.filter(|_| offline.http) {
        row.beside_cpu("bare hyper", http);
    }
    if offline.window == 1 && !offline.http {
        let goal = if is_sqlite {
            goals::offline_sqlite
        } else {
            goals::offline_postgres
        };
        row.goal(goal, ratio);
    }
    let cpu = row.cpu();
    row.goal(goals::offline_cpu, cpu);
    row
}

/// Devices that are written to.
const RECIPIENTS: usize = 400;
/// Of them, those that one sender over HTTP writes to, and how far apart senders begin.
const EACH: usize = 8;
