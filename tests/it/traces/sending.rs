//! 10.4 and 10.5: first messages, unsealed and sealed.

use serde_json::Value;

use super::client::{Client, Stack};
use super::fields::{BUNDLE, BUNDLES, CERTIFICATE, MISMATCHED, MULTI_RECIPIENT, SENT, SIGNED_KEY, STALE, check, json};
use crate::support::fan_out::{self, Entry};
use crate::support::keys::{base64, kyber, one_time};
use crate::support::person::basic;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, framed, random};

/// To an account with one device: keys, then the message.
pub(super) async fn a_first_message_takes_a_bundle_and_is_delivered(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    bob.upload_keys(&server, 1, 1).await;
    for (stack, user) in [
        (Stack::Service, alice.aci.clone()),
        (Stack::Official, format!("{}.1", alice.aci)),
    ] {
        let mut device = Client::open(&server, stack, Some(&basic(&user, &alice.password))).await;
        // The asterisk is written as it is.
        let bundles = json(
            &device.ask("GET", &format!("/v2/keys/{}/*", bob.aci)).await,
            200,
            BUNDLES,
        );
        check_bundles(&bundles, &bob.aci_identity.base64(), &[1]);
        // One of the stacks came when the one-time keys were gone: absent, never an empty object.
        let one_time = bundles["devices"][0].get("preKey");
        assert_eq!(one_time.is_some(), stack == Stack::Service, "{bundles}");
        let body = send_body(stack, &bob.aci, &[(1, bob.registration_id)], 3, b"first");
        let answer = device
            .ask_json("PUT", &format!("/v1/messages/{}", bob.aci), &body)
            .await;
        assert_eq!(json(&answer, 200, SENT)["needsSync"], false);
        // As the prefix is written: with a raw colon.
        let pni = format!("PNI:{}", bob.pni);
        let bundles = json(&device.ask("GET", &format!("/v2/keys/{pni}/1")).await, 200, BUNDLES);
        check_bundles(&bundles, &bob.pni_identity.base64(), &[1]);
        assert_eq!(bundles["devices"][0]["registrationId"], bob.pni_registration_id);
        let body = send_body(stack, &pni, &[(1, bob.pni_registration_id)], 3, b"to the number");
        let answer = device.ask_json("PUT", &format!("/v1/messages/{pni}"), &body).await;
        json(&answer, 200, SENT);
        // An old session, and devices that are not there.
        let stale = send_body(stack, &bob.aci, &[(1, bob.registration_id % 16_383 + 1)], 1, b"x");
        let path = format!("/v1/messages/{}", bob.aci);
        let answer = device.ask_json("PUT", &path, &stale).await;
        assert_eq!(json(&answer, 410, STALE)["staleDevices"], serde_json::json!([1]));
        let extra = send_body(stack, &bob.aci, &[(1, bob.registration_id), (2, 1)], 1, b"x");
        let answer = json(&device.ask_json("PUT", &path, &extra).await, 409, MISMATCHED);
        assert_eq!(answer["extraDevices"], serde_json::json!([2]));
        assert_eq!(answer["missingDevices"], serde_json::json!([]));
        // Nobody there.
        let nobody = uuid::Uuid::from_bytes(random());
        for (verb, path, body) in [
            ("GET", format!("/v2/keys/{nobody}/*"), None),
            ("PUT", format!("/v1/messages/{nobody}"), Some(body.as_str())),
        ] {
            let answer = match body {
                Some(body) => device.ask_json(verb, &path, body).await,
                None => device.ask(verb, &path).await,
            };
            assert_eq!(answer.status, 404, "{answer:?}");
        }
    }
    assert_eq!(bob.connect(&server).await.drain().await.len(), 4);
}

/// On a socket without credentials, with the access key; and what becomes of one that is not the right one.
pub(super) async fn a_sealed_message_goes_by_an_anonymous_socket_and_falls_back(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let path = format!("/v1/messages/{}", bob.aci);
    // What the sender seals beside its message.
    let mut device = Client::open(&server, Stack::Service, Some(&alice.authorization())).await;
    let answer = device.ask("GET", "/v1/certificate/delivery?includeE164=false").await;
    json(&answer, 200, CERTIFICATE);
    for (stack, header) in [
        (Stack::Service, "Unidentified-Access-Key"),
        (Stack::Official, "unidentified-access-key"),
    ] {
        let mut anonymous = Client::open(&server, stack, None).await;
        let body = send_body(stack, &bob.aci, &[(1, bob.registration_id)], 6, b"sealed");
        let key = bob.access_key_header();
        let answer = anonymous.ask_with("PUT", &path, &[(header, &key)], &body).await;
        assert_eq!(json(&answer, 200, SENT)["needsSync"], false);
        let wrong = base64(&[0; 16]);
        let answer = anonymous.ask_with("PUT", &path, &[(header, &wrong)], &body).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        // The same message, unsealed, on the socket that names its sender.
        let mut device = Client::open(&server, stack, Some(&alice.authorization())).await;
        let body = send_body(stack, &bob.aci, &[(1, bob.registration_id)], 3, b"not sealed");
        let answer = device.ask_json("PUT", &path, &body).await;
        json(&answer, 200, SENT);
    }
    let mut socket = bob.connect(&server).await;
    for sealed in [true, false, true, false] {
        let (id, envelope) = socket.envelope().await;
        assert_eq!(envelope.r#type, Some(if sealed { 6 } else { 3 }));
        assert_eq!(envelope.source_service_id.is_some(), !sealed);
        assert_eq!(envelope.source_device.is_some(), !sealed);
        socket.answer(id, 200).await;
    }
    socket.expect_empty().await;
}

/// The official library takes keys with the access key as well.
pub(super) async fn the_official_library_takes_keys_with_the_access_key(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let more = serde_json::json!({
        "preKeys": [one_time(9)], "pqPreKeys": [kyber(&bob.aci_identity, 10)],
    });
    ask(bob.request(&server, "PUT", "/v2/keys").json(&more))
        .await
        .expect(204);
    let mut anonymous = Client::open(&server, Stack::Official, None).await;
    let key = bob.access_key_header();
    for (device, oneself) in [("*", true), ("1", false)] {
        let path = format!("/v2/keys/{}/{device}", bob.aci);
        let answer = with_key(&mut anonymous, &path, &key).await;
        let bundles = json(&answer, 200, BUNDLES);
        check_bundles(&bundles, &bob.aci_identity.base64(), &[1]);
        let first = &bundles["devices"][0];
        assert_eq!(first.get("preKey").is_some(), oneself, "{bundles}");
        // Without one-time keys the last-resort key takes their place.
        let kyber = if oneself {
            10.into()
        } else {
            bob.aci_last_resort["keyId"].clone()
        };
        assert_eq!(first["pqPreKey"]["keyId"], kyber);
    }
    for (path, key) in [
        (format!("/v2/keys/{}/*", bob.aci), base64(&[0; 16])),
        (format!("/v2/keys/PNI:{}/*", bob.pni), key.clone()),
        (format!("/v2/keys/{}/2", bob.aci), key),
    ] {
        assert_eq!(with_key(&mut anonymous, &path, &key).await.status, 401, "{path}");
    }
}

/// To many at once, as the official library sends stories and messages to groups.
pub(super) async fn the_official_library_sends_to_many_at_once(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (bob, carol) = (Person::register(&server).await, Person::register(&server).await);
    let message = fan_out::message(&[Entry::of(&bob), Entry::of(&carol)], &random::<64>());
    let mut anonymous = Client::open(&server, Stack::Official, None).await;
    let content_type = ("content-type", "application/vnd.signal-messenger.mrm");
    let path = "/v1/messages/multi_recipient?ts=1700000000123&online=false&urgent=true";
    let story = format!("{path}&story=true");
    let answer = anonymous.ask_bytes("PUT", &story, &[content_type], &message).await;
    assert_eq!(json(&answer, 200, MULTI_RECIPIENT)["uuids404"], serde_json::json!([]));
    // A token that cannot be verified here: the library goes on with one send for each recipient.
    let token = ("group-send-token", "AAAA");
    let answer = anonymous.ask_bytes("PUT", path, &[content_type, token], &message).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    for person in [&bob, &carol] {
        let wants = [("x-signal-receive-stories", "true")];
        let mut socket = Socket::open(&server, Some(&person.authorization()), &wants)
            .await
            .unwrap();
        assert_eq!(socket.drain().await.len(), 1);
    }
}

async fn with_key(client: &mut Client, path: &str, key: &str) -> Answer {
    client.ask_bare("GET", path, &[("unidentified-access-key", key)]).await
}

/// Fails unless the bundles are of these devices, and whole.
#[track_caller]
pub(super) fn check_bundles(bundles: &Value, identity: &str, devices: &[u64]) {
    assert_eq!(bundles["identityKey"], identity);
    let list = bundles["devices"].as_array().unwrap();
    let ids: Vec<_> = list.iter().map(|device| device["deviceId"].as_u64().unwrap()).collect();
    assert_eq!(ids, devices);
    for device in list {
        check(device, BUNDLE);
        check(&device["signedPreKey"], SIGNED_KEY);
        check(&device["pqPreKey"], SIGNED_KEY);
        if let Some(key) = device.get("preKey") {
            check(key, &SIGNED_KEY[..2]);
        }
    }
}

/// A send as the stack writes it: one of them names the destination again and says nothing of urgency.
/// The content has this marker.
pub(super) fn send_body(stack: Stack, to: &str, devices: &[(u8, u16)], kind: u8, marker: &[u8]) -> String {
    let messages: Vec<String> = devices
        .iter()
        .map(|(device, registration)| {
            format!(
                r#"{{"type":{kind},"destinationDeviceId":{device},"destinationRegistrationId":{registration},"content":"{}"}}"#,
                base64(&framed(kind, marker))
            )
        })
        .collect();
    let messages = messages.join(",");
    match stack {
        Stack::Service => {
            format!(r#"{{"destination":"{to}","timestamp":1700000000123,"messages":[{messages}],"online":false}}"#)
        }
        Stack::Official => {
            format!(r#"{{"messages":[{messages}],"online":false,"urgent":true,"timestamp":1700000000123}}"#)
        }
    }
}
