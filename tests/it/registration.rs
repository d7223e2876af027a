//! From a number to an account, what the account says about itself, and its end.

use serde_json::{Value, json};
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::keys::{base64, ec_key, kyber, signed, signed_ec};
use crate::support::person::{basic, open_session, verified_session};
use crate::support::{Answer, Backend, Person, Server, Socket, ask, hex, on_each_backend, random, send, single};

on_each_backend! {
    a_number_becomes_an_account
    a_second_registration_starts_the_account_over
    a_deleted_account_is_gone_for_everyone
    a_recovery_password_stands_in_for_a_session
    of_two_registrations_at_once_one_device_remains
    t03_one_session_registers_once_however_many_ask_at_once
    a_lock_set_during_a_registration_is_not_passed_over
}

async fn a_number_becomes_an_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let person = Person::new();
    // The nulls are what one client stack sends.
    let body = json!({ "number": person.number, "pushToken": null, "mcc": null, "mnc": null, "pushTokenType": null });
    let session = ask(server.request("POST", "/v1/verification/session").json(&body))
        .await
        .expect(200)
        .json();
    let id = session["id"].as_str().unwrap();
    assert!(
        id.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)),
        "{id}"
    );
    let fresh = json!({
        "id": id, "allowedToRequestCode": true, "verified": false, "requestedInformation": [],
        "nextSms": 0, "nextCall": 0, "nextVerificationAttempt": 0,
    });
    assert_eq!(session, fresh);
    let path = format!("/v1/verification/session/{id}");
    assert_eq!(ask(server.request("GET", &path)).await.expect(200).json(), fresh);
    let patch = server
        .request("PATCH", &path)
        .json(&json!({ "captcha": "x", "pushChallenge": null }));
    assert_eq!(ask(patch).await.expect(200).json(), fresh);
    let code = format!("{path}/code");
    for transport in ["sms", "voice"] {
        let request = server
            .request("POST", &code)
            .json(&json!({ "transport": transport, "client": "android-2021-03" }));
        assert_eq!(ask(request).await.expect(200).json(), fresh);
    }
    let verified = ask(server.request("PUT", &code).json(&json!({ "code": "123456" })))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&verified["verified"], &verified["allowedToRequestCode"]),
        (&json!(true), &json!(false))
    );
    for request in [
        server.request("PUT", &code).json(&json!({ "code": "123456" })),
        server
            .request("POST", &code)
            .json(&json!({ "transport": "sms", "client": "ios" })),
    ] {
        assert_eq!(ask(request).await.expect(409).json(), verified);
    }

    let account = ask(person.registering(&server).json(&person.registration(id)))
        .await
        .expect(200)
        .json();
    for field in ["uuid", "pni"] {
        let text = account[field].as_str().unwrap();
        assert_eq!(
            uuid::Uuid::try_parse(text).unwrap().to_string(),
            text,
            "a bare UUID in lower case"
        );
    }
    assert_eq!(
        (&account["number"], &account["reregistration"]),
        (&json!(person.number), &json!(false))
    );
    assert_eq!(account["storageCapable"], false);
    assert_eq!(account["entitlements"], json!({ "badges": [], "backup": null }));
    // The session is used up.
    ask(person.registering(&server).json(&person.registration(id)))
        .await
        .expect(401);

    let mut registered = person.clone();
    account["uuid"].as_str().unwrap().clone_into(&mut registered.aci);
    for user in [registered.aci.clone(), format!("{}.1", registered.aci)] {
        let request = server
            .request("GET", "/v1/accounts/whoami")
            .basic_auth(user, Some(&person.password));
        let mut whoami = ask(request).await.expect(200).json();
        whoami["reregistration"] = false.into();
        assert_eq!(whoami, account);
    }
}

#[tokio::test]
async fn a_session_that_is_not_right_is_refused() {
    let server = Server::spawn(Backend::Sqlite).await;
    let post = |body: Value| ask(server.request("POST", "/v1/verification/session").json(&body));
    for number in [
        "",
        "+",
        "12345678",
        "+1234",
        "+0123456789",
        "+49 151 234",
        "+1234567890123456",
    ] {
        post(json!({ "number": number })).await.expect(400);
    }
    for body in [json!({}), json!({ "number": null }), json!({ "number": 49_151 })] {
        post(body).await.expect(422);
    }
    let unknown = base64(&random::<32>())
        .replace('+', "-")
        .replace('/', "_")
        .replace('=', "");
    for (id, status) in [(unknown.as_str(), 404), ("x", 400), ("%00", 400), ("....", 400)] {
        let path = format!("/v1/verification/session/{id}");
        ask(server.request("GET", &path)).await.expect(status);
        ask(server.request("PATCH", &path).json(&json!({})))
            .await
            .expect(status);
        let code = format!("{path}/code");
        ask(server.request("PUT", &code).json(&json!({ "code": "1" })))
            .await
            .expect(status);
        ask(server.request("POST", &code).json(&json!({ "transport": "sms" })))
            .await
            .expect(status);
    }
    let session = open_session(&server, "+4915112345678").await;
    let code = format!("/v1/verification/session/{session}/code");
    for body in [
        json!({ "transport": "pigeon" }),
        json!({ "transport": null }),
        json!({}),
    ] {
        ask(server.request("POST", &code).json(&body)).await.expect(422);
    }
}

#[tokio::test]
async fn t01_wrong_codes_are_answers_and_are_counted() {
    let server = Server::spawn(Backend::Sqlite).await;
    let person = Person::new();
    let session = open_session(&server, &person.number).await;
    let code = format!("/v1/verification/session/{session}/code");
    let try_code = |text: &str| ask(server.request("PUT", &code).json(&json!({ "code": text })));
    for left in (0..5).rev() {
        let answer = try_code("").await.expect(200).json();
        assert_eq!(
            (&answer["verified"], &answer["allowedToRequestCode"]),
            (&json!(false), &json!(left > 0))
        );
    }
    for _ in 0..2 {
        let answer = try_code("123456").await.expect(429);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=600).contains(&wait), "{wait} seconds");
        let answer = answer.json();
        assert_eq!(answer["code"], "otp_locked");
        assert_eq!((&answer["verified"], &answer["id"]), (&json!(false), &json!(session)));
    }
    ask(person.registering(&server).json(&person.registration(&session)))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_registration_that_is_not_right_is_refused_and_leaves_the_session() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (person, other) = (Person::new(), Person::register(&server).await);
    let session = verified_session(&server, &person.number).await;
    let good = person.registration(&session);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(field).unwrap() = value;
        body
    };
    let register = |body: &Value| ask(person.registering(&server).json(body));

    let open = open_session(&server, &person.number).await;
    for id in [open, base64(&random::<32>()).replace(['+', '/'], "_"), "x".to_owned()] {
        register(&with("/sessionId", id.into())).await.expect(401);
    }
    let others = verified_session(&server, &other.number).await;
    register(&with("/sessionId", others.into())).await.expect(400);
    register(&with("/sessionId", Value::Null)).await.expect(422);
    let mut two_proofs = good.clone();
    two_proofs["recoveryPassword"] = base64(&[1; 32]).into();
    register(&two_proofs).await.expect(422);

    // T10 and T11: signed by another, damaged, of another form.
    let foreign = signed_ec(&person.pni_identity, 1);
    let mut damaged = person.aci_signed.clone();
    damaged["signature"] = base64(&[0; 64]).into();
    let mut short = person.aci_signed.clone();
    short["signature"] = base64(&[0; 63]).into();
    let bare = signed(&person.aci_identity, 1, &ec_key()[1..]);
    for key in [
        foreign,
        damaged,
        short,
        bare,
        Value::Null,
        kyber(&person.aci_identity, 1),
    ] {
        register(&with("/aciSignedPreKey", key)).await.expect(422);
    }
    for key in [
        kyber(&person.aci_identity, 1),
        signed_ec(&person.pni_identity, 1),
        Value::Null,
    ] {
        register(&with("/pniPqLastResortPreKey", key)).await.expect(422);
    }
    for key in [base64(&[0; 33]), base64(&[5; 32]), base64(&ec_key()), "?".to_owned()] {
        register(&with("/aciIdentityKey", key.into())).await.expect(422);
    }
    let mut low_order = [0; 33];
    low_order[0] = 5;
    register(&with("/pniIdentityKey", base64(&low_order).into()))
        .await
        .expect(422);
    for field in [
        "aciIdentityKey",
        "pniIdentityKey",
        "pniSignedPreKey",
        "aciPqLastResortPreKey",
        "accountAttributes",
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        register(&body).await.expect(422);
    }
    for (field, value) in [
        ("registrationId", json!(0)),
        ("registrationId", json!(16_384)),
        ("pniRegistrationId", json!(null)),
        ("pniRegistrationId", json!(-1)),
        ("unidentifiedAccessKey", json!(null)),
        ("unidentifiedAccessKey", json!(base64(&[1; 15]))),
        ("unidentifiedAccessKey", json!([1, 2, 3])),
        ("unidentifiedAccessKey", json!(vec![256; 16])),
        ("name", json!(base64(&[1; 226]))),
        ("capabilities", json!(["spqr"])),
    ] {
        let mut attributes = person.attributes();
        attributes[field] = value;
        register(&with("/accountAttributes", attributes)).await.expect(422);
    }

    let raw = person.registering(&server).header("content-type", "application/json");
    ask(raw.body("{\"sessionId\":")).await.expect(400);
    let unnamed = || server.request("POST", "/v1/registration").json(&good);
    ask(unnamed()).await.expect(401);
    ask(unnamed().basic_auth(&other.aci, Some(&other.password)))
        .await
        .expect(401);
    ask(unnamed().basic_auth(&person.number, Some("short")))
        .await
        .expect(401);
    ask(unnamed().basic_auth(&other.number, Some(&person.password)))
        .await
        .expect(400);

    register(&good).await.expect(200);
    ask(other.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
}

#[tokio::test]
async fn access_keys_come_as_numbers_or_base64_and_unknown_fields_are_ignored() {
    let server = Server::spawn(Backend::Sqlite).await;
    let sealed = async |to: &Person, key: &[u8; 16]| {
        let request = server
            .request("PUT", &to.inbox())
            .header("unidentified-access-key", base64(key));
        ask(request.json(&single(to, 6, b"c"))).await.status
    };
    let key = random::<16>();
    for form in [
        json!(key),
        json!(base64(&key)),
        json!(base64(&key).trim_end_matches('=')),
    ] {
        let mut person = Person::new();
        let session = verified_session(&server, &person.number).await;
        let mut body = person.registration(&session);
        for (field, value) in [
            ("everySignedKeyValid", json!(true)),
            ("requireAtomic", json!(true)),
            ("gcmToken", json!(null)),
            ("apnToken", json!(null)),
            ("recoveryPassword", json!(null)),
            ("fromTheFuture", json!({ "deep": [1, { "er": null }] })),
        ] {
            body[field] = value;
        }
        for (field, value) in [
            ("unidentifiedAccessKey", form),
            ("pin", json!(null)),
            ("name", json!(null)),
            ("registrationLock", json!(null)),
            ("recoveryPassword", json!(null)),
            ("capabilities", json!({ "spqr": true, "unheardOf": true })),
            ("voice", json!(true)),
            ("discoverableByPhoneNumber", json!(null)),
        ] {
            body["accountAttributes"][field] = value;
        }
        let answer = ask(person.registering(&server).json(&body)).await.expect(200).json();
        answer["uuid"].as_str().unwrap().clone_into(&mut person.aci);
        assert_eq!(
            (sealed(&person, &key).await, sealed(&person, &[0; 16]).await),
            (200, 401)
        );
    }

    // Attributes change the key for all who come later, and the registration ids not at all.
    let person = Person::register(&server).await;
    let mut attributes = person.attributes();
    attributes["unidentifiedAccessKey"] = json!(key);
    attributes["registrationId"] = json!(person.registration_id % 16_000 + 1);
    for path in ["/v1/accounts/attributes", "/v1/accounts/attributes/"] {
        let answer = ask(person.request(&server, "PUT", path).json(&attributes))
            .await
            .expect(204);
        assert!(answer.body.is_empty() && answer.header("content-type").is_none());
    }
    assert_eq!(
        (sealed(&person, &key).await, sealed(&person, &person.access_key).await),
        (200, 401)
    );
    attributes["unidentifiedAccessKey"] = Value::Null;
    ask(person
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(422);
    attributes["unrestrictedUnidentifiedAccess"] = true.into();
    ask(person
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    assert_eq!(
        (sealed(&person, &key).await, sealed(&person, &[0; 16]).await),
        (200, 200)
    );
}

#[tokio::test]
async fn both_client_stacks_register_through_a_socket() {
    let server = Server::spawn(Backend::Sqlite).await;
    let json_header = "content-type:application/json";
    // One opens a socket with the number's credentials, which its requests inherit.
    let person = Person::new();
    let session = open_session(&server, &person.number).await;
    let number = basic(&person.number, &person.password);
    let mut socket = Socket::open(&server, Some(&number), &[]).await.unwrap();
    socket.keepalive().await;
    let path = format!("/v1/verification/session/{session}/code");
    socket
        .ask("PUT", &path, &[json_header], Some(&json!({ "code": "1" })))
        .await
        .expect(200);
    let body = person.registration(&session);
    let answer = socket
        .ask("POST", "/v1/registration", &[json_header], Some(&body))
        .await
        .expect(200);
    let aci = answer.json()["uuid"].as_str().unwrap().to_owned();
    // The socket itself stays nobody's.
    socket.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(401);
    assert!(
        Socket::open(&server, Some(&basic(&aci, &person.password)), &[])
            .await
            .is_ok()
    );

    // The other gives them on the request. A header of the request goes before an inherited one.
    for opened_with in [None, Some(number.as_str())] {
        let other = Person::new();
        let session = verified_session(&server, &other.number).await;
        let mut socket = Socket::open(&server, opened_with, &[]).await.unwrap();
        let own = format!("authorization: {}", basic(&other.number, &other.password));
        let body = other.registration(&session);
        let answer = socket
            .ask("POST", "/v1/registration", &[json_header, &own], Some(&body))
            .await
            .expect(200);
        assert_eq!(answer.json()["number"], other.number);
        let aci = answer.json()["uuid"].as_str().unwrap().to_owned();
        assert!(
            Socket::open(&server, Some(&basic(&aci, &other.password)), &[])
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn a_body_that_arrives_after_the_device_was_replaced_changes_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let old = Person::register(&server).await;
    let body = old.attributes().to_string();
    let head = format!(
        "PUT /v1/accounts/attributes HTTP/1.1\r\nhost: relay\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
        old.authorization(),
        body.len()
    );
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let (begin, end) = body.split_at(20);
    stream.write_all(format!("{head}{begin}").as_bytes()).await.unwrap();
    // The head has been read, and with it the old device's credentials, once a later request has been answered.
    ask(old.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);

    let mut new = Person::new();
    new.number.clone_from(&old.number);
    new.register_on(&server).await;
    stream.write_all(end.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    let sealed = server
        .request("PUT", &new.inbox())
        .header("unidentified-access-key", new.access_key_header());
    ask(sealed.json(&single(&new, 6, b"the new key is in force")))
        .await
        .expect(200);
}

async fn a_second_registration_starts_the_account_over(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, old) = (Person::register(&server).await, Person::register(&server).await);
    old.upload_keys(&server, 1, 5).await;
    send(&server, &alice, &old, b"for the old device").await.expect(200);
    let mut socket = old.connect(&server).await;
    let (late, _) = socket.envelope().await;

    let mut new = Person::new();
    new.number.clone_from(&old.number);
    let answer = new.register_on(&server).await;
    assert_eq!((&new.aci, &new.pni), (&old.aci, &old.pni));
    assert_eq!(answer["reregistration"], true);
    assert_eq!(socket.close_code().await, Some(4401));
    socket.answer(late, 200).await;
    ask(old.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
    assert_eq!(
        Socket::open(&server, Some(&old.authorization()), &[]).await.err(),
        Some(403)
    );

    ask(new.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    new.connect(&server).await.expect_empty().await;
    let count = ask(new.request(&server, "GET", "/v2/keys?identity=ACI"))
        .await
        .expect(200)
        .json();
    assert_eq!(count, json!({ "count": 0, "pqCount": 0 }));
    let bundle = ask(alice.request(&server, "GET", &format!("/v2/keys/{}/1", new.aci)))
        .await
        .expect(200)
        .json();
    assert_eq!(bundle["identityKey"], new.aci_identity.base64());
    assert_eq!(bundle["devices"][0]["registrationId"], new.registration_id);
    assert!(bundle["devices"][0].get("preKey").is_none());
    if old.registration_id != new.registration_id {
        send(&server, &alice, &old, b"c").await.expect(410);
    }
    send(&server, &alice, &new, b"for the new device").await.expect(200);
    assert_eq!(new.connect(&server).await.drain().await, [&b"for the new device"[..]]);

    // A device that could hand over its data is asked about first.
    let mut attributes = new.attributes();
    attributes["capabilities"] = json!({ "transfer": true, "storage": true });
    ask(new.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);
    let session = verified_session(&server, &new.number).await;
    let mut body = new.registration(&session);
    body["skipDeviceTransfer"] = false.into();
    assert_eq!(
        ask(new.registering(&server).json(&body)).await.expect(409).code(),
        "transfer_possible"
    );
    body["skipDeviceTransfer"] = true.into();
    let answer = ask(new.registering(&server).json(&body)).await.expect(200).json();
    assert_eq!(answer["storageCapable"], true);
}

async fn a_deleted_account_is_gone_for_everyone(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"waiting").await.expect(200);
    let mut socket = bob.connect(&server).await;
    socket.envelope().await;
    let quiet = [("x-signal-disable-messages", "true")];
    let mut quiet = Socket::open(&server, Some(&bob.authorization()), &quiet).await.unwrap();
    let answer = ask(bob.request(&server, "DELETE", "/v1/accounts/me")).await.expect(204);
    assert!(answer.body.is_empty());
    assert_eq!(socket.close_code().await, Some(4401));
    // One that wants no deliveries has no bell; it is looked at now and then.
    assert_eq!(quiet.close_code().await, Some(4401));
    for path in ["/v1/accounts/whoami", "/v1/messages", "/v2/keys"] {
        ask(bob.request(&server, "GET", path)).await.expect(401);
    }
    ask(bob.request(&server, "DELETE", "/v1/accounts/me")).await.expect(401);
    assert_eq!(
        Socket::open(&server, Some(&bob.authorization()), &[]).await.err(),
        Some(403)
    );
    send(&server, &alice, &bob, b"c").await.expect(404);
    ask(alice.request(&server, "GET", &format!("/v2/keys/{}/*", bob.aci)))
        .await
        .expect(404);
    ask(alice.request(&server, "GET", &format!("/v2/keys/PNI:{}/*", bob.pni)))
        .await
        .expect(404);
    let sealed = server
        .request("PUT", &bob.inbox())
        .header("unidentified-access-key", bob.access_key_header());
    ask(sealed.json(&single(&bob, 6, b"c"))).await.expect(401);
    // The number is free, and nothing of the old account comes back.
    let mut again = bob.clone();
    let answer = again.register_on(&server).await;
    assert_eq!(answer["reregistration"], false);
    again.connect(&server).await.expect_empty().await;
}

async fn a_recovery_password_stands_in_for_a_session(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (old, stranger) = (Person::register(&server).await, Person::new());
    let recovery = random::<32>();
    let by_recovery = |person: &Person, password: &[u8]| {
        let mut body = person.registration("");
        body["sessionId"] = Value::Null;
        body["recoveryPassword"] = base64(password).into();
        ask(person.registering(&server).json(&body))
    };
    by_recovery(&old, &recovery).await.expect(403);
    let mut attributes = old.attributes();
    attributes["recoveryPassword"] = base64(&recovery).into();
    ask(old.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes))
        .await
        .expect(204);

    let looks = |answer: Answer| answer.expect(403).looks();
    let wrong = looks(by_recovery(&old, &[0; 32]).await);
    assert_eq!(
        looks(by_recovery(&stranger, &recovery).await),
        wrong,
        "T45: says nothing about the number"
    );
    by_recovery(&old, &recovery[..31]).await.expect(422);
    let mut new = Person::new();
    new.number.clone_from(&old.number);
    let answer = by_recovery(&new, &recovery).await.expect(200).json();
    assert_eq!((&answer["uuid"], &answer["pni"]), (&json!(old.aci), &json!(old.pni)));
    new.aci.clone_from(&old.aci);
    ask(new.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    ask(old.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
}

async fn of_two_registrations_at_once_one_device_remains(backend: Backend) {
    let server = Server::spawn(backend).await;
    for again in [false, true] {
        let (mut one, mut other) = (Person::new(), Person::new());
        other.number.clone_from(&one.number);
        if again {
            let mut before = Person::new();
            before.number.clone_from(&one.number);
            before.register_on(&server).await;
        }
        Box::pin(async { tokio::join!(one.register_on(&server), other.register_on(&server)) }).await;
        assert_eq!((&one.aci, &one.pni), (&other.aci, &other.pni));
        let mut statuses = Vec::new();
        for person in [&one, &other] {
            statuses.push(ask(person.request(&server, "GET", "/v1/accounts/whoami")).await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
    }
}

async fn t03_one_session_registers_once_however_many_ask_at_once(backend: Backend) {
    let server = Server::spawn(backend).await;
    let number = Person::new().number;
    for _ in 0..2 {
        let session = verified_session(&server, &number).await;
        let attempts = (0..6).map(|_| {
            let mut person = Person::new();
            person.number.clone_from(&number);
            let request = person.registering(&server).json(&person.registration(&session));
            async move { (person, ask(request).await) }
        });
        let mut registered = Vec::new();
        for (person, answer) in futures_util::future::join_all(attempts).await {
            if answer.status == 200 {
                registered.push((person, answer.json()));
            } else {
                answer.expect(401);
            }
        }
        let [(person, account)] = registered.as_mut_slice() else {
            panic!("{} devices were registered with one session", registered.len());
        };
        account["uuid"].as_str().unwrap().clone_into(&mut person.aci);
        ask(person.request(&server, "GET", "/v1/accounts/whoami"))
            .await
            .expect(200);
    }
}

async fn a_lock_set_during_a_registration_is_not_passed_over(backend: Backend) {
    let server = Server::spawn(backend).await;
    for _ in 0..8 {
        let (owner, mut other) = (Person::register(&server).await, Person::new());
        other.number.clone_from(&owner.number);
        let session = verified_session(&server, &other.number).await;
        let lock = owner
            .request(&server, "PUT", "/v1/accounts/registration_lock")
            .json(&json!({ "registrationLock": hex(&random::<32>()) }));
        let register = other.registering(&server).json(&other.registration(&session));
        let (locked, registered) = tokio::join!(ask(lock), ask(register));
        let outcome = (locked.status, registered.status);
        assert!([(204, 423), (401, 200)].contains(&outcome), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_read_does_not_undo_a_registration() {
    let server = Server::spawn(Backend::Sqlite).await;
    let old = Person::register(&server).await;
    let mut socket = old.connect(&server).await;
    let url = format!("sqlite://{}", server.place().sqlite().display());
    let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE usernames RENAME TO elsewhere")
        .execute(&mut db)
        .await
        .unwrap();
    let mut new = Person::new();
    new.number.clone_from(&old.number);
    let account = new.register_on(&server).await;
    assert_eq!(
        (&account["reregistration"], &account["usernameHash"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(socket.close_code().await, Some(4401));
}

#[tokio::test]
async fn a_closed_server_takes_nobody_new() {
    let server = Server::spawn_with(Backend::Sqlite, &[("REGISTRATION", "closed")]).await;
    let body = json!({ "number": "+4915112345678" });
    let answer = ask(server.request("POST", "/v1/verification/session").json(&body)).await;
    assert_eq!(answer.expect(403).code(), "registration_closed");
    let person = Person::new();
    let body = person.registration(&base64(&[0; 32]).replace('=', ""));
    assert_eq!(
        ask(person.registering(&server).json(&body)).await.expect(400).code(),
        "registration_closed"
    );
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let server = Server::spawn(Backend::Sqlite).await;
    let person = Person::register(&server).await;
    for path in [
        "/v1/accounts/whoami/",
        "/v2/keys/",
        "/v1/messages/",
        "/v1/keepalive/",
        "/v2/keys/?identity=PNI",
    ] {
        ask(person.request(&server, "GET", path)).await.expect(200);
    }
    let mut socket = person.connect(&server).await;
    socket.ask("GET", "/v1/accounts/whoami/", &[], None).await.expect(200);
}
