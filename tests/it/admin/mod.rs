//! `blind-relay admin` and the socket behind it.

mod delete;
mod drain;
mod log;
mod socket;
mod suspension;
mod tried;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::person::people;
use crate::support::{Backend, Person, Server, ask, on_each_backend, send};

on_each_backend! {
    sums_are_told_to_people_and_to_programs
    of_one_account_little_is_told_and_nothing_without_its_id
    an_invite_is_made_used_and_revoked
}

/// What a command of `blind-relay admin` came to.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it said, if it was done.
    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// The same as JSON.
    fn json(self) -> Value {
        serde_json::from_str(&self.well()).unwrap()
    }

    /// Why it was not done.
    fn refused(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        assert_eq!(self.out, "", "what was not done is not told as done");
        self.err
    }
}

/// Runs `blind-relay admin` with the server's settings.
fn admin(server: &Server, arguments: &[&str]) -> Done {
    Done::of(server.run(&[&["admin"], arguments].concat()))
}

/// The server's admin socket.
fn socket_of(server: &Server) -> PathBuf {
    server.data_dir().join("admin.sock")
}

/// What the socket answers to these bytes, to its end.
fn raw(server: &Server, bytes: &[u8]) -> String {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(socket_of(server)).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    // It may have heard enough before everything is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The status of the answer to a request, with a body if it has one.
fn status(server: &Server, method: &str, path: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let answer = raw(server, request.as_bytes());
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status
        .unwrap_or_else(|| panic!("{method} {path}: {answer}"))
        .parse()
        .unwrap()
}

/// What and with which result, of every entry of the log.
fn acts(server: &Server) -> Vec<(String, String)> {
    let log = admin(server, &["log", "--json", "--last", "100000"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["what"]), text(&entry["result"])))
        .collect()
}

async fn sums_are_told_to_people_and_to_programs(backend: Backend) {
    let server = Server::spawn(backend).await;
    let all = people(&server, 3).await;
    all[0].upload_keys(&server, 1, 5).await;
    let linked = all[1].link(&server).await;
    for n in 0..4_u8 {
        send(&server, &all[0], &all[2], &[n; 300]).await.expect(200);
    }
    let _socket = linked.connect(&server).await;
    admin(&server, &["account", "suspend", &all[2].aci]).well();
    let stats = admin(&server, &["stats", "--json"]).json();
    let expected = json!({
        "accounts": 3, "suspended": 1, "devices": 4, "one_time_ec_keys": 5, "one_time_kyber_keys": 5, "invites": 0,
        "connected_devices": 1, "sockets": 1, "draining": false, "refused": [],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&stats[name], value, "{name}");
    }
    assert_eq!(
        stats["queued"],
        json!([{ "bucket_kib": 1, "envelopes": 4, "bytes": 4096 }])
    );
    assert!(stats["database_bytes"].as_u64().unwrap() > 10_000);
    assert!(stats["uptime_secs"].is_u64() && stats["version"].is_string());
    // Nothing else, and no list with a row for each of anybody.
    let names: Vec<_> = stats.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), expected.as_object().unwrap().len() + 4, "{names:?}");
    let shown = admin(&server, &["stats"]).well();
    assert!(shown.contains("accounts               3\n"), "{shown}");
    assert!(shown.contains("  of 1 KiB             4 (4096 bytes)\n"), "{shown}");
    for person in &all {
        assert!(!shown.contains(&person.aci) && !stats.to_string().contains(&person.aci));
    }
    // Sums are about nobody, so looking at them is not written down.
    assert_eq!(acts(&server).len(), 1);
}

async fn of_one_account_little_is_told_and_nothing_without_its_id(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    alice.link(&server).await;
    let told = admin(&server, &["account", "show", &alice.aci, "--json"]).json();
    assert_eq!((&told["suspended"], &told["devices"]), (&json!(false), &json!(2)));
    assert_eq!(told.as_object().unwrap().len(), 3, "{told}");
    let shown = admin(&server, &["account", "show", &alice.aci.to_uppercase()]).well();
    assert!(
        shown.starts_with("suspended              no\ndevices                2\nlast seen              2"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 3);
    let (pni, prefixed) = (alice.pni.clone(), format!("PNI:{}", alice.pni));
    let unknown = uuid::Uuid::from_bytes(crate::support::random()).to_string();
    for (id, why) in [
        (alice.number.as_str(), "this is no ACI"),
        (&prefixed, "this is a PNI"),
        (&pni, "no account has this id (no_account)"),
        (&unknown, "no account has this id (no_account)"),
    ] {
        let refused = admin(&server, &["account", "show", id]).refused();
        assert!(refused.contains(why), "{id}: {refused}");
    }
    let shows = acts(&server);
    let results: Vec<_> = shows.iter().map(|(_, result)| result.as_str()).collect();
    assert_eq!(
        results,
        ["done", "done", "not found", "not found"],
        "whoever is looked at is written down"
    );
}

async fn an_invite_is_made_used_and_revoked(backend: Backend) {
    let server = Server::spawn_with(backend, &[("REGISTRATION", "invite")]).await;
    let made = admin(&server, &["invite", "create", "--uses", "2", "--digits", "--json"]).json();
    let code = made["code"].as_str().unwrap();
    assert!(code.chars().all(|c| c.is_ascii_digit() || c == '-'), "{code}");
    let mut alice = Person::new();
    let session = crate::support::person::open_session(&server, &alice.number).await;
    let path = format!("/v1/verification/session/{session}/code");
    let tried = ask(server.request("PUT", &path).json(&json!({ "code": code })))
        .await
        .expect(200);
    assert_eq!(tried.json()["verified"], true);
    let answer = ask(alice.registering(&server).json(&alice.registration(&session)))
        .await
        .expect(200);
    answer.json()["uuid"].as_str().unwrap().clone_into(&mut alice.aci);

    let id = made["invite"]["id"].as_str().unwrap();
    let listed = admin(&server, &["invite", "list", "--json"]).json();
    assert_eq!(listed["invites"][0]["uses_left"], 1);
    assert!(!listed.to_string().contains(code));
    let shown = admin(&server, &["invite", "list"]).well();
    assert!(shown.contains(id), "{shown}");
    assert_eq!(admin(&server, &["stats", "--json"]).json()["invites"], 1);
    assert_eq!(admin(&server, &["invite", "revoke", id]).well(), "revoked\n");
    assert_eq!(admin(&server, &["invite", "list"]).well(), "no invites\n");
    assert!(
        admin(&server, &["invite", "revoke", id])
            .refused()
            .contains("no_invite")
    );
    for (arguments, why) in [
        (["invite", "create", "--uses", "0"], "(uses)"),
        (["invite", "create", "--uses", "100001"], "(uses)"),
        (["invite", "create", "--days", "366"], "(days)"),
    ] {
        assert!(admin(&server, &arguments).refused().contains(why));
    }
    let text = |act: &str, result: &str| (act.to_owned(), result.to_owned());
    assert_eq!(
        acts(&server),
        [
            text("invite create", "done"),
            text("invite revoke", "done"),
            text("invite revoke", "not found"),
            text("invite create", "refused"),
            text("invite create", "refused"),
            text("invite create", "refused"),
        ]
    );
    let log = server.log();
    assert!(!log.contains(code) && !log.contains(id), "{log}");
}
