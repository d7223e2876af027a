//! Does a message cost more when there are many devices, or when much waits?
//!
//! One database grows: the people who write and are written to stay the same fifty pairs, and around them grows what a server
//! has that has been at work for long. At each size the same is measured, on a server that has just been started. Sizes that
//! do not fit the disk are left out, and said so.

mod fill;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::content::Kind;
use crate::frames::Stamped;
use crate::lean::Lean;
use crate::load::{Answers, Cost, Load};
use crate::note;
use crate::people::{Person, Template, register};
use crate::scrape::Counters;
use crate::server::{Backend, Server};
use fill::Filler;

/// What is measured at which sizes.
pub(crate) struct Sizes {
    /// Registered devices, in ascending order.
    pub(crate) devices: Vec<u64>,
    /// Queued rows, in ascending order.
    pub(crate) rows: Vec<u64>,
    /// For each measurement that goes by time.
    pub(crate) time: Duration,
}

/// Everything at one size.
struct Point {
    size: u64,
    figures: Vec<Figure>,
}

struct Figure {
    what: &'static str,
    per_second: f64,
    /// CPU seconds per 10,000, of server and database together.
    cpu: f64,
    database_cpu: f64,
}

/// Grows the devices, then the queue, each in a database of its own, and shows how the cost grows.
pub(crate) async fn run(
    binary: &Path,
    template: &Template,
    backend: impl AsyncFn() -> anyhow::Result<Backend>,
    sizes: &Sizes,
) -> anyhow::Result<(String, Value)> {
    let (mut text, mut all) = (String::new(), serde_json::Map::new());
    for (of, counts) in [(Of::Devices, &sizes.devices), (Of::Rows, &sizes.rows)] {
        if counts.is_empty() {
            continue;
        }
        let place = backend().await?;
        let name = place.name();
        let points = grow(binary, template, &place, of, counts, sizes.time).await;
        place.remove().await?;
        let points = points?;
        text.push_str(&table(name, of, &points));
        all.insert(of.name().to_owned(), points.iter().map(Point::json).collect());
    }
    Ok((text, Value::Object(all)))
}

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Devices,
    Rows,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Devices => "registered devices",
            Self::Rows => "queued rows",
        }
    }
}

async fn grow(
    binary: &Path,
    template: &Template,
    backend: &Backend,
    of: Of,
    counts: &[u64],
    time: Duration,
) -> anyhow::Result<Vec<Point>> {
    let server = Server::start(binary, backend, Some("0")).await?;
    let people = register(&server, template, 1_000_000, 2 * PAIRS).await?;
    server.stop().await?;
    let mut filler = Filler::new(backend, &people[0].aci)?;
    if of == Of::Rows {
        filler.devices(DEVICES_WITH_ROWS).await?;
    }
    let mut points = Vec::new();
    for size in counts {
        let fits = match of {
            Of::Devices => filler.room_for_devices(*size).await?,
            Of::Rows => filler.room_for_rows(*size).await?,
        };
        if let Err(lack) = fits {
            note(&format!(
                "{}: {size} {} are left out: {lack}",
                backend.name(),
                of.name()
            ));
            break;
        }
        note(&format!("{}: {size} {}", backend.name(), of.name()));
        match of {
            Of::Devices => filler.devices(size.saturating_sub(people.len() as u64)).await?,
            Of::Rows => filler.rows(*size, DEVICES_WITH_ROWS).await?,
        }
        filler.settle().await?;
        let server = Server::start(binary, backend, Some("0")).await?;
        let strangers = filler.some_devices(STRANGERS);
        let figures = measure(&server, backend, &people, &strangers, time).await?;
        server.stop().await?;
        points.push(Point { size: *size, figures });
    }
    Ok(points)
}

async fn measure(
    server: &Server,
    backend: &Backend,
    people: &[Person],
    strangers: &[Person],
    time: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let probe = Probe { server, backend };
    let (senders, receivers) = people.split_at(PAIRS);
    let mut figures = vec![accept("accepted for the same 50", &probe, senders, receivers, time).await?];
    if strangers.len() == STRANGERS {
        figures.push(accept("accepted, each for another", &probe, senders, strangers, time).await?);
    }
    figures.push(drain(&probe, receivers).await?);
    for (what, window) in [("online, window 1", 1), ("online, window 16", 16)] {
        figures.push(online(what, &probe, senders, receivers, window, time).await?);
    }
    for figure in &figures {
        note(&format!(
            "  {}: {:.0}/s, {:.3}",
            figure.what, figure.per_second, figure.cpu
        ));
    }
    Ok(figures)
}

/// Sends to devices that are offline.
async fn accept(
    what: &'static str,
    probe: &Probe<'_>,
    senders: &[Person],
    to: &[Person],
    time: Duration,
) -> anyhow::Result<Figure> {
    let frames = to.iter().map(|to| Stamped::send(Kind::Unsealed, to));
    let frames = Arc::new(frames.collect::<anyhow::Result<Vec<_>>>()?);
    let mut load = Load::default();
    for (at, sender) in senders.iter().enumerate() {
        let socket = Lean::open(&probe.server.address, Some(&sender.authorization)).await?;
        let first = at * frames.len() / senders.len();
        load.add_sender(socket, Arc::clone(&frames), first, 1);
    }
    let measured = load.measure(probe, time).await?;
    Ok(Figure::new(
        what,
        measured.per_second,
        measured.cpu,
        measured.database_cpu,
    ))
}

/// Sends between pairs that are both connected.
async fn online(
    what: &'static str,
    probe: &Probe<'_>,
    senders: &[Person],
    receivers: &[Person],
    window: usize,
    time: Duration,
) -> anyhow::Result<Figure> {
    let mut load = Load::default();
    for (sender, receiver) in senders.iter().zip(receivers) {
        let mut receiving = Lean::open(&probe.server.address, Some(&receiver.authorization)).await?;
        receiving.drain().await?;
        load.add_receiver(receiving, Answers::Acknowledgements);
        let sending = Lean::open(&probe.server.address, Some(&sender.authorization)).await?;
        let frames = Arc::new(vec![Stamped::send(Kind::Unsealed, receiver)?]);
        load.add_sender(sending, frames, 0, window);
    }
    let measured = load.measure(probe, time).await?;
    Ok(Figure::new(
        what,
        measured.per_second,
        measured.cpu,
        measured.database_cpu,
    ))
}

/// Everything that waits for these people, from their connections until it is deleted.
async fn drain(probe: &Probe<'_>, receivers: &[Person]) -> anyhow::Result<Figure> {
    let deleted = async || {
        let counters = Counters::of(probe.server).await?;
        anyhow::Ok(counters.sum("blind_relay_acknowledged_total", "").unwrap_or(0.0))
    };
    let before = deleted().await?;
    let (cpu, database) = probe.cpu()?;
    let began = Instant::now();
    let sockets = receivers.iter().map(|person| async {
        let mut socket = Lean::open(&probe.server.address, Some(&person.authorization)).await?;
        let came = socket.drain().await?;
        anyhow::Ok((socket, came))
    });
    let sockets = try_join_all(sockets).await?;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let count = sockets.iter().map(|(_, came)| came).sum::<u64>() as f64;
    ensure!(count > 0.0, "nothing waited");
    while deleted().await? - before < count {
        ensure!(began.elapsed() < LONGEST, "acknowledged envelopes were not deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = probe.cpu()?;
    let per_10_000 = |cpu: f64| cpu / count * 10_000.0;
    let database = after.1.zip(database).map(|(after, before)| per_10_000(after - before));
    Ok(Figure::new(
        "drained and deleted",
        count / seconds,
        per_10_000(after.0 - cpu),
        database,
    ))
}

impl Figure {
    fn new(what: &'static str, per_second: f64, cpu: f64, database_cpu: Option<f64>) -> Self {
        let database_cpu = database_cpu.unwrap_or(0.0);
        Self {
            what,
            per_second,
            cpu: cpu + database_cpu,
            database_cpu,
        }
    }
}

impl Point {
    fn figure(&self, what: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.what == what)
    }

    fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            json!({
                "what": figure.what,
                "per_second": figure.per_second,
                "cpu_s_per_10000": figure.cpu,
                "database_cpu_s_per_10000": figure.database_cpu,
            })
        });
        json!({ "size": self.size, "figures": figures.collect::<Vec<_>>() })
    }
}

/// CPU of a server and its database.
struct Probe<'a> {
    server: &'a Server,
    backend: &'a Backend,
}

impl Cost for Probe<'_> {
    fn cpu(&self) -> anyhow::Result<(f64, Option<f64>)> {
        Ok((self.server.cpu_seconds()?, self.backend.cpu_seconds()?))
    }
}

/// A line for each figure, a column for each size, and beside each cost how often it is that of the smallest size.
fn table(backend: &str, of: Of, points: &[Point]) -> String {
    let Some(last) = points.last() else {
        return String::new();
    };
    let mut lines = vec![format!(
        "{backend}: CPU-s per 10,000, server and database, by {}",
        of.name()
    )];
    let sizes: String = points.iter().map(|point| format!("{:>22}", point.size)).collect();
    lines.push(format!("{:<28}{sizes}", ""));
    for figure in &last.figures {
        let costs: Vec<Option<f64>> = points
            .iter()
            .map(|point| point.figure(figure.what).map(|figure| figure.cpu))
            .collect();
        let first = costs.iter().flatten().next().copied().unwrap_or(f64::NAN);
        let cells: String = costs.iter().map(|cost| cell(*cost, first)).collect();
        lines.push(format!("{:<28}{cells}", figure.what));
    }
    lines.push(String::new());
    lines.join("\n") + "\n"
}

fn cell(cost: Option<f64>, first: f64) -> String {
    let Some(cost) = cost else {
        return format!("{:>22}", "-");
    };
    let ratio = cost / first;
    let mark = if ratio > FLAT { "!" } else { " " };
    format!("{:>22}", format!("{cost:.3} ({ratio:.2}){mark}"))
}

/// People who are connected or written to at every size.
const PAIRS: usize = 50;
/// Devices that are written to once each, if there are so many.
const STRANGERS: usize = 9_000;
/// Devices whose queues the rows are in.
const DEVICES_WITH_ROWS: u64 = 10_000;
/// What grows more than this is marked.
const FLAT: f64 = 1.3;
const LONGEST: Duration = Duration::from_secs(300);

/// For the command line: whole numbers in ascending order, each once.
pub(crate) fn in_order(mut counts: Vec<u64>) -> anyhow::Result<Vec<u64>> {
    counts.sort_unstable();
    counts.dedup();
    let most = counts.last().copied().unwrap_or(0);
    ensure!(most <= fill::MOST, "at most {} of each", fill::MOST);
    Ok(counts)
}

/// Writes what was found.
pub(crate) fn write(file: &Path, found: &Value) -> anyhow::Result<()> {
    std::fs::write(file, format!("{found:#}\n")).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(size: u64, cpu: f64) -> Point {
        Point {
            size,
            figures: vec![Figure::new("accepted", 1.0, cpu, None)],
        }
    }

    #[test]
    fn what_grows_by_more_than_it_may_is_marked() {
        let text = table("sqlite", Of::Rows, &[point(0, 1.0), point(10, 1.3), point(20, 1.4)]);
        assert!(text.contains("1.300 (1.30) "), "{text}");
        assert!(text.contains("1.400 (1.40)!"), "{text}");
        assert_eq!(text.matches('!').count(), 1, "{text}");
    }

    #[test]
    fn sizes_are_measured_in_ascending_order_and_once() {
        assert_eq!(in_order(vec![10, 0, 10, 5]).unwrap(), [0, 5, 10]);
        assert!(in_order(vec![u64::MAX]).is_err());
    }
}
