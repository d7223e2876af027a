//! What a server refuses, with canaries in whatever it refuses.

use std::collections::BTreeSet;

use blind_relay::http::routes::ROUTES;
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::marks::Fate;
use super::world::{World, digits};
use crate::support::fan_out::{self, Entry};
use crate::support::frames::frame;
use crate::support::keys::base64;
use crate::support::person::basic;
use crate::support::usernames::{Name, url_safe};
use crate::support::{Person, Server, single};

/// Every route in every way that is wrong for any of them, then what is wrong in ways of its own.
pub(super) async fn provoke_all(world: &World, people: &[Person]) {
    let (caller, target) = (&people[0], &people[1]);
    // A few at a time: the server takes what it is given, and the test has bounds of its own.
    let routes: Vec<_> = ROUTES.iter().collect();
    for some in routes.chunks(8) {
        join_all(some.iter().map(|route| {
            let method = route.method.to_uppercase();
            every_route(world, method, route.path, caller)
        }))
        .await;
    }
    tokio::join!(
        Box::pin(messages(world, caller, target)),
        Box::pin(accounts(world, caller, target)),
        Box::pin(connections(world, caller)),
    );
}

/// Fails unless every route was used and refused, each refusal by another route or status counted.
pub(super) async fn expect_many(world: &World) {
    let mut answers = BTreeSet::new();
    for node in &world.nodes {
        for line in node.metrics().await.lines() {
            let Some((labels, _)) = line
                .strip_prefix("blind_relay_requests_total{")
                .and_then(|line| line.rsplit_once('}'))
            else {
                continue;
            };
            answers.insert(labels.to_owned());
        }
    }
    let refused: Vec<_> = answers.iter().filter(|labels| labels.contains("status=\"4")).collect();
    assert!(refused.len() >= 40, "{refused:#?}");
    let met = |path: &str, class: &str| {
        let label = format!("route=\"{path}\"");
        answers
            .iter()
            .any(|labels| labels.contains(&label) && labels.contains(&format!("status=\"{class}")))
    };
    // What this server does not have answers nobody rightfully.
    let absent = |path: &str| path.contains("/auth") || path.contains("/challenge");
    let paths = || ROUTES.iter().map(|route| route.path);
    let unrefused: Vec<_> = paths().filter(|path| !met(path, "4")).collect();
    assert!(unrefused.is_empty(), "refused nothing: {unrefused:?}");
    let unused: Vec<_> = paths().filter(|path| !met(path, "2") && !absent(path)).collect();
    assert!(unused.is_empty(), "not used rightfully: {unused:?}");
}

async fn every_route(world: &World, method: String, path: &str, caller: &Person) {
    let marks = &world.marks;
    let server = world.node();
    let named = |segment: &str| match segment.starts_with('{') {
        true => marks.text("part of a path"),
        false => segment.to_owned(),
    };
    let path = || {
        let path: Vec<_> = path.split('/').map(named).collect();
        let query = format!("{}={}", marks.text("query"), marks.text("query"));
        format!("{}?{query}&timeout=1&version={}", path.join("/"), marks.text("query"))
    };
    let wrong = || basic(&caller.aci, &marks.text("wrong password"));
    let json = || json!({ marks.text("unknown field"): base64(&marks.raw::<48>("value of an unknown field")) });
    let nobody = |path: &str| server.request(&method, path);
    let mut requests: Vec<RequestBuilder> = vec![
        nobody(&path()).body(format!("{{\"{}", marks.text("broken JSON"))),
        nobody(&path()).header("authorization", wrong()).json(&json()),
        nobody(&path())
            .header("authorization", format!("Bearer {}", marks.text("token")))
            .json(&json()),
        nobody(&path()).header("authorization", basic(&marks.text("user"), &marks.text("password"))),
        nobody(&path())
            .header("unidentified-access-key", base64(&marks.raw::<16>("wrong access key")))
            .json(&json()),
        nobody(&path())
            .header("group-send-token", base64(&marks.raw::<60>("group token")))
            .json(&json()),
        nobody(&path())
            .header("content-type", format!("text/{}", marks.text("content type")))
            .body(marks.bytes("wrong body", 600)),
        server
            .request("PROPFIND", &path())
            .body(marks.text("body of an unknown method")),
    ];
    // Rightful in all but the form. Such a request may end an account.
    if method != "DELETE" {
        let rightful = |path: &str| caller.request(server, &method, path);
        requests.extend([
            rightful(&path()).json(&json()),
            rightful(&path()).json(&json!([marks.text("list"), marks.text("list")])),
            rightful(&path()).body(marks.text("no JSON")),
            rightful(&path()).json(&json!({ "messages": [{ "content": marks.text("content") }], "elements": marks.text("elements"), "operations": [marks.text("operation")] })),
        ]);
    }
    for request in requests {
        world.try_ask(request).await;
    }
    // A socket of nobody: a device has one at a time.
    let mut socket = world.socket(server, None).await.unwrap();
    if method != "DELETE" {
        let header = format!("x-something:{}", marks.text("tunnelled header"));
        socket.ask(&method, &path(), &[&header], Some(&json())).await;
    }
}

async fn messages(world: &World, caller: &Person, target: &Person) {
    let marks = &world.marks;
    let server = world.node();
    let body = || single(target, 6, &marks.bytes("refused message", 300));
    let mut stale = body();
    stale["messages"][0]["destinationRegistrationId"] = 1.into();
    let mut extra = body();
    extra["messages"][0]["destinationDeviceId"] = 9.into();
    let mut twice = body();
    let copy = twice["messages"][0].clone();
    twice["messages"].as_array_mut().unwrap().push(copy);
    let mut kind = body();
    kind["messages"][0]["type"] = 77.into();
    let mut unframed = body();
    unframed["messages"][0]["content"] = base64(marks.text("readable message").as_bytes()).into();
    let large = single(target, 6, &marks.bytes("large message", 300 * 1024));
    let mut encoded = body();
    encoded["messages"][0]["content"] = format!("*{}", marks.text("no base64")).into();
    for body in [stale, extra, twice, kind, unframed, large, encoded] {
        world
            .ask(caller.request(server, "PUT", &target.inbox()).json(&body))
            .await;
    }
    let nobody = format!("/v1/messages/{}", uuid::Uuid::from_bytes(marks.asked("unknown ACI")));
    world
        .ask(caller.request(server, "PUT", &nobody).json(&body()))
        .await
        .expect(404);
    let key = base64(&marks.raw::<16>("wrong access key"));
    let wrong_key = server.request("PUT", &target.inbox()).json(&body());
    world
        .ask(wrong_key.header("unidentified-access-key", key))
        .await
        .expect(401);
    world
        .ask(server.request("PUT", &target.inbox()).json(&body()))
        .await
        .expect(401);
    let huge = server.request("PUT", &target.inbox());
    world.try_ask(huge.body(marks.bytes("huge body", 1200 * 1024))).await;

    for (entries, key) in [
        (vec![Entry::of(target)], base64(&marks.raw::<16>("wrong access key"))),
        (vec![Entry::new(&target.aci, &[(1, 1)])], target.access_key_header()),
        (vec![Entry::new(&target.aci, &[(7, 5)])], target.access_key_header()),
        (
            vec![Entry::new(
                &uuid::Uuid::from_bytes(marks.asked("unknown ACI")).to_string(),
                &[(1, 5)],
            )],
            target.access_key_header(),
        ),
    ] {
        let whole = fan_out::message(&entries, &marks.bytes("refused message to many", 200));
        let request = fan_out::request(server, "?ts=1&online=false&urgent=true", whole);
        world.ask(request.header("unidentified-access-key", key)).await;
    }
    let broken = marks.bytes("broken message to many", 200);
    let broken = fan_out::request(server, "?ts=1", broken);
    world
        .ask(broken.header("unidentified-access-key", target.access_key_header()))
        .await;
}

async fn accounts(world: &World, caller: &Person, target: &Person) {
    let marks = &world.marks;
    let server = world.node();
    // A number that has a lock and an owner.
    let lock = json!({ "registrationLock": digits(&marks.raw("registration lock")) });
    let locking = target
        .request(server, "PUT", "/v1/accounts/registration_lock")
        .json(&lock);
    world.ask(locking).await.expect(204);
    let mut thief = Person::new();
    thief.number.clone_from(&target.number);
    thief.password = marks.text("password of a thief");
    let session = world.verified(&thief.number).await;
    let mut body = thief.registration(&session);
    body["accountAttributes"]["registrationLock"] = digits(&marks.raw("wrong lock")).into();
    world.ask(thief.registering(server).json(&body)).await.expect(423);
    let unlocking = target.request(server, "DELETE", "/v1/accounts/registration_lock");
    world.ask(unlocking).await.expect(204);
    let mut body = thief.registration("");
    body["sessionId"] = serde_json::Value::Null;
    body["recoveryPassword"] = base64(&marks.raw::<32>("wrong recovery password")).into();
    world.ask(thief.registering(server).json(&body)).await.expect(403);
    let unknown = url_safe(&marks.raw::<32>("unknown session"));
    world
        .ask(thief.registering(server).json(&thief.registration(&unknown)))
        .await
        .expect(401);
    for number in [&caller.number[1..], &format!("+0{}", &caller.number[1..])] {
        let opening = server.request("POST", "/v1/verification/session");
        world.ask(opening.json(&json!({ "number": number }))).await.expect(400);
    }
    for (sign, status) in [("@", 200), ("@@", 400)] {
        let address = format!("{}{sign}example.org", marks.text("e-mail address"));
        let opening = server.request("POST", "/v1/verification/session");
        let answer = world
            .ask(opening.json(&json!({ "email": address })))
            .await
            .expect(status);
        if let Some(number) = answer.json()["number"].as_str() {
            marks.exact("number of an e-mail address", Fate::Passing, &number[1..]);
        }
    }
    world
        .ask(server.request("GET", &format!("/v1/verification/session/{unknown}")))
        .await
        .expect(404);

    for name in ["access_token", "password"] {
        let secret = marks.text("secret in a query");
        let asking = caller.request(server, "GET", &format!("/v1/accounts/whoami?{name}={secret}"));
        world.ask(asking).await.expect(400);
    }
    for path in ["/v1/auth/refresh", "/v1/auth/revoke"] {
        let shown = json!({ "refreshToken": marks.text("refresh token of nobody") });
        world.ask(server.request("POST", path).json(&shown)).await.expect(401);
    }

    let mut late = caller.new_device();
    late.password = marks.text("password of a device");
    world
        .ask(late.linking(server, &marks.text("wrong link token")))
        .await
        .expect(403);
    let address = base64(&marks.raw::<16>("wrong provisioning address"))
        .replace('+', "-")
        .replace('/', "_");
    let body = json!({ "body": base64(&marks.bytes("refused provisioning message", 200)) });
    let handing = caller.request(server, "PUT", &format!("/v1/provisioning/{address}"));
    world.ask(handing.json(&body)).await.expect(404);

    let name = Name::new();
    marks.exact("proof of a name that is not reserved", Fate::Passing, name.proof);
    let confirming = caller.request(server, "PUT", "/v1/accounts/username_hash/confirm");
    let mut confirmation = name.confirmation(None);
    confirmation["encryptedUsername"] = url_safe(&marks.asked::<100>("refused user name")).into();
    world.ask(confirming.json(&confirmation)).await;
    let lookup = format!(
        "/v1/accounts/username_hash/{}",
        url_safe(&marks.asked::<32>("unknown name"))
    );
    world.ask(server.request("GET", &lookup)).await;

    let path = format!(
        "/v1/data/{}",
        url_safe(&marks.asked::<32>("refused key of account data"))
    );
    let put = |version: i64, value: &[u8]| {
        let body = json!({ "version": version, "value": base64(value) });
        caller.request(server, "PUT", &path).json(&body)
    };
    world
        .ask(put(7, &marks.asked::<300>("refused account data")))
        .await
        .expect(409);
    world.ask(put(0, &marks.bytes("large account data", 70_000))).await;
    let mut profile = json!({
        "version": digits(&marks.raw("refused profile version")),
        "commitment": base64(&marks.raw::<97>("refused commitment")),
        "name": base64(&marks.raw::<80>("refused profile name")),
    });
    world
        .ask(caller.request(server, "PUT", "/v1/profile").json(&profile))
        .await
        .expect(422);
    profile["version"] = marks.text("refused profile version").into();
    world
        .ask(caller.request(server, "PUT", "/v1/profile").json(&profile))
        .await;
    let mut signed = caller.aci_signed.clone();
    signed["signature"] = base64(&marks.raw::<64>("wrong signature")).into();
    let upload = caller
        .request(server, "PUT", "/v2/keys")
        .json(&json!({ "signedPreKey": signed }));
    world.ask(upload).await.expect(422);
    let form = marks.text("wrong upload form");
    for method in ["POST", "PATCH", "HEAD", "PUT", "DELETE"] {
        let path = format!("/upload/attachments/{}", marks.text("unknown attachment"));
        let request = server
            .request(method, &path)
            .header("authorization", format!("Bearer {form}"));
        let request = request.header("tus-resumable", "1.0.0").header("upload-offset", "0");
        let metadata = format!("filename {}", base64(marks.text("name of a file").as_bytes()));
        let body = marks.bytes("refused attachment", 900);
        world
            .try_ask(request.header("upload-metadata", metadata).body(body))
            .await;
    }
}

/// What is no request at all.
async fn connections(world: &World, caller: &Person) {
    let marks = &world.marks;
    let server = world.node();
    let text = |what| marks.text(what);
    let host = "Host: x\r\n";
    let nonsense: Vec<Vec<u8>> = vec![
        format!("GET /{} HTTP/9.9\r\n{host}\r\n", text("wrong version")).into(),
        format!("{} / HTTP/1.1\r\n{host}\r\n", text("unknown method")).into(),
        format!("GET / HTTP/1.1\r\n{host}{} : x\r\n\r\n", text("malformed header")).into(),
        format!("GET / HTTP/1.1\r\n{host}x: {}\0\r\n\r\n", text("NUL in a header")).into(),
        format!(
            "GET / HTTP/1.1\r\n{host}x: {}\r\n\r\n",
            text("large header").repeat(1000)
        )
        .into(),
        format!(
            "GET / HTTP/1.1\r\n{host}{}\r\n",
            "x: y\r\n".repeat(200) + &text("many headers")
        )
        .into(),
        format!(
            "PUT / HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
            text("two lengths")
        )
        .into(),
        format!(
            "PUT / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{}",
            text("malformed chunk")
        )
        .into(),
        format!(
            "PUT /v2/keys HTTP/1.1\r\n{host}Content-Length: 500\r\n\r\n{}",
            text("body that ends early")
        )
        .into(),
        format!("GET /{} HTTP/1.1\r\n{host}X: {}", text("cut head"), text("cut head")).into(),
        format!(
            "GET /v1/websocket/ HTTP/1.1\r\n{host}Authorization: {}\r\n\r\n",
            basic(&caller.aci, &text("wrong password"))
        )
        .into(),
        marks.bytes("no text at all", 3000),
        [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
            &marks.bytes("TLS to a plain port", 500),
        ]
        .concat(),
        [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &marks.bytes("broken frames of HTTP/2", 500),
        ]
        .concat(),
    ];
    for bytes in nonsense {
        world.say(server, &bytes).await;
    }
    let wrong = basic(&caller.aci, &text("wrong password"));
    assert_eq!(world.socket(server, Some(&wrong)).await.err(), Some(403));
    let nobody = basic(&text("user"), &text("password"));
    assert!(world.socket(server, Some(&nobody)).await.is_err());

    let authorization = caller.authorization();
    let open = async || world.socket(server, Some(&authorization)).await.unwrap();
    for message in [
        Message::text(text("a text")),
        Message::binary(marks.bytes("no protobuf", 300)),
        Message::binary(marks.bytes("too large a frame", 600 * 1024)),
        Message::Ping(marks.bytes("ping", 100).into()),
    ] {
        let ends = message.is_binary();
        let mut socket = open().await;
        socket.raw(message).await;
        if ends {
            socket.close_code().await;
        }
    }
    let mut socket = open().await;
    for (verb, path) in [
        ("GET", format!("/{}", text("tunnelled path"))),
        ("PUT", format!("/v1/messages/{}", text("tunnelled path"))),
        ("NONE", format!("/v1/{}", text("tunnelled path"))),
    ] {
        let header = format!("{}:{}", text("tunnelled header"), text("tunnelled header"));
        let body = json!({ text("tunnelled field"): text("tunnelled value") });
        socket.ask(verb, &path, &[&header], Some(&body)).await;
    }
    broken_frames(world, server, &authorization).await;
}

/// Frames that no client library sends.
async fn broken_frames(world: &World, server: &Server, authorization: &str) {
    let upgrade = format!(
        "GET /v1/websocket/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Authorization: {authorization}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let canary = || world.marks.bytes("broken frame", 100);
    let mut unmasked = vec![0x82, 100];
    unmasked.extend(canary());
    let mut cut = frame(2, &canary());
    cut.truncate(60);
    let mut fragment = frame(2, &canary());
    fragment[0] &= 0x7f;
    let mut reserved = frame(2, &canary());
    reserved[0] |= 0x70;
    let control = frame(0x8, &[&[3, 232][..], &canary()].concat());
    for bytes in [unmasked, cut, fragment, reserved, control, frame(0xb, &canary())] {
        world.say(server, &[upgrade.as_bytes(), &bytes].concat()).await;
    }
}
