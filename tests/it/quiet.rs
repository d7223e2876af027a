//! What a message causes beside its delivery: nothing that comes back to its sender (T42), nothing that stays (T43), and no
//! way for an operator to aim at one account (B14).

use clap::CommandFactory as _;
use serde_json::json;

use crate::support::person::{message, people};
use crate::support::{Backend, Event, Person, Server, Socket, ask, fan_out, on_each_backend, random, send, single};

on_each_backend! {
    t42_no_send_however_it_is_taken_causes_a_receipt
    t43_silent_pings_of_strangers_are_stored_nowhere_and_answered_alike
    t43_whoever_pings_too_often_is_refused_and_disturbs_nobody
    t43_of_a_message_to_many_those_are_left_out_who_were_pinged_too_often
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

/// There is no push that they could wake.
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

/// Makes the same request again and again.
type Asking<'a> = Box<dyn Fn() -> reqwest::RequestBuilder + 'a>;

/// So many at once, for one sender and one target.
const PINGS: usize = 60;

async fn t43_whoever_pings_too_often_is_refused_and_disturbs_nobody(backend: Backend) {
    let tick = std::time::Duration::from_millis(100);
    let settings = [("RATE_LIMITS", "on"), ("RELAY__ANSWER_TICK_MILLIS", "100")];
    let server = Server::spawn_with(backend, &settings).await;
    let [alice, bob, carol] = people(&server, 3).await.try_into().ok().unwrap();
    let nobody = format!("/v1/messages/{}", uuid::Uuid::from_bytes(random()));
    let mut body = single(&bob, 6, b"ping");
    body["online"] = true.into();
    body["urgent"] = false.into();
    let stranger = || {
        let request = server.request("PUT", &bob.inbox());
        request.header("unidentified-access-key", bob.access_key_header())
    };
    let by_stranger = |path: &str| {
        let request = server.request("PUT", path);
        request.header("unidentified-access-key", carol.access_key_header())
    };
    let ways: [(&str, u16, Asking<'_>); 5] = [
        ("a stranger", 200, Box::new(stranger)),
        (
            "an account",
            200,
            Box::new(|| alice.request(&server, "PUT", &bob.inbox())),
        ),
        (
            "a story",
            200,
            Box::new(|| by_stranger(&format!("{}?story=true", carol.inbox()))),
        ),
        (
            "an account, to nobody",
            404,
            Box::new(|| alice.request(&server, "PUT", &nobody)),
        ),
        ("a stranger, to nobody", 401, Box::new(|| by_stranger(&nobody))),
    ];
    for (who, status, request) in &ways {
        let mut body = body.clone();
        if *who == "a story" {
            body["messages"][0] = message(&carol, 6, b"ping");
        }
        let pings = (0..PINGS).map(|_| ask(request().json(&body)));
        for answer in futures_util::future::join_all(pings).await {
            answer.expect(*status);
        }
        // One more comes every six seconds.
        let mut refused = None;
        while refused.is_none() {
            let begun = std::time::Instant::now();
            let answer = ask(request().json(&body)).await;
            assert!(begun.elapsed() >= tick, "{who}: on the tick");
            refused = Some(answer).filter(|answer| answer.status == 429);
        }
        let refused = refused.unwrap();
        assert_eq!(refused.code(), "rate_limited", "{who}");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{who}: {wait}");
    }

    // Other senders and other targets have budgets of their own, and what is stored is none of these.
    let ping = |from: &Person| ask(from.request(&server, "PUT", &bob.inbox()).json(&body));
    ping(&carol).await.expect(200);
    send(&server, &alice, &bob, b"stored").await.expect(200);
    let mut to_carol = single(&carol, 6, b"ping");
    to_carol["online"] = true.into();
    ask(alice.request(&server, "PUT", &carol.inbox()).json(&to_carol))
        .await
        .expect(200);
    // Nor do the devices of one account count each other's.
    let laptop = alice.link(&server).await;
    let mut own = single(&laptop, 1, b"typing here");
    own["online"] = true.into();
    for _ in 0..PINGS + 10 {
        ask(alice.request(&server, "PUT", &alice.inbox()).json(&own))
            .await
            .expect(200);
    }
    assert_eq!(bob.fetch(&server).await["messages"].as_array().unwrap().len(), 1);
}

async fn t43_of_a_message_to_many_those_are_left_out_who_were_pinged_too_often(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RATE_LIMITS", "on")]).await;
    let people = people(&server, 2).await;
    let mut windows = vec![people[0].connect(&server).await, people[1].connect(&server).await];
    for window in &mut windows {
        window.expect_empty().await;
    }
    let mut body = single(&people[0], 6, b"ping");
    body["online"] = true.into();
    let mut passed = 0;
    loop {
        let request = server.request("PUT", &people[0].inbox());
        let request = request.header("unidentified-access-key", people[0].access_key_header());
        if ask(request.json(&body)).await.status == 429 {
            break;
        }
        passed += 1;
        windows[0].content().await;
    }
    assert!(passed >= PINGS);
    let entries: Vec<_> = people.iter().map(fan_out::Entry::of).collect();
    let message = fan_out::message(&entries, &[7; 64]);
    let request = fan_out::request(&server, "?ts=1&online=true", message);
    let key = fan_out::combined_key(&people);
    let answer = ask(request.header("unidentified-access-key", key)).await.expect(200);
    assert_eq!(answer.json(), json!({ "uuids404": [] }));
    windows[1].content().await;
    // The next that comes to the other is what is sent to it with a name.
    send(&server, &people[1], &people[0], b"stored").await.expect(200);
    expect_alone(&mut windows[0], &people[1]).await;
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

/// The operator's own account with somebody else.
const OF_OTHERS: &[&str] = &[".codes.smtp_user", ".codes.twilio_account_sid"];

/// The only commands that name an account: they shut it out, let it in, delete it, or look whether it is shut out. None of
/// them says anything of its keys or of the program that it gets.
const NAMING: &[&str] = &["delete", "log", "resume", "show", "suspend"];

#[test]
fn b14_only_commands_that_shut_an_account_out_name_one_and_no_setting_does() {
    let aims = |name: &str| {
        name.to_lowercase()
            .split(['_', '-', '.'])
            .any(|word| AIMS.contains(&word.trim_end_matches('s')))
    };
    assert!(aims("for-account") && aims("ACI") && aims("blocked_users") && !aims("listen"));
    let mut commands = vec![blind_relay::cli::Cli::command()];
    let (mut seen, mut naming) = (0, std::collections::BTreeSet::new());
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        for argument in command.get_arguments() {
            seen += 1;
            let values = argument.get_value_names().unwrap_or_default();
            let names = [argument.get_id().as_str()]
                .into_iter()
                .chain(values.iter().map(|value| value.as_str()));
            for name in names.filter(|name| aims(name)) {
                assert!(["aci", "account"].contains(&name.to_lowercase().as_str()), "{name}");
                naming.insert(command.get_name().to_owned());
            }
        }
    }
    assert!(seen > 10, "the flags are read");
    assert!(naming.iter().eq(NAMING), "{naming:?}");

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
        assert!(
            !aims(&name) || !says_whom || OF_OTHERS.contains(&name.as_str()),
            "the setting {name}"
        );
    }
    assert!(seen > 20, "the settings are read");
}
