//! Sender certificates: what a device is given, and the keys behind it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keys_schema::EcPublicKey;
use keys_schema::certificate::SenderCertificate;
use serde_json::Value;

use crate::support::server::{Place, postgres_url, spawn_pair};
use crate::support::{Backend, Person, Server, ask, on_each_backend, setting};

on_each_backend! {
    a_certificate_says_who_the_device_is_under_the_root_that_is_shown
    after_a_new_registration_it_holds_the_new_identity_key
}

/// Longer than the tests run, shorter than the lifetime of a certificate.
const DAY: u64 = 24 * 60 * 60 * 1_000;

async fn a_certificate_says_who_the_device_is_under_the_root_that_is_shown(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let root = shown_root(&server.place().path().join("data"), server.place().path());
    let before = now();
    for (query, number) in [
        ("", Some(alice.number.as_str())),
        ("?includeE164=true", Some(&alice.number)),
        ("?includeE164=false", None),
    ] {
        let certificate = certificate(&server, &alice, query).await;
        let sender = certificate.sender();
        assert_eq!(sender.aci.to_string(), alice.aci);
        assert_eq!(sender.device_id, 1);
        assert_eq!(sender.identity_key.serialized(), alice.aci_identity.public);
        assert_eq!(sender.e164.as_deref(), number);
        assert!(certificate.is_valid(&root, before));
        let days = (certificate.expires_ms() - before) / DAY;
        assert_eq!(days, 7);
        assert!(!certificate.is_valid(&root, certificate.expires_ms() + 1));
    }
    let answer = ask(alice.request(&server, "GET", "/v1/certificate/delivery?includeE164=perhaps")).await;
    assert_eq!(answer.expect(400).code(), "malformed_query");
}

async fn after_a_new_registration_it_holds_the_new_identity_key(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut alice = Person::register(&server).await;
    let old = alice.clone();
    // In memory from here on.
    certificate(&server, &alice, "").await;
    let fresh = Person::new();
    alice.password = fresh.password;
    alice.aci_identity = fresh.aci_identity;
    alice.aci_signed = fresh.aci_signed;
    alice.aci_last_resort = fresh.aci_last_resort;
    alice.register_on(&server).await;
    assert_eq!(alice.aci, old.aci);
    let certificate = certificate(&server, &alice, "").await;
    assert_eq!(
        certificate.sender().identity_key.serialized(),
        alice.aci_identity.public
    );
    ask(old.request(&server, "GET", "/v1/certificate/delivery"))
        .await
        .expect(401);
}

#[tokio::test]
async fn the_lifetime_is_the_operators_choice() {
    let server = Server::spawn_with(Backend::Sqlite, &[("SENDER_CERTIFICATE_DAYS", "1")]).await;
    let alice = Person::register(&server).await;
    let before = now();
    let certificate = certificate(&server, &alice, "").await;
    assert_eq!((certificate.expires_ms() - before) / DAY, 1);
}

#[tokio::test]
async fn a_new_server_key_leaves_the_root_and_what_the_old_one_signed_as_they_are() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let old = certificate(&server, &alice, "").await;
    let place = Arc::clone(server.place());
    let data = place.path().join("data");
    let root = shown_root(&data, place.path());
    // The private half of the root is brought for the rotation, and taken away again.
    let (root_file, offline) = (place.path().join("trust-root"), place.path().join("offline"));
    fs::rename(&root_file, &offline).unwrap();
    let refused = keys(&data, &root_file, &["rotate-server-key"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--trust-root-file"), "{refused:?}");
    let rotated = keys(&data, &offline, &["rotate-server-key"]);
    assert_eq!(rotated.status.code(), Some(0), "{rotated:?}");

    server.kill();
    let server = server.restart();
    let new = certificate(&server, &alice, "").await;
    assert!(old.signer() != new.signer());
    assert_eq!((old.signer().id(), new.signer().id()), (1, 2));
    for certificate in [old, new] {
        assert!(certificate.is_valid(&root, now()));
    }
    assert!(!root_file.exists(), "the server did not make another root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_sign_under_one_root_with_a_server_key_each() {
    let (Some(_), Some(redis)) = (postgres_url(), setting("BLIND_RELAY_TEST_REDIS_URL")) else {
        return;
    };
    let (one, two) = spawn_pair(&redis, &[]).await;
    let alice = Person::register(&one).await;
    let place = one.place().path();
    let roots = ["one", "two"].map(|data| shown_root(&place.join(data), place));
    assert!(roots[0] == roots[1]);
    let (first, second) = (certificate(&one, &alice, "").await, certificate(&two, &alice, "").await);
    assert!(first.signer() != second.signer());
    assert!(first.is_valid(&roots[0], now()) && second.is_valid(&roots[0], now()));
}

#[tokio::test]
async fn a_node_without_the_databases_root_does_not_start_and_makes_none() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    server.kill();
    let place = Arc::clone(server.place());
    let (data, root_file) = (place.path().join("data"), place.path().join("trust-root"));
    let (kept, key_file) = (place.path().join("kept"), data.join("server-key"));

    // Both lost.
    fs::rename(&root_file, &kept).unwrap();
    fs::remove_file(&key_file).unwrap();
    let refusal = refused_start(&place, &data);
    assert!(
        refusal.contains(&format!("trust root to {}", root_file.display())),
        "{refusal}"
    );
    assert!(!root_file.exists() && !key_file.exists());
    let told = doctor(&place, &data);
    assert!(told.contains("FAIL  trust root: the database has one"), "{told}");

    // A foreign root.
    let foreign = place.path().join("foreign");
    let made = keys(&place.path().join("elsewhere"), &foreign, &["init"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    fs::copy(&foreign, &root_file).unwrap();
    let refusal = refused_start(&place, &data);
    assert!(refusal.contains("is not the database's"), "{refusal}");
    assert!(!key_file.exists(), "nothing is certified by it");
    let told = doctor(&place, &data);
    assert!(told.contains("FAIL  trust root: another than the database's"), "{told}");

    // The right one again.
    fs::rename(&kept, &root_file).unwrap();
    let server = server.restart();
    let alice = Person::register(&server).await;
    let root = shown_root(&data, place.path());
    assert!(certificate(&server, &alice, "").await.is_valid(&root, now()));
    let told = doctor(&place, &data);
    assert!(told.contains("ok    trust root: the one of the database"), "{told}");
}

#[test]
fn keys_made_before_the_first_start_keep_the_root_away_from_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (data, offline) = (dir.path().join("data"), dir.path().join("offline"));
    let missing = keys(&data, &offline, &["show"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("blind-relay keys init"), "{missing:?}");

    let made = keys(&data, &offline, &["init"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert!(offline.exists() && !data.join("trust-root").exists());
    let again = keys(&data, &offline, &["init"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("rotate-server-key"), "{again:?}");

    let shown = |root_file: &Path| -> Value { json(&keys(&data, root_file, &["show", "--json"])) };
    let (with, without) = (shown(&offline), shown(&data.join("trust-root")));
    assert_eq!(with["trust_root"], without["trust_root"]);
    assert_eq!(with["trust_root_private_half_here"], true);
    assert_eq!(without["trust_root_private_half_here"], false);
    assert_eq!(without["server_key_number"], 1);
    let root = STANDARD.decode(without["trust_root_base64"].as_str().unwrap()).unwrap();
    assert_eq!(crate::support::hex(&root), without["trust_root"]);
    let told = text(&keys(&data, &offline, &["show"]).stdout);
    assert!(told.contains(without["trust_root"].as_str().unwrap()), "{told}");
    assert!(told.contains(without["trust_root_base64"].as_str().unwrap()), "{told}");
    // Neither form tells a private key.
    for file in [&offline, &data.join("server-key")] {
        let secret = fs::read_to_string(file).unwrap();
        let digits = secret.trim().rsplit(' ').next().unwrap();
        assert_eq!(digits.len(), 64);
        assert!(!told.contains(digits) && !without.to_string().contains(digits));
    }
}

/// T66
#[test]
fn t66_open_keys_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (data, root) = (dir.path().join("data"), dir.path().join("root"));
    keys(&data, &root, &["init"]);
    for file in [root.clone(), data.join("server-key")] {
        set_mode(&file, 0o640);
        assert_eq!(keys(&data, &root, &["show"]).status.code(), Some(0), "a group may read");
        set_mode(&file, 0o644);
        let output = command(dir.path(), &data)
            .arg("--trust-root-file")
            .arg(&root)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains(&format!("run: chmod 600 {}", file.display())),
            "{output:?}"
        );
        set_mode(&file, 0o600);
    }
}

async fn certificate(server: &Server, person: &Person, query: &str) -> SenderCertificate {
    let path = format!("/v1/certificate/delivery{query}");
    let answer = ask(person.request(server, "GET", &path)).await.expect(200).json();
    let bytes = STANDARD.decode(answer["certificate"].as_str().unwrap()).unwrap();
    SenderCertificate::parse(bytes.into()).unwrap()
}

/// The trust root as `keys show` tells it to whoever builds a client.
fn shown_root(data: &Path, place: &Path) -> EcPublicKey {
    let shown = json(&keys(data, &place.join("trust-root"), &["show", "--json"]));
    let digits = shown["trust_root"].as_str().unwrap();
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    EcPublicKey::parse(&bytes).unwrap()
}

fn keys(data: &Path, root_file: &Path, arguments: &[&str]) -> Output {
    command(data.parent().unwrap(), data)
        .arg("keys")
        .args(arguments)
        .arg("--trust-root-file")
        .arg(root_file)
        .output()
        .unwrap()
}

fn doctor(place: &Place, data: &Path) -> String {
    let output = command(place.path(), data)
        .arg("doctor")
        .args(["--trust-root-file", "trust-root"])
        .output();
    text(&output.unwrap().stdout)
}

fn refused_start(place: &Place, data: &Path) -> String {
    let output = command(place.path(), data)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--pepper-file")
        .arg(place.path().join("pepper"))
        .arg("--trust-root-file")
        .arg(place.path().join("trust-root"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr)
}

fn command(dir: &Path, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blind-relay"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BLIND_RELAY_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).arg("--data-dir").arg(data);
    command
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
