//! User names: who gets one, who finds it, and what nobody learns.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::keys::base64;
use crate::support::person::people;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::usernames::{Name, reserve, url_safe};
use crate::support::{Backend, Person, Server, Socket, ask, on_each_backend, random, setting};

on_each_backend! {
    a_name_is_reserved_taken_found_and_given_up
    a_link_leads_to_the_encrypted_name
    of_many_who_want_a_name_one_gets_it
    a_name_needs_a_reservation_and_a_proof
    a_name_given_up_is_kept_for_its_owner_and_that_of_a_deleted_account_for_nobody
    t45_strangers_see_the_same_wherever_there_is_no_name
}

async fn a_name_is_reserved_taken_found_and_given_up(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut alice = Person::register(&server).await;
    let bob = Person::register(&server).await;
    assert_eq!(whoami(&server, &alice).await, (Value::Null, Value::Null));
    let (first, second) = (Name::new(), Name::new());
    let reserved = reserve(&server, &alice, &[&first, &second]).await.expect(200).json();
    assert_eq!(reserved, json!({ "usernameHash": first.text() }));
    first.find(&server).await.expect(404);
    // Who comes second gets what is left.
    let reserved = reserve(&server, &bob, &[&first, &second]).await.expect(200).json();
    assert_eq!(reserved["usernameHash"], second.text());
    assert_eq!(first.reserve(&server, &bob).await.expect(409).code(), "usernames_taken");

    let taken = first.confirm(&server, &alice, Some(&[3; 128])).await.expect(200).json();
    assert_eq!(taken["usernameHash"], first.text());
    let handle = &taken["usernameLinkHandle"];
    assert!(uuid::Uuid::try_parse(handle.as_str().unwrap()).is_ok());
    assert_eq!(
        first.find(&server).await.expect(200).json(),
        json!({ "uuid": alice.aci })
    );
    assert_eq!(whoami(&server, &alice).await, (first.text().into(), handle.clone()));
    // An answer that got lost is asked for again, and nothing changes.
    let again = first.confirm(&server, &alice, Some(&[3; 128])).await.expect(200).json();
    assert_eq!(again, taken);
    // Registering again keeps the name and its link.
    let registered = alice.register_on(&server).await;
    assert_eq!(registered["reregistration"], true);
    assert_eq!(registered["usernameHash"], first.text());
    assert_eq!(&registered["usernameLinkHandle"], handle);

    let bobs = second.confirm(&server, &bob, None).await.expect(200).json();
    assert_eq!(
        bobs,
        json!({ "usernameHash": second.text(), "usernameLinkHandle": null })
    );
    for _ in 0..2 {
        let gone = ask(alice.request(&server, "DELETE", "/v1/accounts/username_hash")).await;
        assert!(gone.expect(204).body.is_empty());
    }
    first.find(&server).await.expect(404);
    find_link(&server, handle).await.expect(404);
    assert_eq!(whoami(&server, &alice).await, (Value::Null, Value::Null));
}

async fn a_link_leads_to_the_encrypted_name(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let link = async |encrypted: String, keep: Value| {
        let body = json!({ "usernameLinkEncryptedValue": encrypted, "keepLinkHandle": keep });
        ask(alice.request(&server, "PUT", "/v1/accounts/username_link").json(&body)).await
    };
    let refused = link(url_safe(&[1; 32]), false.into()).await.expect(409);
    assert_eq!(refused.code(), "no_username");
    Name::of(&server, &alice).await;
    let (_, given) = whoami(&server, &alice).await;
    assert_eq!(encrypted(&server, &given).await, url_safe(&[7; 100]));
    // In both alphabets, with and without padding; written as official clients read it.
    let bytes = [0xfb, 0xff, 0xbf, 0xfe, 0x01];
    for text in [
        url_safe(&bytes),
        base64(&bytes),
        base64(&bytes).trim_end_matches('=').to_owned(),
    ] {
        let kept = link(text, true.into()).await.expect(200).json();
        assert_eq!(kept, json!({ "usernameLinkHandle": given }));
        assert_eq!(encrypted(&server, &given).await, "-_-__gE");
    }
    for keep in [Value::Null, false.into()] {
        let (_, before) = whoami(&server, &alice).await;
        let after = link(url_safe(&[2; 1]), keep).await.expect(200).json()["usernameLinkHandle"].clone();
        assert_ne!(before, after);
        find_link(&server, &before).await.expect(404);
        assert_eq!(encrypted(&server, &after).await, url_safe(&[2; 1]));
    }
    for text in ["", "?", "A", &url_safe(&[1; 129]), &"A".repeat(10_000)] {
        let refused = link(text.to_owned(), true.into()).await.expect(422);
        assert_eq!(refused.code(), "encrypted_username", "{text}");
    }
    let (_, last) = whoami(&server, &alice).await;
    assert_eq!(encrypted(&server, &last).await, url_safe(&[2; 1]));
    for _ in 0..2 {
        ask(alice.request(&server, "DELETE", "/v1/accounts/username_link"))
            .await
            .expect(204);
    }
    find_link(&server, &last).await.expect(404);
    let (hash, none) = whoami(&server, &alice).await;
    assert!(hash.is_string() && none.is_null());
    // A new name takes the link of the old one away.
    link(url_safe(&[4; 64]), true.into()).await.expect(200);
    let (_, old) = whoami(&server, &alice).await;
    Name::of(&server, &alice).await;
    find_link(&server, &old).await.expect(404);
}

async fn of_many_who_want_a_name_one_gets_it(backend: Backend) {
    let server = Server::spawn(backend).await;
    race(&[&server]).await;
}

#[tokio::test]
async fn of_many_who_want_a_name_on_two_nodes_one_gets_it_postgres() {
    let (Some(_), Some(redis)) = (postgres_url(), setting("BLIND_RELAY_TEST_REDIS_URL")) else {
        return;
    };
    let (one, two) = spawn_pair(&redis, &[]).await;
    race(&[&one, &two]).await;
}

/// Twelve people want the same three names at once.
async fn race(nodes: &[&Server]) {
    let people = people(nodes[0], 12).await;
    let names = [Name::new(), Name::new(), Name::new()];
    let takers = people.iter().enumerate().map(async |(n, person)| {
        let node = nodes[n % nodes.len()];
        let mut wanted: Vec<&Name> = names.iter().collect();
        wanted.rotate_left(n % 3);
        let answer = reserve(node, person, &wanted).await;
        if answer.status == 409 {
            return None;
        }
        let hash = answer.expect(200).json()["usernameHash"].clone();
        let name = names.iter().find(|name| hash == name.text()).unwrap();
        name.confirm(node, person, None).await.expect(200);
        Some((name.text(), person.aci.clone()))
    });
    let owners: Vec<_> = join_all(takers).await.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = owners.iter().map(|(name, _)| name).collect();
    assert_eq!((owners.len(), distinct.len()), (3, 3));
    for (text, owner) in &owners {
        let name = names.iter().find(|name| name.text() == *text).unwrap();
        for node in nodes {
            assert_eq!(name.find(node).await.expect(200).json()["uuid"], *owner);
        }
    }
}

async fn a_name_needs_a_reservation_and_a_proof(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let (name, other) = (Name::new(), Name::new());
    let confirm = async |body: &Value| {
        let request = alice.request(&server, "PUT", "/v1/accounts/username_hash/confirm");
        ask(request.json(body)).await
    };
    let unreserved = name.confirm(&server, &alice, None).await.expect(409);
    assert_eq!(unreserved.code(), "username_not_reserved");
    name.reserve(&server, &alice).await.expect(200);
    assert_eq!(
        other.confirm(&server, &alice, None).await.expect(409).code(),
        "username_not_reserved"
    );
    assert_eq!(
        name.confirm(&server, &bob, None).await.expect(410).code(),
        "username_taken"
    );
    // A hash that was seen somewhere is of no use without the name behind it.
    let stolen = Name {
        hash: name.hash,
        proof: other.proof,
    };
    let mut changed = name.clone();
    changed.proof[100] ^= 1;
    let no_point = Name {
        hash: [0xff; 32],
        proof: other.proof,
    };
    no_point.reserve(&server, &bob).await.expect(200);
    no_point.confirm(&server, &bob, None).await.expect(422);
    for name in [stolen, changed] {
        assert_eq!(name.confirm(&server, &alice, None).await.expect(422).code(), "zk_proof");
    }
    let good = name.confirmation(None);
    for (field, value, code) in [
        ("zkProof", json!(url_safe(&[0; 128])), "zk_proof"),
        ("zkProof", json!(url_safe(&name.proof[..127])), "zk_proof"),
        ("zkProof", json!(""), "zk_proof"),
        ("zkProof", json!("???"), "zk_proof"),
        ("zkProof", json!(null), "unexpected_json"),
        ("zkProof", json!([1]), "unexpected_json"),
        ("usernameHash", json!(url_safe(&name.hash[..31])), "username_hash"),
        ("usernameHash", json!(url_safe(&[1; 33])), "username_hash"),
        ("usernameHash", json!(7), "unexpected_json"),
        ("encryptedUsername", json!(url_safe(&[1; 129])), "encrypted_username"),
        ("encryptedUsername", json!(""), "encrypted_username"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert_eq!(confirm(&bad).await.expect(422).code(), code, "{bad}");
    }
    for (hashes, code) in [
        (json!([]), "username_hashes"),
        (json!(vec![name.text(); 21]), "username_hashes"),
        (json!(["AAAA"]), "username_hash"),
        (json!([name.text(), "?"]), "username_hash"),
        (json!("AAAA"), "unexpected_json"),
        (json!([1]), "unexpected_json"),
    ] {
        let request = alice.request(&server, "PUT", "/v1/accounts/username_hash/reserve");
        let refused = ask(request.json(&json!({ "usernameHashes": hashes }))).await;
        assert_eq!(refused.expect(422).code(), code, "{hashes}");
    }
    for path in ["AAAA", "x", &url_safe(&[1; 33]), &format!("{}=", url_safe(&[1; 31]))] {
        let refused = ask(server.request("GET", &format!("/v1/accounts/username_hash/{path}"))).await;
        assert_eq!(refused.expect(422).code(), "username_hash", "{path}");
    }
    // Nothing of all that took the reservation away, and 20 names may be asked for.
    name.find(&server).await.expect(404);
    let many: Vec<Name> = (0..19).map(|_| Name::new()).collect();
    let mut many: Vec<&Name> = many.iter().collect();
    many.insert(0, &name);
    let reserved = reserve(&server, &alice, &many).await.expect(200).json();
    assert_eq!(reserved["usernameHash"], name.text());
    confirm(&good).await.expect(200);
}

async fn a_name_given_up_is_kept_for_its_owner_and_that_of_a_deleted_account_for_nobody(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (mut alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let old = Name::of(&server, &alice).await;
    let new = Name::of(&server, &alice).await;
    old.find(&server).await.expect(404);
    old.reserve(&server, &bob).await.expect(409);
    old.reserve(&server, &alice).await.expect(200);
    old.confirm(&server, &alice, None).await.expect(200);
    assert_eq!(old.find(&server).await.expect(200).json()["uuid"], alice.aci);
    ask(alice.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    alice.register_on(&server).await;
    for name in [&old, &new] {
        name.find(&server).await.expect(404);
        name.reserve(&server, &alice).await.expect(409);
        name.reserve(&server, &bob).await.expect(409);
    }
    // Taking and leaving names has an end.
    for _ in 0..11 {
        Name::of(&server, &bob).await;
    }
    let refused = Name::new().reserve(&server, &bob).await.expect(429);
    assert_eq!(refused.code(), "username_changes");
    assert_eq!(refused.header("retry-after"), Some("86400"));
}

async fn t45_strangers_see_the_same_wherever_there_is_no_name(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let gone = Person::register(&server).await;
    let deleted = Name::of(&server, &gone).await;
    let (_, deleted_link) = whoami(&server, &gone).await;
    ask(gone.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    let reserved = Name::new();
    reserved.reserve(&server, &bob).await.expect(200);
    let given_up = Name::of(&server, &alice).await;
    let (_, old_link) = whoami(&server, &alice).await;
    let name = Name::of(&server, &alice).await;
    let (_, link) = whoami(&server, &alice).await;

    let unknown = Name::new().find(&server).await.expect(404).looks();
    for name in [&deleted, &reserved, &given_up] {
        assert_eq!(name.find(&server).await.looks(), unknown);
    }
    let random_handle = json!(uuid::Uuid::from_bytes(random()).to_string());
    for handle in [&random_handle, &old_link, &deleted_link, &json!("nonsense")] {
        assert_eq!(find_link(&server, handle).await.looks(), unknown);
    }
    // A device must not say who it is when it looks for someone, over plain HTTP or a socket.
    let link_path = format!("/v1/accounts/username_link/{}", link.as_str().unwrap());
    let mut socket = alice.connect(&server).await;
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    for path in [name.path(), link_path, Name::new().path()] {
        let named = ask(bob.request(&server, "GET", &path)).await.expect(400);
        assert_eq!(named.code(), "anonymous_only");
        socket.ask("GET", &path, &[], None).await.expect(400);
        let plain = ask(server.request("GET", &path)).await;
        assert_eq!(anonymous.ask("GET", &path, &[], None).await.status, plain.status);
        // Credentials that are wrong are none.
        let wrong = server
            .request("GET", &path)
            .basic_auth(&alice.aci, Some("wrong password"));
        assert_eq!(ask(wrong).await.looks(), plain.looks());
    }
}

/// The name and the link that an account is told of.
async fn whoami(server: &Server, person: &Person) -> (Value, Value) {
    let answer = ask(person.request(server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200)
        .json();
    (answer["usernameHash"].clone(), answer["usernameLinkHandle"].clone())
}

async fn find_link(server: &Server, handle: &Value) -> crate::support::Answer {
    let path = format!("/v1/accounts/username_link/{}", handle.as_str().unwrap());
    ask(server.request("GET", &path)).await
}

/// What strangers find under the handle.
async fn encrypted(server: &Server, handle: &Value) -> String {
    let found = find_link(server, handle).await.expect(200).json();
    found["usernameLinkEncryptedValue"].as_str().unwrap().to_owned()
}
