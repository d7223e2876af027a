//! No sender has more than its share of a queue (T36), and nobody's message is dropped without a word.

use serde_json::json;

use crate::support::fan_out::{self, Entry};
use crate::support::keys::base64;
use crate::support::person::{message, people};
use crate::support::{Answer, Backend, Person, Server, ask, framed, on_each_backend, send, single};

on_each_backend! {
    t36_one_sender_fills_its_share_of_a_queue_and_others_the_rest
    t36_bytes_have_a_share_too
    t36_strangers_of_one_network_have_one_share
    t36_a_message_to_many_says_whose_share_is_used_up
    t36_the_devices_of_an_account_do_not_limit_each_other
}

/// Ten envelopes of forty are a quarter.
const SMALL: (&str, &str) = ("QUEUE__MAX_ENVELOPES", "40");

async fn t36_one_sender_fills_its_share_of_a_queue_and_others_the_rest(backend: Backend) {
    let server = Server::spawn_with(backend, &[SMALL]).await;
    let (senders, bob) = (people(&server, 5).await, Person::register(&server).await);
    let mut accepted = Vec::new();
    let text = |round: u8, sender: usize, number: usize| format!("{round} {sender} {number}");
    for (n, sender) in senders.iter().take(4).enumerate() {
        for number in 0..12 {
            let text = text(1, n, number);
            let answer = send(&server, sender, &bob, text.as_bytes()).await;
            if number < 10 {
                answer.expect(200);
                accepted.push(text);
            } else {
                // As when the queue is full: whoever is refused is told when to come again.
                let refused = answer.expect(429);
                assert_eq!(refused.code(), "queue_full");
                assert_eq!(refused.header("retry-after"), Some("600"));
            }
        }
    }
    // Now it is full for all.
    send(&server, &senders[4], &bob, b"too late").await.expect(429);
    // Through a socket it is the same account.
    let mut socket = senders[0].connect(&server).await;
    let tunnelled = socket
        .ask(
            "PUT",
            &bob.inbox(),
            &["content-type:application/json"],
            Some(&single(&bob, 1, b"no")),
        )
        .await;
    tunnelled.expect(429);

    // What was accepted arrives, all of it, and then there is room again.
    let mut window = bob.connect(&server).await;
    let drained = window.drain().await;
    assert_eq!(
        drained
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect::<Vec<_>>(),
        accepted
    );
    window.keepalive().await;
    drop(window);
    for (n, sender) in senders.iter().enumerate().take(2) {
        for number in 0..11 {
            let answer = send(&server, sender, &bob, text(2, n, number).as_bytes()).await;
            answer.expect(if number < 10 { 200 } else { 429 });
        }
    }
    // A device that reads what comes has room for any number from one sender.
    let mut window = bob.connect(&server).await;
    assert_eq!(window.drain().await.len(), 20);
    // Answered once everything that was acknowledged is gone: until then it waits, and counts.
    window.keepalive().await;
    for number in 0..50 {
        let text = text(3, 0, number);
        send(&server, &senders[0], &bob, text.as_bytes()).await.expect(200);
        assert_eq!(window.content().await, text.as_bytes());
        window.keepalive().await;
    }
}

async fn t36_bytes_have_a_share_too(backend: Backend) {
    // A quarter of a mebibyte: four envelopes of 64 KiB.
    let server = Server::spawn_with(backend, &[("QUEUE__MAX_BYTES", "1048576")]).await;
    let (senders, bob) = (people(&server, 3).await, Person::register(&server).await);
    let large = crate::support::ciphertext::marker_for(1, 50 * 1024);
    for sender in &senders[..2] {
        // A hundredth of the limit is no whole number of bytes, so that four may be a few bytes too many.
        let mut accepted = 0;
        while send(&server, sender, &bob, &large).await.status == 200 {
            accepted += 1;
        }
        assert!((3..=4).contains(&accepted), "{accepted}");
    }
    send(&server, &senders[2], &bob, b"small").await.expect(200);
    let mut window = bob.connect(&server).await;
    let drained = window.drain().await;
    assert_eq!(drained.last().unwrap(), &b"small"[..]);
    window.keepalive().await;
    send(&server, &senders[0], &bob, &large).await.expect(200);
}

async fn sealed(server: &Server, to: &Person, marker: &[u8]) -> Answer {
    let request = server
        .request("PUT", &to.inbox())
        .header("unidentified-access-key", to.access_key_header());
    ask(request.json(&single(to, 6, marker))).await
}

async fn t36_strangers_of_one_network_have_one_share(backend: Backend) {
    let server = Server::spawn_with(backend, &[SMALL]).await;
    let (alice, bob, carol) = (
        Person::register(&server).await,
        Person::register(&server).await,
        Person::register(&server).await,
    );
    for number in 0..12 {
        sealed(&server, &bob, b"sealed")
            .await
            .expect(if number < 10 { 200 } else { 429 });
    }
    let story = server.request("PUT", &format!("{}?story=true", bob.inbox()));
    ask(story.json(&single(&bob, 6, b"story"))).await.expect(429);
    // Of another queue they have a share of its own, and accounts have theirs.
    sealed(&server, &carol, b"sealed").await.expect(200);
    send(&server, &alice, &bob, b"with a name").await.expect(200);
    assert_eq!(bob.connect(&server).await.drain().await.len(), 11);
}

async fn t36_a_message_to_many_says_whose_share_is_used_up(backend: Backend) {
    let server = Server::spawn_with(backend, &[SMALL]).await;
    let people = people(&server, 3).await;
    for _ in 0..10 {
        sealed(&server, &people[1], b"sealed").await.expect(200);
    }
    let entries: Vec<_> = people.iter().map(Entry::of).collect();
    let message = fan_out::message(&entries, &[7; 64]);
    let request = fan_out::request(&server, "?ts=1", message);
    let answer = ask(request.header("unidentified-access-key", fan_out::combined_key(&people))).await;
    assert_eq!(answer.expect(200).json(), json!({ "uuids404": [people[1].aci] }));
    for (n, count) in [(0, 1), (1, 10), (2, 1)] {
        assert_eq!(people[n].connect(&server).await.drain().await.len(), count);
    }
}

/// What a person writes is also written to their other devices, which may stay away for long.
async fn t36_the_devices_of_an_account_do_not_limit_each_other(backend: Backend) {
    let server = Server::spawn_with(backend, &[SMALL]).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let laptop = alice.link(&server).await;
    let sync = json!({ "messages": [message(&laptop, 1, b"sync")], "timestamp": 1_700_000_000_123_u64 });
    for _ in 0..30 {
        ask(alice.request(&server, "PUT", &alice.inbox()).json(&sync))
            .await
            .expect(200);
    }
    // All copies or none: to the device with room nothing is sent either.
    let both = json!({
        "messages": [message(&alice, 1, b"both"), message(&laptop, 1, b"both")],
        "timestamp": 1_700_000_000_123_u64,
    });
    for number in 0..11 {
        let answer = ask(bob.request(&server, "PUT", &alice.inbox()).json(&both)).await;
        answer.expect(if number < 10 { 200 } else { 429 });
    }
    let content = |envelope: &serde_json::Value| envelope["content"].clone();
    let waiting = alice.fetch(&server).await;
    assert_eq!(waiting["messages"].as_array().unwrap().len(), 10);
    assert!(
        waiting["messages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|envelope| content(envelope) == base64(&framed(1, b"both")))
    );
    assert_eq!(laptop.connect(&server).await.drain().await.len(), 40);
}
