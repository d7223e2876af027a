//! Bundles of prekeys: each answer has a one-time key of either kind, which is gone for good when the answer leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::claims::ec_key;
use crate::client::{Received, Socket};
use crate::frames::{Stamp, Stamped};
use crate::goals;
use crate::lean::{Came, Lean};
use crate::load::{Measured, Stretch};
use crate::note;
use crate::people::Person;
use crate::percentiles::Times;
use crate::report::Row;
use crate::server::{Backend, Server};

use super::{Accounts, Machine, OnDatabase, Plan, Probe, done, float};

/// One of these rows.
pub(super) struct Bundles {
    pub(super) name: &'static str,
    window: usize,
}

pub(super) const ROWS: [Bundles; 2] = [
    Bundles {
        name: "bundles-1",
        window: 1,
    },
    Bundles {
        name: "bundles-16",
        window: 16,
    },
];

pub(super) async fn run(
    plan: &Plan,
    machine: &Machine,
    database: &OnDatabase,
    backend: &Backend,
    accounts: &mut Accounts,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let chosen: Vec<_> = ROWS.iter().filter(|row| plan.wants(row.name)).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let targets = (plan.time.as_secs_f64() * BUNDLES_PER_SECOND / float(TAKEN)).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds are positive, and few"
    )]
    let targets = (targets as usize).max(1);
    let server = plan.start(backend, Some("0")).await?;
    let people = accounts.take(&server, &plan.template, plan.pairs + targets).await?;
    let (requesters, targets) = people.split_at(plan.pairs);
    let mut first_id = FIRST_ID;
    for bundles in chosen {
        note(&format!("publishing {} one-time keys", targets.len() * KEYS * 2));
        publish(plan, &server, targets, first_id).await?;
        first_id += u32::try_from(targets.len() * KEYS)?;
        let taken = take(&server, backend, requesters, targets, bundles.window).await?;
        let what = format!("bundle fetch-and-consume, window {}", bundles.window);
        let mut row = Row::new(bundles.name, what).with(&taken.measured);
        row.more.push(("with both one-time keys", taken.whole, "of 1"));
        if let Some(http) = machine.http {
            row.beside_cpu("bare hyper", http);
        }
        if let Some(single) = database.single() {
            row.beside_rate("single-row inserts", single);
        }
        // A bundle without its one-time keys is no bundle.
        row.goal(goals::bundles, Some(taken.measured.per_second * taken.whole));
        done(rows, row);
    }
    server.stop().await
}

/// Every target publishes as many keys as fit into an upload. One key has many ids: a signature is over the key alone.
async fn publish(plan: &Plan, server: &Server, targets: &[Person], first: u32) -> anyhow::Result<()> {
    let lanes = (0..LANES).map(|lane| async move {
        for at in (lane..targets.len()).step_by(LANES) {
            let mut socket = Socket::open(&server.address, Some(&targets[at].authorization)).await?;
            socket.drain().await?;
            let first = first + u32::try_from(at * KEYS)?;
            let ids = first..first + u32::try_from(KEYS)?;
            let ec: Vec<Value> = ids
                .clone()
                .map(|id| json!({ "keyId": id, "publicKey": ec_key() }))
                .collect();
            let kyber: Vec<Value> = ids.map(|id| plan.template.kyber_as(id)).collect();
            let body = serde_json::to_vec(&json!({ "preKeys": ec, "pqPreKeys": kyber }))?;
            socket
                .feed_request("PUT", "/v2/keys?identity=ACI", body.into(), None)
                .await?;
            socket.flush().await?;
            match socket.next().await? {
                Received::Answer { status: 204, .. } => {}
                Received::Answer { status, .. } => bail!("keys were answered with {status}"),
                _ => bail!("an answer was expected"),
            }
        }
        anyhow::Ok(())
    });
    try_join_all(lanes).await?;
    Ok(())
}

struct Taken {
    measured: Measured,
    /// Part of the bundles that had a one-time key of either kind.
    whole: f64,
}

async fn take(
    server: &Server,
    backend: &Backend,
    requesters: &[Person],
    targets: &[Person],
    window: usize,
) -> anyhow::Result<Taken> {
    let frames = targets.iter().map(|target| {
        let path = format!("/v2/keys/{}/1", target.aci);
        Stamped::request("GET", path, None, Vec::new())
    });
    let frames: Arc<Vec<Stamped>> = Arc::new(frames.collect::<Result<_, _>>()?);
    let (next, count) = (Arc::new(AtomicUsize::new(0)), targets.len() * TAKEN);
    let mut sockets = Vec::new();
    for requester in requesters {
        let mut socket = Lean::open(&server.address, Some(&requester.authorization)).await?;
        socket.drain().await?;
        sockets.push(socket);
    }
    let probe = Probe { server, backend };
    let stretch = Stretch::begin(&probe)?;
    let tasks = sockets.into_iter().map(|socket| {
        let (frames, next) = (Arc::clone(&frames), Arc::clone(&next));
        tokio::spawn(requests(socket, frames, next, count, window))
    });
    let mut answers = Vec::new();
    for answered in try_join_all(tasks).await? {
        answers.push(answered?);
    }
    let mut measured = stretch.end(&probe, count as u64)?;
    measured.spread = Times::spread(answers.iter().map(|answers| &answers.times));
    let (mut ids, mut whole) = (HashSet::new(), 0);
    for bundle in answers.iter().flat_map(|answers| &answers.bundles) {
        let both = bundle.map(|id| id.filter(|id| *id >= FIRST_ID));
        whole += usize::from(both.iter().all(Option::is_some));
        for (kind, id) in both.into_iter().enumerate() {
            ensure!(
                id.is_none_or(|id| ids.insert((kind, id))),
                "a one-time key was handed out twice"
            );
        }
    }
    Ok(Taken {
        measured,
        whole: float(whole) / float(count),
    })
}

#[derive(Default)]
struct Answers {
    /// Of each bundle the ids of its one-time keys.
    bundles: Vec<[Option<u32>; 2]>,
    times: Times,
}

/// Asks until everything has been asked for, by whomever.
async fn requests(
    mut socket: Lean,
    frames: Arc<Vec<Stamped>>,
    next: Arc<AtomicUsize>,
    count: usize,
    window: usize,
) -> anyhow::Result<Answers> {
    let (mut answers, mut in_flight, mut last) = (Answers::default(), 0, Stamp(0));
    loop {
        let mut fed = false;
        while in_flight < window {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            last = Stamp::after(last);
            socket.feed(frames[at % frames.len()].at(last)).await?;
            in_flight += 1;
            fed = true;
        }
        if fed {
            socket.flush().await?;
        }
        if in_flight == 0 {
            return Ok(answers);
        }
        let mut came = Some(socket.next().await?);
        while let Some(now) = came {
            if let Came::Answer { sent, status, body } = now {
                ensure!(status == 200, "a bundle was answered with {status}");
                answers.times.add(sent.age());
                answers.bundles.push(one_time_ids(&body)?);
                in_flight -= 1;
            }
            came = socket.next_ready()?;
        }
    }
}

fn one_time_ids(body: &Bytes) -> anyhow::Result<[Option<u32>; 2]> {
    let bundle: Bundle = serde_json::from_slice(body)?;
    let device = bundle.devices.into_iter().next().context("a bundle has a device")?;
    Ok([device.pre_key, device.pq_pre_key].map(|key| key.map(|key| key.key_id)))
}

#[derive(Deserialize)]
struct Bundle {
    devices: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    pre_key: Option<Key>,
    pq_pre_key: Option<Key>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key_id: u32,
}

/// Keys of each kind in an upload, the most that there may be.
const KEYS: usize = 100;
/// Of these the ones that strangers get: the last ones are for those who show the access key.
const TAKEN: usize = 80;
/// How many bundles there are for each second that a measurement is to last.
const BUNDLES_PER_SECOND: f64 = 10_000.0;
/// Higher than those of the keys that are not one-time keys.
const FIRST_ID: u32 = 1 << 24;
const LANES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_one_time_keys() {
        let bundle = json!({ "identityKey": "x", "devices": [{
            "deviceId": 1, "signedPreKey": { "keyId": 1 }, "preKey": { "keyId": 2 }, "pqPreKey": { "keyId": 3 },
        }] });
        let ids = |bundle: &Value| one_time_ids(&bundle.to_string().into()).unwrap();
        assert_eq!(ids(&bundle), [Some(2), Some(3)]);
        assert_eq!(ids(&json!({ "devices": [{ "preKey": null }] })), [None, None]);
        assert!(one_time_ids(&Bytes::from_static(br#"{"devices":[]}"#)).is_err());
    }
}
