//! Uploads of keys that must change nothing (T10), and as many uploads as anybody likes (T12).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::dump::Dump;
use crate::support::http::try_ask;
use crate::support::keys::{base64, kyber, one_time, one_time_keys, signed_ec};
use crate::support::person::verified_session;
use crate::support::{Backend, Person, Server, ask, on_each_backend};

on_each_backend! {
    t10_a_key_whose_signature_is_not_right_changes_nothing
    t10_an_account_or_device_whose_keys_are_not_signed_right_is_not_made
    t12_however_much_is_uploaded_few_keys_are_kept
}

/// The bad days of a key that its identity signed: damaged, cut, lengthened, empty, or signed by somebody else.
fn bad_signatures(key: &Value, by_others: &[Value]) -> Vec<Value> {
    let decode = |field: &str| STANDARD.decode(key[field].as_str().unwrap()).unwrap();
    let (public, signature) = (decode("publicKey"), decode("signature"));
    let with = |field: &str, bytes: &[u8]| {
        let mut bad = key.clone();
        bad[field] = base64(bytes).into();
        bad
    };
    let mut bad = Vec::new();
    for at in [0, 31, 32, 62] {
        let mut damaged = signature.clone();
        damaged[at] ^= 1;
        bad.push(with("signature", &damaged));
    }
    bad.extend(
        [
            &signature[..63],
            &signature[..32],
            &[],
            &[&signature[..], &[0]].concat(),
        ]
        .map(|cut| with("signature", cut)),
    );
    let mut other_key = public.clone();
    other_key[7] ^= 1;
    bad.push(with("publicKey", &other_key));
    bad.push(with("publicKey", &public[..public.len() - 1]));
    bad.push(with("publicKey", &[&public[..], &[0]].concat()));
    for missing in [Value::Null, json!(7), json!("%"), json!({})] {
        let mut bad_field = key.clone();
        bad_field["signature"] = missing;
        bad.push(bad_field);
    }
    bad.extend_from_slice(by_others);
    bad
}

async fn t10_a_key_whose_signature_is_not_right_changes_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    bob.upload_keys(&server, 1, 2).await;
    let before = Dump::of(&server).await;
    for (query, own, other_own) in [
        ("", &bob.aci_identity, &bob.pni_identity),
        ("?identity=PNI", &bob.pni_identity, &bob.aci_identity),
    ] {
        let by_others = |sign: &dyn Fn(&_) -> Value| vec![sign(other_own), sign(&alice.aci_identity)];
        let ec = bad_signatures(&signed_ec(own, 90), &by_others(&|identity| signed_ec(identity, 90)));
        let pq = bad_signatures(&kyber(own, 91), &by_others(&|identity| kyber(identity, 91)));
        let last_resort = pq.iter().map(|bad| json!({ "pqLastResortPreKey": bad }));
        let one_time = pq.iter().map(|bad| json!({ "pqPreKeys": [kyber(own, 92), bad] }));
        let signed = ec.iter().map(|bad| json!({ "signedPreKey": bad }));
        for bad in signed.chain(last_resort).chain(one_time) {
            // Beside keys that are right.
            let mut body = one_time_keys(own, 100, 1);
            body.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
            let answer = ask(bob.request(&server, "PUT", &format!("/v2/keys{query}")).json(&body)).await;
            assert_eq!(answer.status, 422, "{bad}");
        }
    }
    assert_eq!(Dump::of(&server).await, before);
    let mut good = one_time_keys(&bob.aci_identity, 100, 1);
    good["signedPreKey"] = signed_ec(&bob.aci_identity, 90);
    ask(bob.request(&server, "PUT", "/v2/keys").json(&good))
        .await
        .expect(204);
    assert_ne!(Dump::of(&server).await, before);
}

async fn t10_an_account_or_device_whose_keys_are_not_signed_right_is_not_made(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let (mut carol, laptop) = (Person::new(), alice.new_device());
    let session = verified_session(&server, &carol.number).await;
    let code = alice.link_code(&server).await;
    let before = Dump::of(&server).await;
    let fields = |person: &Person| {
        [
            ("aciSignedPreKey", person.aci_signed.clone()),
            ("pniSignedPreKey", person.pni_signed.clone()),
            ("aciPqLastResortPreKey", person.aci_last_resort.clone()),
            ("pniPqLastResortPreKey", person.pni_last_resort.clone()),
        ]
    };
    let stranger = Person::new();
    let by_others = [signed_ec(&stranger.aci_identity, 1), kyber(&stranger.aci_identity, 1)];
    for (field, key) in fields(&carol) {
        for bad in bad_signatures(&key, &by_others) {
            let mut body = carol.registration(&session);
            body[field] = bad;
            ask(carol.registering(&server).json(&body)).await.expect(422);
        }
    }
    // The same at a device that is being linked, whose keys the account's identities sign.
    for (field, key) in fields(&laptop) {
        for bad in bad_signatures(&key, &by_others) {
            let mut body = laptop.link_body(&code);
            body[field] = bad;
            let request = server.request("PUT", "/v1/devices/link");
            let request = request.basic_auth(&alice.number, Some(&laptop.password));
            ask(request.json(&body)).await.expect(422);
        }
    }
    assert_eq!(Dump::of(&server).await, before);
    // Session and code are as good as before.
    ask(carol.registering(&server).json(&carol.registration(&session)))
        .await
        .expect(200);
    ask(laptop.linking(&server, &code)).await.expect(200);
    carol.register_on(&server).await;
}

async fn t12_however_much_is_uploaded_few_keys_are_kept(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let put = |query: &str, body: &Value| ask(bob.request(&server, "PUT", &format!("/v2/keys{query}")).json(body));
    let hundred: Vec<_> = (0..4)
        .map(|turn| one_time_keys(&bob.aci_identity, 1_000 * turn, 100))
        .collect();
    for body in &hundred {
        put("", body).await.expect(204);
        expect_few(&server).await;
    }
    // All at once.
    let bodies = hundred.iter().chain(&hundred);
    for answer in join_all(bodies.map(|body| put("", body))).await {
        assert!(matches!(answer.status, 204 | 429 | 503), "{answer:?}");
    }
    expect_few(&server).await;
    put("?identity=PNI", &one_time_keys(&bob.pni_identity, 1, 100))
        .await
        .expect(204);
    expect_few(&server).await;

    let before = Dump::of(&server).await;
    let mut one_more = one_time_keys(&bob.aci_identity, 1, 1);
    one_more["preKeys"] = (0..101).map(one_time).collect();
    assert_eq!(put("", &one_more).await.expect(422).code(), "too_many_keys");
    let many: Vec<_> = (0..20_000).map(|id| json!({ "keyId": id, "publicKey": "" })).collect();
    put("", &json!({ "preKeys": many })).await.expect(413);
    for body in [
        "[".repeat(10 << 20),
        format!("{{\"preKeys\":\"{}\"}}", "x".repeat(10 << 20)),
    ] {
        // The server need not read what it refuses, so the client may see the connection end instead.
        if let Ok(answer) = try_ask(bob.request(&server, "PUT", "/v2/keys").body(body)).await {
            answer.expect(413);
        }
    }
    assert_eq!(Dump::of(&server).await, before);
}

/// Fails if a device has more than 200 one-time keys of a type in a namespace.
async fn expect_few(server: &Server) {
    let dump = Dump::of(server).await;
    for table in ["one_time_ec_keys", "one_time_kyber_keys"] {
        let mut counts = std::collections::BTreeMap::new();
        for row in dump.rows(table) {
            *counts
                .entry((&row["aci"], &row["device_id"], &row["kind"]))
                .or_insert(0) += 1;
        }
        assert!(
            !counts.is_empty() && counts.values().all(|count| *count <= 200),
            "{table}: {counts:?}"
        );
    }
}
