//! Pairs that are both connected: one sends, the other acknowledges what comes.

use std::sync::Arc;
use std::time::Duration;

use crate::content::Kind;
use crate::frames::Stamped;
use crate::goals;
use crate::lean::Lean;
use crate::load::{Answers, Load, Measured};
use crate::note;
use crate::people::Person;
use crate::report::Row;
use crate::scrape::Counters;
use crate::server::{Backend, Server};

use super::{Accounts, Machine, Plan, Probe, done};

/// One of these rows.
pub(super) struct Online {
    pub(super) name: &'static str,
    kind: Kind,
    pub(super) window: usize,
    /// Answers leave on the server's own tick.
    tick: bool,
}

/// All of them; those with the tick last, because they need another server.
pub(super) const ROWS: [Online; 6] = [
    row("online-1", Kind::Unsealed, 1, false),
    row("online-16", Kind::Unsealed, 16, false),
    row("online-sealed-1", Kind::Sealed, 1, false),
    row("online-sealed-16", Kind::Sealed, 16, false),
    row("online-tick-1", Kind::Unsealed, 1, true),
    row("online-tick-16", Kind::Unsealed, 16, true),
];

const fn row(name: &'static str, kind: Kind, window: usize, tick: bool) -> Online {
    Online {
        name,
        kind,
        window,
        tick,
    }
}

pub(super) async fn run(
    plan: &Plan,
    machine: &Machine,
    backend: &Backend,
    accounts: &mut Accounts,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    for tick in [false, true] {
        let chosen: Vec<&Online> = ROWS
            .iter()
            .filter(|row| row.tick == tick && plan.wants(row.name))
            .collect();
        if chosen.is_empty() {
            continue;
        }
        note("online relay");
        let answer_tick = plan.answer_tick.as_deref().filter(|_| !tick);
        let server = plan.start(backend, answer_tick).await?;
        let people = accounts.take(&server, &plan.template, plan.pairs * 2).await?;
        for online in chosen {
            let row = measure(plan, machine, &server, backend, people, online).await?;
            done(rows, row);
        }
        server.stop().await?;
    }
    Ok(())
}

async fn measure(
    plan: &Plan,
    machine: &Machine,
    server: &Server,
    backend: &Backend,
    people: &[Person],
    online: &Online,
) -> anyhow::Result<Row> {
    let before = Counters::of(server).await?;
    let measured = relayed(plan, server, backend, people, online).await?;
    // What was acknowledged last is dropped, or written after all.
    tokio::time::sleep(SETTLED).await;
    let after = Counters::of(server).await?;
    let kind = if online.kind == Kind::Sealed { "sealed, " } else { "" };
    let tick = if online.tick { ", default tick" } else { "" };
    let what = format!("online relay, {kind}window {}{tick}", online.window);
    let mut row = Row::new(online.name, what).with(&measured);
    row.direct = Some(direct(&before, &after, measured.sent));
    let ratio = machine
        .relay(online.window)
        .and_then(|bare| row.beside_cpu("bare relay", bare));
    let cpu = row.cpu();
    if online.window == 1 {
        row.goal(goals::online_cpu_1, cpu);
        row.goal(goals::online_ratio, ratio);
        let p99 = row.spread.map(|spread| spread.p99);
        row.goal(goals::online_p99, p99);
    } else {
        row.goal(goals::online_cpu_16, cpu);
    }
    let direct = row.direct;
    row.goal(goals::online_direct, direct);
    Ok(row)
}

async fn relayed(
    plan: &Plan,
    server: &Server,
    backend: &Backend,
    people: &[Person],
    online: &Online,
) -> anyhow::Result<Measured> {
    let mut load = Load::default();
    for pair in people.chunks_exact(2) {
        let mut receiver = Lean::open(&server.address, Some(&pair[1].authorization)).await?;
        receiver.drain().await?;
        load.add_receiver(receiver, Answers::Acknowledgements);
    }
    for pair in people.chunks_exact(2) {
        // A sealed send says nothing of who sends it.
        let authorization = (online.kind == Kind::Unsealed).then_some(&*pair[0].authorization);
        let sender = Lean::open(&server.address, authorization).await?;
        let frames = Arc::new(vec![Stamped::send(online.kind, &pair[1])?]);
        load.add_sender(sender, frames, 0, online.window);
    }
    load.measure(&Probe { server, backend }, plan.time).await
}

/// What part of so many envelopes was acknowledged before it was written. A counter appears with its first event.
fn direct(before: &Counters, after: &Counters, sent: u64) -> f64 {
    let acknowledged = |counters: &Counters| counters.sum(DIRECT, "end=\"acknowledged\"").unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let sent = sent as f64;
    (acknowledged(after) - acknowledged(before)) / sent
}

const DIRECT: &str = "blind_relay_envelopes_direct_total";
const SETTLED: Duration = Duration::from_millis(200);
