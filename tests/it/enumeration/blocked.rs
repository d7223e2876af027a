//! Whether the time of an answer tells who is blocked.

use crate::support::{Backend, Person, Server, ask, on_each_backend, single};

use super::{ASKED, Probe, ROUNDS, SAME, likelihood, looks, times};

on_each_backend! {
    b9_the_time_of_an_answer_does_not_tell_who_is_blocked
}

async fn b9_the_time_of_an_answer_does_not_tell_who_is_blocked(backend: Backend) {
    // Nobody comes to empty the queue.
    let room = (2 * ASKED * (ROUNDS + 1)).to_string();
    let settings = [
        ("RELAY__ANSWER_TICK_MILLIS", "20"),
        ("QUEUE__MAX_ENVELOPES", room.as_str()),
        ("QUEUE__SENDER_SHARE_PERCENT", "100"),
    ];
    let server = Server::spawn_with(backend, &settings).await;
    let [alice, mallory, carol] = crate::support::person::people(&server, 3)
        .await
        .try_into()
        .ok()
        .unwrap();
    for blocked in [
        &mallory.aci,
        &uuid::Uuid::from_bytes(crate::support::random()).to_string(),
    ] {
        let block = alice.request(&server, "PUT", &format!("/v1/blocks/{blocked}"));
        ask(block).await.expect(204);
    }
    let (server, alice) = (&server, &alice);
    let (mallory, carol): (&Person, &Person) = (&mallory, &carol);
    let from = move |blocked: bool| if blocked { mallory } else { carol };
    let send = |what: &'static str, status: u16, body: serde_json::Value| Probe {
        what,
        status,
        ask: Box::new(move |blocked| from(blocked).request(server, "PUT", &alice.inbox()).json(&body)),
    };
    let mut online = single(alice, 1, b"online only");
    online["online"] = true.into();
    let mut other_device = single(alice, 1, b"another device");
    other_device["messages"][0]["destinationDeviceId"] = 2.into();
    let probes = [
        send("a message", 200, single(alice, 1, b"stored")),
        send("an online-only message", 200, online),
        send("a message to a device that is not there", 409, other_device),
    ];
    let mut separable = Vec::new();
    for probe in &probes {
        let looks = looks(&ask((probe.ask)(true)).await);
        assert_eq!(looks.0, probe.status, "{}", probe.what);
        let mut seen = 0.0_f64;
        for _ in 0..ROUNDS {
            let (blocked, free) = times(probe, &looks).await;
            seen = seen.max(likelihood(&blocked, &free));
            if seen > SAME {
                break;
            }
        }
        if seen <= SAME {
            separable.push((probe.what, seen));
        }
    }
    assert!(separable.is_empty(), "times tell who is blocked: {separable:?}");
    assert_eq!(
        server.metric("blind_relay_sends_total{outcome=\"queue_full\"}").await,
        0.0,
        "there was room for all"
    );
}
