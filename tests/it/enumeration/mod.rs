//! Who has an account, asked by those who have no business to know: strangers with identifiers (T45), a crawl through
//! numbers (T46), and a thief of the database with all numbers there are (T47).

mod blocked;
mod likelihood;
mod numbers;
mod policies;

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::keys::base64;
use crate::support::usernames::Name;
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random, single};

use likelihood::likelihood;

on_each_backend! {
    t45_known_and_unknown_look_alike_and_take_as_long
}

/// A question that a stranger can ask about an account that exists, or about one that does not.
struct Probe<'a> {
    what: &'static str,
    status: u16,
    ask: Box<dyn Fn(bool) -> reqwest::RequestBuilder + 'a>,
}

/// How often each question is asked in one round, about either kind.
const ASKED: usize = 250;
/// Two equal distributions seem different once in a hundred rounds; different ones do in all of them.
const ROUNDS: usize = 4;
const SAME: f64 = 0.01;

async fn t45_known_and_unknown_look_alike_and_take_as_long(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RELAY__ANSWER_TICK_MILLIS", "5")]).await;
    let (bob, other) = (Person::register(&server).await, Person::register(&server).await);
    let mut attributes = bob.attributes();
    attributes["recoveryPassword"] = base64(&random::<32>()).into();
    ask(bob.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);
    let reserved = Name::new();
    reserved.reserve(&server, &other).await.expect(200);
    let (server, bob) = (&server, &bob);
    let aci = |known: bool| {
        let random = uuid::Uuid::from_bytes(random()).to_string();
        if known { bob.aci.clone() } else { random }
    };
    let number = |known: bool| {
        if known {
            bob.number.clone()
        } else {
            Person::new().number
        }
    };
    let with_key = |method: &str, path: String| {
        server
            .request(method, &path)
            .header("unidentified-access-key", base64(&random::<16>()))
    };
    let probes = [
        Probe {
            what: "a login",
            status: 401,
            ask: Box::new(move |known| {
                server
                    .request("GET", "/v1/accounts/whoami")
                    .basic_auth(aci(known), Some("wrong"))
            }),
        },
        Probe {
            what: "keys",
            status: 401,
            ask: Box::new(move |known| with_key("GET", format!("/v2/keys/{}/1", aci(known)))),
        },
        Probe {
            what: "a profile",
            status: 401,
            ask: Box::new(move |known| with_key("GET", format!("/v1/profile/{}", aci(known)))),
        },
        Probe {
            what: "a message",
            status: 401,
            ask: Box::new(move |known| {
                with_key("PUT", format!("/v1/messages/{}", aci(known))).json(&single(bob, 6, b"sealed"))
            }),
        },
        Probe {
            what: "a verification",
            status: 200,
            ask: Box::new(move |known| {
                server
                    .request("POST", "/v1/verification/session")
                    .json(&json!({ "number": number(known) }))
            }),
        },
        Probe {
            what: "a registration without a session",
            status: 401,
            ask: Box::new(move |known| {
                let session = base64(&random::<32>())
                    .replace('+', "-")
                    .replace('/', "_")
                    .replace('=', "");
                server
                    .request("POST", "/v1/registration")
                    .basic_auth(number(known), Some("password"))
                    .json(&bob.registration(&session))
            }),
        },
        Probe {
            what: "a registration with a wrong recovery password",
            status: 403,
            ask: Box::new(move |known| {
                let mut body = bob.registration("");
                body.as_object_mut().unwrap().remove("sessionId");
                body["recoveryPassword"] = base64(&random::<32>()).into();
                server
                    .request("POST", "/v1/registration")
                    .basic_auth(number(known), Some("password"))
                    .json(&body)
            }),
        },
        Probe {
            what: "a user name that somebody has reserved",
            status: 404,
            ask: Box::new(|known| {
                let path = if known { reserved.path() } else { Name::new().path() };
                server.request("GET", &path)
            }),
        },
    ];
    let mut separable = Vec::new();
    for probe in &probes {
        let looks = looks(&ask((probe.ask)(true)).await);
        assert_eq!(looks.0, probe.status, "{}", probe.what);
        let mut seen = 0.0_f64;
        for _ in 0..ROUNDS {
            let (known, unknown) = times(probe, &looks).await;
            seen = seen.max(likelihood(&known, &unknown));
            if seen > SAME {
                break;
            }
        }
        if seen <= SAME {
            separable.push((probe.what, seen));
        }
    }
    assert!(separable.is_empty(), "times tell who exists: {separable:?}");

    // It can fail: an answer that leaves when it is ready is told from one that takes less work.
    let work = Probe {
        what: "work",
        status: 0,
        ask: Box::new(move |known| {
            if known {
                bob.request(server, "GET", "/v1/devices")
            } else {
                server.request("GET", "/v1/keepalive")
            }
        }),
    };
    let mut seen = 1.0_f64;
    for _ in 0..ROUNDS {
        let (costly, cheap) = durations(&work, async |answer| drop(answer)).await;
        seen = seen.min(likelihood(&costly, &cheap));
    }
    assert!(seen <= SAME, "the measurement is blind: {seen}");
}

/// The times of both kinds, each answer compared with `looks`.
async fn times(probe: &Probe<'_>, looks: &(u16, Vec<(String, String)>, Value)) -> (Vec<f64>, Vec<f64>) {
    durations(probe, async |answer: Answer| {
        assert_eq!(self::looks(&answer), *looks, "{}", probe.what)
    })
    .await
}

/// Seconds that questions about known and about unknown ones take, asked in turn, which of the two first by chance.
async fn durations(probe: &Probe<'_>, see: impl AsyncFn(Answer)) -> (Vec<f64>, Vec<f64>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let first = random::<1>()[0].is_multiple_of(2);
        for which in [first, !first] {
            let request = (probe.ask)(which);
            let began = Instant::now();
            let answer = ask(request).await;
            let took = began.elapsed().as_secs_f64();
            if which { &mut known } else { &mut unknown }.push(took);
            see(answer).await;
        }
    }
    (known, unknown)
}

/// What two answers must have in common: ids of sessions are random.
fn looks(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let (status, headers, body) = answer.looks();
    let mut body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    if let Some(id) = body.get_mut("id") {
        *id = id.as_str().unwrap().len().into();
    }
    (status, headers, body)
}
