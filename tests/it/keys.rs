//! The key directory: what it takes in, and how it hands it out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::http::try_ask;
use crate::support::keys::{base64, digest, ec_key, kyber, kyber_key, one_time, one_time_keys, signed, signed_ec};
use crate::support::person::people;
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random};

on_each_backend! {
    keys_are_counted_handed_out_once_and_replaced
    t10_t11_t12_a_bad_batch_is_refused_whole
    t18_no_key_is_served_twice_across_a_crash
}

async fn keys_are_counted_handed_out_once_and_replaced(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    assert_eq!(count(&server, &bob, "").await, (0, 0));
    let first = one_time_keys(&bob.aci_identity, 1, 3);
    upload(&server, &bob, "?identity=ACI", &first).await.expect(204);
    assert_eq!(count(&server, &bob, "?identity=aci").await, (3, 3));
    assert_eq!(count(&server, &bob, "?identity=PNI").await, (0, 0));
    ask(bob.request(&server, "GET", "/v2/keys?identity=other"))
        .await
        .expect(422);

    // In the order of the upload, with every field that clients need.
    let bundle = fetch(&server, &alice, &format!("{}/1", bob.aci))
        .await
        .expect(200)
        .json();
    let expected = json!({
        "identityKey": bob.aci_identity.base64(),
        "devices": [{
            "deviceId": 1,
            "registrationId": bob.registration_id,
            "signedPreKey": unpadded(&bob.aci_signed),
            "preKey": first["preKeys"][0],
            "pqPreKey": unpadded(&first["pqPreKeys"][0]),
        }],
    });
    assert_eq!(bundle, expected);
    // A question without an answer's body spends nothing.
    ask(alice.request(&server, "HEAD", &format!("/v2/keys/{}/*", bob.aci)))
        .await
        .expect(405);
    let bundle = fetch(&server, &alice, &format!("{}/*", bob.aci))
        .await
        .expect(200)
        .json();
    assert_eq!(bundle["devices"][0]["preKey"], first["preKeys"][1]);
    assert_eq!(count(&server, &bob, "").await, (1, 1));

    // Empty and absent lists leave what is there, others replace all of it.
    upload(&server, &bob, "", &json!({ "preKeys": [], "pqPreKeys": null }))
        .await
        .expect(204);
    assert_eq!(count(&server, &bob, "").await, (1, 1));
    let second = one_time_keys(&bob.aci_identity, 50, 2);
    upload(&server, &bob, "", &json!({ "preKeys": second["preKeys"] }))
        .await
        .expect(204);
    assert_eq!(count(&server, &bob, "").await, (2, 1));
    let bundle = fetch(&server, &alice, &format!("{}/%2A", bob.aci))
        .await
        .expect(200)
        .json();
    assert_eq!(bundle["devices"][0]["preKey"], second["preKeys"][0]);
    assert_eq!(bundle["devices"][0]["pqPreKey"], unpadded(&first["pqPreKeys"][2]));

    // Without one-time keys there is no such field, and the last-resort key is there for ever.
    fetch(&server, &alice, &format!("{}/1", bob.aci)).await.expect(200);
    for _ in 0..3 {
        let bundle = fetch(&server, &alice, &format!("{}/1", bob.aci))
            .await
            .expect(200)
            .json();
        assert!(bundle["devices"][0].get("preKey").is_none());
        assert_eq!(bundle["devices"][0]["pqPreKey"], unpadded(&bob.aci_last_resort));
    }
    assert_eq!(count(&server, &bob, "").await, (0, 0));

    // The namespaces are apart.
    let pni = one_time_keys(&bob.pni_identity, 1, 1);
    upload(&server, &bob, "?identity=PNI", &pni).await.expect(204);
    upload(&server, &bob, "?identity=ACI", &pni).await.expect(422);
    for (colon, key) in [(":", Some(&pni["preKeys"][0])), ("%3A", None)] {
        let bundle = fetch(&server, &alice, &format!("PNI{colon}{}/*", bob.pni))
            .await
            .expect(200)
            .json();
        assert_eq!(bundle["identityKey"], bob.pni_identity.base64());
        assert_eq!(bundle["devices"][0]["registrationId"], bob.pni_registration_id);
        assert_eq!(bundle["devices"][0].get("preKey"), key);
    }
    for (kind, expected) in [("one_time", 4.0), ("last_resort", 5.0)] {
        let metric = format!("blind_relay_kyber_keys_total{{source=\"{kind}\"}}");
        assert!((server.metric(&metric).await - expected).abs() < 0.5, "{kind}");
    }
}

async fn t10_t11_t12_a_bad_batch_is_refused_whole(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let identity = &bob.aci_identity;
    upload(&server, &bob, "", &one_time_keys(identity, 1, 2))
        .await
        .expect(204);

    let good = one_time_keys(identity, 10, 3);
    let ec = |bytes: &[u8]| json!({ "keyId": 99, "publicKey": base64(bytes) });
    let mut long = ec_key().to_vec();
    long.push(0);
    let mut djb_prefix = ec_key();
    djb_prefix[0] = 6;
    // The points of low order and coordinates that are not reduced, as no generator makes them.
    let coordinate = |first: u8, rest: u8, last: u8| {
        let mut key = [rest; 33];
        (key[0], key[1], key[32]) = (5, first, last);
        key
    };
    let weak = [
        coordinate(0, 0, 0),
        coordinate(1, 0, 0),
        coordinate(0xec, 0xff, 0x7f),
        coordinate(0xed, 0xff, 0x7f),
        coordinate(0xee, 0xff, 0x7f),
        coordinate(0xff, 0xff, 0xff),
    ];
    let mut ec_keys = vec![
        ec(&long),
        ec(&ec_key()[..32]),
        ec(&djb_prefix),
        ec(&[]),
        ec(&kyber_key()),
    ];
    ec_keys.extend(weak.iter().map(|key| ec(key)));
    ec_keys.extend([
        json!({ "keyId": 99 }),
        json!({ "publicKey": base64(&ec_key()) }),
        json!(null),
        json!(7),
    ]);
    ec_keys.extend([one_time(10), json!({ "keyId": -1, "publicKey": base64(&ec_key()) })]);
    ec_keys.extend([json!({ "keyId": 4_294_967_296_u64, "publicKey": base64(&ec_key()) })]);

    let mut short = kyber_key();
    short.pop();
    let mut other_kind = kyber_key();
    other_kind[0] = 7;
    let mut damaged = kyber(identity, 99);
    damaged["publicKey"] = base64(&kyber_key()).into();
    let mut cut = kyber(identity, 99);
    cut["signature"] = base64(&[1; 63]).into();
    let kyber_keys = [
        kyber(&bob.pni_identity, 99),
        kyber(&alice.aci_identity, 99),
        signed(identity, 99, &short),
        signed(identity, 99, &other_kind),
        signed(identity, 99, &ec_key()),
        damaged,
        cut,
        one_time(99),
        kyber(identity, 10),
    ];
    for bad in ec_keys {
        let mut batch = good.clone();
        batch["preKeys"].as_array_mut().unwrap().push(bad.clone());
        assert_eq!(upload(&server, &bob, "", &batch).await.status, 422, "{bad}");
    }
    for bad in &kyber_keys {
        let mut batch = good.clone();
        batch["pqPreKeys"].as_array_mut().unwrap().push(bad.clone());
        assert_eq!(upload(&server, &bob, "", &batch).await.status, 422, "{bad}");
    }
    let bad_signed = [
        signed_ec(&bob.pni_identity, 99),
        signed(identity, 99, &weak[0]),
        kyber(identity, 99),
        one_time(99),
    ];
    for (field, bad) in [
        ("signedPreKey", &bad_signed[..]),
        ("pqLastResortPreKey", &kyber_keys[..8]),
    ] {
        for bad in bad {
            let mut batch = good.clone();
            batch[field] = bad.clone();
            assert_eq!(upload(&server, &bob, "", &batch).await.status, 422, "{field} {bad}");
        }
    }
    for (list, many) in [
        ("preKeys", (0..101).map(one_time).collect::<Vec<_>>()),
        ("pqPreKeys", (0..101).map(|id| kyber(identity, id)).collect()),
    ] {
        let mut batch = good.clone();
        batch[list] = many.into();
        assert_eq!(
            upload(&server, &bob, "", &batch).await.expect(422).code(),
            "too_many_keys"
        );
    }
    let ten_megabytes = json!({ "preKeys": "x".repeat(10 * 1024 * 1024) });
    // The server need not read what it refuses, so the client may see the connection end instead.
    if let Ok(answer) = try_ask(bob.request(&server, "PUT", "/v2/keys").json(&ten_megabytes)).await {
        answer.expect(413);
    }
    ask(bob.request(&server, "PUT", "/v2/keys").body("[".repeat(10_000)))
        .await
        .expect(422);
    ask(bob.request(&server, "PUT", "/v2/keys").body("{")).await.expect(400);

    assert_eq!(count(&server, &bob, "").await, (2, 2));
    let bundle = fetch(&server, &alice, &format!("{}/1", bob.aci))
        .await
        .expect(200)
        .json();
    assert_eq!(bundle["devices"][0]["preKey"]["keyId"], 1);
    assert_eq!(bundle["devices"][0]["signedPreKey"], unpadded(&bob.aci_signed));
    // The largest upload that is right: 100 of each kind and both signed keys.
    let mut largest = one_time_keys(identity, 1000, 100);
    largest["signedPreKey"] = signed_ec(identity, 7);
    largest["pqLastResortPreKey"] = kyber(identity, 8);
    upload(&server, &bob, "", &largest).await.expect(204);
    assert_eq!(count(&server, &bob, "").await, (100, 100));
}

#[tokio::test]
async fn a_check_compares_digests_and_the_alias_is_understood() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let check = async |kind: &str, digest: &str| {
        let body = json!({ "identityType": kind, "digest": digest });
        ask(bob.request(&server, "POST", "/v2/keys/check").json(&body)).await
    };
    let registered = digest(&bob.aci_identity, &bob.aci_signed, &bob.aci_last_resort);
    let pni = digest(&bob.pni_identity, &bob.pni_signed, &bob.pni_last_resort);
    for kind in ["ACI", "aci"] {
        assert!(check(kind, &registered).await.expect(200).body.is_empty());
        assert!(check(kind, &pni).await.expect(409).body.is_empty());
    }
    check("PNI", &pni).await.expect(200);
    check("other", &pni).await.expect(422);
    check("ACI", "AAAA").await.expect(422);

    let mut last_resort = bob.aci_last_resort.clone();
    for name in ["pqLastResortKey", "pqLastResortPreKey"] {
        let (signed, before) = (signed_ec(&bob.aci_identity, 21), last_resort);
        last_resort = kyber(&bob.aci_identity, 22);
        // `identityKey` is sent by one client stack and means nothing: the identity is fixed at registration.
        let body = json!({ "signedPreKey": signed, name: last_resort, "identityKey": alice.aci_identity.base64() });
        upload(&server, &bob, "?identity=ACI", &body).await.expect(204);
        check("ACI", &digest(&bob.aci_identity, &signed, &last_resort))
            .await
            .expect(200);
        check("ACI", &digest(&bob.aci_identity, &signed, &before))
            .await
            .expect(409);
        let bundle = fetch(&server, &alice, &format!("{}/1", bob.aci))
            .await
            .expect(200)
            .json();
        assert_eq!(bundle["identityKey"], bob.aci_identity.base64());
        assert_eq!(bundle["devices"][0]["signedPreKey"], unpadded(&signed));
        assert_eq!(bundle["devices"][0]["pqPreKey"], unpadded(&last_resort));
    }
}

#[tokio::test]
async fn t45_b9_strangers_learn_nothing_from_a_refusal() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let gone = Person::register(&server).await;
    ask(gone.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    let unknown = uuid::Uuid::from_bytes(random()).to_string();
    let stranger = async |path: &str, key: Option<&str>| {
        let request = server.request("GET", &format!("/v2/keys/{path}"));
        ask(key
            .into_iter()
            .fold(request, |request, key| request.header("unidentified-access-key", key)))
        .await
    };
    let right = bob.access_key_header();
    stranger(&format!("{}/1", bob.aci), Some(&right)).await.expect(200);
    stranger(&format!("{}/*", bob.aci), Some(&right)).await.expect(200);
    let refusal = stranger(&format!("{unknown}/1"), Some(&right))
        .await
        .expect(401)
        .looks();
    let wrong = alice.access_key_header();
    for (path, key) in [
        (format!("{}/1", bob.aci), None),
        (format!("{}/*", bob.aci), Some(wrong.as_str())),
        (format!("{}/2", bob.aci), Some(right.as_str())),
        (format!("{}/1", bob.aci), Some("AAAA")),
        (format!("{}/1", bob.aci), Some("?")),
        (format!("PNI:{}/1", bob.pni), Some(right.as_str())),
        (format!("{}/1", gone.aci), Some(gone.access_key_header().as_str())),
        (format!("{unknown}/2"), None),
    ] {
        assert_eq!(stranger(&path, key).await.looks(), refusal, "{path}");
    }
    // Whoever has an account is told what does not exist.
    for (path, status) in [
        (format!("{unknown}/1"), 404),
        (format!("{}/2", bob.aci), 404),
        (format!("PNI:{unknown}/*"), 404),
        ("nonsense/1".to_owned(), 404),
        (format!("{}/0", bob.aci), 422),
        (format!("{}/128", bob.aci), 422),
        (format!("{}/x", bob.aci), 422),
        (format!("{}/**", bob.aci), 422),
    ] {
        fetch(&server, &alice, &path).await.expect(status);
    }
    let both = alice
        .request(&server, "GET", &format!("/v2/keys/{}/1", bob.aci))
        .header("group-send-token", "AAAA");
    ask(both).await.expect(400);
    // One's own devices are in the answer as well; clients leave themselves out.
    fetch(&server, &bob, &format!("{}/*", bob.aci)).await.expect(200);
}

async fn t18_no_key_is_served_twice_across_a_crash(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (bob, callers) = (Person::register(&server).await, people(&server, 8).await);
    bob.upload_keys(&server, 1, 100).await;
    let path = format!("/v2/keys/{}/1", bob.aci);
    let (claimed, dying) = (AtomicUsize::new(0), AtomicBool::new(false));
    let pid = server.pid();
    let claims = join_all(callers.iter().map(async |caller| {
        let mut keys = Vec::new();
        loop {
            match try_ask(caller.request(&server, "GET", &path)).await {
                Ok(answer) => keys.push(answer.expect(200).json()),
                Err(error) => {
                    assert!(dying.load(Ordering::Relaxed), "{error}");
                    return keys;
                }
            }
            if claimed.fetch_add(1, Ordering::Relaxed) == 40 {
                dying.store(true, Ordering::Relaxed);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
    }))
    .await;
    let mut bundles: Vec<Value> = claims.into_iter().flatten().collect();
    server.kill();
    let server = server.restart();
    while count(&server, &bob, "").await != (0, 0) {
        bundles.push(
            fetch(&server, &callers[0], &format!("{}/1", bob.aci))
                .await
                .expect(200)
                .json(),
        );
    }
    for kind in ["preKey", "pqPreKey"] {
        let ids = bundles
            .iter()
            .map(|bundle| bundle["devices"][0][kind]["keyId"].as_u64().unwrap());
        let mut seen = BTreeSet::new();
        assert!(ids.into_iter().all(|id| seen.insert(id)), "{kind} handed out twice");
        // A crash may lose what was just being handed out: at most what each caller was waiting for.
        assert!(seen.len() >= 100 - callers.len(), "{} of 100 {kind}s", seen.len());
    }
}

async fn upload(server: &Server, person: &Person, query: &str, body: &Value) -> Answer {
    ask(person.request(server, "PUT", &format!("/v2/keys{query}")).json(body)).await
}

async fn fetch(server: &Server, caller: &Person, path: &str) -> Answer {
    ask(caller.request(server, "GET", &format!("/v2/keys/{path}"))).await
}

async fn count(server: &Server, person: &Person, query: &str) -> (u64, u64) {
    let answer = ask(person.request(server, "GET", &format!("/v2/keys{query}")))
        .await
        .expect(200)
        .json();
    (answer["count"].as_u64().unwrap(), answer["pqCount"].as_u64().unwrap())
}

/// The key with its signature as answers carry it.
fn unpadded(key: &Value) -> Value {
    let mut key = key.clone();
    key["signature"] = key["signature"].as_str().unwrap().trim_end_matches('=').into();
    key
}
