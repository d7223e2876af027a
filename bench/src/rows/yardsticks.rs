//! The limits of this run, as rows and as what other rows are set beside.

use std::sync::Arc;

use crate::content::Kind;
use crate::frames::Stamped;
use crate::http::Http;
use crate::lean::Lean;
use crate::limits::BareServer;
use crate::limits::inserts::{self, Inserts};
use crate::load::{Answers, Load, Measured};
use crate::people::Person;
use crate::report::Row;
use crate::server::Backend;

use super::{Place, Plan, done};

/// What no database has a part in.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) rows: Vec<Row>,
    /// CPU seconds per 10,000 messages of the bare relay, by window.
    relay: Vec<(usize, f64)>,
    /// Of bare hyper.
    pub(crate) http: Option<f64>,
}

impl Machine {
    /// Measures what the chosen rows are set beside.
    pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Self> {
        let mut machine = Self::default();
        if !plan.limits {
            return Ok(machine);
        }
        for window in [1, 16] {
            let is_beside = |row: &&super::online::Online| row.window == window;
            if !plan.wants_any(super::online::ROWS.iter().filter(is_beside).map(|row| row.name)) {
                continue;
            }
            let measured = relay(plan, window).await?;
            machine.relay.push((window, measured.cpu));
            let what = format!("bare relay on tokio-tungstenite, window {window}");
            done(
                &mut machine.rows,
                Row::new(format!("bare-relay-{window}"), what).with(&measured),
            );
        }
        if plan.wants_any(with_requests()) {
            let measured = http(plan).await?;
            machine.http = Some(measured.cpu);
            let row = Row::new("bare-http", "PUT of 1 KiB to bare hyper");
            done(&mut machine.rows, row.with(&measured));
        }
        Ok(machine)
    }

    /// The bare relay's cost with this window.
    pub(crate) fn relay(&self, window: usize) -> Option<f64> {
        self.relay.iter().find(|(of, _)| *of == window).map(|(_, cpu)| *cpu)
    }
}

/// Rows of requests that the database has to make durable.
fn with_requests() -> impl Iterator<Item = &'static str> {
    let offline = super::offline::ROWS.iter().map(|row| row.name);
    offline.chain(super::bundles::ROWS.iter().map(|row| row.name))
}

async fn relay(plan: &Plan, window: usize) -> anyhow::Result<Measured> {
    let server = BareServer::relay(BUFFER).await?;
    let frames = Arc::new(vec![Stamped::bare(&Stamped::send(Kind::Unsealed, &nobody())?)]);
    let mut load = Load::default();
    for pair in 0..plan.pairs {
        let receiver = Lean::open_bare(&server.address, false, pair).await?;
        load.add_receiver(receiver, Answers::Bare);
        let sender = Lean::open_bare(&server.address, true, pair).await?;
        load.add_sender(sender, Arc::clone(&frames), 0, window);
    }
    load.measure(&server, plan.time).await
}

async fn http(plan: &Plan) -> anyhow::Result<Measured> {
    let server = BareServer::http().await?;
    let frames = Arc::new(vec![Stamped::http(Kind::Sealed, &nobody(), &nobody())?]);
    let mut load = Load::default();
    for _ in 0..plan.pairs {
        load.add_http_sender(Http::open(&server.address).await?, Arc::clone(&frames), 0);
    }
    load.measure(&server, plan.time).await
}

/// As long as somebody.
fn nobody() -> Person {
    Person {
        aci: "00000000-0000-0000-0000-000000000000".to_owned(),
        authorization: String::new(),
    }
}

/// What the database does without a server in front of it.
#[derive(Default)]
pub(crate) struct OnDatabase {
    /// Transactions of one row over one connection.
    pub(crate) alone: Option<Inserts>,
    /// The same over as many as there are senders.
    pub(crate) together: Option<Inserts>,
    /// A hundred rows each.
    pub(crate) batches: Option<Inserts>,
}

impl OnDatabase {
    /// Measures it, if a chosen row is set beside it, in a database of its own.
    pub(crate) async fn measure(plan: &Plan, place: &Place, rows: &mut Vec<Row>) -> anyhow::Result<Self> {
        if !plan.limits || !plan.wants_any(with_requests()) {
            return Ok(Self::default());
        }
        let backend = place.backend().await?;
        // More writers only wait for each other in SQLite; Postgres has them wait for the disk together.
        let writers = if matches!(backend, Backend::Sqlite(_)) { 1 } else { 2 };
        let mut measured = Vec::new();
        for (connections, batch) in [(1, 1), (plan.pairs, 1), (writers, 100)] {
            let inserts = inserts::measure(&backend, connections, batch, plan.time).await?;
            measured.push(inserts);
            let name = format!("inserts-{batch}-by-{connections}");
            let connections = if connections == 1 {
                "1 connection".to_owned()
            } else {
                format!("{connections} connections")
            };
            let what = match batch {
                1 => format!("single-row inserts, {connections}"),
                _ => format!("inserts of {batch} rows, {connections}"),
            };
            let mut row = Row::new(name, what);
            row.per_second = Some(inserts.per_second);
            match inserts.database_cpu {
                None if writers == 1 => row.server_cpu = Some(inserts.cpu),
                database => row.database_cpu = database,
            }
            done(rows, row);
        }
        backend.remove().await?;
        Ok(Self {
            alone: measured.first().copied(),
            together: measured.get(1).copied(),
            batches: measured.get(2).copied(),
        })
    }

    /// The better of the rates of single rows: no row looks better because a limit was measured badly.
    pub(crate) fn single(&self) -> Option<f64> {
        let rates = [self.alone?, self.together?].map(|inserts| inserts.per_second);
        Some(rates[0].max(rates[1]))
    }
}

/// Read buffer of the bare relay's connections: a window of frames.
const BUFFER: usize = 32 * 1024;
