//! 10.2: the first connection of a device, and its prekeys.

use serde_json::Value;

use super::client::{Client, Stack, frame_bytes};
use super::fields::{KEY_COUNT, json, nothing};
use crate::support::keys::{Identity, digest, one_time_keys, signed_ec};
use crate::support::person::basic;
use crate::support::{Backend, Event, Person, Server};

/// Counts, check, upload in one frame, for both namespaces; and nothing to upload at the next start.
pub(super) async fn a_first_connection_publishes_prekeys_of_both_namespaces(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut person = Person::register(&server).await;
    let authorization = basic(&person.aci, &person.password);
    let mut device = Client::upgraded(&server, Stack::Service, Some(&authorization), Some(false)).await;
    // The server pushes without being asked: here, that there is nothing.
    assert!(matches!(device.socket.next().await, Event::Empty));
    device.keepalive().await;

    let attributes = format!(
        r#"{{"signalingKey":null,"registrationId":{},"pniRegistrationId":{},"voice":false,"video":false,"fetchesMessages":true,"pin":null,"registrationLock":null,"unidentifiedAccessKey":"{}","unrestrictedUnidentifiedAccess":false,"discoverableByPhoneNumber":true,"capabilities":{{"storage":false,"transfer":false,"attachmentBackfill":false,"spqr":true}},"name":null}}"#,
        person.registration_id,
        person.pni_registration_id,
        person.access_key_header(),
    );
    let answer = device.ask_json("PUT", "/v1/accounts/attributes", &attributes).await;
    nothing(&answer, 204);

    for identity in ["ACI", "PNI"] {
        let (key, signed, last_resort) = if identity == "ACI" {
            (&person.aci_identity, &person.aci_signed, &person.aci_last_resort)
        } else {
            (&person.pni_identity, &person.pni_signed, &person.pni_last_resort)
        };
        let path = format!("/v2/keys?identity={identity}");
        let count = json(&device.ask("GET", &path).await, 200, KEY_COUNT);
        assert_eq!((&count["count"], &count["pqCount"]), (&0.into(), &0.into()));
        nothing(
            &check(&mut device, identity, &digest(key, signed, last_resort)).await,
            200,
        );

        // A new signed key comes with each upload; the last-resort key under its other name.
        let signed = signed_ec(key, 77);
        let body = upload(key, &signed, last_resort);
        let bytes = frame_bytes("PUT", &path, &body);
        assert!((230_000..256 * 1024).contains(&bytes), "{bytes}");
        nothing(&device.ask_json("PUT", &path, &body).await, 204);
        let count = json(&device.ask("GET", &path).await, 200, KEY_COUNT);
        assert_eq!((&count["count"], &count["pqCount"]), (&100.into(), &100.into()));

        // With its own digest the client is content, with the earlier one it would upload again.
        let now = digest(key, &signed, last_resort);
        nothing(&check(&mut device, identity, &now).await, 200);
        let before = digest(key, &person.aci_signed, last_resort);
        nothing(&check(&mut device, identity, &before).await, 409);
        if identity == "ACI" {
            person.aci_signed = signed;
        } else {
            person.pni_signed = signed;
        }
    }

    let mut again = Client::open(&server, Stack::Service, Some(&authorization)).await;
    for (identity, key, signed, last_resort) in [
        ("ACI", &person.aci_identity, &person.aci_signed, &person.aci_last_resort),
        ("PNI", &person.pni_identity, &person.pni_signed, &person.pni_last_resort),
    ] {
        let count = json(
            &again.ask("GET", &format!("/v2/keys?identity={identity}")).await,
            200,
            KEY_COUNT,
        );
        assert!(count["count"].as_u64().unwrap() >= 10 && count["pqCount"].as_u64().unwrap() >= 10);
        nothing(
            &check(&mut again, identity, &digest(key, signed, last_resort)).await,
            200,
        );
    }
}

async fn check(device: &mut Client, identity: &str, digest: &str) -> crate::support::Answer {
    let body = format!(r#"{{"identityType":"{identity}","digest":"{digest}"}}"#);
    device.ask_json("POST", "/v2/keys/check", &body).await
}

fn upload(identity: &Identity, signed: &Value, last_resort: &Value) -> String {
    let keys = one_time_keys(identity, 1, 100);
    format!(
        r#"{{"preKeys":{},"signedPreKey":{signed},"identityKey":"{}","pqPreKeys":{},"pqLastResortKey":{last_resort}}}"#,
        keys["preKeys"],
        identity.base64(),
        keys["pqPreKeys"]
    )
}
