//! From the queue to a device: order, acknowledgement, displacement, and the end of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use crate::support::ciphertext::{ciphertext, framed, marker};
use crate::support::http::try_ask;
use crate::support::person::people;
use crate::support::proxy::Proxy;
use crate::support::traffic::{by_sender, content, expect_each_once_in_order, flood};
use crate::support::{Backend, Event, Person, Server, Socket, ask, on_each_backend, send, single, until};

on_each_backend! {
    offline_envelopes_arrive_in_order_after_reconnect
    what_is_refused_or_unanswered_comes_again
    t33_the_window_bounds_what_is_under_way_and_a_poison_envelope_blocks_nothing
    t43_online_only_envelopes_are_never_stored
    stories_reach_only_those_who_want_them
    the_historic_fetch_shows_and_deletes
    a_drain_of_twenty_thousand_is_whole_and_in_order
    t30_a_second_connection_takes_over
    t31_a_slow_reader_is_closed_and_loses_nothing
    t76_sigterm_closes_sockets_and_keeps_every_accepted_send
}

async fn offline_envelopes_arrive_in_order_after_reconnect(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for number in 0..10 {
        send(&server, &alice, &bob, &content(0, number)).await.expect(200);
    }
    let mut socket = bob.connect(&server).await;
    expect_each_once_in_order(&socket.drain().await, 1, 0..10);
    // What comes now comes at once, without another announcement.
    for number in 10..13 {
        send(&server, &alice, &bob, &content(0, number)).await.expect(200);
        assert_eq!(socket.content().await, content(0, number));
    }
    socket.keepalive().await;
    drop(socket);
    let mut again = bob.connect(&server).await;
    again.expect_empty().await;
}

async fn what_is_refused_or_unanswered_comes_again(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for number in 0..4 {
        send(&server, &alice, &bob, &content(0, number)).await.expect(200);
    }
    let mut socket = bob.connect(&server).await;
    let mut guids = Vec::new();
    for status in [Some(500), Some(200), None, Some(299)] {
        let (id, envelope) = socket.envelope().await;
        guids.push(envelope.server_guid.unwrap());
        if let Some(status) = status {
            socket.answer(id, status).await;
        }
    }
    socket.expect_empty().await;
    socket.keepalive().await;
    let mut again = bob.connect(&server).await;
    for number in [0, 2] {
        let (_, envelope) = again.envelope().await;
        assert_eq!(marker(&envelope), content(0, u32::try_from(number).unwrap()));
        assert_eq!(
            envelope.server_guid.as_ref(),
            Some(&guids[number]),
            "a copy keeps its guid"
        );
    }
    again.expect_empty().await;
}

async fn t33_the_window_bounds_what_is_under_way_and_a_poison_envelope_blocks_nothing(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (senders, bob) = (people(&server, 4).await, Person::register(&server).await);
    flood(&server, &senders, &bob, 0..150).await;
    let mut socket = bob.connect(&server).await;
    let mut ids = Vec::new();
    let mut contents = Vec::new();
    for _ in 0..256 {
        let (id, envelope) = socket.envelope().await;
        ids.push(id);
        contents.push(marker(&envelope));
    }
    // Round trips are answered, and nothing more comes.
    for id in 0..5 {
        socket.ask_as(Some(id), "GET", "/v1/keepalive", &[], None).await;
        let event = socket.next().await;
        assert!(
            matches!(&event, Event::Answer(answered, _) if *answered == id),
            "{event:?}"
        );
    }
    // From the last to the second. The first stays unanswered, and the rest flows by.
    for id in ids[1..].iter().rev() {
        socket.answer(*id, 200).await;
    }
    contents.extend(socket.drain().await);
    expect_each_once_in_order(&contents, 4, 0..150);
    socket.keepalive().await;
    let mut again = bob.connect(&server).await;
    assert_eq!(again.drain().await, contents[..1]);
}

async fn t43_online_only_envelopes_are_never_stored(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let online = async |content: &[u8]| {
        let mut body = single(&bob, 1, content);
        body["online"] = true.into();
        ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
            .await
            .expect(200)
            .looks()
    };
    let offline_answer = online(b"nobody is there").await;
    assert_eq!(bob.fetch(&server).await, json!({ "messages": [], "more": false }));
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    assert_eq!(online(b"now").await, offline_answer, "T41: the answer tells nothing");
    let (_, envelope) = socket.envelope().await;
    assert_eq!(
        (envelope.content.as_deref(), envelope.ephemeral),
        (Some(&ciphertext(b"now")[..]), None)
    );
    assert_eq!(bob.fetch(&server).await["messages"], json!([]));
    let mut again = bob.connect(&server).await;
    again.expect_empty().await;
}

async fn stories_reach_only_those_who_want_them(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let fill = async || {
        let story = format!("{}?story=true", bob.inbox());
        ask(server.request("PUT", &story).json(&single(&bob, 6, b"story")))
            .await
            .expect(200);
        send(&server, &alice, &bob, b"message").await.expect(200);
    };
    fill().await;
    let wants = [("x-signal-receive-stories", "true")];
    let mut socket = Socket::open(&server, Some(&bob.authorization()), &wants).await.unwrap();
    let (id, envelope) = socket.envelope().await;
    assert_eq!(
        (envelope.content.as_deref(), envelope.story),
        (Some(&framed(6, b"story")[..]), Some(true))
    );
    socket.answer(id, 200).await;
    assert_eq!(socket.drain().await, [&b"message"[..]]);
    socket.keepalive().await;

    fill().await;
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await, [&b"message"[..]]);
    // The server has acknowledged in the client's place.
    socket.keepalive().await;
    assert_eq!(bob.fetch(&server).await["messages"], json!([]));
}

async fn the_historic_fetch_shows_and_deletes(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (senders, bob) = (people(&server, 1).await, Person::register(&server).await);
    flood(&server, &senders, &bob, 0..101).await;
    let page = bob.fetch(&server).await;
    let messages = page["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &page["more"]), (100, &json!(true)));
    assert_eq!(bob.fetch(&server).await, page, "a fetch takes nothing away");
    let first = &messages[0];
    assert_eq!(first["sourceUuid"], senders[0].aci);
    assert_eq!((&first["sourceDevice"], &first["type"]), (&json!(1), &json!(1)));
    for message in messages {
        let path = format!("/v1/messages/uuid/{}", message["guid"].as_str().unwrap());
        // Twice is as good as once (T29).
        for _ in 0..2 {
            let answer = ask(bob.request(&server, "DELETE", &path)).await.expect(204);
            assert!(answer.body.is_empty() && answer.header("content-type").is_none());
        }
    }
    let page = bob.fetch(&server).await;
    assert_eq!(
        (page["messages"].as_array().unwrap().len(), &page["more"]),
        (1, &json!(false))
    );
    ask(bob.request(&server, "DELETE", "/v1/messages/uuid/nonsense"))
        .await
        .expect(422);
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await, [content(0, 100)]);
}

async fn a_drain_of_twenty_thousand_is_whole_and_in_order(backend: Backend) {
    let server = Server::spawn_with(backend, &[("QUEUE__MAX_ENVELOPES", "50000")]).await;
    let (senders, bob) = (people(&server, 50).await, Person::register(&server).await);
    flood(&server, &senders, &bob, 0..400).await;
    let mut socket = bob.connect(&server).await;
    let contents = socket.drain().await;
    assert_eq!(contents.len(), 20_000);
    expect_each_once_in_order(&contents, 50, 0..400);
    socket.keepalive().await;
    let mut again = bob.connect(&server).await;
    again.expect_empty().await;
}

async fn t30_a_second_connection_takes_over(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"unanswered").await.expect(200);
    let mut first = bob.connect(&server).await;
    let (late, _) = first.envelope().await;
    let mut second = bob.connect(&server).await;
    // An answer that comes after the displacement does not count.
    assert_eq!(first.close_code().await, Some(4409));
    first.answer(late, 200).await;
    assert_eq!(second.drain().await, [&b"unanswered"[..]]);
    for number in 0..20 {
        send(&server, &alice, &bob, &content(0, number)).await.expect(200);
        assert_eq!(second.content().await, content(0, number));
    }
    // One that wants no deliveries displaces nobody and gets nothing.
    let quiet = [("x-signal-disable-messages", "true")];
    let mut quiet = Socket::open(&server, Some(&bob.authorization()), &quiet).await.unwrap();
    quiet.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    send(&server, &alice, &bob, b"still here").await.expect(200);
    assert_eq!(second.content().await, &b"still here"[..]);
    second.keepalive().await;
    quiet.keepalive().await;
    let mut third = bob.connect(&server).await;
    third.expect_empty().await;
}

async fn t31_a_slow_reader_is_closed_and_loses_nothing(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RELAY__STALLED_SECS", "1")]).await;
    let (senders, bob) = (people(&server, 4).await, Person::register(&server).await);
    flood(&server, &senders, &bob, 0..100).await;
    let mut slow = bob.connect(&server).await;
    let (id, _) = slow.envelope().await;
    slow.answer(id, 200).await;
    // It reads all that comes and answers nothing more.
    assert_eq!(slow.close_code().await, Some(1008));
    let contents = bob.connect(&server).await.drain().await;
    assert_eq!(contents.len(), 399, "{:?}", by_sender(&contents));
}

async fn t76_sigterm_closes_sockets_and_keeps_every_accepted_send(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let (senders, bob) = (people(&server, 16).await, Person::register(&server).await);
    let carol = Person::register(&server).await;
    let mut socket = carol.connect(&server).await;
    socket.expect_empty().await;
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    anonymous.keepalive().await;
    let stopping = AtomicBool::new(false);
    let accepted = AtomicUsize::new(0);
    let sending = join_all(senders.iter().enumerate().map(async |(sender, person)| {
        let mut successes = 0;
        for number in 0.. {
            let request = person
                .request(&server, "PUT", &bob.inbox())
                .json(&single(&bob, 1, &content(sender, number)));
            match try_ask(request).await {
                Ok(answer) if answer.status == 200 => successes += 1,
                // Nothing but the end of the server may get in the way.
                other => {
                    assert!(stopping.load(Ordering::Relaxed), "{other:?}");
                    break;
                }
            }
            if accepted.fetch_add(1, Ordering::Relaxed) == 300 {
                stopping.store(true, Ordering::Relaxed);
                server.signal(Signal::TERM);
            }
        }
        successes
    }));
    let (successes, device_code, anonymous_code) =
        Box::pin(async { tokio::join!(sending, socket.close_code(), anonymous.close_code()) }).await;
    assert_eq!((device_code, anonymous_code), (Some(1012), Some(1012)));
    assert_eq!(server.exit_code().await, Some(0));

    let place = Arc::clone(server.place());
    let server = Server::start(place, "data", &[]);
    let arrived = by_sender(&bob.connect(&server).await.drain().await);
    for (sender, successes) in successes.into_iter().enumerate() {
        let numbers = arrived.get(&sender).cloned().unwrap_or_default();
        assert!(
            numbers.len() >= successes,
            "sender {sender}: {successes} accepted, {numbers:?} arrived"
        );
        assert!(
            numbers.iter().copied().eq(0..u32::try_from(numbers.len()).unwrap()),
            "{numbers:?}"
        );
    }
}

/// Takes the 45 seconds that a half-open connection may stay unnoticed.
#[tokio::test]
async fn t32_a_half_open_connection_is_found_and_its_envelopes_come_again() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let proxy = Proxy::to(server.address()).await;
    let mut lost = Socket::open_at(proxy.address(), Some(&bob.authorization()), &[])
        .await
        .unwrap();
    lost.expect_empty().await;
    proxy.fall_silent();
    send(&server, &alice, &bob, b"into the void").await.expect(200);
    until("the dead connection to be found", async || {
        server
            .metric("blind_relay_sockets_closed_total{reason=\"silent\"}")
            .await
            > 0.0
    })
    .await;
    assert_eq!(bob.connect(&server).await.drain().await, [&b"into the void"[..]]);
}
