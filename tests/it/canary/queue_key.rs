//! The key that opens a queue: nowhere at rest, and in memory only while its device is connected.

use blind_relay::sealing::derive_bytes;

use super::marks::{Fate, Marks};
use super::search::Search;
use crate::support::dump::Dump;
use crate::support::{Backend, Person, Server, on_each_backend, send, until};

on_each_backend! {
    b10_the_key_of_a_queue_is_in_memory_only_while_its_device_is_connected
}

async fn b10_the_key_of_a_queue_is_in_memory_only_while_its_device_is_connected(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let marks = Marks::new();
    for device in Dump::of(&server).await.rows("devices") {
        let salt: Vec<u8> = (0..16)
            .map(|byte| u8::from_str_radix(&device["credential_salt"][2 * byte..][..2], 16).unwrap())
            .collect();
        // Whose salt it is does not matter: of the others nothing is derived from this password.
        let key = derive_bytes(bob.password.as_bytes(), &salt, "blind-relay queue key v1");
        // First and last byte are changed before X25519 uses a key (RFC 7748).
        marks.exact("queue key", Fate::Passing, &key[1..31]);
    }
    let search = Search::new(&marks);
    send(&server, &alice, &bob, b"waiting").await.expect(200);
    until("no queue key after the registration", async || {
        search.memory(server.pid()).is_empty()
    })
    .await;

    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await, ["waiting"]);
    assert!(
        !search.memory(server.pid()).is_empty(),
        "the key is found while it is there"
    );
    drop(socket);
    until("no queue key after the device has left", async || {
        search.memory(server.pid()).is_empty()
    })
    .await;
    // Nor for whoever asks once.
    assert_eq!(bob.fetch(&server).await["messages"].as_array().map(Vec::len), Some(0));
    until("no queue key after a fetch", async || {
        search.memory(server.pid()).is_empty()
    })
    .await;
}
