//! Every route × everyone who might ask (T58), made from the list of routes.

use blind_relay::http::routes::{Access, ROUTES, Route, Service};

use super::cases::{Body, Case, case};
use crate::support::person::basic;
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, Socket, ask};

/// Who asks, as far as a route may care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Somebody without credentials.
    Nobody,
    /// Somebody with credentials that prove nothing.
    Unproven,
    /// The account's primary device.
    Primary,
    /// Another device of the account.
    Linked,
    /// The primary device of another account, with a request that was made for this one.
    Foreign,
}

/// How the request comes. The credentials of a plain request are its header; those of a tunnelled one are its socket's,
/// whatever header it carries.
#[derive(Debug)]
pub(super) enum Way {
    Http(Option<String>),
    Socket {
        opened: Option<String>,
        inner: Option<String>,
    },
}

/// What whoever asks is answered. A case says how its rightful caller is, and where its route tells devices apart.
fn expected(access: Access, who: Who, case: &Case) -> u16 {
    match (access, who) {
        (Access::Anyone, _) => case.success,
        (Access::Anonymous, Who::Nobody | Who::Unproven) => case.success,
        (Access::Anonymous, _) => 400,
        (Access::Number, _) => 401,
        // Its proof is in the body, which is the rightful one.
        (Access::RefreshToken, _) => case.success,
        // Its credentials only bring the password of the device to come.
        (Access::LinkToken, Who::Nobody) => 401,
        (Access::LinkToken, _) => case.success,
        (
            Access::Device | Access::Password | Access::Primary | Access::DeviceOrAccessKey,
            Who::Nobody | Who::Unproven,
        ) => 401,
        (Access::Primary, Who::Linked) => 401,
        (Access::Device | Access::Password, Who::Linked) => case.linked.unwrap_or(case.success),
        (Access::Device | Access::Password | Access::Primary, Who::Foreign) => case.foreign.unwrap_or(case.success),
        (Access::Device | Access::Password | Access::Primary | Access::DeviceOrAccessKey, _) => case.success,
        // No device credentials stand in for the keys, or for a form.
        (Access::AccessKeys, _) => 401,
        (Access::UploadForm, _) => 403,
    }
}

/// An account with two devices, and somebody to reach.
pub(super) struct Cast {
    pub(super) alice: Person,
    tablet: Person,
    pub(super) bob: Person,
}

impl Cast {
    pub(super) async fn new(server: &Server) -> Self {
        let alice = Person::register(server).await;
        Self {
            tablet: alice.link(server).await,
            alice,
            bob: Person::register(server).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t58_every_route_refuses_whoever_proves_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let gone = Person::register(&server).await;
    ask(gone.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    let alice = Person::register(&server).await;
    let removed = alice.link(&server).await;
    let path = format!("/v1/devices/{}", removed.device_id);
    ask(alice.request(&server, "DELETE", &path)).await.expect(204);
    for route in ROUTES {
        let Cast { alice, tablet, bob } = Cast::new(&server).await;
        let ways = [
            ("nobody", Who::Nobody, Way::Http(None)),
            (
                "a wrong password",
                Who::Unproven,
                Way::Http(Some(basic(&alice.aci, "not it, not it"))),
            ),
            (
                "a device that never was",
                Who::Unproven,
                Way::Http(Some(basic(&format!("{}.77", alice.aci), &alice.password))),
            ),
            (
                "another account's password",
                Who::Unproven,
                Way::Http(Some(basic(&alice.aci, &bob.password))),
            ),
            (
                "another device's password",
                Who::Unproven,
                Way::Http(Some(basic(&alice.aci, &tablet.password))),
            ),
            (
                "a removed device",
                Who::Unproven,
                Way::Http(Some(removed.authorization())),
            ),
            (
                "a deleted account",
                Who::Unproven,
                Way::Http(Some(gone.authorization())),
            ),
            ("a socket of nobody", Who::Nobody, socket(None, None)),
            (
                "a device inside a socket of nobody",
                Who::Unproven,
                socket(None, Some(alice.authorization())),
            ),
        ];
        for (name, who, way) in ways {
            if route.service == Service::Streams && matches!(way, Way::Socket { .. }) {
                continue;
            }
            let case = case(route, &server, &alice, &bob).await;
            let status = perform(&server, route, &case, &way, &[]).await;
            let wanted = expected(route.access, who, &case);
            assert_eq!(status, wanted, "{} {} as {name}", route.method, route.path);
        }
    }
    // Through a socket these get nowhere: it does not open.
    for dead in [&gone, &removed] {
        let refused = Socket::open(&server, Some(&dead.authorization()), &[]).await;
        assert_eq!(refused.err(), Some(403));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t58_every_route_answers_devices_as_declared() {
    answers_devices_as_declared(false, Showing::Passwords).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t58_every_route_answers_devices_through_sockets_as_declared() {
    answers_devices_as_declared(true, Showing::Passwords).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t07_every_route_answers_a_token_as_the_device_whose_it_is() {
    answers_devices_as_declared(false, Showing::Tokens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t07_every_route_answers_a_token_through_sockets_as_the_device_whose_it_is() {
    answers_devices_as_declared(true, Showing::Tokens).await;
}

/// What devices show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    Passwords,
    Tokens,
}

async fn answers_devices_as_declared(tunnelled: bool, showing: Showing) {
    let server = Server::spawn(Backend::Sqlite).await;
    // Credentials inside a socket that has its own are looked at by no route that asks who it is.
    let wrong = basic(&Person::register(&server).await.aci, "not it, not it");
    let way = async |person: &Person| {
        let shown = match showing {
            Showing::Passwords => person.authorization(),
            Showing::Tokens => Tokens::open(&server, person).await.bearer(),
        };
        if tunnelled {
            socket(Some(shown), Some(wrong.clone()))
        } else {
            Way::Http(Some(shown))
        }
    };
    let expected = |access, who, case: &Case| match (access, showing) {
        (Access::Password, Showing::Tokens) => 403,
        // It is no password for the device to come.
        (Access::LinkToken, Showing::Tokens) if !tunnelled => 401,
        _ => expected(access, who, case),
    };
    let routes = ROUTES
        .iter()
        .filter(|route| !tunnelled || route.service != Service::Streams);
    for route in routes {
        // Rightful callers may use the account up, so each has its own.
        for who in [Who::Linked, Who::Primary] {
            let Cast { alice, tablet, bob } = Cast::new(&server).await;
            let caller = if who == Who::Linked { &tablet } else { &alice };
            let case = case(route, &server, caller, &bob).await;
            let status = perform(&server, route, &case, &way(caller).await, &[]).await;
            let wanted = expected(route.access, who, &case);
            assert_eq!(status, wanted, "{} {} as {who:?}", route.method, route.path);
        }
        // Another account asks first with the very same request: it reaches nothing of the first one's.
        let Cast { alice, bob, .. } = Cast::new(&server).await;
        let other = Person::register(&server).await;
        let case = case(route, &server, &alice, &bob).await;
        for (who, person) in [(Who::Foreign, &other), (Who::Primary, &alice)] {
            if who == Who::Primary && case.once {
                continue;
            }
            let status = perform(&server, route, &case, &way(person).await, &[]).await;
            let wanted = expected(route.access, who, &case);
            assert_eq!(status, wanted, "{} {} as {who:?}", route.method, route.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t58_what_is_open_to_others_than_devices_asks_for_its_own_proof() {
    let server = Server::spawn(Backend::Sqlite).await;
    for route in ROUTES {
        let Cast { alice, bob, .. } = Cast::new(&server).await;
        match route.access {
            Access::DeviceOrAccessKey | Access::AccessKeys => {
                for way in [Way::Http(None), socket(None, None)] {
                    let case = case(route, &server, &alice, &bob).await;
                    for (person, wanted) in [(&alice, 401), (&bob, case.success)] {
                        let key = [("unidentified-access-key", person.access_key_header())];
                        let status = perform(&server, route, &case, &way, &key).await;
                        assert_eq!(status, wanted, "{} {} with a key", route.method, route.path);
                    }
                }
            }
            Access::Number => {
                let number = || Some(basic(&alice.number, &alice.password));
                for way in [Way::Http(number()), socket(number(), None), socket(None, number())] {
                    let case = case(route, &server, &alice, &bob).await;
                    let status = perform(&server, route, &case, &way, &[]).await;
                    assert_eq!(status, case.success, "{way:?}");
                }
            }
            Access::RefreshToken => {
                let mut case = case(route, &server, &alice, &bob).await;
                case.body = Some(Body::Json(serde_json::json!({ "refreshToken": "A".repeat(215) })));
                for way in [
                    Way::Http(Some(alice.authorization())),
                    socket(Some(alice.authorization()), None),
                ] {
                    let status = perform(&server, route, &case, &way, &[]).await;
                    assert_eq!(status, 401, "{} {} with another token", route.method, route.path);
                }
            }
            Access::UploadForm => {
                let (case, other) = (
                    case(route, &server, &alice, &bob).await,
                    case(route, &server, &bob, &alice).await,
                );
                // The capability of another form opens only what is that form's.
                if route.path.contains('{') {
                    let status = perform(&server, route, &case, &Way::Http(other.capability), &[]).await;
                    assert_eq!(status, 403, "{} {} with another form's", route.method, route.path);
                }
                let way = Way::Http(case.capability.clone());
                let status = perform(&server, route, &case, &way, &[]).await;
                assert_eq!(status, case.success, "{} {}", route.method, route.path);
            }
            Access::Anyone
            | Access::Anonymous
            | Access::LinkToken
            | Access::Device
            | Access::Password
            | Access::Primary => {}
        }
    }
}

fn socket(opened: Option<String>, inner: Option<String>) -> Way {
    Way::Socket { opened, inner }
}

/// The status of the answer.
pub(super) async fn perform(server: &Server, route: &Route, case: &Case, way: &Way, more: &[(&str, String)]) -> u16 {
    let method = route.method.to_uppercase();
    let headers = case.headers.iter().chain(more);
    match way {
        Way::Http(authorization) => {
            let mut request = server.request(&method, &case.path);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            request = match &case.body {
                None => request,
                Some(Body::Json(json)) => request.json(json),
                Some(Body::Bytes(content_type, bytes)) => {
                    request.header("content-type", *content_type).body(bytes.clone())
                }
            };
            ask(headers.fold(request, |request, (name, value)| request.header(*name, value)))
                .await
                .status
        }
        Way::Socket { opened, inner } => {
            let mut socket = Socket::open(server, opened.as_deref(), &[]).await.unwrap();
            let mut lines: Vec<String> = headers.map(|(name, value)| format!("{name}:{value}")).collect();
            lines.extend(inner.iter().map(|inner| format!("authorization: {inner}")));
            let body = match &case.body {
                None => None,
                Some(Body::Json(json)) => {
                    lines.push("content-type:application/json".to_owned());
                    Some(serde_json::to_vec(json).unwrap().into())
                }
                Some(Body::Bytes(content_type, bytes)) => {
                    lines.push(format!("content-type:{content_type}"));
                    Some(bytes.clone().into())
                }
            };
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            socket.ask_as(Some(0), &method, &case.path, &lines, body).await;
            socket.answer_to(0).await.status
        }
    }
}
