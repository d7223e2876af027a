//! Sessions with tokens beside the passwords of devices.

mod forged;
mod nodes;
mod queries;
mod rotation;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::tokens::{Tokens, sessions};
use crate::support::{Backend, Event, Person, Server, Socket, ask, on_each_backend, send};

on_each_backend! {
    a_token_does_what_the_password_does
    a_socket_outlives_its_token_and_not_its_session
    what_would_outlive_a_session_needs_the_password
    t04_a_used_refresh_token_ends_its_session_and_its_sockets_and_the_owner_is_told
    t05_of_many_with_one_refresh_token_one_is_served_and_the_session_ends_unless_they_are_the_same_attempt
    t07_a_token_reaches_nothing_of_another_device
    t08_a_token_dies_with_its_session_its_device_and_the_password
    a_device_sees_its_sessions_and_a_primary_all
    a_device_has_sixteen_sessions_at_most
    sessions_outlive_a_restart
    malformed_requests_change_nothing
}

/// Within which what was ended is dead everywhere.
const PROMISED: Duration = Duration::from_secs(5);

async fn a_token_does_what_the_password_does(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let opened = ask(alice.request(&server, "POST", "/v1/auth/token")).await;
    let tokens = Tokens::of(&opened);
    assert_eq!(opened.json()["expiresIn"], 15 * 60);
    let refresh_secs = opened.json()["refreshExpiresIn"].as_u64().unwrap();
    assert!((7 * 86_400..=8 * 86_400).contains(&refresh_secs), "{refresh_secs}");

    let whoami = ask(tokens.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    // The number is sealed to the password, which the token carries the key of.
    assert_eq!(
        (&whoami.json()["uuid"], &whoami.json()["number"]),
        (&json!(alice.aci), &json!(alice.number))
    );
    ask(tokens
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&alice.attributes()))
    .await
    .expect(204);

    // So is the queue.
    send(&server, &bob, &alice, b"waits").await.expect(200);
    let fetched = ask(tokens.request(&server, "GET", "/v1/messages"))
        .await
        .expect(200)
        .json();
    assert_eq!(fetched["messages"].as_array().unwrap().len(), 1);
    let mut socket = tokens.connect(&server).await;
    assert_eq!(socket.drain().await, [&b"waits"[..]]);
    send(&server, &bob, &alice, b"comes").await.expect(200);
    assert_eq!(socket.content().await, &b"comes"[..]);
    socket.keepalive().await;
    let inside = socket.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    assert_eq!(inside.json()["uuid"], alice.aci);

    // As with a password, a later connection of the device displaces it.
    let mut later = alice.connect(&server).await;
    assert_eq!(socket.close_code().await, Some(4409));
    later.expect_empty().await;
    let next = tokens.next(&server).await;
    assert_eq!(next.session, tokens.session);
    for tokens in [&tokens, &next] {
        assert_eq!(tokens.whoami(&server).await, 200);
    }
    assert!(!server.log().contains(&tokens.access) && !server.log().contains(&tokens.refresh));
}

async fn a_socket_outlives_its_token_and_not_its_session(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    let mut socket = tokens.connect(&server).await;
    socket.expect_empty().await;
    // One that takes no deliveries is in no list of those that do.
    let quiet = [("x-signal-disable-messages", "true")];
    let mut quiet = Socket::open(&server, Some(&tokens.bearer()), &quiet).await.unwrap();
    let mut next = tokens.clone();
    for _ in 0..3 {
        next = next.next(&server).await;
        socket.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
        quiet.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    }
    // Through the socket itself, which is told so before it ends.
    socket.ask("DELETE", "/v1/auth/sessions", &[], None).await.expect(204);
    for socket in [&mut socket, &mut quiet] {
        assert_eq!(socket.close_code().await, Some(4401));
    }
    assert_eq!(next.whoami(&server).await, 401);
    let refused = Socket::open(&server, Some(&next.bearer()), &[]).await;
    assert_eq!(refused.err(), Some(403));
    assert!(server.metric("blind_relay_tokens_total{event=\"refreshed\"}").await > 2.5);
}

async fn what_would_outlive_a_session_needs_the_password(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    let mut socket = tokens.connect(&server).await;
    let password = json!({ "password": "another password" });
    for (method, path) in [("POST", "/v1/auth/token"), ("PUT", "/v1/devices/password")] {
        let refused = ask(tokens.request(&server, method, path).json(&password))
            .await
            .expect(403);
        assert_eq!(refused.code(), "password_needed");
        let refused = socket.ask(method, path, &[], Some(&password)).await.expect(403);
        assert_eq!(refused.code(), "password_needed");
    }
    // A socket that was opened with the password is as good as the password.
    let mut socket = alice.connect(&server).await;
    let opened = socket.ask("POST", "/v1/auth/token", &[], None).await;
    assert_eq!(Tokens::of(&opened).whoami(&server).await, 200);
    let fetched = ask(Tokens::of(&opened).request(&server, "GET", "/v1/messages")).await;
    fetched.expect(200);
}

async fn t04_a_used_refresh_token_ends_its_session_and_its_sockets_and_the_owner_is_told(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tablet = alice.link(&server).await;
    let (other, first) = (Tokens::open(&server, &alice).await, Tokens::open(&server, &alice).await);
    let mut told = tablet.connect(&server).await;
    told.expect_empty().await;
    let mut socket = first.connect(&server).await;
    socket.expect_empty().await;
    let thief = first.next(&server).await;
    assert_eq!(thief.whoami(&server).await, 200);

    // The owner asks with what the thief has used.
    let refused = ask(first.refreshing(&server)).await.expect(401);
    assert_eq!(refused.code(), "unauthorized");
    assert_eq!(socket.close_code().await, Some(4401));
    for dead in [&first, &thief] {
        dead.until_dead(&server, PROMISED).await;
        ask(dead.refreshing(&server)).await.expect(401);
    }
    let (_, notice) = told.notice().await;
    assert_eq!(notice["code"], "session_revoked");
    // Nobody else's is.
    assert_eq!(other.whoami(&server).await, 200);
    other.next(&server).await;
    assert!(server.metric("blind_relay_tokens_total{event=\"reused\"}").await > 0.5);
}

async fn t05_of_many_with_one_refresh_token_one_is_served_and_the_session_ends_unless_they_are_the_same_attempt(
    backend: Backend,
) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    for same_attempt in [false, true] {
        let tokens = Tokens::open(&server, &alice).await;
        let asking = (0..20).map(|n| {
            let name = format!("attempt-{:016}", if same_attempt { 0 } else { n });
            ask(tokens.refreshing(&server).header("idempotency-key", name))
        });
        let answers = join_all(asking).await;
        let served: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        if same_attempt {
            assert_eq!(served.len(), 20, "{answers:?}");
            let next: Vec<_> = served.iter().map(|answer| Tokens::of(answer)).collect();
            assert!(next.iter().all(|one| one.refresh == next[0].refresh));
            assert_eq!(next[19].whoami(&server).await, 200);
            // Under another name it is another attempt, and a theft.
            ask(tokens.refreshing(&server)).await.expect(401);
            ask(next[0].refreshing(&server)).await.expect(401);
        } else {
            assert_eq!(served.len(), 1, "{answers:?}");
            let refused = answers.iter().filter(|answer| answer.status == 401).count();
            assert_eq!(refused, 19, "{answers:?}");
            let next = Tokens::of(served[0]);
            next.until_dead(&server, PROMISED).await;
            ask(next.refreshing(&server)).await.expect(401);
        }
    }
    for name in ["short", &"x".repeat(65), "sixteen signs and a space"] {
        let tokens = Tokens::open(&server, &alice).await;
        let refused = ask(tokens.refreshing(&server).header("idempotency-key", name))
            .await
            .expect(400);
        assert_eq!(refused.code(), "idempotency_key");
        tokens.next(&server).await;
    }
}

async fn t07_a_token_reaches_nothing_of_another_device(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let tablet = alice.link(&server).await;
    let (phone, linked) = (
        Tokens::open(&server, &alice).await,
        Tokens::open(&server, &tablet).await,
    );
    let mut body = crate::support::single(&alice, 1, b"for the phone");
    body["messages"] = json!([
        crate::support::person::message(&alice, 1, b"for the phone"),
        crate::support::person::message(&tablet, 1, b"for the tablet"),
    ]);
    ask(bob.request(&server, "PUT", &alice.inbox()).json(&body))
        .await
        .expect(200);

    let queue = async |tokens: &Tokens| {
        let fetched = ask(tokens.request(&server, "GET", "/v1/messages"))
            .await
            .expect(200)
            .json();
        let guids = fetched["messages"].as_array().unwrap().iter();
        guids
            .map(|message| message["guid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (phones, tablets) = (queue(&phone).await, queue(&linked).await);
    assert!(phones.len() == 1 && tablets.len() == 1 && phones != tablets);
    // What is not the caller's own is not there: the same answer as for what never was, and nothing happens.
    let path = format!("/v1/messages/uuid/{}", phones[0]);
    ask(linked.request(&server, "DELETE", &path)).await.expect(204);
    assert_eq!(queue(&phone).await, phones);
    ask(linked.request(&server, "DELETE", "/v1/devices/1"))
        .await
        .expect(401);
    ask(linked.request(&server, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(401);
    let session = format!("/v1/auth/sessions/{}", phone.session);
    ask(linked.request(&server, "DELETE", &session)).await.expect(204);
    ask(linked.request(&server, "DELETE", "/v1/auth/sessions"))
        .await
        .expect(204);
    assert_eq!((phone.whoami(&server).await, linked.whoami(&server).await), (200, 401));

    // The socket of a token is its device's, whatever is asked inside.
    let linked = Tokens::open(&server, &tablet).await;
    let mut socket = linked.connect(&server).await;
    assert_eq!(socket.content().await, &b"for the tablet"[..]);
    socket.expect_empty().await;
    let inner = format!("Authorization:{}", phone.bearer());
    let named = json!({ "deviceName": crate::support::keys::base64(&[1; 20]) });
    let refused = socket
        .ask("PUT", "/v1/accounts/name?deviceId=1", &[&inner], Some(&named))
        .await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "other_device"));
    assert_eq!(alice.connect(&server).await.drain().await, [&b"for the phone"[..]]);
}

async fn t08_a_token_dies_with_its_session_its_device_and_the_password(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let dies = async |tokens: &Tokens, socket: &mut Socket| {
        tokens.until_dead(&server, PROMISED).await;
        assert_eq!(socket.close_code().await, Some(4401));
        ask(tokens.refreshing(&server)).await.expect(401);
    };
    // By its refresh token, which need not be the latest.
    for latest in [true, false] {
        let tokens = Tokens::open(&server, &alice).await;
        let mut socket = tokens.connect(&server).await;
        let shown = if latest {
            tokens.next(&server).await.refresh
        } else {
            tokens.refresh.clone()
        };
        let revoking = server
            .request("POST", "/v1/auth/revoke")
            .json(&json!({ "refreshToken": shown }));
        ask(revoking).await.expect(204);
        dies(&tokens, &mut socket).await;
    }
    // By name.
    let tokens = Tokens::open(&server, &alice).await;
    let mut socket = tokens.connect(&server).await;
    let path = format!("/v1/auth/sessions/{}", tokens.session);
    ask(alice.request(&server, "DELETE", &path)).await.expect(204);
    dies(&tokens, &mut socket).await;

    // With the device.
    let tablet = alice.link(&server).await;
    let tokens = Tokens::open(&server, &tablet).await;
    let mut socket = tokens.connect(&server).await;
    let path = format!("/v1/devices/{}", tablet.device_id);
    ask(alice.request(&server, "DELETE", &path)).await.expect(204);
    dies(&tokens, &mut socket).await;

    // With the password.
    let tokens = Tokens::open(&server, &alice).await;
    let quiet = [("x-signal-disable-messages", "true")];
    let mut socket = Socket::open(&server, Some(&tokens.bearer()), &quiet).await.unwrap();
    let password = json!({ "password": "another password" });
    ask(alice.request(&server, "PUT", "/v1/devices/password").json(&password))
        .await
        .expect(204);
    dies(&tokens, &mut socket).await;

    // With the account, and with the registration.
    for again in [true, false] {
        let mut bob = Person::register(&server).await;
        let tokens = Tokens::open(&server, &bob).await;
        let mut socket = tokens.connect(&server).await;
        if again {
            bob.register_on(&server).await;
        } else {
            ask(tokens.request(&server, "DELETE", "/v1/accounts/me"))
                .await
                .expect(204);
        }
        dies(&tokens, &mut socket).await;
    }
}

async fn a_device_sees_its_sessions_and_a_primary_all(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tablet = alice.link(&server).await;
    let (phones, tablets) = (
        Tokens::open(&server, &alice).await,
        Tokens::open(&server, &tablet).await,
    );
    let path = "/v1/auth/sessions";
    let tablet_id = u64::from(tablet.device_id);
    assert_eq!(
        sessions(phones.request(&server, "GET", path)).await,
        [
            (1, phones.session.clone(), true),
            (tablet_id, tablets.session.clone(), false)
        ]
    );
    assert_eq!(
        sessions(alice.request(&server, "GET", path)).await,
        [
            (1, phones.session.clone(), false),
            (tablet_id, tablets.session.clone(), false)
        ]
    );
    assert_eq!(
        sessions(tablet.request(&server, "GET", path)).await,
        [(tablet_id, tablets.session.clone(), false)]
    );
    let other = Person::register(&server).await;
    assert_eq!(sessions(other.request(&server, "GET", path)).await, []);
    let listed = ask(alice.request(&server, "GET", path)).await.json();
    for time in ["created", "expires"] {
        // Nothing finer than a day is kept.
        assert_eq!(listed["sessions"][0][time].as_i64().unwrap() % 86_400_000, 0);
    }
    // The primary ends them all.
    ask(alice.request(&server, "DELETE", path)).await.expect(204);
    for dead in [&phones, &tablets] {
        dead.until_dead(&server, PROMISED).await;
    }
    assert_eq!(sessions(alice.request(&server, "GET", path)).await, []);
}

async fn a_device_has_sixteen_sessions_at_most(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let mut all = Vec::new();
    for _ in 0..18 {
        all.push(Tokens::open(&server, &alice).await);
    }
    assert_eq!(
        sessions(alice.request(&server, "GET", "/v1/auth/sessions")).await.len(),
        16
    );
    let mut alive = 0;
    for tokens in &all {
        alive += usize::from(tokens.whoami(&server).await == 200);
    }
    assert_eq!(alive, 16);
    assert_eq!(all[17].whoami(&server).await, 200, "the new one stays");
}

async fn sessions_outlive_a_restart(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let tokens = Tokens::open(&server, &alice).await;
    let next = tokens.next(&server).await;
    send(&server, &bob, &alice, b"kept").await.expect(200);
    server.kill();
    let server = server.restart();
    assert_eq!(next.connect(&server).await.drain().await, [&b"kept"[..]]);
    next.next(&server).await;
    ask(tokens.refreshing(&server)).await.expect(401);
    next.until_dead(&server, PROMISED).await;
}

async fn malformed_requests_change_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    for path in ["/v1/auth/refresh", "/v1/auth/revoke"] {
        let post = |body: String| {
            let request = server.request("POST", path).header("content-type", "application/json");
            ask(request.body(body))
        };
        post("{".to_owned()).await.expect(400);
        post("{}".to_owned()).await.expect(422);
        post(json!({ "refreshToken": 1 }).to_string()).await.expect(422);
        post(json!({ "refreshToken": "x".repeat(40_000) }).to_string())
            .await
            .expect(413);
        let looks: Vec<_> = [
            String::new(),
            "A".repeat(215),
            tokens.access.clone(),
            format!("{}A", tokens.refresh),
            tokens.refresh[..214].to_owned(),
        ]
        .map(|token| json!({ "refreshToken": token }).to_string())
        .into();
        let mut answers = Vec::new();
        for body in looks {
            answers.push(post(body).await.expect(401).looks());
        }
        assert!(answers.iter().all(|looks| looks == &answers[0]));
    }
    for id in ["x", "AAAA", "../..", &"A".repeat(23)] {
        let refused = ask(alice.request(&server, "DELETE", &format!("/v1/auth/sessions/{id}"))).await;
        assert!(matches!(refused.status, 404 | 422), "{id}: {refused:?}");
    }
    assert_eq!(tokens.whoami(&server).await, 200);
    tokens.next(&server).await;
}

#[tokio::test]
async fn opening_and_refreshing_have_limits_that_say_when_to_return() {
    let server = Server::spawn_with(Backend::Sqlite, &[("RATE_LIMITS", "on")]).await;
    let alice = Person::register(&server).await;
    let until_refused = async |request: &mut dyn FnMut() -> reqwest::RequestBuilder| {
        for _ in 0..200 {
            let answer = ask(request()).await;
            if answer.status == 429 {
                assert_eq!(answer.code(), "rate_limited");
                assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
                return;
            }
        }
        panic!("never refused");
    };
    let tokens = Tokens::open(&server, &alice).await;
    // Asking again under one name is counted, too.
    let same = || {
        tokens
            .refreshing(&server)
            .header("idempotency-key", "one and the same attempt".replace(' ', "-"))
    };
    until_refused(&mut || same()).await;
    assert!(matches!(tokens.connect(&server).await.next().await, Event::Empty));
    // Of sessions of one day, which is all that is known of their age, any may be dropped for a new one.
    until_refused(&mut || alice.request(&server, "POST", "/v1/auth/token")).await;
    let forged = || {
        server
            .request("POST", "/v1/auth/refresh")
            .json(&json!({ "refreshToken": "A".repeat(215) }))
    };
    until_refused(&mut || forged()).await;
}
