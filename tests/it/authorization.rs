//! Every route against everyone who is not supposed to use it (T58), and what one device can reach of another.

use blind_relay::http::routes::{Access, ROUTES, Route};
use serde_json::{Value, json};

use crate::support::keys::digest;
use crate::support::person::{basic, open_session, verified_session};
use crate::support::{Answer, Backend, Person, Server, Socket, ask, random, send, single};

/// A request that its route's rightful caller gets answered with success.
struct Case {
    path: String,
    body: Option<Value>,
    success: u16,
}

/// Whoever asks. The credentials of a plain request are its header; those of a tunnelled one are its socket's, whatever
/// header it carries.
enum Caller<'a> {
    Http(Option<(String, String)>),
    Socket {
        opened: Option<&'a Person>,
        inner: Option<String>,
    },
}

#[tokio::test]
async fn t58_every_route_answers_each_kind_of_caller_as_declared() {
    let server = Server::spawn(Backend::Sqlite).await;
    let gone = Person::register(&server).await;
    ask(gone.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    for route in ROUTES {
        // Rightful callers may use the account up, so each route has its own.
        let (alice, carol, bob) = (
            Person::register(&server).await,
            Person::register(&server).await,
            Person::register(&server).await,
        );
        let credentials = |person: &Person| Some((person.aci.clone(), person.password.clone()));
        let strangers = [
            ("anonymous", Caller::Http(None)),
            (
                "wrong password",
                Caller::Http(Some((alice.aci.clone(), "wrong password".to_owned()))),
            ),
            (
                "other device",
                Caller::Http(Some((format!("{}.2", alice.aci), alice.password.clone()))),
            ),
            (
                "another's password",
                Caller::Http(Some((alice.aci.clone(), bob.password.clone()))),
            ),
            ("deleted account", Caller::Http(credentials(&gone))),
            (
                "anonymous socket",
                Caller::Socket {
                    opened: None,
                    inner: None,
                },
            ),
            // Basic credentials inside a socket are those of a registration or nothing.
            (
                "device inside an anonymous socket",
                Caller::Socket {
                    opened: None,
                    inner: Some(alice.authorization()),
                },
            ),
        ];
        for (name, caller) in strangers {
            let case = case(route, &server, &alice, &bob).await;
            let expected = match route.access {
                Access::Anyone => case.success,
                Access::Number | Access::Device | Access::DeviceOrAccessKey => 401,
            };
            let answer = perform(&server, route, &case, &caller, &[]).await;
            assert_eq!(
                answer.status, expected,
                "{} {} as {name}: {answer:?}",
                route.method, route.path
            );
        }
        let wrong = basic(&bob.aci, "wrong password");
        let devices = [
            ("device", &alice, Caller::Http(credentials(&alice))),
            (
                "device socket",
                &carol,
                Caller::Socket {
                    opened: Some(&carol),
                    inner: Some(wrong),
                },
            ),
        ];
        for (name, person, caller) in devices {
            let case = case(route, &server, person, &bob).await;
            let expected = if route.access == Access::Number {
                401
            } else {
                case.success
            };
            let answer = perform(&server, route, &case, &caller, &[]).await;
            assert_eq!(
                answer.status, expected,
                "{} {} as {name}: {answer:?}",
                route.method, route.path
            );
        }
        if route.access == Access::DeviceOrAccessKey {
            for caller in [
                Caller::Http(None),
                Caller::Socket {
                    opened: None,
                    inner: None,
                },
            ] {
                let case = case(route, &server, &alice, &bob).await;
                let key = [("unidentified-access-key", bob.access_key_header())];
                let answer = perform(&server, route, &case, &caller, &key).await;
                assert_eq!(
                    answer.status, case.success,
                    "{} {} with a key",
                    route.method, route.path
                );
                let key = [("unidentified-access-key", gone.access_key_header())];
                assert_eq!(perform(&server, route, &case, &caller, &key).await.status, 401);
            }
        }
        if route.access == Access::Number {
            let case = case(route, &server, &alice, &bob).await;
            let number = Caller::Http(Some((alice.number.clone(), alice.password.clone())));
            assert_eq!(perform(&server, route, &case, &number, &[]).await.status, case.success);
        }
    }
}

#[tokio::test]
async fn a_device_credential_on_an_inner_request_never_changes_who_asks() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = alice.connect(&server).await;
    let inner = format!("Authorization:{}", bob.authorization());
    for headers in [&[][..], &[inner.as_str()]] {
        let answer = socket
            .ask("GET", "/v1/accounts/whoami", headers, None)
            .await
            .expect(200);
        assert_eq!(answer.json()["uuid"], alice.aci);
    }
    // Once the device is gone the open socket proves nothing any more, whatever comes first.
    ask(alice.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    socket.ask_as(Some(50), "GET", "/v1/accounts/whoami", &[], None).await;
    assert_eq!(socket.close_code().await, Some(4401));
}

#[tokio::test]
async fn there_are_no_routes_beside_the_list() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    for path in [
        "/",
        "/metrics",
        "/admin",
        "/v1",
        "/v1/accounts",
        "/v1/messages/",
        "/v1/keys",
        "/v2/keys/x",
        "/v1/devices",
        "/v1/config",
        "/v2/config",
        "/v1/profile",
        "/v1//messages",
        "/health",
        "/debug",
        "/v1/websocket/provisioning",
    ] {
        let answer = ask(alice.request(&server, "POST", path).json(&json!({}))).await;
        assert!(matches!(answer.status, 404 | 405), "{path}: {answer:?}");
    }
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        for route in ROUTES {
            let known = ROUTES
                .iter()
                .any(|other| other.path == route.path && other.method.eq_ignore_ascii_case(method));
            if !known {
                let answer = ask(alice.request(&server, method, route.path)).await;
                assert_eq!(answer.status, 405, "{method} {}", route.path);
            }
        }
    }
}

#[tokio::test]
async fn t29_one_device_neither_reads_nor_deletes_anothers_queue() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"for bob").await.expect(200);
    send(&server, &bob, &alice, b"for alice").await.expect(200);
    let fetched = bob.fetch(&server).await;
    assert_eq!(fetched["messages"].as_array().unwrap().len(), 1);
    let guid = fetched["messages"][0]["guid"].as_str().unwrap().to_owned();
    let unknown = uuid::Uuid::from_bytes(random()).to_string();
    let delete = async |guid: &str| {
        ask(alice.request(&server, "DELETE", &format!("/v1/messages/uuid/{guid}")))
            .await
            .expect(204)
            .looks()
    };
    assert_eq!(delete(&guid).await, delete(&unknown).await);
    // Nor does it reach an envelope of her own that has the same place in her queue.
    assert_eq!(alice.fetch(&server).await["messages"].as_array().unwrap().len(), 1);
    // Nor by answering, on a socket of her own, a request that she was never sent.
    let mut socket = alice.connect(&server).await;
    for id in 0..50 {
        socket.answer(id, 200).await;
    }
    assert_eq!(bob.connect(&server).await.drain().await, [&b"for bob"[..]]);
}

#[tokio::test]
async fn t44_no_answer_tells_whether_a_device_is_connected() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let keys = format!("/v2/keys/{}/*", bob.aci);
    let looks = async || {
        let mut all = vec![ask(alice.request(&server, "GET", &keys)).await.expect(200).looks()];
        for online in [true, false] {
            let mut body = single(&bob, 6, b"c");
            body["online"] = online.into();
            all.push(
                ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
                    .await
                    .expect(200)
                    .looks(),
            );
            let key = server
                .request("PUT", &bob.inbox())
                .header("unidentified-access-key", bob.access_key_header());
            all.push(ask(key.json(&body)).await.expect(200).looks());
        }
        all
    };
    let offline = looks().await;
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await.len(), 2);
    assert_eq!(looks().await, offline);
}

/// Makes a request for one route. A route without a case fails here.
async fn case(route: &Route, server: &Server, caller: &Person, target: &Person) -> Case {
    let number = Person::new().number;
    let session = async |rest: &str| format!("/v1/verification/session/{}{rest}", open_session(server, &number).await);
    let (path, body, success) = match (route.method, route.path) {
        ("get", "/v1/keepalive") => (route.path.to_owned(), None, 200),
        ("post", "/v1/verification/session") => (route.path.to_owned(), Some(json!({ "number": number })), 200),
        ("get", "/v1/verification/session/{id}") => (session("").await, None, 200),
        ("patch", "/v1/verification/session/{id}") => (session("").await, Some(json!({ "captcha": null })), 200),
        ("post", "/v1/verification/session/{id}/code") => (
            session("/code").await,
            Some(json!({ "transport": "sms", "client": "ios" })),
            200,
        ),
        ("put", "/v1/verification/session/{id}/code") => (session("/code").await, Some(json!({ "code": "1" })), 200),
        ("post", "/v1/registration") => {
            let session = verified_session(server, &caller.number).await;
            (route.path.to_owned(), Some(caller.registration(&session)), 200)
        }
        ("get", "/v1/accounts/whoami") => (route.path.to_owned(), None, 200),
        ("put", "/v1/accounts/attributes") => (route.path.to_owned(), Some(caller.attributes()), 204),
        ("delete", "/v1/accounts/me") => (route.path.to_owned(), None, 204),
        ("get", "/v2/keys") => (route.path.to_owned(), None, 200),
        ("put", "/v2/keys") => (route.path.to_owned(), Some(json!({})), 204),
        ("post", "/v2/keys/check") => {
            let digest = digest(&caller.aci_identity, &caller.aci_signed, &caller.aci_last_resort);
            (
                route.path.to_owned(),
                Some(json!({ "identityType": "ACI", "digest": digest })),
                200,
            )
        }
        ("get", "/v2/keys/{target}/{device}") => (format!("/v2/keys/{}/1", target.aci), None, 200),
        ("put", "/v1/messages/{destination}") => (target.inbox(), Some(single(target, 6, b"c")), 200),
        ("get", "/v1/messages") => (route.path.to_owned(), None, 200),
        ("delete", "/v1/messages/uuid/{guid}") => (
            format!("/v1/messages/uuid/{}", uuid::Uuid::from_bytes(random())),
            None,
            204,
        ),
        other => panic!("{other:?} has no case: say here how it is used rightfully"),
    };
    Case { path, body, success }
}

async fn perform(
    server: &Server,
    route: &Route,
    case: &Case,
    caller: &Caller<'_>,
    headers: &[(&'static str, String)],
) -> Answer {
    let method = route.method.to_uppercase();
    match caller {
        Caller::Http(credentials) => {
            let mut request = server.request(&method, &case.path);
            if let Some((user, password)) = credentials {
                request = request.basic_auth(user, Some(password));
            }
            if let Some(body) = &case.body {
                request = request.json(body);
            }
            ask(headers
                .iter()
                .fold(request, |request, (name, value)| request.header(*name, value)))
            .await
        }
        Caller::Socket { opened, inner } => {
            let authorization = opened.map(Person::authorization);
            let mut socket = Socket::open(server, authorization.as_deref(), &[]).await.unwrap();
            let mut lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            lines.push("content-type:application/json".to_owned());
            lines.extend(inner.iter().map(|inner| format!("authorization: {inner}")));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            socket.ask(&method, &case.path, &lines, case.body.as_ref()).await
        }
    }
}
