//! Files: what lies in the data directory of a server that has done something, and in its attachment store.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use blind_relay::manifest::Manifest;

use crate::support::attachments::{content, uploaded};
use crate::support::{Backend, Person, Server, on_each_backend, send};

on_each_backend! {
    b1_files_and_objects_of_a_server_are_those_of_the_manifest
}

async fn b1_files_and_objects_of_a_server_are_those_of_the_manifest(backend: Backend) {
    let server = Server::spawn(backend).await;
    let place = server.place().path().to_owned();
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"text").await.expect(200);
    uploaded(&server, &alice, &content(5_000_000)).await;
    let data = place.join("data");
    let found = tree(&data);
    let unlisted: Vec<_> = found.iter().filter(|path| kind(path, &data).is_none()).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    let mut kinds: BTreeSet<_> = found.iter().filter_map(|path| kind(path, &data)).collect();
    // What tests keep beside the data directory, for the second node.
    for shared in ["pepper", "trust-root"] {
        assert_eq!(mode(&place.join(shared)), "0600");
        kinds.insert(shared.to_owned());
    }
    let mut expected = vec![
        "admin.sock",
        "generation",
        "pepper",
        "server-key",
        "trust-root",
        "{realm}/{name}/{start}-{tag}",
    ];
    if backend == Backend::Sqlite {
        expected.extend(["relay.db", "relay.db-shm", "relay.db-wal", "relay.db.lock"]);
    }
    let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
    assert_eq!(kinds, expected);
    assert_eq!(mode(&data), "0700");
}

#[test]
fn b1_files_of_a_self_signed_certificate_are_those_of_the_manifest() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut server = super::program()
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--tls-self-signed",
            "--data-dir",
        ])
        .arg(&data)
        .current_dir(place.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Its first line comes when everything has been made.
    let mut line = String::new();
    let mut out = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let found = tree(&data);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(line.starts_with("listening on https://"), "{line}");
    let kinds: BTreeSet<_> = found.iter().map(|path| (path, kind(path, &data))).collect();
    for (path, kind) in &kinds {
        assert!(kind.is_some(), "{}", path.display());
    }
    let has = |name: &str| kinds.iter().any(|(_, kind)| kind.as_deref() == Some(name));
    assert!(
        ["tls/ca-cert.pem", "tls/cert.pem", "tls/key.pem", "pepper", "server-key"]
            .into_iter()
            .all(has)
    );
}

/// Which entry of the manifest a file is, if its mode is as that says.
fn kind(path: &Path, data: &Path) -> Option<String> {
    let manifest = Manifest::embedded();
    let inside = path.strip_prefix(data).unwrap().to_str().unwrap();
    if let Some(object) = inside.strip_prefix("attachments/") {
        let object = manifest.objects.iter().find(|name| fits(&name.name, object))?;
        return Some(object.name.clone());
    }
    let file = manifest.files.iter().find(|file| fits(&file.path, inside))?;
    let mode_fits = file.mode.as_ref().is_none_or(|listed| *listed == mode(path));
    mode_fits.then(|| file.path.clone())
}

/// Whether a name has the form: what is in braces may be anything without a slash, of random parts hexadecimal digits.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('{') else {
        return pattern == name;
    };
    let (hole, after) = rest.split_once('}').unwrap();
    let Some(name) = name.strip_prefix(before) else {
        return false;
    };
    let allowed =
        |c: char| c.is_ascii_hexdigit() || (hole == "file" && (c.is_ascii_alphanumeric() || "-.".contains(c)));
    let longest = name.find(|c| !allowed(c)).unwrap_or(name.len());
    (1..=longest).any(|end| fits(after, &name[end..]))
}

fn mode(path: &Path) -> String {
    format!("{:04o}", std::fs::metadata(path).unwrap().permissions().mode() & 0o7777)
}

/// All files below.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn names_of_files_fit_their_patterns_and_no_others() {
    for (pattern, name, expected) in [
        ("relay.db", "relay.db", true),
        ("relay.db", "relay.db2", false),
        ("{realm}/{name}/{start}-{tag}", "ab/cd/00-ff", true),
        ("{realm}/{name}/{start}-{tag}", "ab/cd/00", false),
        ("{realm}/{name}/{start}-{tag}", "ab/cd/00-ff/x", false),
        ("{realm}/{name}/{start}-{tag}", "ab/+1555/00-ff", false),
        ("{file}.{random}.new", "server-key.0f.new", true),
        ("{file}.{random}.new", "server-key.new", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}
