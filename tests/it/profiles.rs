//! Profiles: what owners write, who reads it, and what nobody learns from it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::attachments::Form;
use crate::support::keys::base64;
use crate::support::{Answer, Backend, Person, Server, ask, hex, on_each_backend, random};

on_each_backend! {
    a_profile_is_read_by_who_knows_its_version
    a_profile_is_replaced_whole_and_old_versions_are_dropped
    a_malformed_profile_is_refused_and_changes_nothing
    a_new_picture_is_announced_uploaded_kept_and_taken_back
    a_picture_goes_with_its_version_and_with_its_account
    a_picture_goes_when_the_number_starts_over
    only_a_new_picture_needs_to_know_under_which_host_the_server_is_reached
    strangers_read_with_the_access_key_alone
    a_pni_shows_its_identity_key_and_nothing_of_the_account
    a_profile_ends_with_its_account
    an_account_that_reads_the_second_form_is_told_so
    a_credential_is_not_issued_and_the_profile_comes_all_the_same
    identity_checks_answer_mismatches_only
    t44_a_profile_tells_nothing_about_presence
}

/// A body with every field that a client may send.
fn profile(version: &str) -> Value {
    json!({
        "version": version,
        "commitment": base64(&random::<97>()),
        "name": base64(&random::<81>()),
        "about": base64(&random::<156>()),
        "aboutEmoji": base64(&random::<60>()),
        "paymentAddress": base64(&random::<582>()),
        "phoneNumberSharing": base64(&random::<29>()),
        "avatar": false,
        "sameAvatar": false,
        "badgeIds": [],
    })
}

fn version() -> String {
    hex(&random::<32>())
}

async fn publish(server: &Server, person: &Person, body: &Value) -> Answer {
    ask(person.request(server, "PUT", "/v1/profile").json(body)).await
}

async fn read(server: &Server, by: &Person, path: &str) -> Answer {
    ask(by.request(server, "GET", &format!("/v1/profile/{path}"))).await
}

/// The fields of a version as they were written; all null if it is unknown.
fn fields(answer: &Value) -> Value {
    let names = [
        "commitment",
        "name",
        "about",
        "aboutEmoji",
        "paymentAddress",
        "phoneNumberSharing",
    ];
    names.into_iter().map(|name| (name, answer[name].clone())).collect()
}

async fn a_profile_is_read_by_who_knows_its_version(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let (version, other) = (version(), version());
    let body = profile(&version);
    let done = publish(&server, &bob, &body).await.expect(200);
    assert!(done.body.is_empty() && done.header("content-type").is_none());

    let checksum = Hmac::<Sha256>::new_from_slice(&bob.access_key)
        .unwrap()
        .chain_update([0; 32])
        .finalize();
    let answer = read(&server, &alice, &format!("{}/{version}", bob.aci))
        .await
        .expect(200)
        .json();
    let mut expected = fields(&body);
    for (name, value) in [
        ("uuid", json!(bob.aci)),
        ("identityKey", json!(bob.aci_identity.base64())),
        ("unidentifiedAccess", json!(base64(&checksum.into_bytes()))),
        ("unrestrictedUnidentifiedAccess", json!(false)),
        ("capabilities", json!({ "spqr": true })),
        ("badges", json!([])),
        ("avatar", json!(null)),
    ] {
        expected[name] = value;
    }
    assert_eq!(answer, expected);

    // In either case; and bob's own devices see all that they can do together.
    let upper = version.to_uppercase();
    let own = read(&server, &bob, &format!("{}/{upper}", bob.aci))
        .await
        .expect(200)
        .json();
    assert_eq!(fields(&own), fields(&body));
    assert_eq!(own["capabilities"]["spqr"], true);
    assert_eq!(own["capabilities"]["storage"], false);

    // Under another version, under none, and under what is no version, there is everything else.
    for path in [
        format!("{}/{other}", bob.aci),
        format!("{}/latest", bob.aci),
        format!("{}/", bob.aci),
        bob.aci.clone(),
    ] {
        let answer = read(&server, &alice, &path).await.expect(200).json();
        assert_eq!(fields(&answer), fields(&json!({})), "{path}");
        assert_eq!(answer["identityKey"], bob.aci_identity.base64());
        assert!(answer["capabilities"].is_object());
    }
    let nobody = uuid::Uuid::from_bytes(random());
    for path in [nobody.to_string(), format!("{nobody}/{version}"), "nobody".to_owned()] {
        read(&server, &alice, &path).await.expect(404);
    }
}

async fn a_profile_is_replaced_whole_and_old_versions_are_dropped(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let first = version();
    publish(&server, &bob, &profile(&first)).await.expect(200);
    let name = base64(&random::<285>());
    let bare =
        json!({ "version": first, "commitment": base64(&[7; 97]), "name": name, "about": "", "aboutEmoji": null });
    publish(&server, &bob, &bare).await.expect(200);
    let path = format!("{}/{first}", bob.aci);
    let answer = read(&server, &alice, &path).await.expect(200).json();
    let expected = json!({ "name": name, "commitment": base64(&[7; 97]) });
    assert_eq!(fields(&answer), fields(&expected));
    for _ in 0..4 {
        publish(&server, &bob, &profile(&version())).await.expect(200);
    }
    assert_eq!(read(&server, &alice, &path).await.json()["name"], name);
    publish(&server, &bob, &profile(&version())).await.expect(200);
    assert!(read(&server, &alice, &path).await.expect(200).json()["name"].is_null());
}

async fn a_malformed_profile_is_refused_and_changes_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let version = version();
    let body = profile(&version);
    publish(&server, &bob, &body).await.expect(200);
    let of = |length: usize| json!(base64(&vec![1; length]));
    for (field, value, code) in [
        ("version", json!(version[1..]), "profile_version"),
        ("version", json!(format!("{version}0")), "profile_version"),
        ("version", json!(format!("g{}", &version[1..])), "profile_version"),
        ("version", json!(null), "unexpected_json"),
        ("commitment", of(96), "commitment"),
        ("commitment", of(98), "commitment"),
        ("commitment", json!(null), "unexpected_json"),
        ("name", of(0), "profile_field"),
        ("name", of(80), "profile_field"),
        ("name", of(82), "profile_field"),
        ("name", of(284), "profile_field"),
        ("name", json!("not base64"), "unexpected_json"),
        ("name", json!(null), "unexpected_json"),
        ("name", json!([1, 2]), "unexpected_json"),
        ("about", of(81), "profile_field"),
        ("about", of(541), "profile_field"),
        ("aboutEmoji", of(59), "profile_field"),
        ("paymentAddress", of(581), "profile_field"),
        ("phoneNumberSharing", of(30), "profile_field"),
        ("avatar", json!("yes"), "unexpected_json"),
    ] {
        let mut wrong = profile(&version);
        wrong[field] = value;
        let answer = publish(&server, &bob, &wrong).await.expect(422);
        assert_eq!(answer.code(), code, "{field}: {}", wrong[field]);
    }
    let garbage = bob.request(&server, "PUT", "/v1/profile").body("profile");
    assert_eq!(ask(garbage).await.expect(400).code(), "malformed_json");
    let answer = read(&server, &bob, &format!("{}/{version}", bob.aci)).await.json();
    assert_eq!(fields(&answer), fields(&body));
    // All lengths that clients pad to.
    for (field, lengths) in [
        ("name", &[81, 285][..]),
        ("about", &[0, 156, 282, 540]),
        ("aboutEmoji", &[0, 60]),
        ("paymentAddress", &[0, 582]),
        ("phoneNumberSharing", &[0, 29]),
    ] {
        for length in lengths {
            let mut body = profile(&version);
            body[field] = of(*length);
            publish(&server, &bob, &body).await.expect(200);
        }
    }
}

async fn a_new_picture_is_announced_uploaded_kept_and_taken_back(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    let path = format!("{}/{version}", bob.aci);
    let with = async |avatar: bool, same: bool| {
        let mut body = profile(&version);
        body["avatar"] = avatar.into();
        body["sameAvatar"] = same.into();
        publish(&server, &bob, &body).await.expect(200)
    };
    let avatar = async || read(&server, &alice, &path).await.expect(200).json()["avatar"].clone();
    // There is none to keep yet.
    assert!(with(true, true).await.body.is_empty());
    assert_eq!(avatar().await, Value::Null);

    let form = with(true, false).await.json();
    let key = form["key"].as_str().unwrap();
    assert_eq!(avatar().await, format!("attachments/{key}"));
    // Announced, and not there before it is uploaded.
    let download = async || ask(server.request("GET", &format!("/attachments/{key}"))).await;
    download().await.expect(404);
    let picture = random::<1000>();
    let here = format!("http://{}", server.address());
    let location = form["signedUploadLocation"].as_str().unwrap();
    let upload = server
        .request("POST", location.strip_prefix(&here).unwrap())
        .body(picture.to_vec());
    let upload = form["headers"]
        .as_object()
        .unwrap()
        .iter()
        .fold(upload, |upload, (name, value)| {
            upload.header(name, value.as_str().unwrap())
        });
    ask(upload
        .header("tus-resumable", "1.0.0")
        .header("upload-length", picture.len())
        .header("content-type", "application/offset+octet-stream"))
    .await
    .expect(201);
    assert_eq!(download().await.expect(200).body[..], picture[..]);

    assert!(with(true, true).await.body.is_empty());
    assert_eq!(avatar().await, format!("attachments/{key}"));
    // Pictures have a limit of their own.
    let other = with(true, false).await.json();
    let authorization = other["headers"]["Authorization"].as_str().unwrap();
    let begin = async |authorization: &str, length: usize, status| {
        let begin = server
            .request("POST", location.strip_prefix(&here).unwrap())
            .header("authorization", authorization)
            .header("tus-resumable", "1.0.0")
            .header("upload-length", length);
        ask(begin).await.expect(status);
    };
    begin(authorization, 10 * 1024 * 1024 + 1, 413).await;
    // The one that was replaced is gone, and the form of one that was replaced before it came is good for nothing.
    download().await.expect(404);
    let replaced = authorization;
    let other = with(true, false).await.json();
    begin(replaced, 1, 404).await;
    begin(
        other["headers"]["Authorization"].as_str().unwrap(),
        10 * 1024 * 1024,
        201,
    )
    .await;
    assert_ne!(other["key"], key);
    assert_eq!(
        avatar().await,
        format!("attachments/{}", other["key"].as_str().unwrap())
    );
    for same in [true, false] {
        with(true, false).await;
        assert!(with(false, same).await.body.is_empty());
        assert_eq!(avatar().await, Value::Null);
    }
}

async fn a_picture_goes_with_its_version_and_with_its_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let picture = async |version: &str| {
        let mut body = profile(version);
        body["avatar"] = true.into();
        let form = Form::read(&server, &publish(&server, &bob, &body).await.expect(200));
        form.upload(&server, b"picture").await;
        form
    };
    let is_there = async |form: &Form| ask(server.request("GET", &form.download())).await.status == 200;
    let (first, second) = (picture(&version()).await, picture(&version()).await);
    for _ in 0..4 {
        assert!(is_there(&first).await);
        publish(&server, &bob, &profile(&version())).await.expect(200);
    }
    assert!(!is_there(&first).await && is_there(&second).await);
    ask(bob.request(&server, "DELETE", "/v1/accounts/me")).await.expect(204);
    assert!(!is_there(&second).await);
}

async fn a_picture_goes_when_the_number_starts_over(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut bob = Person::register(&server).await;
    let mut body = profile(&version());
    body["avatar"] = true.into();
    let form = Form::read(&server, &publish(&server, &bob, &body).await.expect(200));
    form.upload(&server, b"picture").await;
    ask(server.request("GET", &form.download())).await.expect(200);
    bob.register_on(&server).await;
    ask(server.request("GET", &form.download())).await.expect(404);
}

async fn only_a_new_picture_needs_to_know_under_which_host_the_server_is_reached(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let mut body = profile(&version());
    for (avatar, status) in [(false, 200), (true, 400)] {
        body["avatar"] = avatar.into();
        let request = bob.request(&server, "PUT", "/v1/profile").header("host", "not/a/host");
        let answer = ask(request.json(&body)).await.expect(status);
        assert!(status == 200 || answer.code() == "host");
    }
}

async fn strangers_read_with_the_access_key_alone(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mut bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    let body = profile(&version);
    publish(&server, &bob, &body).await.expect(200);
    let nobody = uuid::Uuid::from_bytes(random()).to_string();
    let stranger = async |path: &str, key: Option<String>| {
        let request = server.request("GET", &format!("/v1/profile/{path}"));
        ask(key
            .into_iter()
            .fold(request, |request, key| request.header("unidentified-access-key", key)))
        .await
    };
    let versioned = format!("{}/{version}", bob.aci);
    let answer = stranger(&versioned, Some(bob.access_key_header())).await.expect(200);
    assert_eq!(answer.looks(), read(&server, &alice, &versioned).await.looks());
    // Who may not read learns nothing: not whether there is an account, nor whether there is such a version.
    let refused = stranger(&versioned, None).await.expect(401).looks();
    let unknown = format!("{}/{}", bob.aci, hex(&random::<32>()));
    for (path, key) in [
        (&versioned, Some(alice.access_key_header())),
        (&versioned, Some("no key".to_owned())),
        (&unknown, Some(alice.access_key_header())),
        (&bob.aci, None),
        (&nobody, None),
        (&nobody, Some(bob.access_key_header())),
        (&format!("PNI:{}", bob.pni), Some(bob.access_key_header())),
        (&format!("PNI:{}/{version}", bob.pni), Some(bob.access_key_header())),
    ] {
        assert_eq!(stranger(path, key).await.looks(), refused, "{path}");
    }
    let both = server
        .request("GET", &format!("/v1/profile/{versioned}"))
        .header("unidentified-access-key", bob.access_key_header())
        .header("group-send-token", "AA==");
    assert_eq!(ask(both).await.expect(400).code(), "two_authorizations");

    // A changed key opens and is told at once; without one, the account is open to all.
    bob.access_key = random();
    let mut attributes = bob.attributes();
    ask(bob.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);
    let changed = stranger(&versioned, Some(bob.access_key_header()))
        .await
        .expect(200)
        .json();
    assert_ne!(changed["unidentifiedAccess"], answer.json()["unidentifiedAccess"]);
    attributes["unidentifiedAccessKey"] = json!(null);
    attributes["unrestrictedUnidentifiedAccess"] = json!(true);
    ask(bob.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);
    let open = stranger(&versioned, Some(base64(&[0; 16]))).await.expect(200).json();
    assert_eq!(open["unrestrictedUnidentifiedAccess"], true);
    assert!(open["unidentifiedAccess"].is_null());
}

async fn a_pni_shows_its_identity_key_and_nothing_of_the_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    publish(&server, &bob, &profile(&version)).await.expect(200);
    let pni = format!("PNI:{}", bob.pni);
    let answer = read(&server, &alice, &pni).await.expect(200);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(
        !text.contains(&bob.aci) && !text.contains(&bob.aci_identity.base64()),
        "{text}"
    );
    let answer = answer.json();
    assert_eq!(answer["uuid"], pni);
    assert_eq!(answer["identityKey"], bob.pni_identity.base64());
    assert_eq!(answer["capabilities"], json!({}));
    assert!(answer["unidentifiedAccess"].is_null());
    read(&server, &alice, &format!("{pni}/{version}")).await.expect(404);
}

async fn a_profile_ends_with_its_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, mut bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    publish(&server, &bob, &profile(&version)).await.expect(200);
    let path = format!("{}/{version}", bob.aci);
    bob.register_on(&server).await;
    assert!(read(&server, &alice, &path).await.expect(200).json()["name"].is_null());
    publish(&server, &bob, &profile(&version)).await.expect(200);
    ask(bob.request(&server, "DELETE", "/v1/accounts/me")).await.expect(204);
    read(&server, &alice, &path).await.expect(404);
}

async fn an_account_that_reads_the_second_form_is_told_so(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let mut attributes = bob.attributes();
    attributes["capabilities"] = json!({ "spqr": true, "profiles_v2": true });
    ask(bob.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);
    let version = version();
    let answer = publish(&server, &bob, &profile(&version)).await.expect(412);
    assert_eq!(answer.code(), "profiles_v2");
    let answer = read(&server, &bob, &format!("{}/{version}", bob.aci)).await.json();
    assert!(answer["name"].is_null());
}

async fn a_credential_is_not_issued_and_the_profile_comes_all_the_same(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    publish(&server, &bob, &profile(&version)).await.expect(200);
    let plain = format!("{}/{version}", bob.aci);
    let request = hex(&random::<329>());
    let path = format!("{plain}/{request}?credentialType=expiringProfileKey");
    let answer = read(&server, &alice, &path).await.expect(200);
    assert!(answer.json().get("credential").is_none());
    assert_eq!(answer.looks(), read(&server, &alice, &plain).await.looks());
}

async fn identity_checks_answer_mismatches_only(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let fingerprint = |key: &str| {
        let key = STANDARD.decode(key).unwrap();
        base64(&Sha256::digest(key)[..4])
    };
    let element = |id: &str, fingerprint: &str| json!({ "uuid": id, "fingerprint": fingerprint });
    let check = async |elements: Value| {
        let request = server.request("POST", "/v1/profile/identity_check/batch");
        ask(request.json(&json!({ "elements": elements }))).await
    };
    let right = fingerprint(&bob.aci_identity.base64());
    let pni = format!("PNI:{}", bob.pni);
    let nobody = uuid::Uuid::from_bytes(random()).to_string();
    let answer = check(json!([
        element(&bob.aci, &right),
        element(&alice.aci, &right),
        element(&pni, &right),
        element(&bob.aci.to_uppercase(), "AAAAAA=="),
        element(&nobody, &right),
        element(&format!("PNI:{}", bob.aci), &right),
        element(
            &format!("PNI:{}", alice.pni),
            &fingerprint(&alice.pni_identity.base64())
        ),
    ]))
    .await
    .expect(200)
    .json();
    let expected = json!({ "elements": [
        { "uuid": alice.aci, "identityKey": alice.aci_identity.base64() },
        { "uuid": pni, "identityKey": bob.pni_identity.base64() },
        { "uuid": bob.aci, "identityKey": bob.aci_identity.base64() },
    ] });
    assert_eq!(answer, expected);
    assert_eq!(check(json!([])).await.expect(200).json(), json!({ "elements": [] }));

    let many = |count: usize| Value::from(vec![element(&bob.aci, &right); count]);
    assert_eq!(check(many(1_000)).await.expect(200).json(), json!({ "elements": [] }));
    for (elements, code) in [
        (many(1_001), "too_many_elements"),
        (json!([element("bob", &right)]), "service_id"),
        (json!([element(&bob.aci, "AAAA")]), "fingerprint"),
        (json!([element(&bob.aci, "AAAAAAAA")]), "fingerprint"),
        (json!([element(&bob.aci, "?")]), "unexpected_json"),
        (json!([{ "uuid": bob.aci }]), "unexpected_json"),
        (json!(null), "unexpected_json"),
    ] {
        assert_eq!(check(elements.clone()).await.expect(422).code(), code, "{elements}");
    }
}

async fn t44_a_profile_tells_nothing_about_presence(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let version = version();
    publish(&server, &bob, &profile(&version)).await.expect(200);
    let looks = async || {
        let mut all = Vec::new();
        for path in [
            bob.aci.clone(),
            format!("{}/{version}", bob.aci),
            format!("PNI:{}", bob.pni),
        ] {
            all.push(read(&server, &alice, &path).await.expect(200).looks());
        }
        let key = server
            .request("GET", &format!("/v1/profile/{}/{version}", bob.aci))
            .header("unidentified-access-key", bob.access_key_header());
        all.push(ask(key).await.expect(200).looks());
        all
    };
    let never_seen = looks().await;
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    assert_eq!(looks().await, never_seen);
    drop(socket);
    assert_eq!(looks().await, never_seen);
}
