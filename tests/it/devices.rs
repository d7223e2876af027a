//! More than one device: how they join, what they may do, and how they go.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::Connection;

use crate::support::http::try_ask;
use crate::support::keys::{base64, kyber, signed_ec};
use crate::support::person::{basic, message, verified_session};
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Backend, Event, Person, Server, Socket, ask, hex, on_each_backend, random, send, single, until};

on_each_backend! {
    a_linked_device_gets_its_own_copy_and_keys_of_its_own
    the_list_of_devices_is_for_the_account_alone
    a_link_token_works_once_in_time_and_for_its_account
    fifty_links_with_one_token_at_once_make_one_device
    links_at_once_never_pass_the_limit
    t38_a_removed_device_leaves_nothing_and_its_socket_closes
    registering_again_drops_linked_devices_and_open_tokens
    a_registration_lock_keeps_the_number_while_it_is_in_use
    a_primary_waits_for_the_device_that_it_links
}

async fn a_linked_device_gets_its_own_copy_and_keys_of_its_own(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let phone = bob.clone();
    let laptop = bob.link(&server).await;
    assert_eq!(laptop.device_id, 2);
    let whoami = ask(laptop.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&whoami["uuid"], &whoami["number"]),
        (&json!(bob.aci), &json!(bob.number))
    );
    // A code of one device is no password of the other.
    ask(server
        .request("GET", "/v1/accounts/whoami")
        .basic_auth(laptop.user(), Some(&phone.password)))
    .await
    .expect(401);

    let counts = ask(laptop.request(&server, "GET", "/v2/keys")).await.expect(200).json();
    assert_eq!(counts, json!({ "count": 0, "pqCount": 0 }), "no one-time keys yet");
    let mut sockets = [phone.connect(&server).await, laptop.connect(&server).await];
    for socket in &mut sockets {
        socket.expect_empty().await;
    }
    let bundles = ask(alice.request(&server, "GET", &format!("/v2/keys/{}/*", bob.aci)))
        .await
        .expect(200)
        .json();
    assert_eq!(bundles["devices"][1]["registrationId"], laptop.registration_id);
    assert_eq!(bundles["devices"][1]["signedPreKey"]["keyId"], 11);
    assert_eq!(bundles["devices"].as_array().unwrap().len(), 2);

    let mismatch = send(&server, &alice, &phone, b"for one").await.expect(409).json();
    assert_eq!(mismatch, json!({ "missingDevices": [2], "extraDevices": [] }));
    let mut both = single(&phone, 1, b"for the phone");
    both["messages"] = json!([
        message(&phone, 1, b"for the phone"),
        message(&laptop, 3, b"for the laptop")
    ]);
    let sent = ask(alice.request(&server, "PUT", &bob.inbox()).json(&both))
        .await
        .expect(200);
    assert_eq!(sent.json(), json!({ "needsSync": false }));
    let [on_phone, on_laptop] = &mut sockets;
    assert_eq!(on_phone.content().await, &b"for the phone"[..]);
    assert_eq!(on_laptop.content().await, &b"for the laptop"[..]);

    // A linked device writes under its own number, and its sends ask for a copy to the phone.
    let sent = send(&server, &laptop, &alice, b"from the laptop").await.expect(200);
    assert_eq!(sent.json(), json!({ "needsSync": true }));
    let mut inbox = alice.connect(&server).await;
    let (_, envelope) = inbox.envelope().await;
    assert_eq!(
        (envelope.source_device, envelope.source_service_id),
        (Some(2), Some(bob.aci.clone()))
    );
    send(&server, &laptop, &phone, b"a copy").await.expect(200);
    assert_eq!(on_phone.content().await, &b"a copy"[..]);
    let stale = {
        let mut stale = single(&laptop, 1, b"x");
        stale["messages"][0]["destinationRegistrationId"] = json!(laptop.registration_id % 16_000 + 1);
        ask(phone.request(&server, "PUT", &bob.inbox()).json(&stale))
            .await
            .expect(410)
    };
    assert_eq!(stale.json(), json!({ "staleDevices": [2] }));
}

async fn the_list_of_devices_is_for_the_account_alone(backend: Backend) {
    let server = Server::spawn(backend).await;
    let phone = Person::register(&server).await;
    let laptop = phone.link(&server).await;
    for device in [&phone, &laptop] {
        let listed = ask(device.request(&server, "GET", "/v1/devices"))
            .await
            .expect(200)
            .json();
        let devices = listed["devices"].as_array().unwrap();
        assert_eq!(devices.len(), 2);
        for (entry, of) in devices.iter().zip([&phone, &laptop]) {
            assert_eq!(entry["id"], of.device_id);
            assert_eq!(entry["name"], base64(&of.device_name));
            assert_eq!(entry["registrationId"], of.registration_id);
            let seen = entry["lastSeen"].as_i64().unwrap();
            assert!(seen > 0 && seen % (24 * 60 * 60 * 1000) == 0, "a day, not a time");
            let sealed = entry["createdAtCiphertext"].as_str().unwrap();
            let created = of
                .aci_identity
                .open_created_at(of.device_id, of.registration_id, sealed);
            assert!((created.unwrap() - seen).abs() < 2 * 24 * 60 * 60 * 1000);
            assert!(
                of.pni_identity
                    .open_created_at(of.device_id, of.registration_id, sealed)
                    .is_none()
            );
        }
        assert_ne!(devices[0]["createdAtCiphertext"], devices[1]["createdAtCiphertext"]);
    }
    // A primary names all of its devices, a linked device itself.
    let name = |text: &[u8]| json!({ "deviceName": base64(text) });
    let rename = |by: &Person, query: &str, body: Value| {
        let request = by.request(&server, "PUT", &format!("/v1/accounts/name{query}"));
        ask(request.json(&body))
    };
    rename(&phone, "?deviceId=2", name(b"laptop")).await.expect(204);
    rename(&phone, "", name(b"phone")).await.expect(204);
    rename(&laptop, "?deviceId=1", name(b"mine")).await.expect(403);
    rename(&phone, "?deviceId=3", name(b"nobody")).await.expect(404);
    rename(&phone, "?deviceId=x", name(b"nobody")).await.expect(422);
    rename(&laptop, "?deviceId=2", name(&[7; 226])).await.expect(422);
    rename(&laptop, "?deviceId=2", json!({ "deviceName": null }))
        .await
        .expect(422);
    let names = async || {
        let listed = ask(phone.request(&server, "GET", "/v1/devices"))
            .await
            .expect(200)
            .json();
        [0, 1].map(|index: usize| listed["devices"][index]["name"].clone())
    };
    assert_eq!(names().await, [json!(base64(b"phone")), json!(base64(b"laptop"))]);
    rename(&laptop, "?deviceId=2", name(b"mine")).await.expect(204);
    assert_eq!(names().await[1], base64(b"mine"));
}

async fn a_link_token_works_once_in_time_and_for_its_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let answer = ask(alice.request(&server, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(200)
        .json();
    let code = answer["verificationCode"].as_str().unwrap();
    let identifier = URL_SAFE_NO_PAD.encode(Sha256::digest(code));
    assert_eq!(answer["tokenIdentifier"], identifier);

    let device = alice.new_device();
    for forged in [
        "",
        "x",
        &identifier,
        &code[1..],
        &format!("{code}A"),
        &hex(&random::<32>()),
    ] {
        assert_eq!(
            ask(device.linking(&server, forged)).await.expect(403).code(),
            "link_token"
        );
    }
    // Whoever signs with other keys is of another account.
    let stranger = bob.new_device();
    assert_eq!(
        ask(stranger.linking(&server, code)).await.expect(422).code(),
        "bad_signature"
    );
    let linked = ask(device.linking(&server, code)).await.expect(200).json();
    assert_eq!(linked, json!({ "uuid": alice.aci, "pni": alice.pni, "deviceId": 2 }));
    let again = alice.new_device();
    assert_eq!(ask(again.linking(&server, code)).await.expect(403).code(), "link_token");

    // A linked device offers nothing.
    let laptop = device.linked(&linked);
    ask(laptop.request(&server, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(401);
    // Only the newest ten stand.
    let old = alice.link_code(&server).await;
    for _ in 0..10 {
        alice.link_code(&server).await;
    }
    ask(again.linking(&server, &old)).await.expect(403);
    // The user of the credentials says nothing, and so does the socket that the request comes through.
    let code = alice.link_code(&server).await;
    let mut socket = Socket::open(&server, Some(&bob.authorization()), &[]).await.unwrap();
    let own = format!("authorization: {}", basic("nobody at all", &again.password));
    let answer = socket
        .ask(
            "PUT",
            "/v1/devices/link",
            &["content-type:application/json", &own],
            Some(&again.link_body(&code)),
        )
        .await
        .expect(200);
    assert_eq!(again.linked(&answer.json()).device_id, 3);
    // A removed device leaves its number to the next.
    ask(alice.request(&server, "DELETE", "/v1/devices/2")).await.expect(204);
    assert_eq!(alice.link(&server).await.device_id, 2);
}

async fn fifty_links_with_one_token_at_once_make_one_device(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let code = alice.link_code(&server).await;
    let mut links = tokio::task::JoinSet::new();
    for _ in 0..50 {
        links.spawn(ask(alice.new_device().linking(&server, &code)));
    }
    let mut statuses: Vec<u16> = links.join_all().await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[..2], [200, 403]);
    assert_eq!(statuses[49], 403);
    assert_eq!(devices_of(&server, &alice).await, [1, 2]);
}

async fn links_at_once_never_pass_the_limit(backend: Backend) {
    let server = Server::spawn_with(backend, &[("DEVICES__MAX_PER_ACCOUNT", "4")]).await;
    let alice = Person::register(&server).await;
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(alice.link_code(&server).await);
    }
    let mut links = tokio::task::JoinSet::new();
    for code in &codes {
        links.spawn(ask(alice.new_device().linking(&server, code)));
    }
    let answers = links.join_all().await;
    let full: Vec<_> = answers.iter().filter(|answer| answer.status == 411).collect();
    assert_eq!(
        (answers.iter().filter(|answer| answer.status == 200).count(), full.len()),
        (3, 5)
    );
    assert_eq!(full[0].json(), json!({ "current": 4, "max": 4 }));
    assert_eq!(devices_of(&server, &alice).await, [1, 2, 3, 4]);
    let code = ask(alice.request(&server, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(411);
    assert_eq!(code.json(), json!({ "current": 4, "max": 4 }));
}

async fn t38_a_removed_device_leaves_nothing_and_its_socket_closes(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, phone) = (Person::register(&server).await, Person::register(&server).await);
    let (laptop, tablet) = (phone.link(&server).await, phone.link(&server).await);
    laptop.upload_keys(&server, 1, 5).await;
    let all = [&phone, &laptop, &tablet].map(|device| message(device, 1, b"x"));
    let mut to_all = single(&phone, 1, b"x");
    to_all["messages"] = json!(all);
    for _ in 0..20 {
        ask(alice.request(&server, "PUT", &phone.inbox()).json(&to_all))
            .await
            .expect(200);
    }
    let remove = |by: &Person, id: &str| ask(by.request(&server, "DELETE", &format!("/v1/devices/{id}")));
    // Others than the primary remove only themselves, and the primary stays.
    remove(&laptop, "3").await.expect(401);
    remove(&laptop, "1").await.expect(401);
    assert_eq!(remove(&phone, "1").await.expect(403).code(), "primary_device");
    remove(&phone, "0").await.expect(422);
    remove(&phone, "128").await.expect(422);
    remove(&phone, "9").await.expect(204);
    remove(&alice, "2").await.expect(204);
    assert_eq!(devices_of(&server, &phone).await, [1, 2, 3]);

    let mut socket = laptop.connect(&server).await;
    let quiet = [("x-signal-disable-messages", "true")];
    let mut requests_only = Socket::open(&server, Some(&laptop.authorization()), &quiet)
        .await
        .unwrap();
    remove(&phone, "2").await.expect(204);
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(requests_only.close_code().await, Some(4401));
    ask(laptop.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
    let refused = Socket::open(&server, Some(&laptop.authorization()), &[]).await;
    assert_eq!(refused.err(), Some(403));
    let mismatch = ask(alice.request(&server, "PUT", &phone.inbox()).json(&to_all))
        .await
        .expect(409)
        .json();
    assert_eq!(mismatch, json!({ "missingDevices": [], "extraDevices": [2] }));
    let bundle = format!("/v2/keys/{}/2", phone.aci);
    ask(alice.request(&server, "GET", &bundle)).await.expect(404);
    remove(&tablet, "3").await.expect(204);
    assert_eq!(devices_of(&server, &phone).await, [1]);
    assert_eq!(phone.fetch(&server).await["messages"].as_array().unwrap().len(), 20);

    // A new device of the same number has nothing of the old one.
    let again = phone.link(&server).await;
    assert_eq!(again.device_id, 2);
    assert_eq!(again.fetch(&server).await["messages"], json!([]));
    let counts = ask(again.request(&server, "GET", "/v2/keys")).await.expect(200).json();
    assert_eq!(counts["count"], 0);
}

async fn registering_again_drops_linked_devices_and_open_tokens(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut phone = Person::register(&server).await;
    let laptop = phone.link(&server).await;
    let code = phone.link_code(&server).await;
    let waiting = phone.new_device();
    let mut socket = laptop.connect(&server).await;
    phone.register_on(&server).await;
    assert_eq!(socket.close_code().await, Some(4401));
    ask(laptop.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
    ask(waiting.linking(&server, &code)).await.expect(403);
    assert_eq!(devices_of(&server, &phone).await, [1]);
    assert_eq!(phone.link(&server).await.device_id, 2, "it may link again");
}

async fn a_registration_lock_keeps_the_number_while_it_is_in_use(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let owner = Person::register(&server).await;
    let laptop = owner.link(&server).await;
    let lock = hex(&random::<32>());
    let set = |by: &Person, value: Value| {
        let request = by.request(&server, "PUT", "/v1/accounts/registration_lock");
        ask(request.json(&json!({ "registrationLock": value })))
    };
    for bad in [
        json!(""),
        json!(&lock[1..]),
        json!(lock.replace(&lock[..1], "g")),
        json!(null),
        json!(7),
    ] {
        set(&owner, bad).await.expect(422);
    }
    set(&owner, json!(lock)).await.expect(204);

    let thief = Person {
        password: hex(&random::<16>()),
        ..owner.clone()
    };
    let mut socket = owner.connect(&server).await;
    socket.expect_empty().await;
    let register = async |with: Option<&str>| {
        let session = verified_session(&server, &owner.number).await;
        let mut body = thief.registration(&session);
        body["accountAttributes"]["registrationLock"] = json!(with);
        let answer = ask(thief.registering(&server).json(&body)).await;
        (session, answer)
    };
    for wrong in [None, Some(hex(&random::<32>()))] {
        let (session, answer) = register(wrong.as_deref()).await;
        let locked = answer.expect(423).json();
        let remaining = locked["timeRemaining"].as_i64().unwrap();
        let day = 24 * 60 * 60 * 1000;
        assert!(remaining > 7 * day && remaining <= 8 * day, "{remaining}");
        assert_eq!(locked["svr2Credentials"], Value::Null);
        // The session stands, for whoever finds the right value after all.
        let path = format!("/v1/verification/session/{session}");
        assert_eq!(
            ask(server.request("GET", &path)).await.expect(200).json()["verified"],
            true
        );
    }
    // A linked device does not know the lock, and its attributes leave it; nor do the owner's devices suffer.
    let mut attributes = laptop.attributes();
    attributes["registrationLock"] = Value::Null;
    ask(laptop
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    register(None).await.1.expect(423);
    socket.keepalive().await;
    // With the lock the registration goes on, and what it says about the lock holds from then.
    register(Some(&lock.to_uppercase())).await.1.expect(200);
    assert_eq!(socket.close_code().await, Some(4401));
    register(None).await.1.expect(423);
    // The attributes of the primary without a lock clear it.
    let attributes = thief.attributes();
    ask(thief
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    register(None).await.1.expect(200);
    set(&thief, json!(lock)).await.expect(204);
    ask(thief.request(&server, "DELETE", "/v1/accounts/registration_lock"))
        .await
        .expect(204);
    register(None).await.1.expect(200);

    // Only a hash of it is kept.
    set(&thief, json!(lock)).await.expect(204);
    if backend == Backend::Sqlite {
        server.kill();
        let mut all = Vec::new();
        for entry in std::fs::read_dir(server.place().sqlite().parent().unwrap()).unwrap() {
            all.extend(std::fs::read(entry.unwrap().path()).unwrap_or_default());
        }
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&lock[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        for form in [lock.as_bytes(), &bytes] {
            assert!(!all.windows(form.len()).any(|window| window == form));
        }
    }
}

async fn a_primary_waits_for_the_device_that_it_links(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let answer = ask(alice.request(&server, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(200)
        .json();
    let (code, identifier) = (
        answer["verificationCode"].as_str().unwrap().to_owned(),
        answer["tokenIdentifier"].as_str().unwrap().to_owned(),
    );
    let wait = |by: &Person, rest: &str| {
        ask(by.request(&server, "GET", &format!("/v1/devices/wait_for_linked_device/{rest}")))
    };
    for bad in ["x?timeout=1", "%00?timeout=1"] {
        wait(&alice, bad).await.expect(422);
    }
    for (timeout, status) in [("0", 422), ("3601", 422), ("x", 400), ("-1", 400)] {
        wait(&alice, &format!("{identifier}?timeout={timeout}"))
            .await
            .expect(status);
    }
    wait(&alice, &format!("{identifier}?timeout=1")).await.expect(204);
    // Of two waits of one device the newer ends the older, whichever that is here.
    let mut socket = alice.connect(&server).await;
    socket.expect_empty().await;
    let path = format!("/v1/devices/wait_for_linked_device/{identifier}?timeout=3600");
    for id in [76, 77] {
        socket.ask_as(Some(id), "GET", &path, &[], None).await;
    }
    let Event::Answer(older, answer) = socket.next().await else {
        panic!("the older wait was to end")
    };
    answer.expect(204);
    let linking = ask(alice.new_device().linking(&server, &code)).await.expect(200).json();
    assert_eq!(linking["deviceId"], 2);
    let device = socket
        .answer_to(if older == 76 { 77 } else { 76 })
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&device["id"], device["createdAtCiphertext"].is_string()),
        (&json!(2), true)
    );
    // Who asks late learns it all the same, and others do not.
    let late = wait(&alice, &format!("{identifier}?timeout=3600")).await.expect(200);
    assert_eq!(late.json()["id"], 2);
    wait(&bob, &format!("{identifier}?timeout=1")).await.expect(204);
    // A stop does not wait for waits.
    let unknown = URL_SAFE_NO_PAD.encode(random::<32>());
    let path = format!("/v1/devices/wait_for_linked_device/{unknown}?timeout=3600");
    let waiting = tokio::spawn(try_ask(alice.request(&server, "GET", &path)));
    socket.ask_as(Some(78), "GET", "/v1/devices", &[], None).await;
    socket.answer_to(78).await.expect(200);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    // Answered, unless the stop came before it was heard.
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.status, 204);
    }
}

#[tokio::test]
async fn a_link_that_is_not_right_is_refused_and_leaves_the_token() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let code = alice.link_code(&server).await;
    let device = alice.new_device();
    let good = device.link_body(&code);
    let link = |body: &Value| {
        let request = server.request("PUT", "/v1/devices/link");
        ask(request.basic_auth(&alice.number, Some(&device.password)).json(body))
    };
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[field] = value;
        body
    };
    let other = Person::new();
    for (pointer, value, expected) in [
        ("/accountAttributes/capabilities", Value::Null, "capabilities"),
        ("/accountAttributes/registrationId", json!(0), "registration_id"),
        ("/accountAttributes/pniRegistrationId", Value::Null, "registration_id"),
        (
            "/accountAttributes/name",
            json!(base64(&[1; 226])),
            "device_name_too_long",
        ),
        ("/accountAttributes/fetchesMessages", json!(false), "delivery_channel"),
        ("/gcmToken", json!({ "gcmRegistrationId": "x" }), "delivery_channel"),
        ("/apnToken", json!({ "apnRegistrationId": "" }), "push_token"),
        ("/aciSignedPreKey", signed_ec(&other.aci_identity, 1), "bad_signature"),
        ("/pniSignedPreKey", signed_ec(&alice.aci_identity, 1), "bad_signature"),
        ("/aciPqLastResortPreKey", kyber(&alice.pni_identity, 1), "bad_signature"),
        ("/aciSignedPreKey", kyber(&alice.aci_identity, 1), "malformed_key"),
        ("/verificationCode", Value::Null, "unexpected_json"),
    ] {
        let answer = link(&with(pointer, value)).await.expect(422);
        assert_eq!(answer.code(), expected, "{pointer}");
    }
    for field in [
        "verificationCode",
        "accountAttributes",
        "aciSignedPreKey",
        "pniPqLastResortPreKey",
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        link(&body).await.expect(422);
    }
    let raw = || server.request("PUT", "/v1/devices/link");
    ask(raw().json(&good)).await.expect(401);
    ask(raw().basic_auth("x", Some("short")).json(&good)).await.expect(401);
    ask(raw().basic_auth("x", Some("long enough")).body("{"))
        .await
        .expect(400);
    ask(raw().basic_auth("x", Some("long enough")).body(vec![b' '; 40_000]))
        .await
        .expect(413);
    assert_eq!(devices_of(&server, &alice).await, [1]);
    link(&with("/gcmToken", Value::Null)).await.expect(200);
}

#[tokio::test]
async fn a_device_without_what_all_others_can_is_refused_but_never_for_spqr() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let set = |by: &Person, body: Value| ask(by.request(&server, "PUT", "/v1/devices/capabilities").json(&body));
    set(
        &alice,
        json!({ "profiles_v2": true, "spqr": true, "transfer": true, "unheardOf": true }),
    )
    .await
    .expect(204);
    set(&alice, json!(["spqr"])).await.expect(422);
    set(&alice, json!(null)).await.expect(422);
    let code = alice.link_code(&server).await;
    let device = alice.new_device();
    let refused = ask(device.linking(&server, &code)).await.expect(409);
    assert_eq!(refused.code(), "capability_downgrade");
    let mut body = device.link_body(&code);
    body["accountAttributes"]["capabilities"] = json!({ "profiles_v2": true });
    let request = server.request("PUT", "/v1/devices/link");
    let linked = ask(request.basic_auth("x", Some(&device.password)).json(&body))
        .await
        .expect(200);
    // As soon as one device lacks it, others may as well.
    set(&device.linked(&linked.json()), json!({})).await.expect(204);
    alice.link(&server).await;
}

#[tokio::test]
async fn a_device_has_exactly_one_way_to_learn_of_envelopes() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (gcm, apn) = (json!({ "gcmRegistrationId": "x" }), json!({ "apnRegistrationId": "x" }));
    for (fetches, gcm, apn, status) in [
        (true, &Value::Null, &Value::Null, 200),
        (false, &gcm, &Value::Null, 200),
        (false, &Value::Null, &apn, 200),
        (false, &Value::Null, &Value::Null, 422),
        (false, &gcm, &apn, 422),
        (true, &gcm, &Value::Null, 422),
        (true, &Value::Null, &apn, 422),
        (false, &json!({}), &Value::Null, 422),
        (false, &json!({ "gcmRegistrationId": "" }), &Value::Null, 422),
        (
            false,
            &json!({ "gcmRegistrationId": "x".repeat(4097) }),
            &Value::Null,
            422,
        ),
    ] {
        let person = Person::new();
        let mut body = person.registration(&verified_session(&server, &person.number).await);
        body["accountAttributes"]["fetchesMessages"] = json!(fetches);
        (body["gcmToken"], body["apnToken"]) = (gcm.clone(), apn.clone());
        ask(person.registering(&server).json(&body)).await.expect(status);
    }
    let alice = Person::register(&server).await;
    for (path, field) in [("gcm", "gcmRegistrationId"), ("apn", "apnRegistrationId")] {
        let path = format!("/v1/accounts/{path}/");
        let set = |body: Value| ask(alice.request(&server, "PUT", &path).json(&body));
        set(json!({ field: "a token" })).await.expect(204);
        for bad in [json!({}), json!({ field: "" }), json!({ field: "x".repeat(4097) })] {
            set(bad).await.expect(422);
        }
        ask(alice.request(&server, "DELETE", &path)).await.expect(204);
    }
}

#[tokio::test]
async fn strangers_learn_whether_an_account_exists_and_devices_are_told_to_ask_without_their_name() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let path = |id: &str| format!("/v1/accounts/account/{id}");
    let nobody = uuid::Uuid::from_bytes(random()).to_string();
    for (id, status) in [
        (bob.aci.clone(), 200),
        (format!("PNI:{}", bob.pni), 200),
        (nobody, 404),
        (bob.pni.clone(), 404),
        ("x".to_owned(), 404),
    ] {
        let answer = ask(server.request("HEAD", &path(&id))).await.expect(status);
        assert!(answer.body.is_empty());
        let mut socket = Socket::open(&server, None, &[]).await.unwrap();
        let answer = socket.ask("HEAD", &path(&id), &[], None).await.expect(status);
        assert!(answer.body.is_empty(), "{answer:?}");
    }
    ask(alice.request(&server, "HEAD", &path(&bob.aci))).await.expect(400);
    ask(server.request("GET", &path(&bob.aci))).await.expect(405);
    for body in [
        json!({ "discoverableByPhoneNumber": false }),
        json!({ "discoverableByPhoneNumber": true }),
    ] {
        ask(alice
            .request(&server, "PUT", "/v2/accounts/phone_number_discoverability")
            .json(&body))
        .await
        .expect(204);
    }
    ask(alice
        .request(&server, "PUT", "/v2/accounts/phone_number_discoverability")
        .json(&json!({})))
    .await
    .expect(422);
}

#[tokio::test]
async fn a_linked_device_that_stays_away_is_removed_and_one_that_asks_is_not() {
    let mut server = Server::spawn_with(Backend::Sqlite, &[("DEVICES__IDLE_GRACE_SECS", "0")]).await;
    let phone = Person::register(&server).await;
    let (idle, busy) = (phone.link(&server).await, phone.link(&server).await);
    server.kill();
    let url = format!("sqlite://{}", server.place().sqlite().display());
    let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
    // The primary as well: it stays however long it was away. The busy one was away for less.
    sqlx::query(AGE).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    let server = server.restart();
    until("the idle device to go", async || {
        ask(idle.request(&server, "GET", "/v1/accounts/whoami")).await.status == 401
    })
    .await;
    assert_eq!(devices_of(&server, &phone).await, [1, 3]);
    until("the days to be kept", async || {
        ask(busy.request(&server, "GET", "/v1/accounts/whoami"))
            .await
            .expect(200);
        let listed = ask(phone.request(&server, "GET", "/v1/devices"))
            .await
            .expect(200)
            .json();
        let seen = |index: usize| listed["devices"][index]["lastSeen"].as_i64().unwrap();
        seen(0) == seen(1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_linked_on_one_node_is_a_device_on_the_other() {
    let (Some(redis), Some(_)) = (RedisServer::spawn(), postgres_url()) else {
        return;
    };
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    let (alice, phone) = (Person::register(&one).await, Person::register(&one).await);
    let answer = ask(phone.request(&one, "GET", "/v1/devices/provisioning/code"))
        .await
        .expect(200)
        .json();
    let (code, identifier) = (
        answer["verificationCode"].as_str().unwrap(),
        answer["tokenIdentifier"].as_str().unwrap(),
    );
    let path = format!("/v1/devices/wait_for_linked_device/{identifier}?timeout=3600");
    let waiting = tokio::spawn(ask(phone.request(&one, "GET", &path)));
    // The other node knows the account with one device.
    send(&two, &alice, &phone, b"before").await.expect(200);
    let device = phone.new_device();
    let linked = ask(device.linking(&two, code)).await.expect(200).json();
    let laptop = device.linked(&linked);
    assert_eq!(waiting.await.unwrap().expect(200).json()["id"], 2);
    let mut socket = laptop.connect(&one).await;
    socket.expect_empty().await;
    let mut both = single(&phone, 1, b"x");
    both["messages"] = json!([message(&phone, 1, b"x"), message(&laptop, 1, b"for the laptop")]);
    ask(alice.request(&two, "PUT", &phone.inbox()).json(&both))
        .await
        .expect(200);
    assert_eq!(socket.content().await, &b"for the laptop"[..]);
    // Removed on the node where it is not connected.
    ask(phone.request(&two, "DELETE", "/v1/devices/2")).await.expect(204);
    assert_eq!(socket.close_code().await, Some(4401));
}

async fn devices_of(server: &Server, person: &Person) -> Vec<u64> {
    let listed = ask(person.request(server, "GET", "/v1/devices"))
        .await
        .expect(200)
        .json();
    let devices = listed["devices"].as_array().unwrap();
    devices.iter().map(|device| device["id"].as_u64().unwrap()).collect()
}

const AGE: &str = "UPDATE devices SET last_seen = last_seen - CASE device_id WHEN 3 THEN 44 ELSE 46 END";
