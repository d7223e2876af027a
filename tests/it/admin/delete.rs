//! An account that the operator deletes is as gone as one that its owner deletes.

use std::io::Write;
use std::process::Stdio;

use super::log::execute;
use super::{Done, acts, admin};
use crate::support::attachments::files;
use crate::support::dump::{Dump, telling};
use crate::support::filled::Filled;
use crate::support::{Backend, Person, Server, ask, on_each_backend, until};

on_each_backend! {
    t38_t24_an_account_that_the_operator_deletes_is_in_no_row_but_that_of_the_act
    an_account_is_deleted_only_by_who_types_its_id
}

async fn t38_t24_an_account_that_the_operator_deletes_is_in_no_row_but_that_of_the_act(backend: Backend) {
    let server = Server::spawn(backend).await;
    let carol = Person::register(&server).await;
    Filled::new(&server, &carol).await;
    let blobs = server.data_dir().join("attachments");
    let (without, blobs_without) = (Dump::of(&server).await, files(&blobs));
    let alice = Filled::new(&server, &carol).await;
    let filled = Dump::of(&server).await;
    let hers = filled.without(&without);
    let others = telling(without.0.values().flatten());
    let naming: Vec<_> = telling(hers.values().flatten().copied())
        .into_iter()
        .filter(|value| !others.contains(value))
        .collect();
    assert!(naming.len() > 50, "{}", naming.len());

    let mut sockets = [alice.phone.connect(&server).await, alice.laptop.connect(&server).await];
    let said = admin(&server, &["account", "delete", &alice.phone.aci, "--yes"]).well();
    assert!(said.starts_with("deleted"), "{said}");
    for socket in &mut sockets {
        assert_eq!(socket.close_code().await, Some(4401));
    }
    ask(alice.phone.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
    until("her picture to go", async || files(&blobs) == blobs_without).await;
    let mut after = Dump::of(&server).await;
    until("her picture's row to be settled", async || {
        after = Dump::of(&server).await;
        after.rows("attachments").iter().all(|row| row["state"] != "2")
    })
    .await;
    // What the owner's own deletion leaves, and the entry of the act.
    let left = after.without(&without);
    let tables: Vec<_> = left.keys().copied().collect();
    assert_eq!(tables, ["admin_log", "attachments", "settings", "usernames"]);
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
    for id in [&alice.phone.aci, &alice.phone.pni] {
        assert!(!format!("{left:?}").contains(&id.replace('-', "")));
    }
    // Whoever knows her id finds what was done, and the number is free.
    let about = admin(&server, &["log", "--account", &alice.phone.aci, "--json"]).json();
    assert_eq!(about["entries"].as_array().unwrap().len(), 1);
    assert_eq!(about["entries"][0]["what"], "account delete");
    let refused = admin(&server, &["account", "delete", &alice.phone.aci, "--yes"]).refused();
    assert!(refused.contains("no_account"), "{refused}");
    let mut again = alice.phone.clone();
    assert_eq!(again.register_on(&server).await["reregistration"], false);
}

async fn an_account_is_deleted_only_by_who_types_its_id(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let typing = |text: &str| {
        let mut child = server
            .command_of(&["admin", "account", "delete", &alice.aci])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        Done::of(child.wait_with_output().unwrap())
    };
    for text in ["", "\n", "yes\n", "y\n", &alice.pni, &"x".repeat(10_000)] {
        let refused = typing(text).refused();
        assert!(refused.contains("nothing was deleted"), "{refused}");
    }
    ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    assert!(acts(&server).is_empty(), "nothing was asked of the server");
    typing(&format!("{}\n", alice.aci)).well();
    ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_deletion_that_fails_is_written_down_as_that_and_can_be_tried_again() {
    let server = Server::spawn(Backend::Sqlite).await;
    let carol = Person::register(&server).await;
    let alice = Filled::new(&server, &carol).await;
    for (plant, undo) in [
        (
            "CREATE TRIGGER stuck BEFORE UPDATE ON attachments BEGIN SELECT RAISE(ABORT, 'stuck'); END",
            "DROP TRIGGER stuck",
        ),
        (
            "CREATE TRIGGER stuck BEFORE DELETE ON accounts BEGIN SELECT RAISE(ABORT, 'stuck'); END",
            "DROP TRIGGER stuck",
        ),
    ] {
        execute(&server, plant).await;
        admin(&server, &["account", "delete", &alice.phone.aci, "--yes"]).refused();
        execute(&server, undo).await;
        ask(alice.phone.request(&server, "GET", "/v1/accounts/whoami"))
            .await
            .expect(200);
    }
    admin(&server, &["account", "delete", &alice.phone.aci, "--yes"]).well();
    ask(alice.phone.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(401);
    let results: Vec<_> = acts(&server).into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, ["failed", "failed", "done"]);
}
