//! Devices that come back: from the first connection until every queue is empty and every envelope acknowledged.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::content::Kind;
use crate::frames::{Stamp, Stamped};
use crate::goals;
use crate::lean::{Came, Lean};
use crate::load::Stretch;
use crate::note;
use crate::people::Person;
use crate::report::{Goal, Row};
use crate::scrape::Counters;
use crate::server::{Backend, Server};

use super::{Accounts, Plan, Probe, done, float};

/// One of these rows.
pub(super) struct Drain {
    pub(super) name: &'static str,
    what: &'static str,
    devices: usize,
    /// Envelopes for each.
    each: usize,
    goal: fn(f64) -> Goal,
}

pub(super) const ROWS: [Drain; 2] = [
    Drain {
        name: "drain-one",
        what: "drain of 10,000 to one device",
        devices: 1,
        each: 10_000,
        goal: goals::drain_one,
    },
    Drain {
        name: "drain-many",
        what: "drain of 10 to each of 1,000 devices",
        devices: 1_000,
        each: 10,
        goal: goals::drain_many,
    },
];

pub(super) async fn run(
    plan: &Plan,
    backend: &Backend,
    accounts: &mut Accounts,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    for drain in ROWS.iter().filter(|row| plan.wants(row.name)) {
        note(drain.what);
        let server = plan.start(backend, Some("0")).await?;
        let people = accounts.take(&server, &plan.template, drain.devices).await?;
        fill(&server, people, drain).await?;
        server.stop().await?;
        // A server that has not seen them: nothing of the queue is in its memory.
        let server = plan.start(backend, plan.answer_tick.as_deref()).await?;
        tokio::time::sleep(RESTED).await;
        let row = measure(&server, backend, people, drain).await?;
        server.stop().await?;
        done(rows, row);
    }
    Ok(())
}

/// Puts into every queue what it is to hold. Sealed, because whoever says who it is would be handed its own queue.
async fn fill(server: &Server, people: &[Person], drain: &Drain) -> anyhow::Result<()> {
    let frames = people
        .iter()
        .take(drain.devices)
        .map(|to| Stamped::send(Kind::Sealed, to));
    let frames = frames.collect::<anyhow::Result<Vec<_>>>()?;
    let senders = (0..SENDERS).map(|lane| {
        let frames = &frames;
        async move {
            let mut socket = Lean::open(&server.address, None).await?;
            let (mut last, mut left) = (Stamp(0), 0);
            for at in (lane..drain.devices * drain.each).step_by(SENDERS) {
                last = Stamp::after(last);
                socket.feed(frames[at % frames.len()].at(last)).await?;
                left += 1;
                if left == WINDOW {
                    answered(&mut socket, &mut left).await?;
                }
            }
            answered(&mut socket, &mut left).await
        }
    });
    try_join_all(senders).await?;
    Ok(())
}

async fn answered(socket: &mut Lean, left: &mut usize) -> anyhow::Result<()> {
    socket.flush().await?;
    while *left > 0 {
        if let Came::Answer { status, body, .. } = socket.next().await? {
            ensure!(
                status == 200,
                "a send was answered with {status}: {}",
                String::from_utf8_lossy(&body)
            );
            *left -= 1;
        }
    }
    Ok(())
}

async fn measure(server: &Server, backend: &Backend, people: &[Person], drain: &Drain) -> anyhow::Result<Row> {
    let count = drain.devices * drain.each;
    let deleted = |counters: &Counters| counters.sum("blind_relay_acknowledged_total", "").unwrap_or(0.0);
    let before = deleted(&Counters::of(server).await?);
    let probe = Probe { server, backend };
    let stretch = Stretch::begin(&probe)?;
    let devices = people[..drain.devices].iter().map(|person| async {
        let mut socket = Lean::open(&server.address, Some(&person.authorization)).await?;
        let count = socket.drain().await?;
        anyhow::Ok((socket, count))
    });
    let drained = try_join_all(devices).await?;
    let came_after = stretch.elapsed();
    let came: u64 = drained.iter().map(|(_, count)| count).sum();
    ensure!(came == count as u64, "{came} envelopes came of {count}");
    while deleted(&Counters::of(server).await?) - before < float(count) {
        ensure!(stretch.elapsed() < LONGEST, "acknowledged envelopes were not deleted");
        tokio::time::sleep(LOOK).await;
    }
    let durable = stretch.elapsed().as_secs_f64();
    let mut row = Row::new(drain.name, drain.what).with(&stretch.end_after(came_after, &probe, count as u64)?);
    let seconds = came_after.as_secs_f64();
    row.more.push(("empty after", seconds, "s"));
    row.more.push(("durably after", durable, "s"));
    row.goal(drain.goal, Some(seconds));
    drop(drained);
    Ok(row)
}

const SENDERS: usize = 50;
const WINDOW: usize = 16;
const RESTED: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(3);
const LONGEST: Duration = Duration::from_secs(60);
