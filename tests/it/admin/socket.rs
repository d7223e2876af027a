//! The file, who may use it, and what is refused at its door.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use blind_relay::http::operator::ACTS;
use rustix::process::Signal;

use super::{acts, admin, raw, socket_of, status};
use crate::support::server::{Place, postgres_url};
use crate::support::{Backend, Person, Server, ask};

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let path = socket_of(&server);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(&server.data_dir())), (0o600, 0o700));
    admin(&server, &["stats"]).well();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    assert!(!path.exists());
    let refused = admin(&server, &["stats"]).refused();
    assert!(
        refused.contains("there is no ") && refused.contains("--data-dir"),
        "{refused}"
    );
    // One that is killed leaves the file behind, and the next one takes its place.
    let mut killed = server.restart();
    killed.kill();
    assert!(path.exists());
    let refused = admin(&killed, &["stats"]).refused();
    assert!(refused.contains("no server answers at"), "{refused}");
    let again = killed.restart();
    admin(&again, &["stats"]).well();
}

#[tokio::test]
async fn there_may_be_none() {
    let server = Server::spawn_with(Backend::Sqlite, &[("ADMIN_SOCKET", "off")]).await;
    assert!(!socket_of(&server).exists());
    let refused = admin(&server, &["stats"]).refused();
    assert!(refused.contains("admin_socket is \"off\""), "{refused}");
}

#[tokio::test]
async fn a_second_server_does_not_take_the_socket_of_the_first() {
    if postgres_url().is_none() {
        return;
    }
    let place = Place::new(Backend::Postgres).await;
    let first = Server::start(Arc::clone(&place), "data", &[]);
    let second = first.run(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains("another server answers at") && said.contains("admin_socket"),
        "{said}"
    );
    admin(&first, &["stats"]).well();
    // With a socket of its own it may run beside the first.
    let own = place.path().join("second.sock");
    let beside = Server::start(Arc::clone(&place), "data", &[("ADMIN_SOCKET", own.to_str().unwrap())]);
    admin(&beside, &["stats"]).well();
    assert!(own.exists());
}

#[tokio::test]
async fn t24_no_route_of_the_network_reaches_the_acts() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let metrics = server.admin_url().await;
    for (method, path) in ACTS {
        let method = method.to_uppercase();
        for path in [
            path.replace("{id}", &alice.aci),
            format!("/admin{}", path.replace("{id}", &alice.aci)),
        ] {
            for request in [
                server.request(&method, &path),
                alice.request(&server, &method, &path),
                reqwest::Client::new().request(method.parse().unwrap(), format!("{metrics}{path}")),
            ] {
                ask(request).await.expect(404);
            }
        }
    }
    assert!(acts(&server).is_empty());
    admin(&server, &["account", "show", &alice.aci]).well();
}

#[tokio::test]
async fn oversized_and_garbled_requests_are_refused_and_harm_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let long = "x".repeat(100_000);
    for (bytes, expected) in [
        ("this is no HTTP\r\n\r\n".to_owned(), "400"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), "431"),
        (format!("GET /stats HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n"), "431"),
        (
            format!("GET /stats HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(40)),
            "431",
        ),
    ] {
        let answer = raw(&server, bytes.as_bytes());
        let head: String = answer.chars().take(60).collect();
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{expected}: {head}");
    }
    // Whoever begins with another version is hung up on.
    assert_eq!(raw(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "");
    for (body, why) in [
        (long.clone(), "too long"),
        (String::new(), "none"),
        ("[]".to_owned(), "another shape"),
        (
            "{\"uses\":1,\"days\":1,\"digits\":false,\"recover\":false,\"account\":\"x\"}".to_owned(),
            "more than there is",
        ),
        (
            "{\"uses\":1e400,\"days\":1,\"digits\":false,\"recover\":false}".to_owned(),
            "no number",
        ),
        ("[".repeat(4000), "deep"),
    ] {
        assert_eq!(status(&server, "POST", "/invites", &body), 400, "{why}");
    }
    for path in [
        "/accounts/x",
        "/accounts/%00",
        "/accounts/..%2Fstats",
        "/accounts/00000000000000000000000000000000000000000000",
        "/log?after=x",
        "/log?limit=-1",
        "/log?account=+15550000001",
        "/log?what=1",
    ] {
        assert_eq!(status(&server, "GET", path, ""), 400, "{path}");
    }
    assert_eq!(
        status(&server, "GET", "/log?after=-9223372036854775808&limit=4294967295", ""),
        200
    );
    let invites = acts(&server)
        .iter()
        .filter(|(act, result)| act == "invite create" && result == "refused")
        .count();
    assert_eq!(invites, 6);
    assert!(acts(&server).iter().all(|(_, result)| result == "refused"));
    admin(&server, &["log", "verify"]).well();
}

#[tokio::test]
async fn whoever_says_nothing_is_hung_up_on_and_keeps_nobody_out() {
    use std::io::Read;
    let server = Server::spawn(Backend::Sqlite).await;
    // As many as there are places.
    let silent: Vec<_> = (0..16)
        .map(|_| std::os::unix::net::UnixStream::connect(socket_of(&server)).unwrap())
        .collect();
    admin(&server, &["stats"]).well();
    for mut stream in silent {
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
}
