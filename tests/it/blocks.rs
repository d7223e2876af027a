//! Who is blocked is not told, not by an answer, not by the time that it takes, and is heard of no more.
//!
//! The times are compared in `enumeration`.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::support::fan_out::{self, Entry};
use crate::support::keys::base64;
use crate::support::person::{message, people};
use crate::support::redis_server::RedisServer;
use crate::support::server::spawn_pair;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, random, send, single, within};

on_each_backend! {
    b9_who_is_blocked_is_answered_like_others_and_is_heard_of_no_more
    b9_whoever_is_blocked_takes_part_in_everything_else
    b9_a_list_takes_in_whatever_it_is_told_and_names_nobody
    b9_an_access_key_that_was_replaced_opens_nothing_any_more
    whoever_registers_anew_has_blocked_nobody
}

async fn block(server: &Server, person: &Person, id: &str) -> Answer {
    ask(person.request(server, "PUT", &format!("/v1/blocks/{id}"))).await
}

async fn unblock(server: &Server, person: &Person, id: &str) -> Answer {
    ask(person.request(server, "DELETE", &format!("/v1/blocks/{id}"))).await
}

async fn blocked(server: &Server, person: &Person) -> Value {
    let answer = ask(person.request(server, "GET", "/v1/blocks")).await;
    answer.expect(200).json()["count"].clone()
}

/// Every kind of send that has a sender, and what it is answered.
fn sends(to: &Person) -> Vec<(&'static str, String, Value, u16)> {
    let inbox = to.inbox();
    let mut online = single(to, 1, b"online only");
    online["online"] = true.into();
    let mut to_pni = single(to, 3, b"to the number");
    to_pni["messages"][0]["destinationRegistrationId"] = to.pni_registration_id.into();
    let mut other_device = single(to, 1, b"another device");
    other_device["messages"][0]["destinationDeviceId"] = 2.into();
    let mut old = single(to, 1, b"an old registration");
    old["messages"][0]["destinationRegistrationId"] = (to.registration_id % 16_000 + 1).into();
    let mut online_elsewhere = other_device.clone();
    online_elsewhere["online"] = true.into();
    let marker = crate::support::ciphertext::marker_for(1, 96 * 1024 + 1);
    vec![
        ("stored", inbox.clone(), single(to, 1, b"stored"), 200),
        (
            "sealed, but with a name on it",
            inbox.clone(),
            single(to, 6, b"sealed"),
            200,
        ),
        ("online only", inbox.clone(), online, 200),
        ("a story", format!("{inbox}?story=true"), single(to, 6, b"story"), 200),
        ("to the number", format!("/v1/messages/PNI:{}", to.pni), to_pni, 200),
        ("another device", inbox.clone(), other_device, 409),
        ("another device, online only", inbox.clone(), online_elsewhere, 409),
        ("an old registration", inbox.clone(), old, 410),
        ("too large", inbox.clone(), single(to, 1, &marker), 413),
        ("of no type", inbox, single(to, 5, b"x"), 422),
    ]
}

async fn b9_who_is_blocked_is_answered_like_others_and_is_heard_of_no_more(backend: Backend) {
    let server = Server::spawn(backend).await;
    let [alice, mallory, carol] = people(&server, 3).await.try_into().ok().unwrap();
    // Of two accounts that have the same devices, one is blocked under its ACI, and a third under its PNI.
    let trent = Person::register(&server).await;
    block(&server, &alice, &mallory.aci).await.expect(204);
    block(&server, &alice, &format!("PNI:{}", trent.pni)).await.expect(204);
    let laptop = mallory.link(&server).await;
    carol.link(&server).await;
    trent.link(&server).await;

    let looks = async |from: &Person, path: &str, body: &Value, status: u16| {
        let plain = ask(from.request(&server, "PUT", path).json(body)).await.expect(status);
        let mut socket = from.connect(&server).await;
        let type_of_body = "content-type:application/json";
        let tunnelled = socket
            .ask("PUT", path, &[type_of_body], Some(body))
            .await
            .expect(status);
        (plain.looks(), tunnelled.looks())
    };
    for connected in [false, true] {
        let mut window = None;
        if connected {
            let wants_stories = [("x-signal-receive-stories", "true")];
            let socket = Socket::open(&server, Some(&alice.authorization()), &wants_stories).await;
            window = Some(socket.unwrap());
        }
        for (what, path, body, status) in sends(&alice) {
            let free = looks(&carol, &path, &body, status).await;
            for blocked in [&mallory, &laptop, &trent] {
                assert_eq!(looks(blocked, &path, &body, status).await, free, "{what}");
            }
        }
        drop(window);
    }
    // Each kind that is stored came from Carol four times, by both ways at both times, and never from another. A connection
    // that reads nothing acknowledges nothing.
    let waiting = alice.fetch(&server).await;
    let waiting = waiting["messages"].as_array().unwrap();
    assert_eq!(waiting.len(), 16);
    for envelope in waiting {
        if let Some(source) = envelope.get("sourceUuid") {
            assert_eq!(source, &json!(carol.aci));
        }
    }

    // Whoever says no name is not blocked by name.
    let anonymous = server
        .request("PUT", &alice.inbox())
        .header("unidentified-access-key", alice.access_key_header());
    ask(anonymous.json(&single(&alice, 6, b"from anyone")))
        .await
        .expect(200);
    assert_eq!(alice.fetch(&server).await["messages"].as_array().unwrap().len(), 17);

    unblock(&server, &alice, &mallory.aci).await.expect(204);
    send(&server, &mallory, &alice, b"again").await.expect(200);
    send(&server, &trent, &alice, b"never").await.expect(200);
    // The other id of a blocked account is another entry.
    unblock(&server, &alice, &trent.aci).await.expect(204);
    send(&server, &trent, &alice, b"never").await.expect(200);
    ask(alice.request(&server, "DELETE", "/v1/blocks")).await.expect(204);
    send(&server, &trent, &alice, b"at last").await.expect(200);
    let drained = alice.connect(&server).await.drain().await;
    // Who does not ask for stories gets none.
    assert_eq!(drained.len(), 15);
    assert_eq!(drained[13..], [&b"again"[..], b"at last"]);
}

/// What concerns others, and what the blocker does.
async fn b9_whoever_is_blocked_takes_part_in_everything_else(backend: Backend) {
    let server = Server::spawn(backend).await;
    let [alice, mallory, carol] = people(&server, 3).await.try_into().ok().unwrap();
    block(&server, &alice, &mallory.aci).await.expect(204);
    send(&server, &mallory, &carol, b"to others").await.expect(200);
    // Who blocks may write, and is not blocked for that.
    send(&server, &alice, &mallory, b"from the one who blocks")
        .await
        .expect(200);
    assert_eq!(
        mallory.connect(&server).await.drain().await,
        [&b"from the one who blocks"[..]]
    );
    assert_eq!(carol.connect(&server).await.drain().await, [&b"to others"[..]]);
    for path in [
        format!("/v2/keys/{}/*", alice.aci),
        format!("/v1/profile/{}", alice.aci),
    ] {
        let looks = async |from: &Person| ask(from.request(&server, "GET", &path)).await.expect(200).looks();
        assert_eq!(looks(&mallory).await, looks(&carol).await);
    }
    // To an account that is gone nobody is blocked any more than others are.
    ask(alice.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    let looks = async |from: &Person| send(&server, from, &alice, b"gone").await.expect(404).looks();
    assert_eq!(looks(&mallory).await, looks(&carol).await);
}

async fn b9_a_list_takes_in_whatever_it_is_told_and_names_nobody(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let laptop = alice.link(&server).await;
    let nobody = || uuid::Uuid::from_bytes(random()).to_string();
    assert_eq!(blocked(&server, &alice).await, 0);
    // Known or not, and under either id, of which nobody is told that they are of one account.
    let mut looks = Vec::new();
    for (count, id) in [
        bob.aci.clone(),
        nobody(),
        format!("PNI:{}", bob.pni),
        format!("PNI:{}", nobody()),
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..2 {
            looks.push(block(&server, &alice, &id).await.expect(204).looks());
            assert_eq!(blocked(&server, &laptop).await, count + 1);
        }
    }
    for id in [nobody(), format!("PNI:{}", nobody())] {
        looks.push(unblock(&server, &alice, &id).await.expect(204).looks());
    }
    assert_eq!(blocked(&server, &alice).await, 4);
    looks.push(unblock(&server, &laptop, &bob.aci).await.expect(204).looks());
    assert_eq!(blocked(&server, &alice).await, 3);
    looks.dedup();
    assert_eq!(looks.len(), 1);
    assert_eq!(blocked(&server, &bob).await, 0);

    for own in [alice.aci.clone(), format!("PNI:{}", alice.pni)] {
        assert_eq!(block(&server, &laptop, &own).await.expect(422).code(), "own_account");
    }
    for malformed in ["nonsense", "PNI:", "%00"] {
        block(&server, &alice, malformed).await.expect(404);
        unblock(&server, &alice, malformed).await.expect(404);
    }
    for (method, path) in [
        ("PUT", format!("/v1/blocks/{}", bob.aci)),
        ("DELETE", format!("/v1/blocks/{}", bob.aci)),
        ("DELETE", "/v1/blocks".to_owned()),
        ("GET", "/v1/blocks".to_owned()),
    ] {
        ask(server.request(method, &path)).await.expect(401);
    }
    assert_eq!(blocked(&server, &alice).await, 3);
    // The one who asked may be shown how much there is, and not even that server knows more.
    let export = ask(alice.request(&server, "GET", "/v1/accounts/export"))
        .await
        .expect(200)
        .json();
    assert_eq!(export["tables"]["accounts"][0]["blocks"], 3 * 16);

    let more: Vec<_> = (3..1_000).map(|_| nobody()).collect();
    stream::iter(&more)
        .for_each_concurrent(16, async |id| {
            block(&server, &alice, id).await.expect(204);
        })
        .await;
    assert_eq!(blocked(&server, &alice).await, 1_000);
    assert_eq!(
        block(&server, &alice, &bob.aci).await.expect(422).code(),
        "too_many_blocks"
    );
    block(&server, &alice, &more[0]).await.expect(204);
    unblock(&server, &alice, &more[0]).await.expect(204);
    block(&server, &alice, &bob.aci).await.expect(204);
    let to_both = async |marker: &[u8]| {
        let messages = [message(&alice, 1, marker), message(&laptop, 1, marker)];
        let body = json!({ "messages": messages, "timestamp": 1_700_000_000_124_u64 });
        ask(bob.request(&server, "PUT", &alice.inbox()).json(&body))
            .await
            .expect(200);
    };
    to_both(b"unheard").await;
    ask(alice.request(&server, "DELETE", "/v1/blocks")).await.expect(204);
    assert_eq!(blocked(&server, &alice).await, 0);
    to_both(b"heard").await;
    assert_eq!(alice.connect(&server).await.drain().await, [&b"heard"[..]]);
}

async fn b9_an_access_key_that_was_replaced_opens_nothing_any_more(backend: Backend) {
    let server = Server::spawn(backend).await;
    let mut bob = Person::register(&server).await;
    let old = bob.access_key_header();
    assert_eq!(sealed_ways(&server, &bob, &old).await, [200; 4]);
    let unknown = base64(&random::<16>());
    bob.access_key = random();
    replace_access_key(&server, &bob).await;
    assert_eq!(sealed_ways(&server, &bob, &old).await, [401; 4]);
    assert_eq!(sealed_ways(&server, &bob, &unknown).await, [401; 4]);
    let stored = sealed(&server, &bob, &old).await.looks();
    assert_eq!(sealed(&server, &bob, &unknown).await.looks(), stored);
    assert_eq!(sealed_ways(&server, &bob, &bob.access_key_header()).await, [200; 4]);
}

/// What a stranger with that key is answered who writes alone, to many, and asks for keys and profile.
async fn sealed_ways(server: &Server, to: &Person, key: &str) -> [u16; 4] {
    let with_key = |method: &str, path: String| server.request(method, &path).header("unidentified-access-key", key);
    let many = fan_out::request(server, "?ts=1", fan_out::message(&[Entry::of(to)], &[7; 64]));
    [
        sealed(server, to, key).await.status,
        ask(many.header("unidentified-access-key", key)).await.status,
        ask(with_key("GET", format!("/v2/keys/{}/1", to.aci))).await.status,
        ask(with_key("GET", format!("/v1/profile/{}", to.aci))).await.status,
    ]
}

async fn sealed(server: &Server, to: &Person, key: &str) -> Answer {
    let request = server
        .request("PUT", &to.inbox())
        .header("unidentified-access-key", key);
    ask(request.json(&single(to, 6, b"sealed"))).await
}

async fn replace_access_key(server: &Server, person: &Person) {
    let request = person.request(server, "PUT", "/v1/accounts/attributes");
    ask(request.json(&person.attributes())).await.expect(204);
}

/// Whom the one before had blocked, if it was somebody else, nobody could find out.
async fn whoever_registers_anew_has_blocked_nobody(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (mut alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    block(&server, &alice, &bob.aci).await.expect(204);
    alice.register_on(&server).await;
    assert_eq!(blocked(&server, &alice).await, 0);
    send(&server, &bob, &alice, b"heard").await.expect(200);
    assert_eq!(alice.connect(&server).await.drain().await, [&b"heard"[..]]);
}

/// With Redis at once; without its hints when what a node remembers has run out.
#[tokio::test]
async fn b9_blocks_and_new_access_keys_hold_on_every_node_within_five_seconds() {
    let Some(redis) = RedisServer::spawn() else { return };
    let url = redis.url();
    let (one, two) = spawn_pair(&url, &[]).await;
    for hints in [true, false] {
        if !hints {
            redis.pause();
        }
        let (mut alice, mallory) = (Person::register(&one).await, Person::register(&one).await);
        // The other node has both in memory.
        send(&two, &mallory, &alice, b"before").await.expect(200);
        sealed(&two, &alice, &alice.access_key_header()).await.expect(200);
        let old = alice.access_key_header();
        block(&one, &alice, &mallory.aci).await.expect(204);
        alice.access_key = random();
        replace_access_key(&one, &alice).await;
        let heard = async || alice.fetch(&one).await["messages"].as_array().unwrap().len();
        let holds = async {
            loop {
                let before = heard().await;
                send(&two, &mallory, &alice, b"after").await.expect(200);
                if heard().await == before && sealed(&two, &alice, &old).await.status == 401 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        within("the other node", async {
            assert!(tokio::time::timeout(Duration::from_secs(5), holds).await.is_ok());
        })
        .await;
        // And so it stays.
        let before = heard().await;
        send(&two, &mallory, &alice, b"after").await.expect(200);
        assert_eq!(heard().await, before);
        // Whoever is unblocked is heard as soon.
        unblock(&one, &alice, &mallory.aci).await.expect(204);
        let heard_again = async {
            while heard().await == before {
                send(&two, &mallory, &alice, b"again").await.expect(200);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), heard_again).await.is_ok());
    }
    redis.resume();
}
