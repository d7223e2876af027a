//! `PUT /v1/messages/{destination}`: what is accepted, what is refused, and what the recipient then gets.

use serde_json::{Value, json};

use crate::support::ciphertext::{ciphertext, marker_for};
use crate::support::keys::base64;
use crate::support::person::message;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, random, send, single};

on_each_backend! {
    wrong_devices_are_named_and_nothing_is_stored
    a_full_queue_refuses_with_429_and_stores_nothing
    a_send_arrives_with_every_field_in_both_forms
}

async fn wrong_devices_are_named_and_nothing_is_stored(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let to = |device: u8, registration: u16| json!({ "type": 1, "destinationDeviceId": device, "destinationRegistrationId": registration, "content": base64(&ciphertext(b"x")) });
    let (right, old) = (bob.registration_id, bob.registration_id % 16_000 + 1);

    let extra = put(&server, &alice, &bob, vec![to(1, right), to(2, 5)])
        .await
        .expect(409)
        .json();
    assert_eq!(extra, json!({ "missingDevices": [], "extraDevices": [2] }));
    let missing = put(&server, &alice, &bob, vec![to(3, 5)]).await.expect(409).json();
    assert_eq!(missing, json!({ "missingDevices": [1], "extraDevices": [3] }));
    let stale = put(&server, &alice, &bob, vec![to(1, old)]).await.expect(410).json();
    assert_eq!(stale, json!({ "staleDevices": [1] }));
    // With both wrong, the sessions come first.
    let both = put(&server, &alice, &bob, vec![to(1, old), to(2, 5)])
        .await
        .expect(410)
        .json();
    assert_eq!(both, json!({ "staleDevices": [1] }));
    // The devices are looked at before the size.
    let large = base64(&ciphertext(&marker_for(1, 96 * 1024 + 1)));
    let large = |registration: u16| json!({ "type": 1, "destinationDeviceId": 1, "destinationRegistrationId": registration, "content": large });
    put(&server, &alice, &bob, vec![large(old)]).await.expect(410);
    assert_eq!(
        put(&server, &alice, &bob, vec![large(right)]).await.expect(413).code(),
        "content_too_large"
    );
    assert_eq!(bob.fetch(&server).await["messages"], json!([]));

    let largest = marker_for(1, 96 * 1024);
    send(&server, &alice, &bob, &largest).await.expect(200);
    assert_eq!(
        bob.fetch(&server).await["messages"][0]["content"],
        base64(&ciphertext(&largest))
    );
}

async fn a_full_queue_refuses_with_429_and_stores_nothing(backend: Backend) {
    let server = Server::spawn_with(
        backend,
        &[("QUEUE__MAX_ENVELOPES", "3"), ("QUEUE__SENDER_SHARE_PERCENT", "100")],
    )
    .await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for content in [b"1", b"2", b"3"] {
        send(&server, &alice, &bob, content).await.expect(200);
    }
    let refused = send(&server, &alice, &bob, b"4").await.expect(429);
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(refused.code(), "queue_full");
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await, [&b"1"[..], b"2", b"3"]);
    socket.keepalive().await;
    send(&server, &alice, &bob, b"5").await.expect(200);
    assert_eq!(socket.content().await, &b"5"[..]);
}

async fn a_send_arrives_with_every_field_in_both_forms(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;

    let content = random::<80>();
    let answer = send(&server, &alice, &bob, &content).await.expect(200);
    assert_eq!(answer.json(), json!({ "needsSync": false }));
    let (_, envelope) = socket.envelope().await;
    assert_eq!(
        (envelope.r#type, envelope.timestamp),
        (Some(1), Some(1_700_000_000_123))
    );
    assert_eq!(envelope.source_service_id.as_deref(), Some(alice.aci.as_str()));
    assert_eq!(
        envelope.source_service_id_binary.as_deref(),
        Some(&uuid(&alice.aci)[..])
    );
    assert_eq!(envelope.source_device, Some(1));
    assert_eq!(envelope.destination_service_id.as_deref(), Some(bob.aci.as_str()));
    assert_eq!(
        envelope.destination_service_id_binary.as_deref(),
        Some(&uuid(&bob.aci)[..])
    );
    assert_eq!(envelope.content.as_deref(), Some(&ciphertext(&content)[..]));
    let guid = envelope.server_guid.unwrap();
    assert_eq!(envelope.server_guid_binary.as_deref(), Some(&uuid(&guid)[..]));
    assert_eq!(
        (envelope.urgent, envelope.story, envelope.ephemeral),
        (Some(true), None, None)
    );
    assert!(envelope.server_timestamp.unwrap() > 1_700_000_000_123);

    // To the PNI: its own registration id, its own name, with and without an escaped colon.
    for path in [
        format!("/v1/messages/PNI:{}", bob.pni),
        format!("/v1/messages/PNI%3A{}", bob.pni),
    ] {
        let mut body = single(&bob, 3, b"to the number");
        body["messages"][0]["destinationRegistrationId"] = bob.pni_registration_id.into();
        ask(alice.request(&server, "PUT", &path).json(&body)).await.expect(200);
        let (_, envelope) = socket.envelope().await;
        let pni = format!("PNI:{}", bob.pni);
        assert_eq!(envelope.destination_service_id, Some(pni));
        let binary = envelope.destination_service_id_binary.unwrap();
        assert_eq!((binary[0], &binary[1..]), (1, &uuid(&bob.pni)[..]));
        assert_eq!(envelope.source_service_id.as_deref(), Some(alice.aci.as_str()));
        assert_eq!(envelope.r#type, Some(3));
    }
}

#[tokio::test]
async fn each_type_has_its_rule() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for (kind, status) in [
        (0, 200),
        (1, 200),
        (3, 200),
        (6, 200),
        (8, 200),
        (2, 422),
        (5, 422),
        (7, 422),
        (99, 422),
    ] {
        put(&server, &alice, &bob, vec![message(&bob, kind, b"c")])
            .await
            .expect(status);
    }
    let fetched = bob.fetch(&server).await;
    let sources: Vec<_> = fetched["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m.get("sourceUuid").is_some())
        .collect();
    // The sender of type 6 is sealed inside, even when the server knows it.
    assert_eq!(sources, [true, true, true, false, true]);
    // Without credentials a client can make sense of nothing but a sealed sender.
    for kind in [0, 1, 3, 8] {
        let status = ask(sealed(&server, &bob).json(&single(&bob, kind, b"c"))).await.status;
        assert!(kind == 0 || status == 422, "type {kind}: {status}");
    }
}

#[tokio::test]
async fn b4_a_sealed_send_needs_the_access_key_and_has_no_source() {
    let server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    let body = single(&bob, 6, b"sealed");
    let answer = ask(sealed(&server, &bob).json(&body)).await.expect(200);
    assert_eq!(answer.json(), json!({ "needsSync": false }));
    let mut socket = bob.connect(&server).await;
    let (_, envelope) = socket.envelope().await;
    assert_eq!(
        (envelope.source_service_id, envelope.source_service_id_binary),
        (None, None)
    );
    assert_eq!((envelope.source_device, envelope.r#type), (None, Some(6)));

    let anonymous = || server.request("PUT", &bob.inbox()).json(&body);
    ask(anonymous()).await.expect(401);
    let with_key = |key: &str| anonymous().header("Unidentified-Access-Key", key);
    for key in [
        base64(&[0; 16]),
        base64(&bob.access_key[..15]),
        "not base64".to_owned(),
        String::new(),
    ] {
        ask(with_key(&key)).await.expect(401);
    }
    // A PNI is reached by no key, and an unknown account looks like a wrong key (B9).
    let wrong = ask(with_key(&base64(&[0; 16]))).await.looks();
    for id in [format!("PNI:{}", bob.pni), uuid_text(random())] {
        let request = server.request("PUT", &format!("/v1/messages/{id}")).json(&body);
        let answer = ask(request.header("Unidentified-Access-Key", bob.access_key_header())).await;
        assert_eq!(answer.looks(), wrong);
    }
}

#[tokio::test]
async fn two_authorizations_are_refused_and_a_group_token_alone_is_unknown() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let body = single(&bob, 6, b"c");
    let with_basic = alice
        .request(&server, "PUT", &bob.inbox())
        .header("Group-Send-Token", "AAAA")
        .json(&body);
    assert_eq!(ask(with_basic).await.expect(400).code(), "two_authorizations");
    ask(sealed(&server, &bob).header("Group-Send-Token", "AAAA").json(&body))
        .await
        .expect(400);
    // Clients fall back to one send per recipient when a token is refused like this.
    ask(server
        .request("PUT", &bob.inbox())
        .header("Group-Send-Token", "AAAA")
        .json(&body))
    .await
    .expect(401);
    assert_eq!(bob.fetch(&server).await["messages"], json!([]));
}

#[tokio::test]
async fn sends_to_oneself_go_to_the_aci() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let own_pni = format!("/v1/messages/PNI:{}", alice.pni);
    let answer = ask(alice.request(&server, "PUT", &own_pni).json(&single(&alice, 1, b"c"))).await;
    assert_eq!(answer.expect(403).code(), "own_pni");
    // A sync message is for the other devices, and there are none: the sending device is an extra one only if named
    // with a wrong registration, and gets no copy it must have.
    let mut elsewhere = single(&alice, 1, b"c");
    elsewhere["messages"][0]["destinationDeviceId"] = 2.into();
    let answer = ask(alice.request(&server, "PUT", &alice.inbox()).json(&elsewhere))
        .await
        .expect(409);
    assert_eq!(answer.json(), json!({ "missingDevices": [], "extraDevices": [2] }));
}

#[tokio::test]
async fn unknown_recipients_are_404_to_devices() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let body = single(&alice, 1, b"c");
    for id in [
        uuid_text(random()),
        format!("PNI:{}", uuid_text(random())),
        "nonsense".to_owned(),
        "PNI:".to_owned(),
    ] {
        ask(alice.request(&server, "PUT", &format!("/v1/messages/{id}")).json(&body))
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn t44_a_story_is_accepted_for_whatever_account() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let body = single(&bob, 6, b"story");
    let known = ask(server
        .request("PUT", &format!("{}?story=true", bob.inbox()))
        .json(&body))
    .await
    .expect(200);
    let unknown = format!("/v1/messages/{}?story=true", uuid_text(random()));
    let unknown = ask(server.request("PUT", &unknown).json(&body)).await.expect(200);
    assert_eq!(known.looks(), unknown.looks());
    assert_eq!(unknown.json(), json!({ "needsSync": false }));
    // Also with credentials no source is set.
    ask(alice
        .request(&server, "PUT", &format!("{}?story=true", bob.inbox()))
        .json(&body))
    .await
    .expect(200);
    let fetched = bob.fetch(&server).await;
    for message in fetched["messages"].as_array().unwrap() {
        assert_eq!(message["story"], true);
        assert!(message.get("sourceUuid").is_none() && message.get("sourceDevice").is_none());
    }
    // The devices are still checked.
    let mut wrong = body.clone();
    wrong["messages"][0]["destinationDeviceId"] = 9.into();
    ask(server
        .request("PUT", &format!("{}?story=true", bob.inbox()))
        .json(&wrong))
    .await
    .expect(409);
}

#[tokio::test]
async fn defaults_are_urgent_and_the_servers_time() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let messages = json!([message(&bob, 1, b"c")]);
    for body in [
        json!({ "messages": messages }),
        json!({ "messages": messages, "timestamp": 0, "urgent": null, "online": null }),
        json!({ "messages": messages, "urgent": false, "timestamp": 8_640_000_000_000_000_u64, "destination": 7, "new": {} }),
    ] {
        ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
            .await
            .expect(200);
    }
    let fetched = bob.fetch(&server).await;
    for at in 0..2 {
        let message = &fetched["messages"][at];
        assert_eq!(
            (&message["urgent"], &message["timestamp"]),
            (&json!(true), &message["serverTimestamp"])
        );
    }
    let last = &fetched["messages"][2];
    assert_eq!(
        (&last["urgent"], &last["timestamp"]),
        (&json!(false), &json!(8_640_000_000_000_000_u64))
    );
    for timestamp in [json!(-1), json!(8_640_000_000_000_001_u64)] {
        let body = json!({ "messages": messages, "timestamp": timestamp });
        ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
            .await
            .expect(422);
    }
}

#[tokio::test]
async fn t25_t62_malformed_sends_are_refused_and_store_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let raw = |body: String| {
        let request = alice
            .request(&server, "PUT", &bob.inbox())
            .header("content-type", "application/json");
        ask(request.body(body))
    };
    for body in [String::new(), "{".to_owned(), "NaN".to_owned(), "\u{0}".to_owned()] {
        raw(body).await.expect(400);
    }
    // Which of the two depends on what is noticed first; it takes no stack either way.
    let brackets = raw("[".repeat(10_000)).await.status;
    assert!(brackets == 400 || brackets == 422, "{brackets}");
    let deep = format!("{{\"messages\":[],\"x\":{}", "[".repeat(10_000));
    raw(deep).await.expect(400);
    let good = message(&bob, 1, b"c").to_string();
    let with = |extra: &str| format!("{{\"messages\":[{good}],{extra}}}");
    for extra in ["\"timestamp\":1e400", "\"timestamp\":NaN", "\"online\":Infinity"] {
        raw(with(extra)).await.expect(400);
    }
    for extra in [
        "\"timestamp\":1e300",
        "\"timestamp\":1.5",
        "\"online\":1",
        "\"urgent\":\"yes\"",
    ] {
        raw(with(extra)).await.expect(422);
    }
    let twice = raw(with("\"online\":false,\"online\":true")).await.status;
    assert!(twice == 400 || twice == 422, "duplicate keys: {twice}");
    for messages in ["null", "[]", "{}", "[null]", "[{}]", "\"x\""] {
        raw(format!("{{\"messages\":{messages}}}")).await.expect(422);
    }
    for (field, value) in [
        ("content", json!("")),
        ("content", json!("not base64!")),
        ("content", json!(null)),
        ("destinationDeviceId", json!(0)),
        ("destinationDeviceId", json!(128)),
        ("destinationDeviceId", json!(-1)),
        ("destinationRegistrationId", json!(-1)),
        ("destinationRegistrationId", json!(4_294_967_296_u64)),
        ("type", json!("1")),
    ] {
        let mut one = message(&bob, 1, b"c");
        one[field] = value;
        put(&server, &alice, &bob, vec![one]).await.expect(422);
    }
    let one = message(&bob, 1, b"c");
    assert_eq!(
        put(&server, &alice, &bob, vec![one.clone(), one])
            .await
            .expect(422)
            .code(),
        "duplicate_device"
    );
    let fields: String = (0..20_000).map(|n| format!("\"f{n}\":{n},")).collect();
    raw(format!("{{{fields}\"messages\":[{good}]}}")).await.expect(200);
    let huge = raw(format!("{{\"messages\":[],\"x\":\"{}\"}}", "x".repeat(1024 * 1024)))
        .await
        .expect(413);
    assert_eq!(huge.code(), "body_too_large");
    assert_eq!(bob.fetch(&server).await["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_send_goes_through_a_socket_as_well() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = alice.connect(&server).await;
    let body = single(&bob, 1, b"c");
    let headers = ["content-type:application/json"];
    let answer = socket.ask("PUT", &bob.inbox(), &headers, Some(&body)).await.expect(200);
    assert_eq!(answer.json(), json!({ "needsSync": false }));
    assert!(answer.header("x-signal-timestamp").is_some());
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    let key = format!("Unidentified-Access-Key:{}", bob.access_key_header());
    let body = single(&bob, 6, b"d");
    anonymous
        .ask("PUT", &bob.inbox(), &[headers[0], &key], Some(&body))
        .await
        .expect(200);
    assert_eq!(bob.fetch(&server).await["messages"].as_array().unwrap().len(), 2);
}

async fn put(server: &Server, from: &Person, to: &Person, messages: Vec<Value>) -> Answer {
    ask(from
        .request(server, "PUT", &to.inbox())
        .json(&json!({ "messages": messages })))
    .await
}

fn sealed(server: &Server, to: &Person) -> reqwest::RequestBuilder {
    server
        .request("PUT", &to.inbox())
        .header("Unidentified-Access-Key", to.access_key_header())
}

fn uuid(text: &str) -> [u8; 16] {
    uuid::Uuid::parse_str(text).unwrap().into_bytes()
}

fn uuid_text(bytes: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(bytes).to_string()
}
