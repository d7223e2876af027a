//! 10.3 and what follows from it in 10.4: a second device, and the first message to both.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::json;

use super::client::{Client, Stack, plain, provisioning};
use super::fields::{DEVICE, DEVICE_LIMIT, DEVICES, LINK, MISMATCHED, PROFILE, PROVISIONING_CODE, SENT, check, json};
use super::sending::{check_bundles, send_body};
use crate::support::keys::base64;
use crate::support::person::basic;
use crate::support::{Answer, Backend, Person, Server, random};

/// The new device listens, the primary hands it what it needs, the new device joins.
pub(super) async fn a_second_device_joins_and_is_written_to(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);

    let mut listening = provisioning(&server).await;
    assert_eq!(listening.ask("GET", "/v1/keepalive/provisioning").await, 200);
    let code = plain(&server, "GET /v1/devices/provisioning/code", &bob.authorization(), None).await;
    let code = json(&code, 200, PROVISIONING_CODE)["verificationCode"]
        .as_str()
        .unwrap()
        .to_owned();
    let envelope: [u8; 300] = random();
    let line = format!("PUT /v1/provisioning/{}", listening.address);
    assert!(line.ends_with("=="), "the address goes into the path as it is: {line}");
    let body = format!(r#"{{"body":"{}"}}"#, base64(&envelope));
    let authorization = bob.authorization();
    let sending = plain(&server, &line, &authorization, Some(&body));
    let receiving = async {
        let (id, received) = listening.message().await;
        listening.answer(id).await;
        received
    };
    let (answer, received) = tokio::join!(Box::pin(sending), Box::pin(receiving));
    assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    assert_eq!(received, &envelope[..]);

    // Its user name is the number; nothing but the password is taken from it.
    let tablet = bob.new_device();
    let answer = link(&server, &tablet, &code).await;
    let linked = json(&answer, 200, LINK);
    assert_eq!(linked["deviceId"], 2);
    let tablet = tablet.linked(&linked);
    // A code is good once.
    assert_eq!(link(&server, &bob.new_device(), &code).await.status, 403);

    let mut device = Client::open(&server, Stack::Service, Some(&tablet.authorization())).await;
    let devices = json(&device.ask("GET", "/v1/devices").await, 200, DEVICES);
    let list = devices["devices"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    for (device, person) in list.iter().zip([&bob, &tablet]) {
        check(device, DEVICE);
        assert_eq!(device["id"], person.device_id);
        assert_eq!(device["registrationId"], person.registration_id);
        // That it opens, which clients insist on, is shown in `keys-schema/src/created_at.rs`.
        let sealed = STANDARD_NO_PAD
            .decode(device["createdAtCiphertext"].as_str().unwrap())
            .unwrap();
        assert_eq!((sealed.len(), sealed[0]), (57, 1));
    }

    let mut sender = Client::open(&server, Stack::Service, Some(&alice.authorization())).await;
    first_message(&mut sender, &bob, &tablet).await;
    assert_eq!(bob.connect(&server).await.drain().await.len(), 1);
    assert_eq!(tablet.connect(&server).await.drain().await.len(), 1);

    // What either of the two sends is to be told to the other.
    let body = send_body(Stack::Service, &alice.aci, &[(1, alice.registration_id)], 3, b"reply");
    let path = format!("/v1/messages/{}", alice.aci);
    let mut device = Client::open(&server, Stack::Service, Some(&tablet.authorization())).await;
    let answer = device.ask_json("PUT", &path, &body).await;
    assert_eq!(json(&answer, 200, SENT)["needsSync"], true);
    // The other one, and not itself.
    let own = format!("/v1/messages/{}", bob.aci);
    let body = send_body(Stack::Service, &bob.aci, &[(1, bob.registration_id)], 1, b"sync");
    let answer = device.ask_json("PUT", &own, &body).await;
    assert_eq!(json(&answer, 200, SENT)["needsSync"], false);

    // The primary sends it away, and whoever still has a session with it is told.
    let mut primary = Client::open(&server, Stack::Service, Some(&bob.authorization())).await;
    let answer = primary.ask("DELETE", "/v1/devices/2").await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(device.socket.close_code().await, Some(4401));
    let both = [(1, bob.registration_id), (2, tablet.registration_id)];
    let body = send_body(Stack::Service, &bob.aci, &both, 1, b"to both");
    let answer = json(&sender.ask_json("PUT", &own, &body).await, 409, MISMATCHED);
    assert_eq!(answer, json!({ "missingDevices": [], "extraDevices": [2] }));

    let answer = sender.ask("GET", &format!("/v1/profile/{}", bob.aci)).await;
    json(&answer, 200, PROFILE);
}

/// A full account says how full it is.
pub(super) async fn a_full_account_says_how_many_devices_it_may_have(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    for _ in 0..5 {
        bob.link(&server).await;
    }
    let answer = plain(&server, "GET /v1/devices/provisioning/code", &bob.authorization(), None).await;
    let limit = json(&answer, 411, DEVICE_LIMIT);
    assert_eq!(limit, json!({ "current": 6, "max": 6 }));
}

async fn link(server: &Server, device: &Person, code: &str) -> Answer {
    let attributes = format!(
        r#"{{"fetchesMessages":true,"registrationId":{},"pniRegistrationId":{},"name":"{}","capabilities":{{"deleteSync":true,"versionedExpirationTimer":true,"ssre2":true,"spqr":true}}}}"#,
        device.registration_id,
        device.pni_registration_id,
        base64(&device.device_name)
    );
    let body = format!(
        r#"{{"verificationCode":"{code}","accountAttributes":{attributes},"aciSignedPreKey":{},"pniSignedPreKey":{},"aciPqLastResortPreKey":{},"pniPqLastResortPreKey":{}}}"#,
        device.aci_signed, device.pni_signed, device.aci_last_resort, device.pni_last_resort
    );
    let credentials = basic(&device.number, &device.password);
    plain(server, "PUT /v1/devices/link", &credentials, Some(&body)).await
}

/// 10.4: all bundles, a message to the first device only, the bundle of the one that was missing, a message to both.
async fn first_message(sender: &mut Client, bob: &Person, tablet: &Person) {
    let bundles = sender.ask("GET", &format!("/v2/keys/{}/*", bob.aci)).await;
    check_bundles(&bundles.json(), &bob.aci_identity.base64(), &[1, 2]);
    let path = format!("/v1/messages/{}", bob.aci);
    let one = send_body(Stack::Service, &bob.aci, &[(1, bob.registration_id)], 3, b"first");
    let answer = json(&sender.ask_json("PUT", &path, &one).await, 409, MISMATCHED);
    assert_eq!(answer, json!({ "missingDevices": [2], "extraDevices": [] }));
    let bundles = sender.ask("GET", &format!("/v2/keys/{}/2", bob.aci)).await;
    check_bundles(&bundles.json(), &bob.aci_identity.base64(), &[2]);
    let devices = [(1, bob.registration_id), (2, tablet.registration_id)];
    let both = send_body(Stack::Service, &bob.aci, &devices, 3, b"first");
    let answer = sender.ask_json("PUT", &path, &both).await;
    assert_eq!(json(&answer, 200, SENT)["needsSync"], false);
}
