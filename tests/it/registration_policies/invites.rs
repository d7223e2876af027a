//! Registration by invite.

use blind_relay::auth::ServerSecrets;
use blind_relay::secret_file;
use serde_json::json;
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::support::keys::base64;
use crate::support::{Backend, Person, Server, ask, hex, on_each_backend, random};

use super::{ask_for_code, register, retry_after, session, try_code};

on_each_backend! {
    an_invite_lets_in_as_many_as_it_says_and_is_gone
    t45_an_invite_does_not_take_a_number_over
    a_recovering_invite_starts_over_and_a_lock_holds
    an_invite_for_three_verifies_three_however_many_ask_at_once
    t01_codes_that_are_no_invites_are_counted
}

/// A server that takes those who are invited.
async fn server(backend: Backend) -> Server {
    Server::spawn_with(backend, &[("REGISTRATION", "invite")]).await
}

/// The code of an invite, put into the database as the server would have: only its hash is there.
async fn invite(server: &Server, uses: i32, recovers: bool) -> String {
    let pepper = secret_file::read_or_create(&server.place().path().join("pepper")).unwrap();
    let code: String = random::<16>()
        .iter()
        .map(|byte| char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[usize::from(byte % 32)]))
        .collect();
    let hash = ServerSecrets::from_pepper(&pepper)
        .hash_invite(code.as_bytes())
        .0
        .to_vec();
    let id = uuid::Uuid::from_bytes(random());
    const INSERT: &str = "INSERT INTO invites (id, code_hash, uses_left, recovers, expires, created) \
        VALUES ($1, $2, $3, $4, 50000, 20000)";
    let inserting = sqlx::query(INSERT);
    match server.place().database_url() {
        Some(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            let inserting = inserting.bind(id).bind(hash).bind(uses).bind(recovers);
            inserting.execute(&mut db).await.unwrap();
        }
        None => {
            let path = format!("sqlite://{}", server.place().sqlite().display());
            let mut db = SqliteConnection::connect(&path).await.unwrap();
            let inserting = sqlx::query(INSERT).bind(id).bind(hash).bind(uses).bind(recovers);
            inserting.execute(&mut db).await.unwrap();
        }
    }
    let groups: Vec<&str> = [0, 4, 8, 12].iter().map(|at| &code[*at..at + 4]).collect();
    groups.join("-")
}

/// A session for the number, verified by the invite.
async fn invited(server: &Server, number: &str, code: &str) -> String {
    let session = session(server, number).await;
    let answer = try_code(server, &session, code).await.expect(200).json();
    assert_eq!(answer["verified"], true);
    session
}

async fn an_invite_lets_in_as_many_as_it_says_and_is_gone(backend: Backend) {
    let server = server(backend).await;
    let code = invite(&server, 2, false).await;
    for typed in [code.to_lowercase(), code.replace('-', " ")] {
        let person = Person::new();
        let session = session(&server, &person.number).await;
        // Stock clients ask for a code first; nothing is sent, and they go on.
        let asked = ask_for_code(&server, &session, "sms").await.expect(200).json();
        assert_eq!(asked["allowedToRequestCode"], true);
        register(&server, &person, &session).await.expect(401);
        let verified = try_code(&server, &session, &typed).await.expect(200).json();
        assert_eq!(verified["verified"], true);
        let account = register(&server, &person, &session).await.expect(200).json();
        assert_eq!(account["reregistration"], false);
    }
    let session = session(&server, &Person::new().number).await;
    let refused = try_code(&server, &session, &code).await.expect(200).json();
    assert_eq!(refused["verified"], false, "it is used up");
}

async fn t45_an_invite_does_not_take_a_number_over(backend: Backend) {
    let server = server(backend).await;
    let code = invite(&server, 10, false).await;
    let mut alice = Person::new();
    let first = invited(&server, &alice.number, &code).await;
    let account = register(&server, &alice, &first).await.expect(200).json();
    account["uuid"].as_str().unwrap().clone_into(&mut alice.aci);
    let recovery = base64(&random::<32>());
    let mut attributes = alice.attributes();
    attributes["recoveryPassword"] = recovery.clone().into();
    ask(alice
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);

    let mut mallory = Person::new();
    mallory.number.clone_from(&alice.number);
    let session = invited(&server, &alice.number, &code).await;
    let with_invite = register(&server, &mallory, &session).await;
    let with_password = |password: &str| {
        let mut body = mallory.registration("");
        body.as_object_mut().unwrap().remove("sessionId");
        body["recoveryPassword"] = password.into();
        mallory.registering(&server).json(&body)
    };
    let with_wrong = ask(with_password(&base64(&random::<32>()))).await;
    assert_eq!(with_invite.looks(), with_wrong.looks());
    assert_eq!(with_invite.expect(403).code(), "recovery_password");
    ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);

    // Whoever has the recovery password needs no invite.
    let back = ask(with_password(&recovery)).await.expect(200).json();
    assert_eq!(
        (&back["uuid"], &back["reregistration"]),
        (&json!(alice.aci), &json!(true))
    );
}

async fn a_recovering_invite_starts_over_and_a_lock_holds(backend: Backend) {
    let server = server(backend).await;
    let code = invite(&server, 10, true).await;
    let mut alice = Person::new();
    let session = invited(&server, &alice.number, &code).await;
    let account = register(&server, &alice, &session).await.expect(200).json();
    account["uuid"].as_str().unwrap().clone_into(&mut alice.aci);

    let mut again = Person::new();
    again.number.clone_from(&alice.number);
    let session = invited(&server, &alice.number, &code).await;
    let account = register(&server, &again, &session).await.expect(200).json();
    assert_eq!(
        (&account["uuid"], &account["reregistration"]),
        (&json!(alice.aci), &json!(true))
    );
    again.aci.clone_from(&alice.aci);
    let lock = hex(&random::<32>());
    let locking = again.request(&server, "PUT", "/v1/accounts/registration_lock");
    ask(locking.json(&json!({ "registrationLock": lock })))
        .await
        .expect(204);

    let mut third = Person::new();
    third.number.clone_from(&alice.number);
    let session = invited(&server, &alice.number, &code).await;
    let locked = register(&server, &third, &session).await.expect(423).json();
    assert!(locked["timeRemaining"].as_i64().unwrap() > 0);
    let mut body = third.registration(&session);
    body["accountAttributes"]["registrationLock"] = lock.into();
    ask(third.registering(&server).json(&body)).await.expect(200);
}

async fn an_invite_for_three_verifies_three_however_many_ask_at_once(backend: Backend) {
    let server = server(backend).await;
    let code = invite(&server, 3, false).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(session(&server, &Person::new().number).await);
    }
    // Each twice: a session uses it up once.
    let tries = sessions
        .iter()
        .chain(&sessions)
        .map(|session| try_code(&server, session, &code));
    let answers = futures_util::future::join_all(tries).await;
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)));
    let mut verified = 0;
    for session in &sessions {
        let path = format!("/v1/verification/session/{session}");
        let shown = ask(server.request("GET", &path)).await.expect(200).json();
        verified += u8::from(shown["verified"] == true);
    }
    assert_eq!(verified, 3);
}

async fn t01_codes_that_are_no_invites_are_counted(backend: Backend) {
    let server = server(backend).await;
    let code = invite(&server, 1, false).await;
    let locked = session(&server, &Person::new().number).await;
    let long = "0".repeat(4_000);
    for wrong in ["", "123456", "0000-0000-0000-0000", "\u{0}", &long] {
        let answer = try_code(&server, &locked, wrong).await.expect(200).json();
        assert_eq!(answer["verified"], false);
    }
    for late in ["123456", &code] {
        let answer = try_code(&server, &locked, late).await.expect(429);
        assert!((1..=600).contains(&retry_after(&answer)));
        assert_eq!(answer.code(), "otp_locked");
    }
    let other = session(&server, &Person::new().number).await;
    let answer = try_code(&server, &other, &code).await.expect(200).json();
    assert_eq!(answer["verified"], true, "nobody has used it");
}
