//! What a message causes beside its delivery: nothing that comes back to its sender (T42), nothing that stays (T43), and no
//! way for an operator to aim at one account (B14).

use clap::CommandFactory as _;
use serde_json::json;

use crate::support::person::message;
use crate::support::{Backend, Event, Person, Server, Socket, ask, on_each_backend, send, single};

on_each_backend! {
    t42_no_send_however_it_is_taken_causes_a_receipt
    t43_silent_pings_of_strangers_are_stored_nowhere_and_answered_alike
}

/// The type of the envelopes in which servers used to send receipts.
const RECEIPT: u8 = 5;

async fn t42_no_send_however_it_is_taken_causes_a_receipt(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob, carol) = (
        Person::register(&server).await,
        Person::register(&server).await,
        Person::register(&server).await,
    );
    let laptop = alice.link(&server).await;
    let mut windows = vec![alice.connect(&server).await, laptop.connect(&server).await];
    for window in &mut windows {
        window.expect_empty().await;
    }
    let sealed = async |online: bool| {
        let mut body = single(&bob, 6, b"sealed");
        body["online"] = online.into();
        let request = server
            .request("PUT", &bob.inbox())
            .header("unidentified-access-key", bob.access_key_header());
        ask(request.json(&body)).await.expect(200);
    };

    // What waited, and is taken by a connection.
    sealed(false).await;
    send(&server, &alice, &bob, b"identified").await.expect(200);
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await.len(), 2);
    // What comes while the device is there, kept and online-only.
    for online in [false, true] {
        sealed(online).await;
        socket.content().await;
    }
    send(&server, &alice, &bob, b"identified").await.expect(200);
    socket.content().await;
    // What the device refuses, and gets again.
    sealed(false).await;
    let (id, _) = socket.envelope().await;
    socket.answer(id, 500).await;
    // Durable: whatever an acknowledgement causes has been caused.
    socket.keepalive().await;
    drop(socket);
    // What is fetched and deleted.
    send(&server, &alice, &bob, b"identified").await.expect(200);
    let fetched = bob.fetch(&server).await;
    let waiting = fetched["messages"].as_array().unwrap();
    assert!(!waiting.is_empty());
    for envelope in waiting {
        let path = format!("/v1/messages/uuid/{}", envelope["guid"].as_str().unwrap());
        ask(bob.request(&server, "DELETE", &path)).await.expect(204);
    }

    // The first that the sender's devices get at all is what somebody sends them now.
    let to_both = json!({
        "messages": [message(&alice, 1, b"marker"), message(&laptop, 1, b"marker")],
        "timestamp": 1_700_000_000_124_u64,
    });
    ask(carol.request(&server, "PUT", &alice.inbox()).json(&to_both))
        .await
        .expect(200);
    for (window, device) in windows.iter_mut().zip([&alice, &laptop]) {
        expect_alone(window, &carol).await;
        assert_eq!(device.fetch(&server).await["messages"], json!([]));
    }

    // And whoever wants to tell of an arrival says so in a message like any other: there is no type for it.
    let receipt = ask(bob
        .request(&server, "PUT", &carol.inbox())
        .json(&single(&carol, RECEIPT, b"")));
    assert!(matches!(receipt.await.status, 400 | 422));
    assert_eq!(carol.fetch(&server).await["messages"], json!([]));
}

/// Fails unless an envelope of that sender comes next, and nothing that was waiting behind it.
async fn expect_alone(window: &mut Socket, from: &Person) {
    let (id, envelope) = window.envelope().await;
    assert_eq!(envelope.source_service_id.as_deref(), Some(from.aci.as_str()));
    assert_ne!(envelope.r#type, Some(RECEIPT.into()));
    window.answer(id, 200).await;
    let answer = window.ask("GET", "/v1/keepalive", &[], None).await;
    assert_eq!(answer.status, 200);
    // Whatever had come before that answer would be waiting now; a request of our own does not let it pass.
    window.ask_as(Some(77), "GET", "/v1/keepalive", &[], None).await;
    assert!(matches!(window.next().await, Event::Answer(77, _)));
}

/// There is no budget for them yet, and there is no push that they could wake.
async fn t43_silent_pings_of_strangers_are_stored_nowhere_and_answered_alike(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let mut body = single(&bob, 6, b"ping");
    body["online"] = true.into();
    body["urgent"] = false.into();
    let ping = async || {
        let request = server
            .request("PUT", &bob.inbox())
            .header("unidentified-access-key", bob.access_key_header());
        ask(request.json(&body)).await.expect(200).looks()
    };
    let first = ping().await;
    for _ in 0..100 {
        assert_eq!(ping().await, first);
    }
    assert_eq!(bob.fetch(&server).await, json!({ "messages": [], "more": false }));
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    // To a device that is there they are no different to whoever sends them.
    for _ in 0..100 {
        assert_eq!(ping().await, first);
        socket.content().await;
    }
    drop(socket);
    let mut again = bob.connect(&server).await;
    again.expect_empty().await;
    assert_eq!(bob.fetch(&server).await, json!({ "messages": [], "more": false }));
}

/// What names one of many whom an operator could want to aim at.
const AIMS: &[&str] = &[
    "account",
    "aci",
    "contact",
    "device",
    "handle",
    "number",
    "person",
    "phone",
    "pni",
    "recipient",
    "sender",
    "target",
    "user",
];

#[test]
fn b14_no_command_flag_or_setting_names_an_account() {
    let aims = |name: &str| {
        name.to_lowercase()
            .split(['_', '-', '.'])
            .any(|word| AIMS.contains(&word.trim_end_matches('s')))
    };
    assert!(aims("for-account") && aims("ACI") && aims("blocked_users") && !aims("listen"));
    let mut commands = vec![blind_relay::cli::Cli::command()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        for argument in command.get_arguments() {
            seen += 1;
            let values = argument.get_value_names().unwrap_or_default();
            let names = [argument.get_id().as_str()]
                .into_iter()
                .chain(values.iter().map(|value| value.as_str()));
            for name in names {
                assert!(!aims(name), "{} {name}", command.get_name());
            }
        }
    }
    assert!(seen > 10, "the flags are read");

    let defaults = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/defaults.toml");
    let defaults: toml::Table = std::fs::read_to_string(defaults).unwrap().parse().unwrap();
    let (mut open, mut seen) = (vec![(String::new(), toml::Value::Table(defaults))], 0);
    while let Some((name, value)) = open.pop() {
        if let toml::Value::Table(table) = value {
            open.extend(table.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            continue;
        }
        seen += 1;
        // A limit for all of them, or a switch, cannot say whom it means.
        let says_whom = !matches!(value, toml::Value::Integer(_) | toml::Value::Boolean(_));
        assert!(!aims(&name) || !says_whom, "the setting {name}");
    }
    assert!(seen > 20, "the settings are read");
}
