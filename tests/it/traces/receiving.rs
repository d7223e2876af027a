//! 10.6: what is pushed, acknowledged, and never comes again.

use super::client::{Client, Stack};
use super::sending::send_body;
use crate::support::person::basic;
use crate::support::{Backend, Event, Person, Server, framed};

/// Envelopes in order, one `queue/empty`, live ones behind it; a new socket displaces the old.
pub(super) async fn what_was_acknowledged_is_gone_and_a_new_socket_displaces_the_old(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut sender = Client::open(&server, Stack::Service, Some(&alice.authorization())).await;
    let mut send = async |to: &str, registration: u16, content: &[u8]| {
        let body = send_body(Stack::Service, to, &[(1, registration)], 3, content);
        let path = format!("/v1/messages/{to}");
        sender.ask_json("PUT", &path, &body).await.expect(200);
    };
    let pni = format!("PNI:{}", bob.pni);
    send(&bob.aci, bob.registration_id, b"one").await;
    send(&pni, bob.pni_registration_id, b"two").await;

    let authorization = basic(&bob.aci, &bob.password);
    let mut device = Client::upgraded(&server, Stack::Service, Some(&authorization), Some(false)).await;
    let uuid = |text: &str| uuid::Uuid::try_parse(text).unwrap().into_bytes().to_vec();
    let compact_pni = [&[1][..], &uuid(&bob.pni)].concat();
    for (destination, compact, content) in [(&bob.aci, uuid(&bob.aci), b"one"), (&pni, compact_pni, b"two")] {
        let (id, envelope) = device.socket.envelope().await;
        assert_eq!(envelope.r#type, Some(3));
        assert_eq!(envelope.timestamp, Some(1_700_000_000_123));
        assert!(envelope.server_timestamp.is_some());
        // Both forms of every id, and a source with its device: of the stacks some read only one.
        assert_eq!(envelope.source_service_id.as_deref(), Some(alice.aci.as_str()));
        assert_eq!(
            envelope.source_service_id_binary.as_deref(),
            Some(&uuid(&alice.aci)[..])
        );
        assert_eq!(envelope.source_device, Some(1));
        assert_eq!(envelope.destination_service_id.as_ref(), Some(destination));
        assert_eq!(envelope.destination_service_id_binary.as_deref(), Some(&compact[..]));
        let guid = envelope.server_guid.unwrap();
        assert_eq!(envelope.server_guid_binary.as_deref(), Some(&uuid(&guid)[..]));
        assert_eq!(envelope.content.as_deref(), Some(&framed(3, content)[..]));
        assert_eq!(envelope.urgent, Some(true), "not said means urgent");
        assert_eq!((envelope.story, envelope.ephemeral), (None, None));
        device.socket.answer(id, 200).await;
    }
    // Exactly one, and what is live comes behind it.
    device.socket.expect_empty().await;
    send(&bob.aci, bob.registration_id, b"three").await;
    let (unanswered, envelope) = device.socket.envelope().await;
    assert_eq!(envelope.content.as_deref(), Some(&framed(3, b"three")[..]));
    // A status that is no success acknowledges nothing.
    device.socket.answer(unanswered, 400).await;
    device.keepalive().await;

    let official = basic(&format!("{}.1", bob.aci), &bob.password);
    let mut other = Client::upgraded(&server, Stack::Official, Some(&official), Some(true)).await;
    assert_eq!(device.socket.close_code().await, Some(4409));
    let (id, envelope) = other.socket.envelope().await;
    assert_eq!(
        envelope.content.as_deref(),
        Some(&framed(3, b"three")[..]),
        "the first two are gone"
    );
    other.socket.answer(id, 200).await;
    other.socket.expect_empty().await;
    // One stack never answers `queue/empty`, and pushes go on all the same.
    send(&bob.aci, bob.registration_id, b"four").await;
    assert_eq!(other.socket.content().await, b"four"[..]);
    assert!(matches!(ended(other).await, Event::Answer(..)));
}

/// Nothing else is pushed: the answer to a life sign is what comes next.
async fn ended(mut client: Client) -> Event {
    client.socket.ask_as(Some(0), "GET", "/v1/keepalive", &[], None).await;
    client.socket.next().await
}
