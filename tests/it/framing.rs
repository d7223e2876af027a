//! The framing gate: what is sent has the outer form of a ciphertext of its declared type, or nothing of it is stored.

use keys_schema::framing::check;
use keys_schema::proto::envelope::Type;
use serde_json::{Value, json};

use crate::support::ciphertext::{framed, marker_for};
use crate::support::fan_out::{self, Entry, combined_key};
use crate::support::keys::base64;
use crate::support::person::message;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, random};

on_each_backend! {
    t25_bodies_of_no_byte_of_one_byte_and_of_one_too_many_are_refused_and_not_stored
    b6_t26_readable_bodies_are_refused_as_every_type_and_on_every_way_in
    t26_one_readable_copy_is_enough_to_store_none
    t26_a_message_to_many_is_framed_for_each_or_refused_for_all
}

/// The types that a client may send.
const TYPES: [u8; 5] = [0, 1, 3, 6, 8];

async fn t25_bodies_of_no_byte_of_one_byte_and_of_one_too_many_are_refused_and_not_stored(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for kind in TYPES {
        let refused = async |content: &[u8], status: u16| {
            let answer = put(&server, &alice, &bob, &raw(&bob, kind, content)).await;
            answer.expect(status).code()
        };
        assert_eq!(refused(&[], 422).await, "empty_content");
        // The first bytes of real ciphertexts, and others.
        for first in [0x00, 0x11, 0x22, 0x23, 0x33, 0x34, 0x44, 0xc0, 0xff] {
            assert_eq!(refused(&[first], 422).await, "not_ciphertext");
        }
        let too_large = framed(kind, &marker_for(kind, 96 * 1024 + 1));
        assert_eq!(refused(&too_large, 413).await, "content_too_large");
        nothing_waits(&server, &bob).await;
        let largest = framed(kind, &marker_for(kind, 96 * 1024));
        put(&server, &alice, &bob, &raw(&bob, kind, &largest)).await.expect(200);
        // One that tells nothing of what it is gets past nothing either.
        assert_eq!(refused(&largest[1..], 422).await, "not_ciphertext");
        let mut socket = bob.connect(&server).await;
        assert_eq!(socket.drain().await.len(), 1);
        socket.keepalive().await;
    }
}

async fn b6_t26_readable_bodies_are_refused_as_every_type_and_on_every_way_in(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut connected = alice.connect(&server).await;
    connected.expect_empty().await;
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    let access_key = format!("unidentified-access-key:{}", bob.access_key_header());
    let story = format!("{}?story=true", bob.inbox());
    for (what, content) in readable() {
        for kind in TYPES {
            let gate = |answer: Answer, way: &str| {
                let refusal = (answer.status, answer.code());
                assert_eq!(refusal, (422, "not_ciphertext".into()), "{what} as {kind}, {way}");
            };
            let body = raw(&bob, kind, &content);
            gate(put(&server, &alice, &bob, &body).await, "named");
            let mut online = body.clone();
            online["online"] = true.into();
            gate(put(&server, &alice, &bob, &online).await, "online only");
            let keyed = server
                .request("PUT", &bob.inbox())
                .header("unidentified-access-key", bob.access_key_header());
            gate(ask(keyed.json(&body)).await, "with the access key");
            gate(ask(server.request("PUT", &story).json(&body)).await, "to a story");
            let pni = alice.request(&server, "PUT", &format!("/v1/messages/PNI:{}", bob.pni));
            gate(ask(pni.json(&body)).await, "to the number");
            let json = "content-type:application/json";
            let through = connected.ask("PUT", &bob.inbox(), &[json], Some(&body)).await;
            gate(through, "through a socket");
            let headers = [json, access_key.as_str()];
            let through = anonymous.ask("PUT", &bob.inbox(), &headers, Some(&body)).await;
            gate(through, "through an anonymous socket");
        }
    }
    nothing_waits(&server, &bob).await;

    // What the official library writes passes, and arrives as it was.
    let vectors: Value = serde_json::from_str(include_str!("../../keys-schema/vectors/framing.json")).unwrap();
    for case in vectors["genuine"].as_array().unwrap() {
        let kind = u8::try_from(case["type"].as_u64().unwrap()).unwrap();
        let content = bytes(&case["bytes"]);
        put(&server, &alice, &bob, &raw(&bob, kind, &content)).await.expect(200);
        let fetched = bob.fetch(&server).await;
        assert_eq!(fetched["messages"][0]["content"], base64(&content), "{}", case["what"]);
        let guid = fetched["messages"][0]["guid"].as_str().unwrap();
        ask(bob.request(&server, "DELETE", &format!("/v1/messages/uuid/{guid}")))
            .await
            .expect(204);
    }
}

async fn t26_one_readable_copy_is_enough_to_store_none(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, phone) = (Person::register(&server).await, Person::register(&server).await);
    let laptop = phone.link(&server).await;
    let good = |device: &Person| message(device, 1, b"good");
    let bad = |device: &Person| {
        let mut message = message(device, 1, b"x");
        message["content"] = base64(b"I will be there at nine, by the clock.").into();
        message
    };
    for messages in [[good(&phone), bad(&laptop)], [bad(&phone), good(&laptop)]] {
        let body = json!({ "messages": messages });
        let refused = put(&server, &alice, &phone, &body).await.expect(422);
        assert_eq!(refused.code(), "not_ciphertext");
    }
    for device in [&phone, &laptop] {
        nothing_waits(&server, device).await;
    }
    let body = json!({ "messages": [good(&phone), good(&laptop)] });
    put(&server, &alice, &phone, &body).await.expect(200);
    for device in [&phone, &laptop] {
        assert_eq!(device.connect(&server).await.drain().await, [&b"good"[..]]);
    }
}

async fn t26_a_message_to_many_is_framed_for_each_or_refused_for_all(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (bob, carol) = (Person::register(&server).await, Person::register(&server).await);
    let send = async |entries: &[Entry], tail: &[u8]| {
        ask(server
            .request("PUT", "/v1/messages/multi_recipient")
            .header("content-type", fan_out::CONTENT_TYPE)
            .header("unidentified-access-key", combined_key([&bob, &carol]))
            .body(fan_out::message(entries, tail)))
        .await
    };
    let text = b"What stands here is for everybody's eyes, and encrypted for nobody.";
    let mut readable = [Entry::of(&bob), Entry::of(&carol)];
    readable[1].key_material.copy_from_slice(&text[..48]);
    let refused = send(&readable, text).await.expect(422);
    assert_eq!(refused.code(), "not_ciphertext");
    for person in [&bob, &carol] {
        nothing_waits(&server, person).await;
    }
    let tail = random::<64>();
    send(&[Entry::of(&bob), Entry::of(&carol)], &tail).await.expect(200);
    for person in [&bob, &carol] {
        let mut socket = person.connect(&server).await;
        let (_, envelope) = socket.envelope().await;
        assert_eq!(envelope.r#type(), Type::UnidentifiedSender);
        assert_eq!(check(envelope.r#type(), &envelope.content.unwrap()), Ok(()));
    }
}

/// What people write and attach, and what a client sends that forgot to encrypt.
fn readable() -> Vec<(&'static str, Vec<u8>)> {
    let text = "Meet me at the station at nine. ".repeat(8);
    let behind = |head: &[u8]| [head, &[0x5a; 300]].concat();
    vec![
        ("text", text.clone().into()),
        ("a quotation", format!("\"{text}\"").into()),
        ("Markdown", format!("# Plan\n{text}").into()),
        ("Russian", "# Встретимся на вокзале. ".repeat(8).into()),
        ("JSON", json!({ "to": "bob", "text": text }).to_string().into()),
        ("HTML", format!("<!doctype html><p>{text}</p>").into()),
        ("JPEG", behind(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01")),
        ("PNG", behind(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")),
        ("ZIP", behind(b"PK\x03\x04\x14\x00\x00\x00\x08\x00")),
        ("PDF", behind(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")),
        ("text behind a version byte", [b"\x44", text.as_bytes()].concat()),
        (
            "an unencrypted message of a person",
            behind(b"\x0a\x0d\x0a\x05hello\x38\x80\x01"),
        ),
        ("the same as a plea", [&b"\xc0\x0a\x07\x0a\x05hello\x80"[..]].concat()),
    ]
}

/// The body of a send of exactly these bytes.
fn raw(to: &Person, kind: u8, content: &[u8]) -> Value {
    let mut message = message(to, kind, b"x");
    message["content"] = base64(content).into();
    json!({ "messages": [message] })
}

async fn put(server: &Server, from: &Person, to: &Person, body: &Value) -> Answer {
    ask(from.request(server, "PUT", &to.inbox()).json(body)).await
}

async fn nothing_waits(server: &Server, person: &Person) {
    let waiting = person.fetch(server).await;
    assert!(waiting["messages"].as_array().unwrap().is_empty());
    person.connect(server).await.expect_empty().await;
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
