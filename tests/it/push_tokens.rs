//! Push tokens (T57): there is no push, so they are taken, judged by their form, and kept nowhere. Nobody's token can be
//! taken over by another account, and none of a removed device can be used again, because none is there.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use blind_relay::http::routes::ROUTES;
use serde_json::json;

use crate::support::attachments::files;
use crate::support::dump::Dump;
use crate::support::person::verified_session;
use crate::support::{Backend, Person, Server, ask, hex, on_each_backend, random, send};

on_each_backend! {
    t57_push_tokens_are_kept_nowhere_and_those_of_a_removed_device_neither
}

async fn t57_push_tokens_are_kept_nowhere_and_those_of_a_removed_device_neither(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "trace")]).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut tokens = Vec::new();
    let mut token = || {
        tokens.push(hex(&random::<32>()));
        tokens.last().unwrap().clone()
    };

    // At registration and at linking, one of each kind.
    let mut carol = Person::new();
    let session = verified_session(&server, &carol.number).await;
    let mut registration = carol.registration(&session);
    registration["accountAttributes"]["fetchesMessages"] = false.into();
    registration["gcmToken"] = json!({ "gcmRegistrationId": token() });
    let answer = ask(carol.registering(&server).json(&registration))
        .await
        .expect(200)
        .json();
    answer["uuid"].as_str().unwrap().clone_into(&mut carol.aci);
    let laptop = alice.new_device();
    let mut link = laptop.link_body(&alice.link_code(&server).await);
    link["accountAttributes"]["fetchesMessages"] = false.into();
    link["apnToken"] = json!({ "apnRegistrationId": token() });
    let request = server.request("PUT", "/v1/devices/link");
    let request = request.basic_auth(&alice.number, Some(&laptop.password));
    let laptop = laptop.linked(&ask(request.json(&link)).await.expect(200).json());

    // Later, at both devices; then another account gives the very same, and is answered as they were.
    for device in [&alice, &laptop] {
        for (path, field) in [("gcm", "gcmRegistrationId"), ("apn", "apnRegistrationId")] {
            let body = json!({ field: token() });
            let path = format!("/v1/accounts/{path}");
            let first = ask(device.request(&server, "PUT", &path).json(&body)).await.expect(204);
            let same = ask(bob.request(&server, "PUT", &path).json(&body)).await.expect(204);
            assert_eq!(first.looks(), same.looks());
        }
    }
    // What happens to the devices afterwards needs none of them.
    for to in [&alice, &carol] {
        send(&server, &bob, to, b"a message").await;
    }
    expect_nowhere(&server, &alice, &tokens).await;
    let dump = Dump::of(&server).await;
    for (path, field) in [("gcm", "gcmRegistrationId"), ("apn", "apnRegistrationId")] {
        let body = json!({ field: hex(&random::<32>()) });
        let path = format!("/v1/accounts/{path}");
        ask(laptop.request(&server, "PUT", &path).json(&body)).await.expect(204);
        ask(laptop.request(&server, "DELETE", &path)).await.expect(204);
    }
    assert_eq!(Dump::of(&server).await, dump, "no row tells that there was one");

    let path = format!("/v1/devices/{}", laptop.device_id);
    ask(alice.request(&server, "DELETE", &path)).await.expect(204);
    send(&server, &bob, &alice, b"after the removal").await.expect(200);
    // Its credentials open nothing, so it cannot give one either.
    let body = json!({ "gcmRegistrationId": "again" });
    ask(laptop.request(&server, "PUT", "/v1/accounts/gcm").json(&body))
        .await
        .expect(401);
    expect_nowhere(&server, &alice, &tokens).await;
}

/// No route gives tokens out: those that take them are all that name them.
#[test]
fn t57_no_route_shows_a_push_token() {
    let named: BTreeSet<_> = ROUTES
        .iter()
        .filter(|route| {
            ["gcm", "apn", "push", "token"]
                .iter()
                .any(|word| route.path.contains(word))
        })
        .map(|route| (route.method, route.path))
        .collect();
    let readers: Vec<_> = named
        .iter()
        .filter(|(method, path)| *method == "get" && !path.contains("wait_for_linked_device"))
        .collect();
    assert!(readers.is_empty(), "{readers:?}");
    assert!(named.contains(&("put", "/v1/accounts/gcm")), "{named:?}");
}

/// Fails if any form of these is in the database, a file, the log, the metrics, or what the account is told of itself.
async fn expect_nowhere(server: &Server, owner: &Person, tokens: &[String]) {
    let forms: Vec<String> = tokens.iter().flat_map(|token| forms(token)).collect();
    let here = |text: &str| forms.iter().find(|form| text.contains(form.as_str()));
    let mut values = 0;
    for (table, rows) in &Dump::of(server).await.0 {
        for value in rows.iter().flat_map(|row| row.values()) {
            values += 1;
            assert_eq!(here(value), None, "in {table}");
        }
    }
    assert!(values > 10, "the database is looked at");
    let shown = ask(owner.request(server, "GET", "/v1/accounts/export"))
        .await
        .expect(200);
    let devices = ask(owner.request(server, "GET", "/v1/devices")).await.expect(200);
    for told in [
        server.log(),
        server.metrics().await,
        String::from_utf8_lossy(&shown.body).into_owned(),
        String::from_utf8_lossy(&devices.body).into_owned(),
    ] {
        assert!(!told.is_empty());
        assert_eq!(here(&told), None);
    }
    for file in files(&server.place().path().to_path_buf()) {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let found = forms
            .iter()
            .find(|form| bytes.windows(form.len()).any(|part| part == form.as_bytes()));
        assert_eq!(found, None, "{}", file.display());
    }
}

/// The token as it came, as bytes, and in the encodings in which a program might write it.
fn forms(token: &str) -> Vec<String> {
    let whole = token.len() / 3 * 3;
    vec![
        token.to_owned(),
        token.to_uppercase(),
        hex(token.as_bytes()),
        STANDARD_NO_PAD.encode(&token[..whole]),
        URL_SAFE_NO_PAD.encode(&token[..whole]),
    ]
}
