//! Account data: what an account keeps for its own devices, and that nothing in it is lost to a race.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::keys::base64;
use crate::support::usernames::url_safe;
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random};

on_each_backend! {
    a_value_is_written_read_replaced_and_deleted
    a_write_that_knows_another_version_changes_nothing
    of_twenty_writers_one_wins_each_version
    a_batch_is_carried_out_whole_or_not_at_all
    a_list_tells_what_has_changed
    linked_devices_share_and_others_see_nothing
    what_an_account_keeps_is_limited_also_at_once
}

async fn a_value_is_written_read_replaced_and_deleted(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut alice = Person::register(&server).await;
    let key = new_key();
    show(&server, &alice, &key).await.expect(404);
    assert_eq!(
        put(&server, &alice, &key, 0, b"one").await.expect(200).json(),
        json!({ "version": 1 })
    );
    let shown = show(&server, &alice, &key).await.expect(200);
    assert_eq!(shown.json(), json!({ "version": 1, "value": base64(b"one") }));
    assert_eq!(shown.header("etag"), Some("\"1\""));
    put(&server, &alice, &key, 1, b"two").await.expect(200);
    for (known, status) in [
        ("\"2\"", 304),
        ("W/\"2\"", 304),
        ("\"1\", \"2\"", 304),
        ("*", 304),
        ("\"1\"", 200),
        ("2", 200),
    ] {
        let request = alice
            .request(&server, "GET", &path(&key))
            .header("if-none-match", known);
        let answer = ask(request).await;
        assert_eq!(answer.status, status, "{known}");
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(answer.body.is_empty(), status == 304);
    }
    // It is the account's, not the device's: it outlives a registration.
    alice.register_on(&server).await;
    assert_eq!(
        show(&server, &alice, &key).await.expect(200).json()["value"],
        base64(b"two")
    );
    assert_eq!(
        delete(&server, &alice, &key, 2).await.expect(200).json(),
        json!({ "version": 3 })
    );
    show(&server, &alice, &key).await.expect(404);
    assert_eq!(
        put(&server, &alice, &key, 0, b"anew").await.expect(200).json(),
        json!({ "version": 4 })
    );
    // And it goes with the account.
    ask(alice.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    show(&server, &alice, &key).await.expect(401);
    alice.register_on(&server).await;
    show(&server, &alice, &key).await.expect(404);
    assert_eq!(list(&server, &alice, "").await["revision"], 0);
}

async fn a_write_that_knows_another_version_changes_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let key = new_key();
    let conflict = |answer: Answer| answer.expect(409).json()["version"].as_i64().unwrap();
    assert_eq!(conflict(put(&server, &alice, &key, 1, b"x").await), 0);
    assert_eq!(conflict(delete(&server, &alice, &key, 1).await), 0);
    put(&server, &alice, &key, 0, b"one").await.expect(200);
    for version in [0, 2, 999] {
        assert_eq!(conflict(put(&server, &alice, &key, version, b"x").await), 1);
    }
    assert_eq!(conflict(delete(&server, &alice, &key, 2).await), 1);
    delete(&server, &alice, &key, 1).await.expect(200);
    // A deletion that comes again, because its answer was lost, learns that there is nothing left.
    assert_eq!(conflict(delete(&server, &alice, &key, 1).await), 0);
    put(&server, &alice, &key, 0, b"anew").await.expect(200);
    // A device that slept through all that does not overwrite it.
    assert_eq!(conflict(put(&server, &alice, &key, 1, b"x").await), 3);

    let write = async |body: Value| ask(alice.request(&server, "PUT", &path(&key)).json(&body)).await;
    for (body, code) in [
        (json!({ "version": -1, "value": "AAAA" }), "data_version"),
        (json!({ "version": 3, "value": "" }), "empty_value"),
        (json!({ "version": 3, "value": "?" }), "unexpected_json"),
        (json!({ "version": 3, "value": "-_8=" }), "unexpected_json"),
        (json!({ "version": 3, "value": null }), "unexpected_json"),
        (json!({ "version": "3", "value": "AAAA" }), "unexpected_json"),
        (json!({ "version": 1.5, "value": "AAAA" }), "unexpected_json"),
        (json!({ "version": u64::MAX, "value": "AAAA" }), "unexpected_json"),
        (json!({ "value": "AAAA" }), "unexpected_json"),
    ] {
        assert_eq!(write(body.clone()).await.expect(422).code(), code, "{body}");
    }
    for query in ["", "?version="] {
        let answer = ask(alice.request(&server, "DELETE", &format!("{}{query}", path(&key)))).await;
        assert!(matches!(answer.status, 400 | 422), "{query}: {answer:?}");
    }
    for version in ["0", "-1", "x", "3.0", "%2B3", "99999999999999999999"] {
        let answer = ask(alice.request(&server, "DELETE", &format!("{}?version={version}", path(&key)))).await;
        assert_eq!(answer.expect(422).code(), "data_version", "{version}");
    }
    let (short, padded) = (url_safe(&[1; 31]), format!("{}=", url_safe(&[1; 32])));
    for key in ["x", &short, &padded, &base64(&[0xfe; 32]).replace('/', "%2F"), "%FF"] {
        for method in ["GET", "PUT", "DELETE"] {
            let request = alice.request(&server, method, &format!("/v1/data/{key}?version=1"));
            let answer = ask(request.json(&json!({ "version": 0, "value": "AAAA" }))).await;
            assert!(matches!(answer.status, 400 | 422), "{method} {key}: {answer:?}");
        }
    }
    assert_eq!(show(&server, &alice, &key).await.expect(200).json()["version"], 3);
}

async fn of_twenty_writers_one_wins_each_version(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let key = new_key();
    put(&server, &alice, &key, 0, b"0").await.expect(200);
    // Each adds its own letter to the list, reading it again whenever another was quicker.
    let writers = (b'a'..b'u').map(async |letter| {
        loop {
            let now = show(&server, &alice, &key).await.expect(200).json();
            let mut value = decode(&now["value"]);
            value.push(letter);
            let answer = put(&server, &alice, &key, now["version"].as_i64().unwrap(), &value).await;
            match answer.status {
                200 => return now["version"].as_i64().unwrap(),
                _ => assert!(answer.expect(409).json()["version"].as_i64() > now["version"].as_i64()),
            }
        }
    });
    let replaced: BTreeSet<i64> = join_all(writers).await.into_iter().collect();
    assert_eq!(replaced, (1..=20).collect());
    let end = show(&server, &alice, &key).await.expect(200).json();
    let letters: BTreeSet<u8> = decode(&end["value"]).into_iter().collect();
    assert_eq!((letters.len(), &end["version"]), (21, &json!(21)));
}

async fn a_batch_is_carried_out_whole_or_not_at_all(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let keys = [new_key(), new_key(), new_key()];
    let batch = async |operations: Value| {
        let request = alice.request(&server, "POST", "/v1/data/batch");
        ask(request.json(&json!({ "operations": operations }))).await
    };
    let put = |key: &str, version: i64, value: &[u8]| json!({ "key": key, "version": version, "value": base64(value) });
    let written = batch(json!([put(&keys[0], 0, b"a"), put(&keys[1], 0, b"b")]))
        .await
        .expect(200);
    assert_eq!(written.json(), json!({ "revision": 2, "versions": [1, 2] }));
    let torn = batch(json!([
        put(&keys[0], 1, b"A"),
        put(&keys[1], 7, b"B"),
        put(&keys[2], 1, b"C")
    ]))
    .await;
    let conflicts = json!([{ "key": keys[1], "version": 2 }, { "key": keys[2], "version": 0 }]);
    assert_eq!(torn.expect(409).json(), json!({ "conflicts": conflicts }));
    assert_eq!(
        show(&server, &alice, &keys[0]).await.expect(200).json()["value"],
        base64(b"a")
    );
    let delete = json!({ "key": keys[1], "version": 2, "delete": true });
    let written = batch(json!([put(&keys[0], 1, b"A"), delete, put(&keys[2], 0, b"C")]))
        .await
        .expect(200);
    assert_eq!(written.json(), json!({ "revision": 5, "versions": [3, 4, 5] }));
    show(&server, &alice, &keys[1]).await.expect(404);

    let good = put(&new_key(), 0, b"x");
    let key = new_key();
    for (bad, code) in [
        (json!({ "key": "x", "version": 0, "value": "AAAA" }), "data_key"),
        (json!({ "key": key, "version": -1, "value": "AAAA" }), "data_version"),
        (json!({ "key": key, "version": 0 }), "operation"),
        (json!({ "key": key, "version": 1, "value": null }), "operation"),
        (json!({ "key": key, "version": 1, "delete": false }), "operation"),
        (
            json!({ "key": key, "version": 1, "value": "AAAA", "delete": true }),
            "operation",
        ),
        (json!({ "key": key, "version": 0, "delete": true }), "data_version"),
        (json!({ "key": key, "version": 0, "value": "" }), "empty_value"),
        (good.clone(), "duplicate_data_key"),
        (json!(7), "unexpected_json"),
    ] {
        let refused = batch(json!([good, bad])).await.expect(422);
        assert_eq!(refused.code(), code, "{bad}");
    }
    for count in [0, 51] {
        let operations: Vec<Value> = (0..count).map(|_| put(&new_key(), 0, b"x")).collect();
        assert_eq!(batch(json!(operations)).await.expect(422).code(), "operation_count");
    }
    assert_eq!(list(&server, &alice, "").await["revision"], 5);
    let operations: Vec<Value> = (0..50).map(|_| put(&new_key(), 0, &[1; 4096])).collect();
    batch(json!(operations)).await.expect(200);
}

async fn a_list_tells_what_has_changed(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let empty = list(&server, &alice, "").await;
    assert_eq!(empty, json!({ "revision": 0, "reset": false, "entries": [] }));
    let keys = [new_key(), new_key()];
    put(&server, &alice, &keys[0], 0, b"a").await.expect(200);
    put(&server, &alice, &keys[1], 0, b"bb").await.expect(200);
    delete(&server, &alice, &keys[0], 1).await.expect(200);
    let entry = |key: &str, version: i64, size: usize| json!({ "key": key, "version": version, "size": size });
    let deletion = json!({ "key": keys[0], "version": 3, "deleted": true });
    let expected = |entries: Value| json!({ "revision": 3, "reset": false, "entries": entries });
    assert_eq!(
        list(&server, &alice, "").await,
        expected(json!([entry(&keys[1], 2, 2)]))
    );
    assert_eq!(
        list(&server, &alice, "?after=1").await,
        expected(json!([entry(&keys[1], 2, 2), deletion]))
    );
    assert_eq!(list(&server, &alice, "?after=3").await, expected(json!([])));
    // Whoever knows more than the server is told to begin anew: a backup was restored.
    let reset = list(&server, &alice, "?after=9").await;
    assert_eq!(
        (&reset["reset"], &reset["entries"]),
        (&json!(true), &json!([entry(&keys[1], 2, 2)]))
    );
    for after in ["", "x", "-1", "1.", "1.2.3", "99999999999999999999"] {
        let answer = ask(alice.request(&server, "GET", &format!("/v1/data?after={after}"))).await;
        assert_eq!(answer.expect(422).code(), "after", "{after}");
    }
    // More than a page.
    for _ in 0..11 {
        let operation = |_| json!({ "key": new_key(), "version": 0, "value": "AAAA" });
        let operations: Vec<Value> = (0..50).map(operation).collect();
        let request = alice.request(&server, "POST", "/v1/data/batch");
        ask(request.json(&json!({ "operations": operations })))
            .await
            .expect(200);
    }
    let (mut seen, mut query, mut pages) = (BTreeMap::new(), String::new(), 0);
    loop {
        let page = list(&server, &alice, &query).await;
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 500 && page["reset"] == false);
        for entry in entries {
            let replaced = seen.insert(entry["key"].to_string(), entry["version"].as_i64().unwrap());
            assert!(replaced.is_none(), "listed twice: {entry}");
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => query = format!("?after={next}"),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (551, 2));
}

async fn linked_devices_share_and_others_see_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mallory) = (Person::register(&server).await, Person::register(&server).await);
    let laptop = alice.link(&server).await;
    let key = new_key();
    put(&server, &alice, &key, 0, b"of the phone").await.expect(200);
    assert_eq!(
        show(&server, &laptop, &key).await.expect(200).json()["value"],
        base64(b"of the phone")
    );
    put(&server, &laptop, &key, 1, b"of the laptop").await.expect(200);
    assert_eq!(show(&server, &alice, &key).await.expect(200).json()["version"], 2);
    // Another account asks for the same key as for one that nobody has.
    let unknown = show(&server, &mallory, &new_key()).await.expect(404).looks();
    assert_eq!(show(&server, &mallory, &key).await.looks(), unknown);
    assert_eq!(
        delete(&server, &mallory, &key, 2).await.expect(409).json(),
        json!({ "version": 0 })
    );
    assert_eq!(
        put(&server, &mallory, &key, 2, b"x").await.expect(409).json(),
        json!({ "version": 0 })
    );
    let mine = put(&server, &mallory, &key, 0, b"mallory's").await.expect(200);
    assert_eq!(mine.json(), json!({ "version": 1 }));
    assert_eq!(list(&server, &mallory, "").await["revision"], 1);
    assert_eq!(
        show(&server, &alice, &key).await.expect(200).json()["value"],
        base64(b"of the laptop")
    );
    // The removal of a device takes nothing of the account away.
    ask(alice.request(&server, "DELETE", &format!("/v1/devices/{}", laptop.device_id)))
        .await
        .expect(204);
    show(&server, &laptop, &key).await.expect(401);
    assert_eq!(show(&server, &alice, &key).await.expect(200).json()["version"], 2);
}

async fn what_an_account_keeps_is_limited_also_at_once(backend: Backend) {
    let settings = [
        ("ACCOUNT_DATA__MAX_VALUE_BYTES", "1024"),
        ("ACCOUNT_DATA__MAX_KEYS", "5"),
        ("ACCOUNT_DATA__MAX_TOTAL_BYTES", "4096"),
    ];
    let server = Server::spawn_with(backend, &settings).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let too_large = put(&server, &alice, &new_key(), 0, &[1; 1025]).await.expect(413);
    assert_eq!(too_large.code(), "value_too_large");
    let writers = (0..20).map(async |_| {
        let key = new_key();
        let answer = put(&server, &alice, &key, 0, &[1; 1024]).await;
        if answer.status == 413 {
            assert_eq!(answer.code(), "quota");
            return None;
        }
        answer.expect(200);
        Some(key)
    });
    let keys: Vec<String> = join_all(writers).await.into_iter().flatten().collect();
    assert_eq!(keys.len(), 4);
    let stored = list(&server, &alice, "").await;
    assert_eq!(
        (&stored["revision"], stored["entries"].as_array().unwrap().len()),
        (&json!(4), 4)
    );
    // A full account can still shrink what it has, and another is not concerned.
    put(&server, &alice, &keys[0], version(&stored, &keys[0]), &[1; 8])
        .await
        .expect(200);
    put(&server, &alice, &new_key(), 0, &[1; 8]).await.expect(200);
    let keys_are_out = put(&server, &alice, &new_key(), 0, &[1; 8]).await.expect(413);
    assert_eq!(keys_are_out.code(), "quota");
    delete(&server, &alice, &keys[1], version(&stored, &keys[1]))
        .await
        .expect(200);
    put(&server, &alice, &new_key(), 0, &[1; 8]).await.expect(200);
    put(&server, &bob, &new_key(), 0, &[1; 1024]).await.expect(200);
}

/// The version of an entry in a list.
fn version(list: &Value, key: &str) -> i64 {
    let entries = list["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["key"] == key).unwrap();
    entry["version"].as_i64().unwrap()
}

fn new_key() -> String {
    url_safe(&random::<32>())
}

fn path(key: &str) -> String {
    format!("/v1/data/{key}")
}

fn decode(value: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(value.as_str().unwrap())
        .unwrap()
}

async fn show(server: &Server, person: &Person, key: &str) -> Answer {
    ask(person.request(server, "GET", &path(key))).await
}

async fn put(server: &Server, person: &Person, key: &str, version: i64, value: &[u8]) -> Answer {
    let body = json!({ "version": version, "value": base64(value) });
    ask(person.request(server, "PUT", &path(key)).json(&body)).await
}

async fn delete(server: &Server, person: &Person, key: &str, version: i64) -> Answer {
    ask(person.request(server, "DELETE", &format!("{}?version={version}", path(key)))).await
}

async fn list(server: &Server, person: &Person, query: &str) -> Value {
    ask(person.request(server, "GET", &format!("/v1/data{query}")))
        .await
        .expect(200)
        .json()
}
