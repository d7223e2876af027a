//! What a second node adds, and what it costs to cross from one to the other.
//!
//! Nodes of one PostgreSQL and one Redis. First one node serves everybody, then two serve half of them each, then everybody writes
//! to somebody on the other node. Where there are cores enough, each node has one to itself, and the load generator those that
//! are left; on two cores both nodes share the first, so that the CPU time of a message tells what the second rate cannot.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::content::Kind;
use crate::frames::Stamped;
use crate::lean::Lean;
use crate::load::{Answers, Cost, Load, Measured};
use crate::note;
use crate::people::{Person, Template, register};
use crate::scrape::Counters;
use crate::server::{Backend, Server};

/// Measures; a line for each thing.
pub(crate) async fn run(
    binary: &Path,
    template: &Template,
    backend: &Backend,
    redis_url: Option<&str>,
    time: Duration,
) -> anyhow::Result<Vec<String>> {
    let cores = Cores::part()?;
    let redis = match redis_url {
        Some(url) => Redis::named(url),
        None => Redis::start(backend.dir()).await?,
    };
    let mut lines = vec![cores.described()];
    let mut measured = Vec::new();
    for count in [1, 2] {
        let mut nodes = Vec::new();
        for (place, name) in ["one", "two"].iter().enumerate().take(count) {
            cores.to_node(place)?;
            let node = Server::start_joined(binary, backend, name, &redis.url).await;
            cores.to_load()?;
            nodes.push(node?);
        }
        let people = register(&nodes[0], template, 7_000_000 + count * 1_000, 2 * PAIRS).await?;
        let probe = Probe {
            nodes: &nodes,
            backend,
            redis: &redis,
        };
        for crossing in [false, true].into_iter().take(count) {
            for window in [1, 16] {
                let load = pairs(&nodes, &people, PAIRS, window, crossing).await?;
                let before = woken(&nodes).await?;
                let figure = load.measure(&probe, time).await?;
                let after = woken(&nodes).await?;
                let name = match (count, crossing) {
                    (1, _) => "one node",
                    (_, false) => "two nodes, each pair on one",
                    (_, true) => "two nodes, each pair on both",
                };
                note(&format!("  {name}, window {window}: {:.0}/s", figure.per_second));
                if crossing {
                    lines.push(format!(
                        "woken across nodes with window {window}: {:.0} times by hints, {:.0} times by the tick",
                        after[0] - before[0],
                        after[1] - before[1],
                    ));
                }
                measured.push((name, window, figure));
            }
            let load = offline(&nodes, &people, crossing).await?;
            let figure = load.measure(&probe, time).await?;
            if !crossing {
                let name = if count == 1 { "one node" } else { "two nodes" };
                measured.push((name, 0, figure));
            }
        }
        if count == 2 {
            // Few, so that what is measured is the way and not a queue before a node.
            let load = pairs(&nodes, &people, FEW, 1, true).await?;
            let crossed = load.measure(&probe, time).await?;
            let load = pairs(&nodes, &people, FEW, 1, false).await?;
            let stayed = load.measure(&probe, time).await?;
            for (name, figure) in [("from node to node", crossed), ("on one node", stayed)] {
                let spread = figure.spread.context("there are times")?;
                lines.push(format!(
                    "delivery {name}, {FEW} pairs, window 1: p50 {:.2} ms, p99 {:.2} ms",
                    spread.p50, spread.p99
                ));
            }
        }
        for node in nodes {
            node.stop().await?;
        }
    }
    lines.extend(compared(&measured));
    redis.stop().await?;
    Ok(lines)
}

/// How often sessions were woken so far by hints and by the tick, on all nodes. The tick is for hints that were lost.
async fn woken(nodes: &[Server]) -> anyhow::Result<[f64; 2]> {
    let mut sums = [0.0; 2];
    for node in nodes {
        let counters = Counters::of(node).await?;
        for (sum, path) in sums.iter_mut().zip(["path=\"hint\"", "path=\"tick\""]) {
            *sum += counters.sum("blind_relay_wakeups_total", path).unwrap_or(0.0);
        }
    }
    Ok(sums)
}

/// Each beside the same on one node.
fn compared(measured: &[(&str, usize, Measured)]) -> Vec<String> {
    let cost = |figure: &Measured| figure.cpu + figure.database_cpu.unwrap_or(0.0);
    let lines = measured.iter().map(|(name, window, figure)| {
        let alone = measured.iter().find(|(_, other, _)| other == window);
        let (rate, cpu) = alone.map_or((1.0, 1.0), |(.., alone)| {
            (figure.per_second / alone.per_second, cost(figure) / cost(alone))
        });
        let what = match window {
            0 => "accepted for offline devices".to_owned(),
            window => format!("online, window {window}"),
        };
        format!(
            "{name:<30} {what:<30} {:>8.0}/s ({rate:.2} of one node), {:.3} CPU-s per 10,000 ({cpu:.2}), of which {:.3} database",
            figure.per_second,
            cost(figure),
            figure.database_cpu.unwrap_or(0.0),
        )
    });
    lines.collect()
}

/// Pairs that are both connected: to one node, or to one each.
async fn pairs(
    nodes: &[Server],
    people: &[Person],
    count: usize,
    window: usize,
    crossing: bool,
) -> anyhow::Result<Load> {
    let mut load = Load::default();
    for (at, pair) in people.chunks(2).take(count).enumerate() {
        let here = &nodes[at % nodes.len()].address;
        let there = &nodes[(at + usize::from(crossing)) % nodes.len()].address;
        let mut receiving = Lean::open(there, Some(&pair[1].authorization)).await?;
        receiving.drain().await?;
        load.add_receiver(receiving, Answers::Acknowledgements);
        let sending = Lean::open(here, Some(&pair[0].authorization)).await?;
        let frames = Arc::new(vec![Stamped::send(Kind::Unsealed, &pair[1])?]);
        load.add_sender(sending, frames, 0, window);
    }
    Ok(load)
}

/// Senders to people who are not connected.
async fn offline(nodes: &[Server], people: &[Person], skip: bool) -> anyhow::Result<Load> {
    let mut load = Load::default();
    let receivers = people.iter().skip(1).step_by(2);
    let frames = receivers.map(|to| Stamped::send(Kind::Unsealed, to));
    let frames = Arc::new(frames.collect::<anyhow::Result<Vec<_>>>()?);
    for (at, sender) in people.iter().step_by(2).enumerate() {
        let socket = Lean::open(&nodes[at % nodes.len()].address, Some(&sender.authorization)).await?;
        load.add_sender(socket, Arc::clone(&frames), at + usize::from(skip), 1);
    }
    Ok(load)
}

/// CPU of all nodes, of their database, and with that of the Redis.
struct Probe<'a> {
    nodes: &'a [Server],
    backend: &'a Backend,
    redis: &'a Redis,
}

impl Cost for Probe<'_> {
    fn cpu(&self) -> anyhow::Result<(f64, Option<f64>)> {
        let mut all = self.redis.cpu_seconds()?;
        for node in self.nodes {
            all += node.cpu_seconds()?;
        }
        Ok((all, self.backend.cpu_seconds()?))
    }
}

/// Which core each node has, and what is left for the load.
struct Cores {
    nodes: Vec<usize>,
    load: Vec<usize>,
}

impl Cores {
    /// Moves this thread, and those that it starts, to those of the load.
    fn part() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        let cores = match &all[..] {
            // The third is for the database.
            [one, two, _, load @ ..] if !load.is_empty() => Self {
                nodes: vec![*one, *two],
                load: load.to_vec(),
            },
            [one, load @ ..] if !load.is_empty() => Self {
                nodes: vec![*one, *one],
                load: load.to_vec(),
            },
            _ => Self {
                nodes: vec![],
                load: vec![],
            },
        };
        cores.to_load()?;
        Ok(cores)
    }

    fn to_node(&self, place: usize) -> anyhow::Result<()> {
        self.nodes.get(place).map_or(Ok(()), |core| go(&[*core]))
    }

    fn to_load(&self) -> anyhow::Result<()> {
        if self.load.is_empty() { Ok(()) } else { go(&self.load) }
    }

    fn described(&self) -> String {
        match self.nodes[..] {
            [one, two] if one == two => format!(
                "both nodes share core {one}, so two have no more to work with than one: look at the CPU time of a message"
            ),
            [one, two] => format!("the nodes have cores {one} and {two}, the database is where its server is"),
            _ => "everything shares all cores".to_owned(),
        }
    }
}

fn go(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// A Redis that was named, or one of our own. Killed when dropped.
struct Redis {
    url: String,
    child: Option<Child>,
}

impl Redis {
    fn named(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            child: None,
        }
    }

    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .current_dir(dir)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("there is no redis-server; install it, or name one with --redis")?;
        for _ in 0..TRIES {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(Self {
                    url: format!("redis://127.0.0.1:{port}"),
                    child: Some(child),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("redis-server does not listen")
    }

    /// Of one elsewhere nothing is known.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let pid = self.child.as_ref().and_then(Child::id);
        pid.map_or(Ok(0.0), crate::process::cpu_seconds)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().await?;
        }
        Ok(())
    }
}

const PAIRS: usize = 50;
const FEW: usize = 4;
const TRIES: usize = 200;
