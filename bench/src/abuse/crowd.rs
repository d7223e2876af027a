//! Those who flood, and those who go on with their lives beside them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::Value;

use super::outcome::Tally;
use super::{
    EVERY, LOOKED_UP, LOUD, LOUD_EACH_SECOND, LOUD_NAMES, PINGED, PINGERS, SECONDS, TAKEN, TAKEN_OF_POOR, WRITTEN,
};
use crate::claims::ec_key;
use crate::client::{Received, Socket};
use crate::content::send_to;
use crate::people::Person;

/// What the flood is aimed at.
pub(super) struct Aims {
    pub(super) message: (String, Bytes),
    pub(super) ping: (String, Bytes),
    pub(super) target: String,
    pub(super) poor: String,
}

/// One account of the flood.
pub(super) struct Attacker {
    pub(super) index: usize,
    pub(super) socket: Socket,
}

impl Attacker {
    /// A hundred networks have ten of them each.
    pub(super) async fn open(address: &str, index: usize, person: &Person) -> anyhow::Result<Self> {
        let [network, host] = [index % 100, index / 100 + 1].map(|part| u8::try_from(part).unwrap_or(u8::MAX));
        let from = Ipv4Addr::new(127, 1, network, host);
        let mut socket = Socket::open_from(address, Some(from), Some(&person.authorization)).await?;
        socket.drain().await?;
        Ok(Self { index, socket })
    }

    pub(super) fn is_loud(&self) -> bool {
        self.index < LOUD
    }

    pub(super) fn pings(&self) -> bool {
        (LOUD..LOUD + PINGERS).contains(&self.index)
    }

    pub(super) fn writes(&self, second: usize) -> bool {
        !self.is_loud() && self.index % SECONDS == second
    }

    pub(super) fn takes_keys(&self, second: usize) -> bool {
        self.index % EVERY == second % EVERY
    }

    pub(super) fn acts(&self, second: usize) -> bool {
        self.is_loud() || self.pings() || self.writes(second) || self.takes_keys(second)
    }

    pub(super) async fn act(&mut self, second: usize, aims: &Aims) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let times = if self.is_loud() {
            LOUD_EACH_SECOND
        } else {
            usize::from(self.writes(second))
        };
        let kind = if self.is_loud() {
            LOUD_NAMES[self.index]
        } else {
            WRITTEN
        };
        for _ in 0..times {
            let (path, body) = &aims.message;
            let (status, _) = ask(&mut self.socket, "PUT", path, body.clone(), &[]).await?;
            tally.count(kind, status);
        }
        if self.pings() {
            let (path, body) = &aims.ping;
            let (status, _) = ask(&mut self.socket, "PUT", path, body.clone(), &[]).await?;
            tally.count(PINGED, status);
        }
        if self.takes_keys(second) {
            for (kind, target) in [(TAKEN, &aims.target), (TAKEN_OF_POOR, &aims.poor)] {
                let path = format!("/v2/keys/{target}/1");
                let (status, body) = ask(&mut self.socket, "GET", &path, Bytes::new(), &[]).await?;
                tally.count(kind, status);
                if status == 200 && has_one_time_key(&body)? {
                    tally.one_time += u64::from(kind == TAKEN);
                    tally.one_time_of_poor += u64::from(kind == TAKEN_OF_POOR);
                }
            }
        }
        Ok(tally)
    }
}

/// A name that nobody has.
pub(super) async fn look_up(socket: &mut Socket) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let hash = STANDARD.decode(ec_key())?;
    let path = format!("/v1/accounts/username_hash/{}", URL_SAFE_NO_PAD.encode(&hash[1..]));
    let (status, _) = ask(socket, "GET", &path, Bytes::new(), &[]).await?;
    tally.count(LOOKED_UP, status);
    Ok(tally)
}

/// Somebody who writes to a friend, and now and then to the target.
pub(super) struct User {
    pub(super) index: usize,
    pub(super) socket: Socket,
    pub(super) friend: Person,
    pub(super) took: BTreeMap<&'static str, Vec<Duration>>,
    pub(super) refused: u64,
}

impl User {
    pub(super) async fn open(address: &str, index: usize, people: &[Person]) -> anyhow::Result<Self> {
        let from = Ipv4Addr::new(127, 3, u8::try_from(index)?, 1);
        let mut socket = Socket::open_from(address, Some(from), Some(&people[index].authorization)).await?;
        socket.drain().await?;
        Ok(Self {
            index,
            socket,
            friend: people[index ^ 1].clone(),
            took: BTreeMap::new(),
            refused: 0,
        })
    }

    pub(super) async fn live(&mut self, second: usize, aims: &Aims) -> anyhow::Result<()> {
        if second % 5 == self.index % 5 {
            let (path, body) = send_to(&self.friend);
            self.ask("messages to friends", "PUT", &path, body).await?;
        }
        if second % 10 == self.index % 10 {
            let (path, body) = ping(&self.friend);
            self.ask("signs of typing", "PUT", &path, body).await?;
        }
        if second % 60 == self.index {
            let (path, body) = aims.message.clone();
            self.ask("messages to the target", "PUT", &path, body).await?;
        }
        if second % 300 == self.index {
            let path = format!("/v2/keys/{}/*", self.friend.aci);
            self.ask("bundles of prekeys", "GET", &path, Bytes::new()).await?;
        }
        Ok(())
    }

    pub(super) async fn ask(&mut self, what: &'static str, verb: &str, path: &str, body: Bytes) -> anyhow::Result<()> {
        let began = Instant::now();
        let (status, _) = ask(&mut self.socket, verb, path, body, &[]).await?;
        self.took.entry(what).or_default().push(began.elapsed());
        self.refused += u64::from(status != 200);
        Ok(())
    }
}

/// An online-only message.
pub(super) fn ping(person: &Person) -> (String, Bytes) {
    let (path, body) = send_to(person);
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    body["online"] = true.into();
    body["urgent"] = false.into();
    (path, body.to_string().into())
}

/// Asks, and takes whatever comes before the answer.
pub(super) async fn ask(
    socket: &mut Socket,
    verb: &str,
    path: &str,
    body: Bytes,
    headers: &[String],
) -> anyhow::Result<(u32, Bytes)> {
    socket.feed_with(verb, path, body, headers).await?;
    socket.flush().await?;
    loop {
        match socket.next().await? {
            Received::Answer { status, body } => return Ok((status, body)),
            Received::Envelope(id) => {
                socket.feed_acknowledgement(id).await?;
                socket.flush().await?;
            }
            Received::QueueEmpty => {}
        }
    }
}

pub(super) fn has_one_time_key(bundle: &[u8]) -> anyhow::Result<bool> {
    let bundle: Value = serde_json::from_slice(bundle)?;
    Ok(bundle["devices"][0]["preKey"].is_object())
}
