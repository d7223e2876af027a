//! Sends to devices that are offline, and to devices that are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use crate::Options;
use crate::client::{Received, Socket};
use crate::people::{People, Person, REGISTRATION_ID};
use crate::server::Server;

/// A rate and its cost.
pub(crate) struct Measured {
    /// Envelopes per second.
    pub(crate) rate: f64,
    /// CPU seconds of the server per 10,000 envelopes.
    pub(crate) cpu: f64,
}

/// Sends of 1 KiB to devices that are offline: each counts when its success has arrived.
pub(crate) async fn offline(
    server: &Server,
    people: &People,
    options: &Options,
    window: usize,
) -> anyhow::Result<Measured> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let senders = people
        .online
        .chunks(2)
        .map(|pair| &pair[0])
        .enumerate()
        .map(|(index, sender)| {
            let targets: Vec<_> = people.offline.iter().skip(index % 7).map(send_to).collect();
            send_until(server.address.clone(), sender.clone(), targets, window, end)
        });
    counted(server, senders.map(tokio::spawn).collect(), None).await
}

/// Sends of 1 KiB between pairs that are both connected: each counts when the receiver has it.
pub(crate) async fn online(
    server: &Server,
    people: &People,
    options: &Options,
    window: usize,
) -> anyhow::Result<Measured> {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut receivers = Vec::new();
    for pair in people.online.chunks(2) {
        let mut socket = Socket::open(&server.address, Some(&pair[1].authorization)).await?;
        socket.drain().await?;
        receivers.push(tokio::spawn(receive(socket, Arc::clone(&delivered))));
    }
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let senders = people.online.chunks(2).map(|pair| {
        send_until(
            server.address.clone(),
            pair[0].clone(),
            vec![send_to(&pair[1])],
            window,
            end,
        )
    });
    let measured = counted(server, senders.map(tokio::spawn).collect(), Some(&delivered)).await;
    receivers.iter().for_each(tokio::task::JoinHandle::abort);
    measured
}

async fn counted(
    server: &Server,
    senders: Vec<tokio::task::JoinHandle<anyhow::Result<u64>>>,
    delivered: Option<&AtomicU64>,
) -> anyhow::Result<Measured> {
    let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
    let mut accepted = 0;
    for sender in senders {
        accepted += sender.await??;
    }
    // Every accepted envelope must arrive; what is on its way when the senders stop belongs to the measurement.
    while delivered.is_some_and(|delivered| delivered.load(Ordering::Relaxed) < accepted) {
        ensure!(
            began.elapsed() < Duration::from_secs(300),
            "accepted envelopes did not arrive"
        );
        tokio::task::yield_now().await;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let count = accepted as f64;
    Ok(Measured {
        rate: count / seconds,
        cpu: cpu / count * 10_000.0,
    })
}

async fn send_until(
    address: String,
    sender: Person,
    targets: Vec<(String, Bytes)>,
    window: usize,
    end: Instant,
) -> anyhow::Result<u64> {
    let mut socket = Socket::open(&address, Some(&sender.authorization)).await?;
    let mut targets = targets.iter().cycle();
    let (mut in_flight, mut accepted) = (0, 0);
    loop {
        let going_on = Instant::now() < end;
        while going_on && in_flight < window {
            let (path, body) = targets.next().context("there are targets")?;
            socket.feed_request("PUT", path, body.clone(), None).await?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(accepted);
        }
        socket.flush().await?;
        match socket.next().await? {
            Received::Answer { status: 200, .. } => {
                in_flight -= 1;
                accepted += 1;
            }
            Received::Answer { status, body } => {
                anyhow::bail!("a send was answered with {status}: {}", String::from_utf8_lossy(&body))
            }
            Received::Envelope(id) => socket.feed_acknowledgement(id).await?,
            Received::QueueEmpty => {}
        }
    }
}

async fn receive(mut socket: Socket, delivered: Arc<AtomicU64>) -> anyhow::Result<()> {
    loop {
        if let Received::Envelope(id) = socket.next().await? {
            socket.feed_acknowledgement(id).await?;
            socket.flush().await?;
            delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// 1 KiB in the form of a message of a running session: version, ratchet key, counter, ciphertext, authentication code.
fn ciphertext() -> Vec<u8> {
    let ratchet_key = [&[0x0a, 33, 0x05][..], &[0x44; 32]].concat();
    let ciphertext = [&[0x22, 0xcf, 0x07][..], &[0x44; 975]].concat();
    [&[0x44], &ratchet_key[..], &[0x10, 0], &ciphertext, &[0x44; 8]].concat()
}

/// A message of 1 KiB: where to and what.
pub(crate) fn send_to(person: &Person) -> (String, Bytes) {
    let body = json!({
        "messages": [{
            "type": 1,
            "destinationDeviceId": 1,
            "destinationRegistrationId": REGISTRATION_ID,
            "content": STANDARD.encode(ciphertext()),
        }],
        "online": false,
        "urgent": true,
        "timestamp": 1_700_000_000_000_u64,
    });
    (format!("/v1/messages/{}", person.aci), body.to_string().into())
}
