//! The way to a verified session under the policies that ask for something: the same for numbers with and without an account.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::carrier::Carrier;
use crate::support::person::open_session;
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random};

use super::likelihood::likelihood;
use super::{ASKED, ROUNDS, SAME, looks};

on_each_backend! {
    t45_under_every_policy_known_and_unknown_look_alike_and_take_as_long
}

/// What is asked of a session that was opened for the purpose.
#[derive(Clone, Copy, Debug)]
enum Question {
    SendCode,
    WrongCode,
    Register,
}

impl Question {
    fn ask(self, server: &Server, number: &str, session: &str) -> reqwest::RequestBuilder {
        let path = format!("/v1/verification/session/{session}/code");
        match self {
            Self::SendCode => server.request("POST", &path).json(&json!({ "transport": "sms" })),
            Self::WrongCode => server.request("PUT", &path).json(&json!({ "code": "000000" })),
            Self::Register => {
                let stranger = Person::new();
                let request = server.request("POST", "/v1/registration");
                let request = request.basic_auth(number, Some("password"));
                request.json(&stranger.registration(session))
            }
        }
    }
}

async fn t45_under_every_policy_known_and_unknown_look_alike_and_take_as_long(backend: Backend) {
    // The one who is known registers while anybody may.
    let open = Server::spawn_with(backend, &[("REGISTRATION", "open")]).await;
    let known = Person::register(&open).await;
    let place = open.place().clone();
    drop(open);
    let carrier = Carrier::start().await;
    let tick = ("RELAY__ANSWER_TICK_MILLIS", "5");
    let url = carrier.url();
    let sending = [
        tick,
        ("REGISTRATION", "otp"),
        ("CODES__SMS", "webhook"),
        ("CODES__WEBHOOK_URL", &url),
        ("CODES__WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
    ];
    let mut separable = Vec::new();
    for (settings, questions) in [
        (
            &[tick, ("REGISTRATION", "invite")][..],
            &[
                (Question::SendCode, 200),
                (Question::WrongCode, 200),
                (Question::Register, 401),
            ][..],
        ),
        (&sending, &[(Question::SendCode, 200), (Question::Register, 401)]),
    ] {
        let server = Server::start(place.clone(), "data", settings);
        for (question, status) in questions {
            let mut seen = 0.0_f64;
            for _ in 0..ROUNDS {
                let (known, unknown) = times(&server, &known.number, *question, *status).await;
                seen = seen.max(likelihood(&known, &unknown));
                if seen > SAME {
                    break;
                }
            }
            if seen <= SAME {
                separable.push((settings[1], *question, seen));
            }
        }
    }
    assert!(separable.is_empty(), "times tell who exists: {separable:?}");
    assert!(!carrier.posted().is_empty());
}

/// Seconds that the question takes about the known number and about unknown ones, asked in turn, which of the two first by
/// chance; each answer is compared with the first.
async fn times(server: &Server, number: &str, question: Question, status: u16) -> (Vec<f64>, Vec<f64>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut expected = None;
    for _ in 0..ASKED {
        let first = random::<1>()[0].is_multiple_of(2);
        for which in [first, !first] {
            let number = if which { number.to_owned() } else { Person::new().number };
            let session = open_session(server, &number).await;
            let request = question.ask(server, &number, &session);
            let began = Instant::now();
            let answer: Answer = ask(request).await.expect(status);
            let took = began.elapsed().as_secs_f64();
            if which { &mut known } else { &mut unknown }.push(took);
            let seen = timeless(&answer);
            assert_eq!(*expected.get_or_insert_with(|| seen.clone()), seen, "{question:?}");
        }
    }
    (known, unknown)
}

/// How it looks but for the seconds until the next code, which pass.
fn timeless(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let (status, headers, mut body) = looks(answer);
    let soon = |value: &Value| value.as_u64().is_some_and(|seconds| (58..=60).contains(&seconds));
    if body.get("nextSms").is_some_and(soon) {
        body["nextSms"] = 60.into();
        body["nextCall"] = 60.into();
    }
    let headers = headers.into_iter().filter(|(name, _)| name != "content-length");
    (status, headers.collect(), body)
}
