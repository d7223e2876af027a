//! Backups, and what happens to a database that was put back: nothing is handed out twice.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::migrate::MigrateDatabase;
use sqlx::{Connection, Postgres, SqliteConnection};

use crate::support::keys::{kyber, one_time, one_time_keys};
use crate::support::person::people;
use crate::support::{Backend, Person, Server, ask, on_each_backend, send, skip, until};

on_each_backend! {
    t19_keys_that_were_handed_out_after_a_backup_are_not_handed_out_again
    t19_a_database_that_was_put_back_by_other_means_is_noticed
    t13_an_id_that_was_handed_out_is_not_put_back
}

async fn t19_keys_that_were_handed_out_after_a_backup_are_not_handed_out_again(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let Some(backups) = Backups::of(&server) else { return };
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let uploaded = one_time_keys(&bob.aci_identity, 1, 40);
    upload(&server, &bob, &uploaded).await;
    let mut handed_out = BTreeSet::new();
    claim(&server, &alice, &bob, 5, &mut handed_out).await;
    backups.make(&server, "monday");
    claim(&server, &alice, &bob, 10, &mut handed_out).await;
    assert_eq!(handed_out.len(), 30, "15 keys of each kind");
    // What came after the backup, and is lost: an account.
    let carol = Person::register(&server).await;
    send(&server, &alice, &bob, b"1:1").await.expect(200);
    server.kill();

    let told = backups.put_back(&server, "monday").await;
    assert!(told.contains("restore epoch: 1"), "{told}");
    assert!(told.contains("invalid from now on: 70 one-time keys"), "{told}");
    let server = server.restart();
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    assert!((server.metric("blind_relay_restore_epoch").await - 1.0).abs() < 0.5);
    assert_eq!(count(&server, &bob).await, (0, 0));
    ask(carol.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);

    // The owner is asked for new keys as soon as somebody wants one, and senders are not turned away.
    let mut phone = bob.connect(&server).await;
    let bundle = fetch(&server, &alice, &bob).await;
    assert!(bundle.get("preKey").is_none());
    assert_eq!(bundle["pqPreKey"]["publicKey"], bob.aci_last_resort["publicKey"]);
    let (_, notice) = phone.notice().await;
    assert_eq!(
        notice,
        json!({ "code": "prekeys_low", "kind": "aci", "ec": 0, "kyber": 0 })
    );

    // A client that sends its old keys again puts none of them back; with new ones all is well.
    upload(&server, &bob, &uploaded).await;
    assert_eq!(count(&server, &bob).await, (0, 0));
    upload(&server, &bob, &one_time_keys(&bob.aci_identity, 1_000, 10)).await;
    let before = handed_out.clone();
    claim(&server, &alice, &bob, 10, &mut handed_out).await;
    assert_eq!(handed_out.len(), before.len() + 20);
    let report = server.run(&["doctor"]);
    assert!(
        out(&report).contains("restore epoch: 1, the database was put back once"),
        "{}",
        out(&report)
    );
}

async fn t19_a_database_that_was_put_back_by_other_means_is_noticed(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let Some(backups) = Backups::of(&server) else { return };
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let uploaded = one_time_keys(&bob.aci_identity, 1, 40);
    upload(&server, &bob, &uploaded).await;
    let mut handed_out = BTreeSet::new();
    claim(&server, &alice, &bob, 5, &mut handed_out).await;
    server.kill();
    backups.copy(&server, "raw").await;
    let mut server = server.restart();
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    claim(&server, &alice, &bob, 10, &mut handed_out).await;
    server.kill();

    backups.copy_back(&server, "raw").await;
    let report = server.run(&["doctor"]);
    let warned = match backend {
        Backend::Sqlite => "the database is older than this node has seen it",
        Backend::Postgres => "the database was read in from a dump",
    };
    assert!(out(&report).contains(warned), "{}", out(&report));
    let mut server = server.restart();
    assert!(server.log().contains(warned), "{}", server.log());
    assert_eq!(count(&server, &bob).await, (0, 0));
    upload(&server, &bob, &uploaded).await;
    assert_eq!(count(&server, &bob).await, (0, 0));
    // Once: the next start finds nothing to do.
    upload(&server, &bob, &one_time_keys(&bob.aci_identity, 1_000, 10)).await;
    server.kill();
    let server = server.restart();
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    assert_eq!(count(&server, &bob).await, (10, 10));
    claim(&server, &alice, &bob, 10, &mut handed_out).await;
}

async fn t13_an_id_that_was_handed_out_is_not_put_back(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let first = one_time_keys(&bob.aci_identity, 1, 3);
    upload(&server, &bob, &first).await;
    assert_eq!(fetch(&server, &alice, &bob).await["preKey"]["keyId"], 1);
    upload(&server, &bob, &first).await;
    assert_eq!(count(&server, &bob).await, (2, 2));
    assert_eq!(fetch(&server, &alice, &bob).await["preKey"]["keyId"], 2);

    let identity = &bob.aci_identity;
    for other in [
        json!({ "preKeys": [one_time(50), one_time(1)] }),
        json!({ "preKeys": [one_time(50)], "pqPreKeys": [kyber(identity, 2)], "pqLastResortPreKey": kyber(identity, 9) }),
    ] {
        let refused = ask(bob.request(&server, "PUT", "/v2/keys").json(&other))
            .await
            .expect(409);
        assert_eq!(refused.code(), "key_id_spent");
        assert_eq!(count(&server, &bob).await, (1, 1));
    }
    let bundle = fetch(&server, &alice, &bob).await;
    assert_eq!(
        (&bundle["preKey"]["keyId"], &bundle["pqPreKey"]["keyId"]),
        (&json!(3), &json!(3))
    );
    let bundle = fetch(&server, &alice, &bob).await;
    assert_eq!(bundle["pqPreKey"]["publicKey"], bob.aci_last_resort["publicKey"]);
    for (key, uploads) in [("same", 2.0), ("other", 2.0)] {
        let metric = format!("blind_relay_spent_keys_uploaded_total{{key=\"{key}\"}}");
        assert!((server.metric(&metric).await - uploads).abs() < 0.5, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_a_backup_that_was_put_back_without_restore_is_noticed() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    upload(&server, &bob, &one_time_keys(&bob.aci_identity, 1, 10)).await;
    let file = server.place().path().join("copy.db");
    succeed(&server.run(&["backup", text(&file)]));
    fetch(&server, &alice, &bob).await;
    server.kill();
    // On a machine that has never seen it: without the mark in the data directory.
    let database = server.place().sqlite();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(beside(&database, suffix));
    }
    fs::remove_file(database.with_file_name("generation")).unwrap();
    fs::copy(&file, &database).unwrap();
    let report = server.run(&["doctor"]);
    assert!(
        out(&report).contains("the database is a backup that was put back"),
        "{}",
        out(&report)
    );
    let server = server.restart();
    assert!(
        server.log().contains("put back without `blind-relay restore`"),
        "{}",
        server.log()
    );
    assert_eq!(count(&server, &bob).await, (0, 0));
    assert!((server.metric("blind_relay_restore_epoch").await - 1.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_accepted_before_a_backup_is_in_it_and_traffic_goes_on_meanwhile() {
    let mut server = Server::spawn_with(Backend::Sqlite, &[("QUEUE__MAX_ENVELOPES", "100000")]).await;
    let (senders, bob) = (people(&server, 8).await, Person::register(&server).await);
    let (accepted, done) = (Arc::new(Mutex::new(BTreeSet::new())), AtomicBool::new(false));
    let files = server.place().path().to_owned();
    let sending = join_all(senders.iter().enumerate().map(|(n, from)| {
        let (server, bob, accepted, done) = (&server, &bob, &accepted, &done);
        async move {
            for number in 0_u32.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let content = format!("{n}:{number}");
                send(server, from, bob, content.as_bytes()).await.expect(200);
                accepted.lock().unwrap().insert(content);
            }
        }
    }));
    // How much is accepted while one is made is up to the machine: some come to nothing.
    let backing_up = async {
        until("some traffic", async || accepted.lock().unwrap().len() > 300).await;
        let mut last = None;
        for n in 0..MANY {
            let file = files.join(format!("{n}.db"));
            let before = accepted.lock().unwrap().clone();
            let mut backup = server.command_line(&["backup", text(&file)]);
            let made = tokio::task::spawn_blocking(move || backup.output().unwrap()).await;
            succeed(&made.unwrap());
            let after = accepted.lock().unwrap().len();
            let more = after > before.len();
            last = Some((file, before, more));
            if more {
                break;
            }
        }
        let stop_at = accepted.lock().unwrap().len() + 100;
        until("more traffic", async || accepted.lock().unwrap().len() > stop_at).await;
        done.store(true, Ordering::Relaxed);
        last.unwrap()
    };
    let (_, (file, before, more)) = tokio::join!(sending, backing_up);
    assert!(more, "nothing is accepted while a backup is made");
    server.kill();
    succeed(&server.run(&["restore", text(&file)]));
    let server = server.restart();
    let drained = bob.connect(&server).await.drain().await;
    let there: BTreeSet<String> = drained
        .iter()
        .map(|content| String::from_utf8(content.to_vec()).unwrap())
        .collect();
    assert!(before.is_subset(&there), "{} of {}", there.len(), before.len());
    assert_eq!(drained.len(), there.len(), "each once");
    for (n, from) in senders.iter().enumerate() {
        send(&server, from, &bob, format!("{n}:again").as_bytes())
            .await
            .expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_private_whole_and_never_written_over_another() {
    let server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    let place = server.place().path().to_owned();
    let file = place.join("copy.db");
    let made = server.run(&["backup", text(&file)]);
    succeed(&made);
    for apart in ["pepper", "trust-root", "server-key", "attachments"] {
        assert!(out(&made).contains(apart), "{}", out(&made));
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let content = fs::read(&file).unwrap();
    let pepper = fs::read_to_string(place.join("pepper")).unwrap();
    for secret in [pepper.trim(), bob.number.as_str(), bob.password.as_str()] {
        assert!(!contains(&content, secret.as_bytes()));
    }
    fail(&server.run(&["backup", text(&file)]), "exists already");
    assert_eq!(fs::read(&file).unwrap(), content);
    fail(&server.run(&["backup", text(&place.join("none/copy.db"))]), "none");
    fail(
        &server.run(&[
            "--pepper-file",
            text(&place.join("none")),
            "backup",
            text(&place.join("b.db")),
        ]),
        "without the pepper",
    );
    fs::write(place.join("other-pepper"), format!("{}\n", "ab".repeat(32))).unwrap();
    fs::set_permissions(place.join("other-pepper"), PermissionsExt::from_mode(0o600)).unwrap();
    let other = text(&place.join("other-pepper")).to_owned();
    fail(
        &server.run(&["--pepper-file", &other, "backup", text(&place.join("b.db"))]),
        "another pepper",
    );
    assert!(!place.join("b.db").exists());
    assert_no_drafts(&place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_interrupted_leaves_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let place = server.place().path().to_owned();
    let file = place.join("copy.db");
    // Large enough for the signal to come in the midst of it.
    execute(
        &server.place().sqlite(),
        "CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 96) \
         SELECT i, zeroblob(1048576) AS content FROM n",
    )
    .await;
    let mut interrupted = false;
    for _ in 0..MANY {
        let mut child = server.command_line(&["backup", text(&file)]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ended = false;
        until("a draft", async || {
            ended = child.try_wait().unwrap().is_some();
            ended || !drafts(&place).is_empty()
        })
        .await;
        if !ended {
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        }
        let done = child.wait_with_output().unwrap();
        assert_no_drafts(&place);
        // Whenever it is interrupted, there is a whole backup or none.
        assert_eq!(done.status.success(), file.exists());
        if !done.status.success() {
            fail(&done, "interrupted: no backup was made");
            interrupted = true;
            break;
        }
        fs::remove_file(&file).unwrap();
    }
    assert!(interrupted, "every backup was quicker than the signal");
    succeed(&server.run(&["backup", text(&file)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_put_back_is_refused_and_the_database_stays() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    let place = server.place().path().to_owned();
    let at = |name: &str| place.join(name);
    succeed(&server.run(&["backup", text(&at("good"))]));
    fail(&server.run(&["restore", text(&at("good"))]), "a server uses");
    fail(&server.run(&["restore", "--in-place"]), "a server uses");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));

    let good = fs::read(at("good")).unwrap();
    fs::write(at("torn"), &good[..good.len() / 2]).unwrap();
    fs::write(at("text"), "no database at all\n".repeat(1_000)).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("newer"), &good).unwrap();
    execute(
        &at("newer"),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, description, success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .await;
    fs::write(at("foreign"), "").unwrap();
    execute(&at("foreign"), "CREATE TABLE accounts (id INTEGER)").await;
    fs::write(at("other"), &good).unwrap();
    execute(
        &at("other"),
        "UPDATE settings SET value = x'00' WHERE name = 'pepper_check'",
    )
    .await;
    let database = server.place().sqlite();
    let before = fs::read(&database).unwrap();
    for (name, why) in [
        ("none", "none"),
        ("torn", "is damaged; use another backup"),
        ("text", "is not a database of blind-relay"),
        ("empty", "is not a database of blind-relay"),
        ("newer", "run the newer release"),
        ("foreign", "tables of the same names"),
        ("other", "another pepper"),
        ("data/relay.db", "is the database itself"),
    ] {
        fail(&server.run(&["restore", text(&at(name))]), why);
        assert_eq!(fs::read(&database).unwrap(), before, "{name}");
    }
    fail(&server.run(&["restore"]), "<FILE>");
    fail(
        &server.run(&["restore", text(&at("good")), "--in-place"]),
        "cannot be used with",
    );
    assert_no_drafts(&place);
    assert_no_drafts(&place.join("data"));

    // And what can be is kept beside, as often as it happens.
    for number in 1..=2 {
        let told = server.run(&["restore", text(&at("good"))]);
        succeed(&told);
        let aside = beside(&database, &format!(".before-restore-{number}"));
        assert!(out(&told).contains(text(&aside)), "{}", out(&told));
        assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read(beside(&database, ".before-restore-1")).unwrap(), before);
    assert_no_drafts(&place.join("data"));
    let mut server = server.restart();
    assert!((server.metric("blind_relay_restore_epoch").await - 2.0).abs() < 0.5);
    bob.fetch(&server).await;

    // A server that was killed left its newest rows in the log; a damaged database gives way all the same.
    let carol = Person::register(&server).await;
    server.kill();
    succeed(&server.run(&["restore", text(&at("good"))]));
    let aside = beside(&database, ".before-restore-3");
    assert_eq!(rows(&aside, "SELECT count(*) FROM accounts").await, 2);
    fs::write(&database, "x".repeat(20_000)).unwrap();
    fs::write(beside(&database, "-wal"), "y".repeat(5_000)).unwrap();
    succeed(&server.run(&["restore", text(&at("good"))]));
    let aside = beside(&database, ".before-restore-4");
    assert_eq!(fs::read(&aside).unwrap(), "x".repeat(20_000).into_bytes());
    let server = server.restart();
    bob.fetch(&server).await;
    ask(carol.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_has_its_own_tools_and_nodes_must_be_stopped_first() {
    if crate::support::server::postgres_url().is_none() {
        return;
    }
    let mut server = Server::spawn(Backend::Postgres).await;
    let bob = Person::register(&server).await;
    upload(&server, &bob, &one_time_keys(&bob.aci_identity, 1, 2)).await;
    let file = server.place().path().join("copy.db");
    fail(&server.run(&["backup", text(&file)]), "use pg_dump");
    fail(&server.run(&["restore", text(&file)]), "blind-relay restore --in-place");
    fail(
        &server.run(&["restore", "--in-place"]),
        "nodes are connected to the database",
    );
    assert_eq!(count(&server, &bob).await, (2, 2));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    let told = server.run(&["restore", "--in-place"]);
    succeed(&told);
    assert!(out(&told).contains("4 one-time keys"), "{}", out(&told));
    assert_eq!(count(&server.restart(), &bob).await, (0, 0));
}

const MANY: u32 = 30;

/// Backups of a server's database, by the means that its backend has.
struct Backups {
    place: PathBuf,
    url: Option<String>,
    tools: PathBuf,
}

impl Backups {
    fn of(server: &Server) -> Option<Self> {
        let pg_dump =
            std::env::var_os("BLIND_RELAY_TEST_PG_DUMP").map_or_else(|| PathBuf::from("pg_dump"), PathBuf::from);
        let url = server.place().database_url().map(str::to_owned);
        if url.is_some() && Command::new(&pg_dump).arg("--version").output().is_err() {
            skip("pg_dump is not there; name it in BLIND_RELAY_TEST_PG_DUMP");
            return None;
        }
        Some(Self {
            place: server.place().path().to_owned(),
            url,
            tools: pg_dump.parent().unwrap_or(Path::new("")).to_owned(),
        })
    }

    /// While the server runs.
    fn make(&self, server: &Server, name: &str) {
        let file = self.place.join(name);
        match &self.url {
            None => succeed(&server.run(&["backup", text(&file)])),
            Some(url) => self.dump(url, &file),
        }
    }

    /// Puts it back and says so, as the documentation tells; returns what was told.
    async fn put_back(&self, server: &Server, name: &str) -> String {
        let file = self.place.join(name);
        let told = match &self.url {
            None => server.run(&["restore", text(&file)]),
            Some(url) => {
                self.read_in(url, &file).await;
                server.run(&["restore", "--in-place"])
            }
        };
        succeed(&told);
        out(&told)
    }

    /// Of a server that is stopped: its files as they are, or a dump.
    async fn copy(&self, server: &Server, name: &str) {
        let to = self.place.join(name);
        match &self.url {
            None => {
                for suffix in ["", "-wal"] {
                    fs::copy(beside(&server.place().sqlite(), suffix), beside(&to, suffix)).unwrap();
                }
            }
            Some(url) => self.dump(url, &to),
        }
    }

    /// Puts them back without a word.
    async fn copy_back(&self, server: &Server, name: &str) {
        let from = self.place.join(name);
        match &self.url {
            None => {
                let database = server.place().sqlite();
                let _ = fs::remove_file(beside(&database, "-shm"));
                for suffix in ["", "-wal"] {
                    fs::copy(beside(&from, suffix), beside(&database, suffix)).unwrap();
                }
            }
            Some(url) => self.read_in(url, &from).await,
        }
    }

    fn dump(&self, url: &str, file: &Path) {
        let dumped = Command::new(self.tools.join("pg_dump"))
            .args(["--format=custom", "--file", text(file), "--dbname", url])
            .output()
            .unwrap();
        succeed(&dumped);
    }

    async fn read_in(&self, url: &str, file: &Path) {
        Postgres::force_drop_database(url).await.unwrap();
        Postgres::create_database(url).await.unwrap();
        let read = Command::new(self.tools.join("pg_restore"))
            .args(["--exit-on-error", "--single-transaction", "--dbname", url, text(file)])
            .output()
            .unwrap();
        succeed(&read);
    }
}

/// Takes so many bundles of Bob, and fails if one of their keys was handed out before.
async fn claim(server: &Server, alice: &Person, bob: &Person, bundles: usize, handed_out: &mut BTreeSet<String>) {
    for _ in 0..bundles {
        let bundle = fetch(server, alice, bob).await;
        for key in ["preKey", "pqPreKey"] {
            let key = bundle[key]["publicKey"].as_str().unwrap().to_owned();
            assert!(handed_out.insert(key), "handed out twice");
        }
    }
}

async fn fetch(server: &Server, alice: &Person, bob: &Person) -> Value {
    let path = format!("/v2/keys/{}/1", bob.aci);
    let answer = ask(alice.request(server, "GET", &path)).await.expect(200).json();
    answer["devices"][0].clone()
}

async fn upload(server: &Server, person: &Person, keys: &Value) {
    ask(person.request(server, "PUT", "/v2/keys").json(keys))
        .await
        .expect(204);
}

async fn count(server: &Server, person: &Person) -> (u64, u64) {
    let left = ask(person.request(server, "GET", "/v2/keys")).await.expect(200).json();
    (left["count"].as_u64().unwrap(), left["pqCount"].as_u64().unwrap())
}

async fn execute(file: &Path, statement: &'static str) {
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    sqlx::query(statement).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

async fn rows(file: &Path, statement: &'static str) -> i64 {
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    sqlx::query_scalar(statement).fetch_one(&mut database).await.unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn drafts(directory: &Path) -> Vec<OsString> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| text(Path::new(name)).ends_with(".draft")).collect()
}

fn assert_no_drafts(directory: &Path) {
    assert_eq!(drafts(directory), Vec::<OsString>::new());
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fail(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{}", out(output));
    assert!(said.contains(why), "{said}");
}
