//! T24: whatever an operator might try beyond what there is.

use std::collections::BTreeSet;

use blind_relay::http::operator::ACTS;

use super::{acts, admin, status};
use crate::support::dump::Dump;
use crate::support::filled::Filled;
use crate::support::{Backend, Person, Server, on_each_backend};

on_each_backend! {
    t24_what_an_operator_must_not_do_has_no_route_and_is_in_the_log
}

async fn t24_what_an_operator_must_not_do_has_no_route_and_is_in_the_log(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    let alice = Filled::new(&server, &carol).await;
    let aci = alice.phone.aci.as_str();
    let before = Dump::of(&server).await;
    let mut tried = Vec::new();
    // Devices, keys, passwords, queues, exports, sessions, numbers, names; as the operator might spell them, and as clients do.
    for path in [
        "/accounts/{aci}/devices",
        "/accounts/{aci}/devices/1",
        "/accounts/{aci}/devices/link",
        "/accounts/{aci}/keys",
        "/accounts/{aci}/identity",
        "/accounts/{aci}/password",
        "/accounts/{aci}/credentials",
        "/accounts/{aci}/token",
        "/accounts/{aci}/session",
        "/accounts/{aci}/impersonate",
        "/accounts/{aci}/login",
        "/accounts/{aci}/queue",
        "/accounts/{aci}/messages",
        "/accounts/{aci}/envelopes",
        "/accounts/{aci}/export",
        "/accounts/{aci}/number",
        "/accounts/{aci}/profile",
        "/accounts/{aci}/registration_lock",
        "/accounts/{aci}/access_key",
        "/accounts/{aci}/notices",
        "/accounts",
        "/accounts/",
        "/devices",
        "/queues",
        "/keys",
        "/settings",
        "/flags",
        "/sql",
        "/log/1",
        "/v1/devices/link",
        "/v1/accounts/export",
        "/v1/accounts/whoami",
        "/v1/auth/token",
        "/v1/messages",
        "/v1/messages/{aci}",
        "/v1/registration",
        "/v1/websocket",
        "/v2/keys",
        "/v2/keys/{aci}/*",
        "/metrics",
        "/",
        "//stats",
        "/stats/",
        "/STATS",
        "/accounts/{aci}/suspend/",
    ] {
        let path = path.replace("{aci}", aci);
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT-TO"] {
            assert_eq!(status(&server, method, &path, ""), 404, "{method} {path}");
            tried.push(("unknown path".to_owned(), "refused".to_owned()));
        }
    }
    // What there is, with what it does not have.
    let paths: BTreeSet<_> = ACTS.iter().map(|(_, path)| *path).collect();
    for path in paths {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
            if ACTS.contains(&(method.to_lowercase().as_str(), path)) {
                continue;
            }
            let path = path.replace("{id}", aci);
            assert_eq!(status(&server, method, &path, "{}"), 405, "{method} {path}");
            tried.push(("unknown method".to_owned(), "refused".to_owned()));
        }
    }
    let log = acts(&server);
    assert_eq!(log.len(), tried.len());
    assert!(log == tried, "each in its turn");
    admin(&server, &["log", "verify"]).well();
    // Of what was tried nothing took place.
    let after = Dump::of(&server).await;
    let changed = after.without(&before);
    let tables: Vec<_> = changed.keys().copied().collect();
    assert_eq!(tables, ["admin_log", "settings"]);
    assert!(before.without(&after).keys().all(|table| *table == "settings"));
    // Nothing that was asked for is repeated anywhere.
    let written = format!("{:?}", changed);
    assert!(!written.contains(&aci.replace('-', "")) && !server.log().contains(aci));
}

/// The whole list, so that whoever makes it longer comes by here.
#[test]
fn t24_b14_there_are_these_acts_and_no_others() {
    let expected = [
        ("get", "/stats"),
        ("get", "/accounts/{id}"),
        ("delete", "/accounts/{id}"),
        ("post", "/accounts/{id}/suspend"),
        ("post", "/accounts/{id}/resume"),
        ("get", "/invites"),
        ("post", "/invites"),
        ("delete", "/invites/{id}"),
        ("get", "/drain"),
        ("put", "/drain"),
        ("delete", "/drain"),
        ("get", "/log"),
    ];
    assert_eq!(ACTS, expected);
}
