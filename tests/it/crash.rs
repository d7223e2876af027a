//! `kill -9` in the middle of traffic: what was promised is kept, and what was finished stays finished.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::{Signal, kill_process};

use crate::support::ciphertext::marker;
use crate::support::http::try_ask;
use crate::support::person::people;
use crate::support::traffic::{by_sender, content, parse};
use crate::support::{Backend, Event, Person, Server, Socket, on_each_backend, single};

on_each_backend! {
    t39_everything_accepted_before_a_crash_arrives_and_nothing_acknowledged_comes_back
    a_crash_while_draining_brings_back_only_what_was_not_acknowledged
}

const SENDERS: usize = 16;
const EACH: u32 = 625;

async fn t39_everything_accepted_before_a_crash_arrives_and_nothing_acknowledged_comes_back(backend: Backend) {
    let mut server = Server::spawn_with(backend, &[("QUEUE__MAX_ENVELOPES", "20000")]).await;
    let (senders, bob) = (people(&server, SENDERS).await, Person::register(&server).await);
    let traffic = Traffic {
        accepted: AtomicUsize::new(0),
        dying: AtomicBool::new(false),
        kill_at: 5_000,
    };
    let pid = server.pid();
    let kill = || kill_process(pid, Signal::KILL).unwrap();

    // While it is sent, bob reads, acknowledges and asks whether that is durable, until the server dies.
    let socket = bob.connect(&server).await;
    let sending = join_all((0..SENDERS).map(|n| traffic.send_all(&server, &senders[n], &bob, n, 0, &kill)));
    let (reached, received) = Box::pin(async { tokio::join!(sending, receive(socket)) }).await;
    assert!(
        traffic.dying.load(Ordering::Relaxed),
        "the server was killed in the middle"
    );
    server.kill();

    let server = server.restart();
    let traffic = Traffic {
        kill_at: usize::MAX,
        dying: AtomicBool::new(false),
        ..traffic
    };
    let rest = reached.iter().enumerate();
    join_all(rest.map(|(n, from)| traffic.send_all(&server, &senders[n], &bob, n, *from, &|| ()))).await;

    let mut socket = bob.connect(&server).await;
    let drained = socket.drain().await;
    let confirmed: BTreeSet<Copy> = received.confirmed.iter().cloned().collect();
    for copy in drained.iter().map(|content| parse(content)) {
        // A retry of a send whose answer was lost makes a second copy with a guid of its own, at most one per sender.
        assert!(
            !confirmed.contains(&copy) || reached[copy.0] == copy.1,
            "{copy:?} was acknowledged and came back"
        );
    }
    let mut both: Vec<Bytes> = received.contents;
    both.extend(drained.iter().cloned());
    for (sender, numbers) in by_sender(&both) {
        let unique: BTreeSet<u32> = numbers.iter().copied().collect();
        assert!(unique.into_iter().eq(0..EACH), "sender {sender} lost some");
    }
    for (sender, numbers) in by_sender(&drained) {
        assert!(
            numbers.windows(2).all(|pair| pair[0] <= pair[1]),
            "sender {sender} is out of order: {numbers:?}"
        );
    }
}

async fn a_crash_while_draining_brings_back_only_what_was_not_acknowledged(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (senders, bob) = (people(&server, 4).await, Person::register(&server).await);
    crate::support::traffic::flood(&server, &senders, &bob, 0..100).await;
    let mut socket = bob.connect(&server).await;
    let (mut acknowledged, mut left) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..200 {
        let (id, envelope) = socket.envelope().await;
        let copy = parse(&marker(&envelope));
        // Every third is read and not answered.
        if n % 3 == 0 {
            left.insert(copy);
        } else {
            socket.answer(id, 200).await;
            acknowledged.insert(copy);
        }
    }
    socket.keepalive().await;
    server.kill();
    let server = server.restart();
    let again: Vec<Copy> = bob
        .connect(&server)
        .await
        .drain()
        .await
        .iter()
        .map(|content| parse(content))
        .collect();
    assert_eq!(again.len(), 400 - acknowledged.len());
    assert!(again.iter().all(|copy| !acknowledged.contains(copy)));
    assert!(left.iter().all(|copy| again.contains(copy)));
}

/// Sender and number.
type Copy = (usize, u32);

struct Traffic {
    accepted: AtomicUsize,
    dying: AtomicBool,
    kill_at: usize,
}

impl Traffic {
    /// Sends one after the other; returns the first number that has no success.
    async fn send_all(
        &self,
        server: &Server,
        from: &Person,
        to: &Person,
        sender: usize,
        first: u32,
        kill: &impl Fn(),
    ) -> u32 {
        for number in first..EACH {
            let body = single(to, 1, &content(sender, number));
            match try_ask(from.request(server, "PUT", &to.inbox()).json(&body)).await {
                Ok(answer) => {
                    answer.expect(200);
                }
                Err(error) => {
                    assert!(self.dying.load(Ordering::Relaxed), "{error}");
                    return number;
                }
            }
            if self.accepted.fetch_add(1, Ordering::Relaxed) + 1 == self.kill_at {
                self.dying.store(true, Ordering::Relaxed);
                kill();
            }
        }
        EACH
    }
}

struct Received {
    contents: Vec<Bytes>,
    /// Acknowledged, and a later keepalive was answered.
    confirmed: Vec<Copy>,
}

/// Reads, acknowledges and now and then asks, until the connection ends.
async fn receive(mut socket: Socket) -> Received {
    let mut received = Received {
        contents: Vec::new(),
        confirmed: Vec::new(),
    };
    let (mut acknowledged, mut asked) = (Vec::new(), None);
    loop {
        match socket.next().await {
            Event::Envelope(id, envelope) => {
                socket.answer(id, 200).await;
                let content = marker(&envelope);
                acknowledged.push(parse(&content));
                received.contents.push(content);
            }
            Event::Answer(_, answer) => {
                assert_eq!(answer.status, 200);
                received.confirmed.extend(asked.take().unwrap_or_default());
            }
            Event::Empty => {}
            Event::Closed(_) => return received,
        }
        if asked.is_none() && acknowledged.len() >= 50 {
            asked = Some(std::mem::take(&mut acknowledged));
            socket.ask_as(Some(1), "GET", "/v1/keepalive", &[], None).await;
        }
    }
}
