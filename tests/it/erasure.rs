//! What a deleted account and a removed device leave behind: nothing that names them, in any table.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::attachments::files;
use crate::support::dump::{Dump, DumpedRow, telling};
use crate::support::filled::{Filled, claim, write_to};
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, ask, on_each_backend, until};

on_each_backend! {
    t38_t70_a_deleted_account_is_in_no_row_of_any_table
    t38_a_removed_device_is_in_no_row_of_any_table
    t38_an_account_deleted_by_its_linked_device_is_gone_as_well
}

/// What is about the server and not about any account.
const NOT_OF_ACCOUNTS: &[&str] = &["admin_log", "invites", "settings", "token_keys"];

async fn t38_t70_a_deleted_account_is_in_no_row_of_any_table(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    let bystander = Filled::new(&server, &carol).await;
    let blobs = server.place().path().join("data/attachments");
    let (without, blobs_without) = (Dump::of(&server).await, files(&blobs));

    let alice = Filled::new(&server, &carol).await;
    let filled = Dump::of(&server).await;
    let hers = filled.without(&without);
    let tables: Vec<_> = hers.keys().copied().collect();
    let all: Vec<_> = filled
        .0
        .keys()
        .map(String::as_str)
        .filter(|table| !NOT_OF_ACCOUNTS.contains(table))
        .collect();
    assert_eq!(tables, all, "a table in which no account has anything tests nothing");
    assert!(files(&blobs).len() > blobs_without.len());
    // What stands in rows of others too is no name of hers.
    let others = telling(without.0.values().flatten());
    let naming: Vec<_> = telling(hers.values().flatten().copied())
        .into_iter()
        .filter(|value| !others.contains(value))
        .collect();
    assert!(naming.contains(&alice.phone.aci.replace('-', "").as_str()));
    assert!(naming.contains(&alice.phone.pni.replace('-', "").as_str()));
    assert!(naming.len() > 50, "{}", naming.len());

    let mut sockets = [alice.phone.connect(&server).await, alice.laptop.connect(&server).await];
    ask(alice.phone.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    for socket in &mut sockets {
        assert_eq!(socket.close_code().await, Some(4401));
    }
    // The bytes of her picture go a moment after the answer, and with them the last change of a row.
    until("her picture to go", async || files(&blobs) == blobs_without).await;
    let mut after = Dump::of(&server).await;
    until("her picture's row to be settled", async || {
        after = Dump::of(&server).await;
        after.rows("attachments").iter().all(|row| row["state"] != "2")
    })
    .await;

    assert_eq!(
        without.without(&after),
        BTreeMap::new(),
        "rows of others are as they were"
    );
    // What is left is held for nobody and says nothing of her.
    let left = after.without(&without);
    for (table, rows) in &left {
        for row in rows {
            assert!(is_tombstone(table, row), "{table}: {row:?}");
        }
    }
    let kept: Vec<&str> = left
        .values()
        .flatten()
        .flat_map(|row| row.get("hash").or(row.get("name")))
        .map(String::as_str)
        .collect();
    for (table, rows) in &after.0 {
        for (column, value) in rows.iter().flatten() {
            let named = naming.contains(&value.as_str()) && !kept.contains(&value.as_str());
            assert!(!named, "{table}.{column} still has a value of hers");
        }
    }
    ask(server.request("GET", &alice.picture.download())).await.expect(404);
    bystander.phone.fetch(&server).await;
}

/// Names that are held and keys that are not used again, with nothing of whom they were.
fn is_tombstone(table: &str, row: &DumpedRow) -> bool {
    let columns: Vec<_> = row.keys().map(String::as_str).collect();
    match table {
        "usernames" => columns
            .iter()
            .all(|column| ["hash", "owned", "held_until", "reserved_until"].contains(column)),
        "attachments" => row["state"] == "3" && row["stored"] == "0" && !row.contains_key("length"),
        _ => false,
    }
}

async fn t38_a_removed_device_is_in_no_row_of_any_table(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    let alice = Filled::new(&server, &carol).await;
    let remove = async |device: &Person| {
        let path = format!("/v1/devices/{}", device.device_id);
        ask(alice.phone.request(&server, "DELETE", &path)).await.expect(204);
    };
    remove(&alice.laptop).await;
    let before = Dump::of(&server).await;
    let tablet = alice.phone.link(&server).await;
    tablet.upload_keys(&server, 1, 4).await;
    claim(&server, &carol, &tablet, &tablet.device_id.to_string()).await;
    Tokens::open(&server, &tablet).await;
    write_to(&server, &alice.phone, &alice.phone, &[&tablet]).await;
    let of_devices = [
        "devices",
        "envelopes",
        "link_offers",
        "mailboxes",
        "one_time_ec_keys",
        "one_time_kyber_keys",
        "signed_keys",
        "spent_keys",
        "token_sessions",
    ];
    let filled = Dump::of(&server).await;
    let tables: Vec<_> = filled.without(&before).keys().copied().collect();
    assert_eq!(tables, of_devices);
    let mut socket = tablet.connect(&server).await;
    remove(&tablet).await;
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(Dump::of(&server).await, before, "as if it had never been");
}

async fn t38_an_account_deleted_by_its_linked_device_is_gone_as_well(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    let alice = Filled::new(&server, &carol).await;
    ask(alice.laptop.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    let after = Dump::of(&server).await;
    assert_eq!(after.rows("accounts").len(), 1);
    for table in [
        "verification_sessions",
        "link_offers",
        "token_sessions",
        "username_links",
        "profiles",
        "account_data",
        "attachment_budgets",
    ] {
        assert!(after.rows(table).is_empty(), "{table}");
    }
    // The number's next account has nothing of the one before.
    let mut again = alice.phone.clone();
    assert_eq!(again.register_on(&server).await["reregistration"], false);
    assert_ne!(again.aci, alice.phone.aci);
    let data = ask(again.request(&server, "GET", "/v1/data")).await.expect(200).json();
    assert_eq!(data["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t38_an_account_deleted_at_one_node_is_gone_from_the_other() {
    let (Some(redis), Some(_)) = (RedisServer::spawn(), postgres_url()) else {
        return;
    };
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    let carol = Person::register(&one).await;
    let alice = Filled::new(&one, &carol).await;
    let mut socket = alice.laptop.connect(&two).await;
    ask(alice.phone.request(&one, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    assert_eq!(socket.close_code().await, Some(4401));
    until("the other node to know nothing of her", async || {
        let asked = [
            ask(carol.request(&two, "GET", &format!("/v2/keys/{}/*", alice.phone.aci))).await,
            ask(carol.request(&two, "GET", &format!("/v2/keys/PNI:{}/*", alice.phone.pni))).await,
        ];
        asked.iter().all(|answer| answer.status == 404)
    })
    .await;
}
