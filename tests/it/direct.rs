//! Durable or delivered: what goes to a connected device before it is written, and what becomes of it on a bad day.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use rustix::process::Signal;

use crate::support::ciphertext::marker;
use crate::support::dump::Dump;
use crate::support::http::try_ask;
use crate::support::person::people;
use crate::support::traffic::{content, expect_each_once_in_order};
use crate::support::{Backend, Event, Person, Server, Socket, ask, on_each_backend, send, single, until};

on_each_backend! {
    b11_what_is_acknowledged_from_memory_leaves_nothing_on_the_disk
    i1_what_is_not_acknowledged_in_time_is_written_and_outlives_a_kill
    i1_whoever_was_not_answered_yet_was_promised_nothing
    i3_what_comes_again_comes_in_the_order_in_which_it_came
    t30_what_a_displaced_connection_was_offered_comes_to_the_next_one
    t76_sigterm_writes_what_was_offered
    i2_an_envelope_that_was_offered_can_be_deleted_by_its_guid
    what_one_device_of_several_misses_is_written_for_it_alone
    a_device_that_refuses_an_envelope_gets_it_again
}

/// Longer than any acknowledgement takes, also on a busy machine. With the tick on, every send would take that long.
const PATIENT: &[(&str, &str)] = &[
    ("RELAY__DIRECT", "on"),
    ("RELAY__LINGER_MILLIS", "10000"),
    ("RELAY__ANSWER_TICK_MILLIS", "0"),
];
/// So short that a device that answers at all may answer too late.
const HASTY: &[(&str, &str)] = &[("RELAY__DIRECT", "on"), ("RELAY__LINGER_MILLIS", "1")];

/// A device that is connected and has what there is.
async fn connected(server: &Server, person: &Person) -> Socket {
    let mut socket = person.connect(server).await;
    socket.expect_empty().await;
    socket.keepalive().await;
    socket
}

async fn direct(server: &Server, end: &str) -> f64 {
    server
        .metric(&format!("blind_relay_envelopes_direct_total{{end=\"{end}\"}}"))
        .await
}

async fn written(server: &Server) -> f64 {
    server.metric("blind_relay_envelopes_total").await
}

async fn b11_what_is_acknowledged_from_memory_leaves_nothing_on_the_disk(backend: Backend) {
    const PAIRS: usize = 20;
    let each = match backend {
        Backend::Sqlite => 500,
        Backend::Postgres => 100,
    };
    let server = Server::spawn_with(backend, PATIENT).await;
    let (senders, recipients) = (people(&server, PAIRS).await, people(&server, PAIRS).await);
    let mut sockets = join_all(recipients.iter().map(|person| connected(&server, person))).await;
    let before = Dump::of(&server).await;
    let sending = senders.iter().zip(&recipients).map(async |(from, to)| {
        for number in 0..each {
            send(&server, from, to, &content(0, number)).await.expect(200);
        }
    });
    let receiving = sockets.iter_mut().map(async |socket| {
        let mut came = Vec::new();
        for _ in 0..each {
            came.push(socket.content().await);
        }
        expect_each_once_in_order(&came, 1, 0..each);
    });
    Box::pin(async { tokio::join!(join_all(sending), join_all(receiving)) }).await;
    let all = f64::from(each) * 20.0;
    assert_eq!(
        (direct(&server, "acknowledged").await, direct(&server, "written").await),
        (all, 0.0)
    );
    assert_eq!(written(&server).await, 0.0, "no envelope was in a batch");
    // Neither a row nor a number is left of them.
    let after = Dump::of(&server).await;
    for table in ["envelopes", "mailboxes"] {
        assert_eq!(after.rows(table), before.rows(table), "{table}");
    }
}

async fn i1_what_is_not_acknowledged_in_time_is_written_and_outlives_a_kill(backend: Backend) {
    let mut server = Server::spawn_with(backend, HASTY).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = connected(&server, &bob).await;
    for number in 0..50 {
        send(&server, &alice, &bob, &content(0, number)).await.expect(200);
    }
    // It came at once, under one guid, and comes again, because nobody acknowledged it.
    let (_, first) = socket.envelope().await;
    assert_eq!(marker(&first), content(0, 0));
    assert_eq!(direct(&server, "acknowledged").await, 0.0);
    server.kill();
    let server = server.restart();
    expect_each_once_in_order(&bob.connect(&server).await.drain().await, 1, 0..50);
}

async fn i1_whoever_was_not_answered_yet_was_promised_nothing(backend: Backend) {
    let mut server = Server::spawn_with(backend, PATIENT).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = connected(&server, &bob).await;
    let request = alice.request(&server, "PUT", &bob.inbox()).json(&single(&bob, 1, b"x"));
    let sending = tokio::spawn(try_ask(request));
    socket.envelope().await;
    assert!(!sending.is_finished(), "neither written nor acknowledged");
    server.kill();
    assert!(sending.await.unwrap().is_err(), "the sender will try again");
    let server = server.restart();
    bob.connect(&server).await.expect_empty().await;
}

/// What waits for its acknowledgement while the connection breaks is stored in the order in which the device saw it.
async fn i3_what_comes_again_comes_in_the_order_in_which_it_came(backend: Backend) {
    let server = Server::spawn_with(backend, PATIENT).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = connected(&server, &bob).await;
    let mut sender = alice.connect(&server).await;
    sender.expect_empty().await;
    // As many as a socket's requests are answered at a time.
    for id in 0..16 {
        let body = serde_json::to_vec(&single(&bob, 1, &content(0, id))).unwrap();
        let json = ["content-type:application/json"];
        sender
            .ask_as(Some(u64::from(id)), "PUT", &bob.inbox(), &json, Some(body.into()))
            .await;
    }
    let mut saw = Vec::new();
    for _ in 0..16 {
        let (_, envelope) = socket.envelope().await;
        saw.push(marker(&envelope));
    }
    drop(socket);
    for _ in 0..16 {
        match sender.next().await {
            Event::Answer(_, answer) => answer.expect(200),
            other => panic!("{other:?}"),
        };
    }
    let again = bob.connect(&server).await.drain().await;
    assert_eq!(again, saw);
    expect_each_once_in_order(&again, 1, 0..16);
}

async fn t30_what_a_displaced_connection_was_offered_comes_to_the_next_one(backend: Backend) {
    let server = Server::spawn_with(backend, PATIENT).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut first = connected(&server, &bob).await;
    let sending = async { send(&server, &alice, &bob, b"offered").await.expect(200) };
    let taking_over = async {
        let (late, _) = first.envelope().await;
        let mut second = bob.connect(&server).await;
        assert_eq!(first.close_code().await, Some(4409));
        first.answer(late, 200).await;
        // It is being written when the second one comes, which may find its queue empty until then.
        let (id, envelope) = loop {
            match second.next().await {
                Event::Envelope(id, envelope) => break (id, envelope),
                Event::Empty => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(marker(&envelope), &b"offered"[..]);
        second.answer(id, 200).await;
        second
    };
    let (_, mut second) = Box::pin(async { tokio::join!(sending, taking_over) }).await;
    second.keepalive().await;
    bob.connect(&server).await.expect_empty().await;
}

async fn t76_sigterm_writes_what_was_offered(backend: Backend) {
    let mut server = Server::spawn_with(backend, PATIENT).await;
    let (senders, bob) = (people(&server, 8).await, Person::register(&server).await);
    let mut socket = connected(&server, &bob).await;
    let sending = join_all(senders.iter().enumerate().map(async |(sender, person)| {
        let request = person.request(&server, "PUT", &bob.inbox());
        try_ask(request.json(&single(&bob, 1, &content(sender, 0)))).await
    }));
    let stopping = async {
        for _ in 0..8 {
            socket.envelope().await;
        }
        server.signal(Signal::TERM);
        socket.close_code().await
    };
    let (answers, code) = Box::pin(async { tokio::join!(sending, stopping) }).await;
    assert_eq!(code, Some(1012));
    for answer in answers {
        answer.unwrap().expect(200);
    }
    assert_eq!(server.exit_code().await, Some(0));
    let server = Server::start(Arc::clone(server.place()), "data", &[]);
    expect_each_once_in_order(&bob.connect(&server).await.drain().await, 8, 0..1);
}

async fn i2_an_envelope_that_was_offered_can_be_deleted_by_its_guid(backend: Backend) {
    for settings in [PATIENT, HASTY] {
        let server = Server::spawn_with(backend, settings).await;
        let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
        let mut socket = connected(&server, &bob).await;
        let sending = async { send(&server, &alice, &bob, b"x").await.expect(200) };
        let deleting = async {
            let (_, envelope) = socket.envelope().await;
            if settings == HASTY {
                until("the envelope is written", async || written(&server).await > 0.0).await;
            }
            let path = format!("/v1/messages/uuid/{}", envelope.server_guid.unwrap());
            // Whoever else asks deletes nothing.
            ask(alice.request(&server, "DELETE", &path)).await.expect(204);
            ask(bob.request(&server, "DELETE", &path)).await.expect(204);
        };
        Box::pin(async { tokio::join!(sending, deleting) }).await;
        drop(socket);
        bob.connect(&server).await.expect_empty().await;
    }
}

async fn what_one_device_of_several_misses_is_written_for_it_alone(backend: Backend) {
    let mut settings = PATIENT.to_vec();
    settings[1].1 = "300";
    let server = Server::spawn_with(backend, &settings).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let tablet = bob.link(&server).await;
    let (mut phone_socket, mut tablet_socket) = (connected(&server, &bob).await, connected(&server, &tablet).await);
    let mut body = single(&bob, 1, b"for both");
    let other = single(&tablet, 1, b"for both")["messages"][0].clone();
    body["messages"].as_array_mut().unwrap().push(other);
    let sending = async {
        ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
            .await
            .expect(200)
    };
    let receiving = async {
        assert_eq!(phone_socket.content().await, &b"for both"[..]);
        tablet_socket.envelope().await
    };
    Box::pin(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(direct(&server, "acknowledged").await, 1.0);
    assert_eq!(written(&server).await, 1.0);
    bob.connect(&server).await.expect_empty().await;
    assert_eq!(tablet.connect(&server).await.drain().await, [&b"for both"[..]]);
}

async fn a_device_that_refuses_an_envelope_gets_it_again(backend: Backend) {
    let server = Server::spawn_with(backend, HASTY).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = connected(&server, &bob).await;
    let sending = async {
        for number in 0..3 {
            send(&server, &alice, &bob, &content(0, number)).await.expect(200);
        }
    };
    let receiving = async {
        let mut seen = BTreeMap::new();
        for status in [200, 500, 200] {
            let (id, envelope) = socket.envelope().await;
            socket.answer(id, status).await;
            seen.insert(marker(&envelope), status);
        }
        seen
    };
    let ((), seen) = Box::pin(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(seen.len(), 3, "each once");
    socket.keepalive().await;
    assert_eq!(bob.connect(&server).await.drain().await, [content(0, 1)]);
}
