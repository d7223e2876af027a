//! Senders that keep a window full, receivers that acknowledge, and what a stretch in the middle of that costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::{JoinHandle, JoinSet};

use crate::frames::{Stamp, Stamped};
use crate::http::Http;
use crate::lean::{Came, Lean};
use crate::percentiles::{Spread, Times};
use crate::process::cpu_seconds;

/// What a stretch of load came to.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) spread: Option<Spread>,
    /// CPU seconds per 10,000 of what is measured, without its database.
    pub(crate) cpu: f64,
    /// CPU seconds per 10,000 of its database.
    pub(crate) database_cpu: Option<f64>,
    /// How much of its cores the load generator used, of 1.
    pub(crate) generator: f64,
    /// Everything that was done, also what a load did before and after it was measured.
    pub(crate) sent: u64,
}

/// What tells how much CPU has been used.
pub(crate) trait Cost {
    /// CPU seconds of what is measured, and of its database where that is another.
    fn cpu(&self) -> anyhow::Result<(f64, Option<f64>)>;
}

/// What senders and receivers share.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    /// Answers to senders.
    accepted: AtomicU64,
    /// Envelopes that receivers acknowledged.
    delivered: AtomicU64,
    /// Times are kept.
    measuring: AtomicBool,
    /// Senders send no more.
    over: AtomicBool,
}

impl Gate {
    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn accept(&self, times: &Times, age: u64) {
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        if self.0.measuring.load(Ordering::Relaxed) {
            times.add(age);
        }
    }

    fn deliver(&self, times: &Times, age: u64) {
        self.0.delivered.fetch_add(1, Ordering::Relaxed);
        if self.0.measuring.load(Ordering::Relaxed) {
            times.add(age);
        }
    }
}

/// A load that has been set going.
#[derive(Default)]
pub(crate) struct Load {
    gate: Gate,
    senders: JoinSet<anyhow::Result<()>>,
    receivers: Vec<JoinHandle<anyhow::Result<()>>>,
    answers: Vec<Times>,
    arrivals: Vec<Times>,
}

impl Load {
    /// A sender through a socket that sends these in turn, from the place on, until the load ends.
    pub(crate) fn add_sender(&mut self, socket: Lean, frames: Arc<Vec<Stamped>>, first: usize, window: usize) {
        let (gate, times) = (self.gate.clone(), Times::default());
        self.answers.push(times.clone());
        self.senders.spawn(send(socket, frames, first, window, gate, times));
    }

    /// A sender over HTTP, which waits for each answer.
    pub(crate) fn add_http_sender(&mut self, http: Http, frames: Arc<Vec<Stamped>>, first: usize) {
        let (gate, times) = (self.gate.clone(), Times::default());
        self.answers.push(times.clone());
        self.senders.spawn(put(http, frames, first, gate, times));
    }

    /// A receiver. With one, what counts is what is delivered; without, what is accepted.
    pub(crate) fn add_receiver(&mut self, socket: Lean, answers: Answers) {
        let (gate, times) = (self.gate.clone(), Times::default());
        self.arrivals.push(times.clone());
        self.receivers.push(tokio::spawn(receive(socket, answers, gate, times)));
    }

    /// Lets it run for a while, measures for so long, and waits until everything that was accepted has come.
    pub(crate) async fn measure(mut self, cost: &impl Cost, time: Duration) -> anyhow::Result<Measured> {
        tokio::time::sleep(WARM_UP.min(time)).await;
        let (stretch, before) = (Stretch::begin(cost)?, self.counted());
        self.gate.0.measuring.store(true, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        let mut measured = stretch.end(cost, self.counted() - before)?;
        self.gate.0.measuring.store(false, Ordering::Relaxed);
        self.gate.0.over.store(true, Ordering::Relaxed);
        while let Some(sender) = self.senders.join_next().await {
            sender??;
        }
        measured.sent = self.gate.0.accepted.load(Ordering::Relaxed);
        if !self.receivers.is_empty() {
            self.all_have_come(measured.sent).await?;
        }
        self.receivers.iter().for_each(JoinHandle::abort);
        let kept = if self.receivers.is_empty() {
            &self.answers
        } else {
            &self.arrivals
        };
        measured.spread = Times::spread(kept);
        Ok(measured)
    }

    /// What counts of what has been done so far.
    fn counted(&self) -> u64 {
        let state = &self.gate.0;
        let counter = if self.receivers.is_empty() {
            &state.accepted
        } else {
            &state.delivered
        };
        counter.load(Ordering::Relaxed)
    }

    async fn all_have_come(&self, sent: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.gate.0.delivered.load(Ordering::Relaxed) < sent {
            ensure!(began.elapsed() < LONGEST, "accepted envelopes did not arrive");
            for receiver in &self.receivers {
                ensure!(!receiver.is_finished(), "a receiver lost its connection");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// A time in which something is done, and what it costs.
pub(crate) struct Stretch {
    began: Instant,
    cpu: f64,
    database: Option<f64>,
    own: f64,
}

impl Stretch {
    /// From now on.
    pub(crate) fn begin(cost: &impl Cost) -> anyhow::Result<Self> {
        let (cpu, database) = cost.cpu()?;
        Ok(Self {
            began: Instant::now(),
            cpu,
            database,
            own: cpu_seconds(std::process::id())?,
        })
    }

    /// Until now, in which so many were done.
    pub(crate) fn end(&self, cost: &impl Cost, count: u64) -> anyhow::Result<Measured> {
        self.end_after(self.began.elapsed(), cost, count)
    }

    /// The same, of which so much time counts.
    pub(crate) fn end_after(&self, time: Duration, cost: &impl Cost, count: u64) -> anyhow::Result<Measured> {
        ensure!(count > 0, "nothing was done");
        let (cpu, database) = cost.cpu()?;
        let own = cpu_seconds(std::process::id())?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of a few seconds, and a number of cores"
        )]
        let (done, cores) = (count as f64, crate::cores::of_load() as f64);
        let per_10_000 = |cpu: f64| cpu / done * 10_000.0;
        Ok(Measured {
            per_second: done / time.as_secs_f64(),
            spread: None,
            cpu: per_10_000(cpu - self.cpu),
            database_cpu: database.zip(self.database).map(|(now, then)| per_10_000(now - then)),
            generator: (own - self.own) / self.began.elapsed().as_secs_f64() / cores,
            sent: count,
        })
    }

    /// How long it has been.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// What a receiver answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The server's protocol.
    Acknowledgements,
    /// As many bytes, to a relay that does not look into them.
    Bare,
}

async fn send(
    mut socket: Lean,
    frames: Arc<Vec<Stamped>>,
    first: usize,
    window: usize,
    gate: Gate,
    times: Times,
) -> anyhow::Result<()> {
    let mut targets = frames.iter().cycle().skip(first % frames.len());
    let (mut in_flight, mut last) = (0, Stamp(0));
    loop {
        let mut fed = false;
        while in_flight < window && !gate.is_over() {
            last = Stamp::after(last);
            let frame = targets.next().context("there are targets")?.at(last);
            socket.feed(frame).await?;
            in_flight += 1;
            fed = true;
        }
        if fed {
            socket.flush().await?;
        }
        if in_flight == 0 {
            return Ok(());
        }
        let mut came = Some(socket.next().await?);
        while let Some(now) = came {
            if let Came::Answer { sent, status, body } = now {
                ensure!(
                    status == 200,
                    "a send was answered with {status}: {}",
                    String::from_utf8_lossy(&body)
                );
                gate.accept(&times, sent.age());
                in_flight -= 1;
            }
            came = socket.next_ready()?;
        }
    }
}

async fn put(mut http: Http, frames: Arc<Vec<Stamped>>, first: usize, gate: Gate, times: Times) -> anyhow::Result<()> {
    let mut targets = frames.iter().cycle().skip(first % frames.len());
    while !gate.is_over() {
        let sent = Stamp::now();
        let request = targets.next().context("there are targets")?.at(sent);
        let status = http.ask(&request).await?;
        ensure!(status == 200, "a send was answered with {status}");
        gate.accept(&times, sent.age());
    }
    Ok(())
}

async fn receive(mut socket: Lean, answers: Answers, gate: Gate, times: Times) -> anyhow::Result<()> {
    loop {
        let mut came = Some(socket.next().await?);
        let mut arrived = 0_u64;
        while let Some(now) = came {
            if let Came::Envelope { id, sent } = now {
                match answers {
                    Answers::Acknowledgements => socket.feed_acknowledgement(id).await?,
                    Answers::Bare => socket.feed(BARE_ACKNOWLEDGEMENT).await?,
                }
                gate.deliver(&times, sent.age());
                arrived += 1;
            }
            came = socket.next_ready()?;
        }
        if arrived > 0 {
            socket.flush().await?;
        }
    }
}

const WARM_UP: Duration = Duration::from_millis(700);
const LONGEST: Duration = Duration::from_secs(120);
/// As long as an acknowledgement of the server's protocol.
const BARE_ACKNOWLEDGEMENT: bytes::Bytes = bytes::Bytes::from_static(&[0x5a; 14]);
