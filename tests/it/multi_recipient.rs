//! `PUT /v1/messages/multi_recipient`: one message to many, all or nothing, and who may.

use serde_json::json;

use crate::support::fan_out::{CONTENT_TYPE, Entry, combined_key, message, request};
use crate::support::keys::base64;
use crate::support::person::people;
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, random, send};

on_each_backend! {
    every_recipient_gets_its_own_view_of_the_message
    a_wrong_list_of_devices_is_corrected_before_anything_is_sent
    the_combined_key_of_all_recipients_is_needed
    a_story_needs_no_key_and_skips_who_does_not_exist
    a_full_queue_is_named_and_keeps_the_message_from_nobody_else
    many_recipients_all_get_it
}

async fn fan_out(server: &Server, to: &[&Person], entries: &[Entry], tail: &[u8]) -> Answer {
    let key = combined_key(to.iter().copied());
    ask(request(
        server,
        "?ts=1700000000123&online=false&urgent=true",
        message(entries, tail),
    )
    .header("unidentified-access-key", key))
    .await
}

async fn every_recipient_gets_its_own_view_of_the_message(backend: Backend) {
    let server = Server::spawn(backend).await;
    let people = people(&server, 4).await;
    let mut online = people[0].connect(&server).await;
    online.expect_empty().await;
    let left_out = Entry::new(&people[3].aci, &[]);
    let mut entries: Vec<_> = people[..3].iter().map(Entry::of).collect();
    entries.push(left_out);
    let tail = random::<120>();
    let answer = fan_out(&server, &[&people[0], &people[1], &people[2]], &entries, &tail).await;
    assert_eq!(answer.expect(200).json(), json!({ "uuids404": [] }));

    let (id, envelope) = online.envelope().await;
    online.answer(id, 200).await;
    assert_eq!(envelope.content.as_deref(), Some(&entries[0].content(&tail)[..]));
    assert_eq!(
        (envelope.r#type, envelope.timestamp),
        (Some(6), Some(1_700_000_000_123))
    );
    assert_eq!(
        (envelope.source_service_id, envelope.source_service_id_binary),
        (None, None)
    );
    assert_eq!(envelope.source_device, None);
    assert_eq!(envelope.destination_service_id.as_deref(), Some(people[0].aci.as_str()));
    assert_eq!((envelope.urgent, envelope.story), (Some(true), None));
    for n in [1, 2] {
        let contents = people[n].connect(&server).await.drain().await;
        assert_eq!(contents, [entries[n].content(&tail)]);
    }
    assert!(people[3].connect(&server).await.drain().await.is_empty());
}

async fn a_wrong_list_of_devices_is_corrected_before_anything_is_sent(backend: Backend) {
    let server = Server::spawn(backend).await;
    let people = people(&server, 3).await;
    let to: Vec<&Person> = people.iter().collect();
    let stale = |person: &Person| person.registration_id % 16_000 + 1;
    let old = || Entry::new(&people[1].aci, &[(1, stale(&people[1]))]);
    let tail = random::<64>();

    // A wrong set goes before an old registration: the other way round than for one recipient.
    let entries = [
        Entry::of(&people[0]),
        old(),
        Entry::new(&people[2].aci, &[(1, people[2].registration_id), (7, 5)]),
    ];
    let answer = fan_out(&server, &to, &entries, &tail).await.expect(409);
    let set = json!([{ "uuid": people[2].aci, "devices": { "missingDevices": [], "extraDevices": [7] } }]);
    assert_eq!(answer.json(), set);
    let entries = [Entry::of(&people[0]), old(), Entry::new(&people[2].aci, &[(7, 5)])];
    let answer = fan_out(&server, &to, &entries, &tail).await.expect(409);
    let set = json!([{ "uuid": people[2].aci, "devices": { "missingDevices": [1], "extraDevices": [7] } }]);
    assert_eq!(answer.json(), set);
    let entries = [Entry::of(&people[0]), old(), Entry::of(&people[2])];
    let answer = fan_out(&server, &to, &entries, &tail).await.expect(410);
    let gone = json!([{ "uuid": people[1].aci, "devices": { "staleDevices": [1] } }]);
    assert_eq!(answer.json(), gone);

    let large = vec![1; 96 * 1024 - 48];
    // The size is looked at before the devices.
    let wrong = [
        Entry::of(&people[0]),
        Entry::of(&people[1]),
        Entry::new(&people[2].aci, &[(7, 5)]),
    ];
    assert_eq!(
        fan_out(&server, &to, &wrong, &large).await.expect(413).code(),
        "content_too_large"
    );
    let entries: Vec<_> = people.iter().map(Entry::of).collect();
    assert_eq!(
        fan_out(&server, &to, &entries, &large).await.expect(413).code(),
        "content_too_large"
    );
    for person in &people {
        assert!(person.connect(&server).await.drain().await.is_empty());
    }
    fan_out(&server, &to, &entries, &large[1..]).await.expect(200);
    for (person, entry) in people.iter().zip(&entries) {
        assert_eq!(
            person.connect(&server).await.drain().await,
            [entry.content(&large[1..])]
        );
    }
}

async fn the_combined_key_of_all_recipients_is_needed(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let open = Person::register(&server).await;
    let mut attributes = open.attributes();
    attributes["unrestrictedUnidentifiedAccess"] = true.into();
    ask(open
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    let tail = random::<64>();
    let all = || message(&[Entry::of(&alice), Entry::of(&bob), Entry::of(&open)], &tail);
    let ask_with = async |key: Option<String>, body: Vec<u8>| {
        let request = request(&server, "?ts=0", body);
        ask(match key {
            Some(key) => request.header("unidentified-access-key", key),
            None => request,
        })
        .await
    };
    ask_with(None, all()).await.expect(401);
    ask_with(Some(alice.access_key_header()), all()).await.expect(401);
    ask_with(Some(combined_key([&alice, &bob, &open])), all())
        .await
        .expect(401);
    ask_with(Some("AAAA".to_owned()), all()).await.expect(401);
    // The open account's key is not part of the sum.
    ask_with(Some(combined_key([&alice, &bob])), all()).await.expect(200);
    // Where everyone is open, any key will do.
    ask_with(Some(base64(&[0; 16])), message(&[Entry::of(&open)], &tail))
        .await
        .expect(200);

    // A PNI is never written to by strangers, an unknown account is as the wire has it.
    ask_with(Some(combined_key([&alice])), message(&[Entry::of_pni(&alice)], &tail))
        .await
        .expect(401);
    let unknown = Entry::new(&uuid::Uuid::from_bytes(random()).to_string(), &[(1, 1)]);
    ask_with(
        Some(combined_key([&alice])),
        message(&[Entry::of(&alice), unknown], &tail),
    )
    .await
    .expect(404);

    // Credentials of a device count for nothing.
    let body = message(&[Entry::of(&bob)], &tail);
    let named = request(&server, "", body.clone()).basic_auth(&alice.aci, Some(&alice.password));
    ask(named).await.expect(401);

    // A token cannot be verified; beside another proof it is a mistake.
    let token = || request(&server, "", body.clone()).header("group-send-token", "AAAA");
    ask(token()).await.expect(401);
    let both = token().header("unidentified-access-key", bob.access_key_header());
    assert_eq!(ask(both).await.expect(400).code(), "two_authorizations");
    let both = token().basic_auth(&alice.aci, Some(&alice.password));
    assert_eq!(ask(both).await.expect(400).code(), "two_authorizations");

    assert_eq!(bob.connect(&server).await.drain().await.len(), 1);
    assert_eq!(open.connect(&server).await.drain().await.len(), 2);
}

async fn a_story_needs_no_key_and_skips_who_does_not_exist(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let unknown = || Entry::new(&uuid::Uuid::from_bytes(random()).to_string(), &[(1, 1)]);
    let tail = random::<64>();
    let entries = [Entry::of(&alice), unknown(), Entry::of(&bob)];
    let story = |entries: &[Entry]| request(&server, "?ts=5&story=true", message(entries, &tail));
    let answer = ask(story(&entries)).await.expect(200);
    assert_eq!(answer.json(), json!({ "uuids404": [] }));
    assert_eq!(
        ask(story(&[unknown()])).await.expect(200).json(),
        json!({ "uuids404": [] })
    );
    // The devices must be right all the same.
    ask(story(&[Entry::new(&bob.aci, &[(2, 1)])])).await.expect(409);
    let token = story(&entries).header("group-send-token", "AAAA");
    assert_eq!(ask(token).await.expect(400).code(), "two_authorizations");

    let wants_stories = [("x-signal-receive-stories", "true")];
    let mut socket = Socket::open(&server, Some(&alice.authorization()), &wants_stories)
        .await
        .unwrap();
    let (_, envelope) = socket.envelope().await;
    assert_eq!((envelope.story, envelope.timestamp), (Some(true), Some(5)));
    assert!(
        bob.connect(&server).await.drain().await.is_empty(),
        "bob wants no stories"
    );
}

async fn a_full_queue_is_named_and_keeps_the_message_from_nobody_else(backend: Backend) {
    let server = Server::spawn_with(
        backend,
        &[("QUEUE__MAX_ENVELOPES", "2"), ("QUEUE__SENDER_SHARE_PERCENT", "100")],
    )
    .await;
    let people = people(&server, 3).await;
    for content in [b"1", b"2"] {
        send(&server, &people[0], &people[1], content).await.expect(200);
    }
    let entries: Vec<_> = people.iter().map(Entry::of).collect();
    let tail = random::<64>();
    let to: Vec<&Person> = people.iter().collect();
    let answer = fan_out(&server, &to, &entries, &tail).await.expect(200);
    assert_eq!(answer.json(), json!({ "uuids404": [people[1].aci] }));
    assert_eq!(people[1].connect(&server).await.drain().await, [&b"1"[..], b"2"]);
    for n in [0, 2] {
        assert_eq!(
            people[n].connect(&server).await.drain().await,
            [entries[n].content(&tail)]
        );
    }
}

async fn many_recipients_all_get_it(backend: Backend) {
    let server = Server::spawn(backend).await;
    let people = people(&server, 60).await;
    let entries: Vec<_> = people.iter().map(Entry::of).collect();
    let to: Vec<&Person> = people.iter().collect();
    let tail = vec![7; 40 * 1024];
    fan_out(&server, &to, &entries, &tail).await.expect(200);
    for (person, entry) in people.iter().zip(&entries) {
        assert_eq!(person.connect(&server).await.drain().await, [entry.content(&tail)]);
    }
}

#[tokio::test]
async fn t40_what_no_recipient_could_read_is_refused() {
    let server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    let key = bob.access_key_header();
    let try_body = async |query: &str, body: Vec<u8>| {
        ask(request(&server, query, body).header("unidentified-access-key", &key)).await
    };
    let tail = [1; 64];
    let twice = || [Entry::of(&bob), Entry::of(&bob)];
    let one = bob.registration_id;
    let no_recipients: Vec<Entry> = vec![];
    let refused: [(&str, Vec<u8>, u16, &str); 11] = [
        ("", vec![], 400, "malformed_message"),
        ("", vec![0x23], 400, "malformed_message"),
        (
            "",
            [&[0x24], &message(&[Entry::of(&bob)], &tail)[1..]].concat(),
            400,
            "malformed_message",
        ),
        ("", message(&[Entry::of(&bob)], &tail[..31]), 400, "malformed_message"),
        ("", message(&[Entry::of(&bob)], &tail[..47]), 400, "malformed_message"),
        ("", message(&no_recipients, &tail), 400, "no_recipients"),
        ("", message(&[Entry::new(&bob.aci, &[])], &tail), 400, "no_recipients"),
        ("", message(&twice(), &tail), 400, "duplicate_device"),
        (
            "",
            message(&[Entry::new(&bob.aci, &[(1, one), (1, one)])], &tail),
            400,
            "duplicate_device",
        ),
        ("?ts=-1", message(&[Entry::of(&bob)], &tail), 400, "timestamp"),
        ("?ts=x", message(&[Entry::of(&bob)], &tail), 400, "malformed_query"),
    ];
    for (query, body, status, code) in refused {
        assert_eq!(try_body(query, body).await.expect(status).code(), code);
    }
    let many: Vec<_> = (0..5001)
        .map(|_| Entry::new(&uuid::Uuid::from_bytes(random()).to_string(), &[(1, 1)]))
        .collect();
    assert_eq!(
        try_body("", message(&many, &tail)).await.expect(422).code(),
        "too_many_recipients"
    );
    try_body("", message(&many[1..], &tail)).await.expect(404);
    let too_large = vec![0x23; 256 * 1024 + 32 + 5000 * 100 + 1];
    assert_eq!(try_body("", too_large).await.expect(413).code(), "body_too_large");
    // Another type of content is not looked at.
    let other = server
        .request("PUT", "/v1/messages/multi_recipient")
        .header("content-type", "application/json")
        .header("unidentified-access-key", &key)
        .body("{}");
    assert_eq!(ask(other).await.expect(415).code(), "content_type");
    assert!(bob.connect(&server).await.drain().await.is_empty());
}

#[tokio::test]
async fn through_a_socket_and_online_only() {
    let server = Server::spawn(Backend::Sqlite).await;
    let people = people(&server, 2).await;
    let mut here = people[0].connect(&server).await;
    here.expect_empty().await;
    let entries: Vec<_> = people.iter().map(Entry::of).collect();
    let tail = random::<64>();
    let mut anonymous = Socket::open(&server, None, &[]).await.unwrap();
    let key = format!("unidentified-access-key: {}", combined_key(&people));
    let content_type = format!("content-type: {CONTENT_TYPE}");
    anonymous
        .ask_as(
            Some(0),
            "PUT",
            "/v1/messages/multi_recipient?ts=1&online=true&urgent=false",
            &[&key, &content_type],
            Some(message(&entries, &tail).into()),
        )
        .await;
    assert_eq!(
        anonymous.answer_to(0).await.expect(200).json(),
        json!({ "uuids404": [] })
    );
    let (_, envelope) = here.envelope().await;
    assert_eq!(envelope.content.as_deref(), Some(&entries[0].content(&tail)[..]));
    assert_eq!(envelope.urgent, Some(false));
    // Who was not connected never gets it.
    assert!(people[1].connect(&server).await.drain().await.is_empty());
}

#[tokio::test]
async fn one_request_cannot_fill_a_disk() {
    let server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    // A device may be named that is not there: sizes are looked at first.
    let devices: Vec<(u8, u16)> = (1..=127).map(|id| (id, 1)).collect();
    let people = people(&server, 7).await;
    let entries: Vec<_> = people.iter().map(|person| Entry::new(&person.aci, &devices)).collect();
    let tail = vec![1; 96 * 1024 - 49];
    let story = |count: usize| ask(request(&server, "?story=true", message(&entries[..count], &tail)));
    // 7 accounts of 127 devices are 83 MiB, 6 are 71.
    assert_eq!(story(7).await.expect(413).code(), "fan_out_too_large");
    story(6).await.expect(409);
    assert!(bob.connect(&server).await.drain().await.is_empty());
}
