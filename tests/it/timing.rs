//! What the time of an answer tells: nothing about whom a message is for.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::ciphertext::marker;
use crate::support::http::Answer;
use crate::support::person::people;
use crate::support::{Backend, Event, Person, Server, Socket, ask, fan_out, on_each_backend, random, single, until};

on_each_backend! {
    t41_the_time_of_an_answer_does_not_tell_who_is_connected
    t41_the_time_of_an_online_only_answer_does_not_tell_who_is_connected
    t41_without_the_tick_the_time_of_an_answer_tells_what_its_work_took
    b8_every_answer_that_knows_the_recipient_waits_for_the_tick
}

/// The classifier that T41 allows: how often, of one send of each kind, it names the right one.
const ALLOWED: f64 = 0.55;
/// As it is without a configuration; other tests have a shorter one.
const DEFAULT_TICK: &str = "20";
const SENDERS: usize = 32;

/// 5,000 sends to devices whose real clients acknowledge, among 5,000 to devices that are nowhere.
async fn t41_the_time_of_an_answer_does_not_tell_who_is_connected(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RELAY__ANSWER_TICK_MILLIS", DEFAULT_TICK)]).await;
    let mut lanes = Lane::open(&server, SENDERS).await;
    let each = 5_000_usize.div_ceil(SENDERS);
    let times = measure(&server, &mut lanes, each, [STORED, STORED]).await;
    for lane in lanes {
        assert_eq!(
            lane.acknowledged.await.unwrap(),
            each,
            "every send to a connected device"
        );
        let waited = lane.elsewhere.connect(&server).await.drain().await;
        assert_eq!(waited.len(), each, "every send to the other");
    }
    assert!(!server.log().contains("answer_tick_millis"), "nothing is warned of");
    times.expect_alike();
}

async fn t41_the_time_of_an_online_only_answer_does_not_tell_who_is_connected(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RELAY__ANSWER_TICK_MILLIS", DEFAULT_TICK)]).await;
    let mut lanes = Lane::open(&server, SENDERS).await;
    let each = 2_500_usize.div_ceil(SENDERS);
    let times = measure(&server, &mut lanes, each, [ONLINE_ONLY, ONLINE_ONLY]).await;
    for lane in lanes {
        assert_eq!(
            lane.acknowledged.await.unwrap(),
            each,
            "every send to a connected device"
        );
        lane.elsewhere.connect(&server).await.expect_empty().await;
    }
    times.expect_alike();
}

/// The same measurement on two kinds of send whose work differs: one is given to a connection, the other committed. Without
/// the tick it tells them apart, so it would see what there is to be seen.
async fn t41_without_the_tick_the_time_of_an_answer_tells_what_its_work_took(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RELAY__ANSWER_TICK_MILLIS", "0")]).await;
    let mut lanes = Lane::open(&server, SENDERS).await;
    let times = measure(
        &server,
        &mut lanes,
        1_000_usize.div_ceil(SENDERS),
        [ONLINE_ONLY, STORED],
    )
    .await;
    assert!(times.told_apart() > ALLOWED, "{}", times.summary());
    until("a warning", async || {
        server.log().contains("relay.answer_tick_millis is 0")
    })
    .await;
}

/// Accepted or refused, stored or not, to one or to many, plainly or through a socket.
async fn b8_every_answer_that_knows_the_recipient_waits_for_the_tick(backend: Backend) {
    let tick = Duration::from_millis(200);
    let settings = [("RELAY__ANSWER_TICK_MILLIS", "200"), ("QUEUE__MAX_ENVELOPES", "1")];
    let server = Server::spawn_with(backend, &settings).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let send = |path: &str, body: &Value| alice.request(&server, "PUT", path).json(body);
    let mut online = single(&bob, 1, b"online");
    online["online"] = true.into();
    let mut other_devices = single(&bob, 1, b"other devices");
    other_devices["messages"][0]["destinationDeviceId"] = 2.into();
    let story = format!("{}?story=true", bob.inbox());
    let nobody = format!("/v1/messages/{}", uuid::Uuid::from_bytes(random()));
    let many = |key: String| {
        let message = fan_out::message(&[fan_out::Entry::of(&bob)], &[7; 64]);
        fan_out::request(&server, "", message).header("unidentified-access-key", key)
    };
    for (what, status, request) in [
        ("online-only", 200, send(&bob.inbox(), &online)),
        ("stored", 200, send(&bob.inbox(), &single(&bob, 1, b"stored"))),
        ("no room", 429, send(&bob.inbox(), &single(&bob, 1, b"no room"))),
        ("no room for a story", 429, send(&story, &single(&bob, 6, b"story"))),
        (
            "a story to nobody",
            200,
            send(&format!("{nobody}?story=true"), &single(&bob, 6, b"story")),
        ),
        ("nobody", 404, send(&nobody, &single(&bob, 1, b"nobody"))),
        ("other devices", 409, send(&bob.inbox(), &other_devices)),
        (
            "a stranger",
            401,
            server.request("PUT", &bob.inbox()).json(&single(&bob, 6, b"stranger")),
        ),
        ("to many, unreached", 200, many(fan_out::combined_key([&bob]))),
        ("to many, by a stranger", 401, many(fan_out::combined_key([&alice]))),
    ] {
        let (answer, taken) = timed(ask(request)).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(taken >= tick, "{what}: {taken:?}");
    }
    let mut socket = alice.connect(&server).await;
    let (answer, taken) = timed(socket.ask("PUT", &bob.inbox(), &[JSON], Some(&online))).await;
    assert_eq!(answer.expect(200).json()["needsSync"], false);
    assert!(taken >= tick, "through a socket: {taken:?}");
}

#[test]
fn the_statistic_of_t41_is_the_share_of_pairs_in_order() {
    let times = |some: &[u64], others: &[u64]| {
        let durations = |counts: &[u64]| counts.iter().map(|count| Duration::from_nanos(*count)).collect();
        Times([durations(some), durations(others)]).told_apart()
    };
    let is = |told: f64, expected: f64| assert!((told - expected).abs() < 1e-9, "{told} is not {expected}");
    is(times(&[1, 2, 3], &[4, 5]), 1.0);
    is(times(&[4, 5], &[1, 2, 3]), 1.0);
    is(times(&[7, 7, 7], &[7, 7]), 0.5);
    is(times(&[1, 4], &[2, 3]), 0.5);
    // Of six pairs three are in order, and two are ties.
    is(times(&[1, 2, 3], &[2, 3]), 4.0 / 6.0);
    is(times(&[2, 3], &[1, 2, 3]), 4.0 / 6.0);
}

/// `online` of a send.
const STORED: bool = false;
const ONLINE_ONLY: bool = true;
const JSON: &str = "content-type:application/json";

/// A sender and two targets of its own: one whose client is there, and one without.
struct Lane {
    sender: Person,
    /// Sends go through this; without one, by plain HTTP.
    socket: Option<Socket>,
    connected: Person,
    elsewhere: Person,
    /// How many envelopes the client has acknowledged when the last of them has come.
    acknowledged: JoinHandle<usize>,
}

impl Lane {
    /// Half of them send through sockets.
    async fn open(server: &Server, count: usize) -> Vec<Self> {
        let mut lanes = Vec::new();
        for index in 0..count {
            let [sender, connected, elsewhere] = people(server, 3).await.try_into().ok().unwrap();
            let mut client = connected.connect(server).await;
            client.expect_empty().await;
            let mut socket = None;
            if index % 2 == 0 {
                let mut own = sender.connect(server).await;
                own.expect_empty().await;
                socket = Some(own);
            }
            lanes.push(Self {
                sender,
                socket,
                connected,
                elsewhere,
                acknowledged: tokio::spawn(async move { acknowledge(&mut client).await }),
            });
        }
        lanes
    }

    /// Sends, and says how long the answer took.
    async fn send(&mut self, server: &Server, to: &Person, online: bool, content: &[u8]) -> (Answer, Duration) {
        let mut body = single(to, 1, content);
        body["online"] = online.into();
        match &mut self.socket {
            Some(socket) => timed(socket.ask("PUT", &to.inbox(), &[JSON], Some(&body))).await,
            None => {
                let request: RequestBuilder = self.sender.request(server, "PUT", &to.inbox()).json(&body);
                timed(ask(request)).await
            }
        }
    }

    /// So many sends to each of the two, in pairs whose order is a coin's.
    async fn measure(&mut self, server: &Server, each: usize, online: [bool; 2]) -> Times {
        let targets = [self.connected.clone(), self.elsewhere.clone()];
        let mut times = Times::default();
        let mut looks = None;
        for _ in 0..each {
            let [coin] = random::<1>();
            let first = usize::from(coin % 2);
            for target in [first, 1 - first] {
                let (answer, taken) = self.send(server, &targets[target], online[target], MORE).await;
                let answer = answer.expect(200).looks();
                assert_eq!(
                    looks.get_or_insert_with(|| answer.clone()),
                    &answer,
                    "same status and body"
                );
                times.0[target].push(taken);
            }
        }
        self.send(server, &targets[0], STORED, LAST).await.0.expect(200);
        times
    }
}

/// All lanes at once. The first kind of send goes to the connected targets, the second to the others.
async fn measure(server: &Server, lanes: &mut [Lane], each: usize, online: [bool; 2]) -> Times {
    // Connections are opened and accounts are in memory before it counts.
    join_all(lanes.iter_mut().map(async |lane| {
        for _ in 0..3 {
            let (connected, elsewhere) = (lane.connected.clone(), lane.elsewhere.clone());
            for to in [connected, elsewhere] {
                lane.send(server, &to, ONLINE_ONLY, WARM_UP).await.0.expect(200);
            }
        }
    }))
    .await;
    let mut all = Times::default();
    for times in join_all(lanes.iter_mut().map(|lane| lane.measure(server, each, online))).await {
        for (all, times) in all.0.iter_mut().zip(times.0) {
            all.extend(times);
        }
    }
    all
}

/// A client: acknowledges whatever comes, and counts it up to the last.
async fn acknowledge(client: &mut Socket) -> usize {
    let mut count = 0;
    loop {
        match client.next().await {
            Event::Envelope(id, envelope) => {
                client.answer(id, 200).await;
                match &marker(&envelope)[..] {
                    MORE => count += 1,
                    LAST => return count,
                    _ => {}
                }
            }
            other => panic!("an envelope was due, not {other:?}"),
        }
    }
}

const WARM_UP: &[u8] = b"warm up";
const MORE: &[u8] = b"more";
const LAST: &[u8] = b"last";

async fn timed(answer: impl Future<Output = Answer>) -> (Answer, Duration) {
    let begun = Instant::now();
    let answer = answer.await;
    (answer, begun.elapsed())
}

/// How long the answers took, of two kinds of send.
#[derive(Default)]
struct Times([Vec<Duration>; 2]);

impl Times {
    /// The area under the curve of the best classifier by one threshold, from Mann and Whitney's U: of all pairs of one
    /// send of each kind, the share in which the longer time is of the kind that is slower on the whole. 0.5 is a coin.
    fn told_apart(&self) -> f64 {
        let mut ranked: Vec<(Duration, usize)> = Vec::new();
        for (kind, times) in self.0.iter().enumerate() {
            ranked.extend(times.iter().map(|time| (*time, kind)));
        }
        ranked.sort_unstable();
        let mut ranks = 0.0;
        let mut below = 0;
        for tied in ranked.chunk_by(|one, other| one.0 == other.0) {
            let rank = float(below) + (float(tied.len()) + 1.0) / 2.0;
            ranks += rank * float(tied.iter().filter(|(_, kind)| *kind == 0).count());
            below += tied.len();
        }
        let [some, others] = [float(self.0[0].len()), float(self.0[1].len())];
        let share = (ranks - some * (some + 1.0) / 2.0) / (some * others);
        share.max(1.0 - share)
    }

    /// Fails if a classifier does better than T41 allows.
    #[track_caller]
    fn expect_alike(&self) {
        let told = self.told_apart();
        assert!(told <= ALLOWED, "told apart with {told:.3}; {}", self.summary());
    }

    fn summary(&self) -> String {
        let of = |times: &Vec<Duration>| {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            [1, 10, 50, 90, 99].map(|percent| sorted[(sorted.len() - 1) * percent / 100])
        };
        format!("percentiles {:?} and {:?}", of(&self.0[0]), of(&self.0[1]))
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
