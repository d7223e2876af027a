//! Registration by codes that are sent, here to a program of the operator's own.

use serde_json::{Value, json};

use crate::support::carrier::Carrier;
use crate::support::dump::Dump;
use crate::support::{Answer, Backend, Person, Server, ask, hex, on_each_backend, random};

use super::{ask_for_code, open, register, retry_after, session, try_code};

on_each_backend! {
    a_code_that_was_sent_registers_and_a_lock_holds
    t01_after_five_wrong_codes_the_right_one_is_refused_too
    t02_a_code_asked_for_again_waits_whoever_it_is_for
    t03_of_many_right_codes_at_once_one_counts
    an_address_registers_under_the_number_that_stands_for_it
    nothing_is_left_of_a_code_and_where_it_went
}

#[tokio::test]
async fn what_a_carrier_does_not_take_is_told() {
    let carrier = Carrier::start().await;
    let server = server(Backend::Sqlite, &carrier, &[("CODES__TIMEOUT_SECS", "1")]).await;
    for (status, reason, permanent, tries) in [
        (400, "providerRejected", true, 1),
        (404, "providerUnavailable", false, 1),
        (429, "providerUnavailable", false, 1),
        (302, "providerUnavailable", false, 1),
        (500, "providerUnavailable", false, 2),
        // It does not answer at all.
        (0, "providerUnavailable", false, 1),
    ] {
        carrier.answer_with(status);
        let before = carrier.posted().len();
        let session = session(&server, &Person::new().number).await;
        let answer = ask_for_code(&server, &session, "sms").await.expect(440).json();
        assert_eq!(
            answer,
            json!({ "reason": reason, "permanentFailure": permanent }),
            "{status}"
        );
        assert_eq!(carrier.posted().len() - before, tries, "{status}");
    }
    assert!(server.log().contains("a code was not delivered"));
    let rejected = "blind_relay_codes_total{carrier=\"webhook\",outcome=\"rejected\"}";
    assert!((server.metric(rejected).await - 1.0).abs() < f64::EPSILON);
    drop(carrier);
    let session = session(&server, &Person::new().number).await;
    ask_for_code(&server, &session, "sms").await.expect(440);
}

/// A server that has codes carried by the given carrier, to numbers and to addresses.
async fn server(backend: Backend, carrier: &Carrier, more: &[(&str, &str)]) -> Server {
    let url = format!("{}/codes", carrier.url());
    let mut settings = vec![
        ("REGISTRATION", "otp"),
        ("CODES__SMS", "webhook"),
        ("CODES__EMAIL", "webhook"),
        ("CODES__WEBHOOK_URL", url.as_str()),
        ("CODES__WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
    ];
    settings.extend_from_slice(more);
    Server::spawn_with(backend, &settings).await
}

/// A session to which a code was sent, and the code.
async fn asked(server: &Server, carrier: &Carrier, number: &str) -> (String, String) {
    let session = session(server, number).await;
    ask_for_code(server, &session, "sms").await.expect(200);
    (session, carrier.last_code().await)
}

/// A code that is not this one.
fn another(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

/// Sessions whose code the database still knows.
async fn hashes(server: &Server) -> usize {
    let dump = Dump::of(server).await;
    let sessions = dump.rows("verification_sessions");
    sessions.iter().filter(|row| row.contains_key("code_hash")).count()
}

async fn a_code_that_was_sent_registers_and_a_lock_holds(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[]).await;
    let mut alice = Person::new();
    let session = session(&server, &alice.number).await;
    try_code(&server, &session, "123456").await.expect(409);
    let asked = ask_for_code(&server, &session, "voice").await.expect(200).json();
    assert_eq!(
        (&asked["allowedToRequestCode"], &asked["nextVerificationAttempt"]),
        (&json!(true), &json!(0))
    );
    assert!((55..=60).contains(&asked["nextSms"].as_u64().unwrap()), "{asked}");
    let posted = carrier.posted().pop().unwrap().json();
    assert_eq!(
        (&posted["to"], &posted["transport"]),
        (&json!(alice.number), &json!("voice"))
    );
    register(&server, &alice, &session).await.expect(401);
    let verified = try_code(&server, &session, &carrier.last_code().await)
        .await
        .expect(200)
        .json();
    assert_eq!(verified["verified"], true);
    let account = register(&server, &alice, &session).await.expect(200).json();
    account["uuid"].as_str().unwrap().clone_into(&mut alice.aci);

    let lock = hex(&random::<32>());
    let locking = alice.request(&server, "PUT", "/v1/accounts/registration_lock");
    ask(locking.json(&json!({ "registrationLock": lock })))
        .await
        .expect(204);
    let mut again = Person::new();
    again.number.clone_from(&alice.number);
    let (session, code) = self::asked(&server, &carrier, &alice.number).await;
    try_code(&server, &session, &code).await.expect(200);
    register(&server, &again, &session).await.expect(423);
    let mut body = again.registration(&session);
    body["accountAttributes"]["registrationLock"] = lock.into();
    let account = ask(again.registering(&server).json(&body)).await.expect(200).json();
    assert_eq!(account["reregistration"], true);
}

async fn t01_after_five_wrong_codes_the_right_one_is_refused_too(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[]).await;
    let (session, code) = asked(&server, &carrier, &Person::new().number).await;
    assert_eq!(hashes(&server).await, 1);
    for _ in 0..5 {
        let answer = try_code(&server, &session, another(&code)).await.expect(200).json();
        assert_eq!(answer["verified"], false);
    }
    assert_eq!(hashes(&server).await, 0);
    for late in [another(&code), &code] {
        let answer = try_code(&server, &session, late).await.expect(429);
        assert!((1..=600).contains(&retry_after(&answer)));
        let body = answer.json();
        assert_eq!((&body["code"], &body["id"]), (&json!("otp_locked"), &json!(session)));
        assert_eq!(
            (&body["verified"], &body["allowedToRequestCode"]),
            (&json!(false), &json!(false))
        );
    }
    ask_for_code(&server, &session, "sms").await.expect(409);
    assert_eq!(carrier.posted().len(), 1, "no other code was sent");
}

async fn t02_a_code_asked_for_again_waits_whoever_it_is_for(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[("RATE_LIMITS", "on")]).await;
    let known = Person::new();
    let (first, code) = asked(&server, &carrier, &known.number).await;
    try_code(&server, &first, &code).await.expect(200);
    register(&server, &known, &first).await.expect(200);
    let mut looks = Vec::new();
    for number in [&known.number, &Person::new().number] {
        let session = session(&server, number).await;
        let mut answers = vec![ask_for_code(&server, &session, "sms").await];
        let other = self::session(&server, number).await;
        for again in [&session, &session, &other] {
            answers.push(ask_for_code(&server, again, "sms").await);
        }
        looks.push(answers);
    }
    let [known, unknown] = &looks[..] else { unreachable!() };
    // The number that has an account was sent a code a moment ago.
    assert_eq!((known[0].status, unknown[0].status), (429, 200));
    for (known, unknown) in known.iter().zip(unknown).skip(1) {
        assert_eq!((known.status, unknown.status), (429, 429));
        for answer in [known, unknown] {
            assert!((1..=60).contains(&retry_after(answer)));
        }
    }
    // In another session, which was asked in vain, the two look alike.
    assert_eq!(without_times(&known[3]), without_times(&unknown[3]));
    assert_eq!(carrier.posted().len(), 2);
}

/// What an answer has beside the session's name and the seconds that pass.
fn without_times(answer: &Answer) -> (u16, Vec<String>, Value) {
    let (status, headers, body) = answer.looks();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    body.as_object_mut().unwrap().remove("id");
    let names = headers.into_iter().map(|(name, _)| name);
    (status, names.collect(), body)
}

async fn t03_of_many_right_codes_at_once_one_counts(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[]).await;
    let person = Person::new();
    let (session, code) = asked(&server, &carrier, &person.number).await;
    let answers = futures_util::future::join_all((0..50).map(|_| try_code(&server, &session, &code))).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(409)), (1, 49));
    assert!(answers.iter().all(|answer| answer.json()["verified"] == true));
    assert_eq!(hashes(&server).await, 0);
    try_code(&server, &session, &code).await.expect(409);
    register(&server, &person, &session).await.expect(200);
    try_code(&server, &session, &code).await.expect(404);
    // It was for that session, not for the number.
    let other = self::session(&server, &person.number).await;
    try_code(&server, &other, &code).await.expect(409);
}

async fn an_address_registers_under_the_number_that_stands_for_it(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[]).await;
    let mut number = String::new();
    for (address, again) in [("Alice@Example.org", false), ("alice@example.org", true)] {
        let opened = open(&server, &json!({ "email": address })).await;
        let id = opened["id"].as_str().unwrap();
        let mut person = Person::new();
        opened["number"].as_str().unwrap().clone_into(&mut person.number);
        assert!(person.number.starts_with("+999") && person.number.len() == 16);
        assert!(number.is_empty() || number == person.number);
        number.clone_from(&person.number);
        assert_eq!(ask_for_code(&server, id, "voice").await.expect(418).json(), opened);
        ask_for_code(&server, id, "sms").await.expect(200);
        let posted = carrier.posted().pop().unwrap().json();
        assert_eq!(
            (&posted["to"], &posted["transport"]),
            (&json!("alice@example.org"), &json!("email"))
        );
        try_code(&server, id, &carrier.last_code().await).await.expect(200);
        let account = register(&server, &person, id).await.expect(200).json();
        assert_eq!(
            (&account["number"], &account["reregistration"]),
            (&json!(number), &json!(again))
        );
    }
    let post = |body: Value| ask(server.request("POST", "/v1/verification/session").json(&body));
    // Nothing could be sent to it, so nothing is proven by it.
    assert_eq!(post(json!({ "number": number })).await.expect(400).code(), "number");
    let long = format!("{}@example.org", "a".repeat(300));
    for email in [
        "",
        "alice",
        "alice@example.org\r\nBcc: bob@example.org",
        "alice@example.org>, <bob@example.org",
        long.as_str(),
    ] {
        assert_eq!(post(json!({ "email": email })).await.expect(400).code(), "email");
    }
    let both = json!({ "email": "alice@example.org", "number": "+15550100001" });
    for body in [both, json!({}), json!({ "email": null })] {
        assert_eq!(post(body).await.expect(422).code(), "contact");
    }
}

async fn nothing_is_left_of_a_code_and_where_it_went(backend: Backend) {
    let carrier = Carrier::start().await;
    let server = server(backend, &carrier, &[("LOG_LEVEL", "trace")]).await;
    let address = format!("alice.{}@example.org", hex(&random::<6>()));
    let opened = open(&server, &json!({ "email": address })).await;
    let id = opened["id"].as_str().unwrap();
    ask_for_code(&server, id, "sms").await.expect(200);
    let mail_code = carrier.last_code().await;
    let number = Person::new().number;
    let (session, code) = asked(&server, &carrier, &number).await;
    carrier.answer_with(400);
    let refused = self::session(&server, &Person::new().number).await;
    ask_for_code(&server, &refused, "sms").await.expect(440);
    let refused_code = carrier.last_code().await;
    let secrets = [
        address.as_str(),
        &number[1..],
        id,
        &session,
        opened["number"].as_str().unwrap(),
    ];
    let dump = Dump::of(&server).await;
    let values = || dump.0.values().flatten().flat_map(|row| row.values());
    for secret in secrets {
        assert!(!server.log().contains(secret), "it is in the log");
        assert!(!server.said().contains(secret), "it is on standard output");
        let digits = hex(secret.as_bytes());
        assert!(values().all(|value| !value.contains(secret) && !value.contains(&digits)));
    }
    // Six digits may be part of another number in the log, such as a count of nanoseconds; not of what the database holds.
    for code in [mail_code, code, refused_code] {
        let digits = hex(code.as_bytes());
        assert!(values().all(|value| *value != code && *value != digits));
    }
}
