//! What a server takes that nobody has come to, and what a socket costs that only waits.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use crate::goals;
use crate::lean::Lean;
use crate::limits::BareServer;
use crate::note;
use crate::report::{Beside, Row};
use crate::scrape::Counters;
use crate::server::{Backend, descriptor_limit};

use super::{Accounts, Plan, done, float};

pub(super) const ROW: &str = "idle";

pub(super) async fn run(
    plan: &Plan,
    backend: &Backend,
    accounts: &mut Accounts,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let counts = counts(plan);
    let most = counts.last().copied().unwrap_or(0);
    // Registered through a server that is gone: what is measured has seen nobody.
    let server = plan.start(backend, Some("0")).await?;
    let people = accounts.take(&server, &plan.template, most).await?;
    server.stop().await?;
    let bare = if plan.limits { bare(&counts).await? } else { Vec::new() };
    let server = plan.start(backend, plan.answer_tick.as_deref()).await?;
    let address = &*server.address;
    let rest = settled(|| server.resident_kib()).await?;
    let mut row = Row::new(format!("{ROW}-0"), "nobody has come yet");
    row.more.push(("resident", rest / 1024.0, "MiB"));
    row.goal(goals::rest, Some(rest / 1024.0));
    done(rows, row);
    let mut sockets = Waiting::default();
    for (at, count) in counts.iter().enumerate() {
        note(&format!("{count} idle sockets"));
        let more = stream::iter(people.iter().enumerate().take(*count).skip(sockets.len()))
            .map(|(at, person)| async move {
                let mut socket = Lean::open_quiet(address, source(at), &person.authorization).await?;
                socket.drain().await?;
                anyhow::Ok(socket)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        sockets.add(more);
        let resident = settled(|| server.resident_kib()).await?;
        let connected = Counters::of(&server)
            .await?
            .sum("blind_relay_sockets", "kind=\"device\"");
        ensure!(
            connected == Some(float(*count)),
            "of {count} sockets {connected:?} are connected"
        );
        let each = (resident - rest) / float(*count);
        let mut row = Row::new(format!("{ROW}-{count}"), format!("{count} idle device sockets"));
        row.more.push(("resident", resident / 1024.0, "MiB"));
        row.more.push(("each", each, "KiB"));
        row.beside.extend(bare.get(at).map(|bare| Beside {
            limit: "bare tungstenite",
            value: *bare,
            unit: "KiB each",
            ratio: bare / each,
        }));
        // Where there are fewer descriptors, as many as there may be.
        if at + 1 == counts.len() && plan.idle.iter().any(|asked| *asked >= FULL) {
            row.goal(goals::idle_socket, Some(each));
        }
        done(rows, row);
    }
    drop(sockets);
    server.stop().await
}

/// As many as there may be descriptors, from few to many.
fn counts(plan: &Plan) -> Vec<usize> {
    let most = descriptor_limit().saturating_sub(SPARE);
    let mut counts: Vec<usize> = plan.idle.iter().map(|count| (*count).min(most)).collect();
    counts.sort_unstable();
    counts.dedup();
    if plan.idle.iter().any(|count| *count > most) {
        note(&format!(
            "a process may have no more than {most} sockets here: see `ulimit -Hn`"
        ));
    }
    counts
}

/// KiB of a socket of the bare relay with read buffers of 4 KiB, for each of these counts.
async fn bare(counts: &[usize]) -> anyhow::Result<Vec<f64>> {
    let server = BareServer::relay(READ_BUFFER).await?;
    let rest = settled(|| server.resident_kib()).await?;
    let (mut sockets, mut each) = (Waiting::default(), Vec::new());
    for count in counts {
        let more = stream::iter(sockets.len()..*count)
            .map(|at| Lean::open_idle(&server.address, source(at)))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        sockets.add(more);
        let resident = settled(|| server.resident_kib()).await?;
        each.push((resident - rest) / float(*count));
    }
    Ok(each)
}

/// Sockets that say nothing but what keeps them open: a server closes those that do not answer its pings.
#[derive(Default)]
struct Waiting(JoinSet<()>);

impl Waiting {
    fn add(&mut self, sockets: Vec<Lean>) {
        for mut socket in sockets {
            self.0.spawn(async move { while socket.next().await.is_ok() {} });
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where a socket comes from: an address has fewer ports than there are sockets.
pub(super) fn source(at: usize) -> Ipv4Addr {
    let host = u8::try_from(at / SOCKETS_PER_ADDRESS + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, 1, host)
}

/// The memory once it stays the same for a while.
async fn settled(resident: impl Fn() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut last = resident()?;
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = resident()?;
        if (now - last).abs() < last / 200.0 {
            return Ok(now);
        }
        last = now;
    }
}

/// Connections that are made at a time.
const AT_ONCE: usize = 64;
const READ_BUFFER: usize = 4 * 1024;
const SOCKETS_PER_ADDRESS: usize = 5_000;
/// Descriptors for everything else.
const SPARE: usize = 200;
/// The number of sockets that the goal is about.
const FULL: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_more_sockets_than_ports() {
        assert_eq!(source(0), source(SOCKETS_PER_ADDRESS - 1));
        assert_ne!(source(0), source(SOCKETS_PER_ADDRESS));
    }
}
