//! Exports: all that is held of an account, for its owner, and nothing of anybody else.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::dump::{Dump, DumpedRow, telling};
use crate::support::filled::Filled;
use crate::support::keys::base64;
use crate::support::usernames::url_safe;
use crate::support::{Answer, Backend, Person, Server, ask, hex, on_each_backend, random, until, within};

on_each_backend! {
    t70_an_export_holds_every_value_of_its_account
    t70_an_export_holds_nothing_of_others_and_no_secret
    an_export_of_a_new_account_has_every_table
    a_large_export_is_whole_and_one_that_nobody_takes_breaks_off
    t70_an_export_breaks_off_when_its_caller_is_replaced
}

/// Columns of which less is shown than is stored.
const HELD: &[&str] = &[
    "accounts.blocks",
    "accounts.lock_hash",
    "accounts.lock_salt",
    "accounts.recovery_hash",
    "accounts.recovery_salt",
    "devices.credential_hash",
    "devices.credential_salt",
    "devices.sealed_number",
    "envelopes.sealed",
    "link_offers.sealed_number",
    "mailboxes.interim_key",
    "verification_sessions.code_hash",
    "verification_sessions.sealed_number",
];

async fn t70_an_export_holds_every_value_of_its_account(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    Filled::new(&server, &carol).await;
    let without = Dump::of(&server).await;
    let alice = Filled::new(&server, &carol).await;
    let export = export(&server, &alice.phone).await.expect(200);
    assert_eq!(export.header("cache-control"), Some("no-store"));
    let export = export.json();
    assert_eq!(export["account"], json!(alice.phone.aci));
    assert_eq!(export["number"], json!(alice.phone.number));
    let abridged: Vec<_> = export["abridged"].as_object().unwrap().keys().collect();
    assert_eq!(abridged, HELD);

    let dump = Dump::of(&server).await;
    let hers = dump.without(&without);
    let told = export["tables"].as_object().unwrap();
    assert_eq!(
        hers.keys().copied().collect::<BTreeSet<_>>(),
        told.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        "every table of the database that has anything of an account"
    );
    for (table, rows) in hers {
        let told = told[table].as_array().unwrap();
        assert_eq!(told.len(), rows.len(), "{table}");
        for row in rows {
            let same = told.iter().filter(|told| tells(table, told.as_object().unwrap(), row));
            assert_eq!(same.count(), 1, "{table}: {row:?} in {told:?}");
        }
    }
}

/// Whether this object of an export tells of that row, column by column.
fn tells(table: &str, told: &Map<String, Value>, row: &DumpedRow) -> bool {
    let unknown = row.keys().find(|column| !told.contains_key(*column));
    assert_eq!(unknown, None, "{table} has a column that is not told of");
    told.iter().all(|(column, told)| {
        let stored = row.get(column).map(String::as_str);
        match format!("{table}.{column}").as_str() {
            "accounts.blocks" | "envelopes.sealed" => told.as_u64() == stored.map(|digits| (digits.len() / 2) as u64),
            held if HELD.contains(&held) => *told == json!(stored.is_some()),
            _ => match (told, stored) {
                (Value::Null, None) => true,
                (Value::Bool(told), Some(stored)) => u8::from(*told).to_string() == stored,
                (Value::Number(told), Some(stored)) => told.to_string() == stored,
                (Value::String(told), Some(stored)) => {
                    told == stored
                        || told.replace('-', "") == stored
                        || STANDARD.decode(told).is_ok_and(|bytes| hex(&bytes) == stored)
                }
                _ => false,
            },
        }
    })
}

async fn t70_an_export_holds_nothing_of_others_and_no_secret(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    let alice = Filled::new(&server, &carol).await;
    let hers = Dump::of(&server).await;
    let bob = Filled::new(&server, &carol).await;
    let all = Dump::of(&server).await;
    let text = export(&server, &alice.phone).await.expect(200).body;
    let text = std::str::from_utf8(&text).unwrap();
    for other in [&bob.phone, &carol] {
        for name in [&other.aci, &other.pni, &other.number] {
            assert!(!text.contains(name.as_str()));
        }
    }
    // What all accounts have in common, as a name of nothing, is no value of anyone.
    let common = telling(hers.0.values().flatten());
    let others = all.without(&hers);
    let mut looked = 0;
    for value in telling(others.values().flatten().copied()) {
        if !common.contains(value) {
            looked += 1;
            for form in forms(value) {
                assert!(!text.contains(&form), "a value of another account's");
            }
        }
    }
    assert!(looked > 50, "{looked}");
    // Nor what could be guessed with, or opens anything.
    let secrets = hers.rows("devices").iter().chain(hers.rows("accounts"));
    for row in secrets {
        for column in [
            "credential_hash",
            "credential_salt",
            "sealed_number",
            "recovery_hash",
            "recovery_salt",
            "lock_hash",
            "lock_salt",
        ] {
            for form in row.get(column).into_iter().flat_map(|value| forms(value)) {
                assert!(!text.contains(&form), "{column}");
            }
        }
    }
    for secret in [&alice.phone.password, &alice.laptop.password] {
        assert!(!text.contains(secret.as_str()));
    }
    assert!(!text.contains(&base64(&alice.phone.access_key)));
}

/// A stored value in each form in which an export could hold it.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    let digits = value.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    if let Some(bytes) = bytes {
        forms.extend([STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)]);
        if let Ok(id) = uuid::Uuid::from_slice(&bytes) {
            forms.push(id.to_string());
        }
    }
    forms
}

async fn an_export_of_a_new_account_has_every_table(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut alice = Person::register(&server).await;
    let _socket = alice.connect(&server).await;
    let export_of = async |person: &Person| export(&server, person).await.expect(200).json();
    let told = export_of(&alice).await;
    let filled: Vec<_> = told["tables"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, rows)| rows != &&json!([]))
        .map(|(table, _)| table.as_str())
        .collect();
    assert_eq!(filled, ["accounts", "devices", "mailboxes", "signed_keys"]);
    let live: BTreeSet<_> = Dump::of(&server)
        .await
        .0
        .into_keys()
        .filter(|table| !["admin_log", "invites", "settings", "token_keys"].contains(&table.as_str()))
        .collect();
    let tables: BTreeSet<_> = told["tables"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(tables, live);
    let device = json!({ "deviceId": 1, "connected": true, "waits": false });
    assert_eq!(
        told["memory"],
        json!({ "accountRemembered": true, "uploads": 0, "devices": [device] })
    );
    // Who registers anew is shown what is there now.
    alice.password = hex(&random::<16>());
    alice.register_on(&server).await;
    let again = export_of(&alice).await;
    assert_eq!(again["account"], told["account"]);
    assert_ne!(
        again["tables"]["devices"][0]["mailbox"],
        told["tables"]["devices"][0]["mailbox"]
    );
}

async fn a_large_export_is_whole_and_one_that_nobody_takes_breaks_off(backend: Backend) {
    let quick = [("ATTACHMENTS__IDLE_SECS", "1"), ("ATTACHMENTS__INCOMPLETE_SECS", "2")];
    let server = Server::spawn_with(backend, &quick).await;
    let alice = Person::register(&server).await;
    let keys = much(&server, &alice).await;
    let whole = export(&server, &alice).await.expect(200).json();
    let told = whole["tables"]["account_data"].as_array().unwrap();
    let told: BTreeSet<_> = told.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, keys);

    let idle = begin(&server, &alice).await;
    let refused = export(&server, &alice).await.expect(429);
    assert_eq!(refused.code(), "too_many_exports");
    assert_eq!(refused.header("retry-after"), Some("60"));
    // The first is given up, and makes room.
    until("another export to begin", async || {
        export(&server, &alice).await.status == 200
    })
    .await;
    assert!(!ends_well(idle).await);
}

async fn t70_an_export_breaks_off_when_its_caller_is_replaced(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut alice = Person::register(&server).await;
    much(&server, &alice).await;
    let begun = begin(&server, &alice).await;
    alice.password = hex(&random::<16>());
    alice.register_on(&server).await;
    assert!(!ends_well(begun).await);
    let begun = begin(&server, &alice).await;
    assert!(ends_well(begun).await, "one of whoever stays the caller is whole");
}

async fn export(server: &Server, person: &Person) -> Answer {
    ask(person.request(server, "GET", "/v1/accounts/export")).await
}

/// Keeps more than the buffers of a connection hold, and returns the keys as an export has them.
async fn much(server: &Server, person: &Person) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for _ in 0..20 {
        let operation = |_| {
            let key = random::<32>();
            keys.insert(base64(&key));
            json!({ "key": url_safe(&key), "version": 0, "value": base64(&vec![0xff; 64 * 1024]) })
        };
        let operations: Vec<_> = (0..10).map(operation).collect();
        ask(person
            .request(server, "POST", "/v1/data/batch")
            .json(&json!({ "operations": operations })))
        .await
        .expect(200);
    }
    keys
}

/// Asks for an export, and reads no more than that it begins.
async fn begin(server: &Server, person: &Person) -> TcpStream {
    let request = format!(
        "GET /v1/accounts/export HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
        person.authorization()
    );
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    within("a status line", stream.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

/// Reads the rest, and says whether it is all there: a chunked body that ends has an empty chunk at its end.
async fn ends_well(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = within("the end of an export", stream.read_to_end(&mut rest)).await;
    read.is_ok() && rest.ends_with(b"}\r\n0\r\n\r\n")
}
