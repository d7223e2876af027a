//! A node that sends its clients elsewhere.

use std::process::Stdio;

use serde_json::json;

use super::{Done, acts, admin};
use crate::support::person::people;
use crate::support::provisioning::NewDevice;
use crate::support::{Backend, Person, Server, Socket, ask, on_each_backend, send, until};

on_each_backend! {
    a_node_that_drains_closes_its_sockets_and_goes_on_answering
}

async fn ready(server: &Server) -> u16 {
    ask(server.request("GET", "/health/ready")).await.status
}

async fn a_node_that_drains_closes_its_sockets_and_goes_on_answering(backend: Backend) {
    let server = Server::spawn_with(backend, &[("DRAIN_SECS", "2")]).await;
    let all = people(&server, 8).await;
    let mut sockets = Vec::new();
    for person in &all {
        sockets.push(person.connect(&server).await);
    }
    sockets.push(Socket::open(&server, None, &[]).await.unwrap());
    assert_eq!(admin(&server, &["stats", "--json"]).json()["sockets"], 9);
    assert_eq!(ready(&server).await, 200);

    // Somebody answers the closes, as clients do.
    let closing = tokio::spawn(async move {
        let mut codes = Vec::new();
        for socket in &mut sockets {
            codes.push(socket.close_code().await);
        }
        codes
    });
    let waiting = server
        .command_of(&["admin", "drain", "--wait"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let done = tokio::task::spawn_blocking(move || Done::of(waiting.wait_with_output().unwrap()));
    let said = done.await.unwrap().well();
    assert!(said.ends_with("draining: 0 sockets are open\n"), "{said}");
    assert!(said.lines().count() > 1, "progress is told: {said}");
    assert_eq!(closing.await.unwrap(), vec![Some(1012); 9]);

    assert_eq!(ready(&server).await, 503);
    ask(server.request("GET", "/health/live")).await.expect(200);
    let refused = ask(server
        .request("GET", "/v1/websocket/")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
    .await
    .expect(503);
    assert_eq!(refused.json()["code"], "draining");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    let waiting_device = NewDevice::wait_on(&server).await.err();
    assert_eq!(waiting_device, Some(503));
    // Whoever is here yet is answered.
    send(&server, &all[0], &all[1], b"text").await.expect(200);
    let newcomer = Person::register(&server).await;
    ask(newcomer.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    let stand = admin(&server, &["drain", "--json"]).json();
    assert_eq!(stand, json!({ "draining": true, "sockets": 0 }));

    let said = admin(&server, &["drain", "--undo"]).well();
    assert_eq!(said, "taking clients: 0 sockets are open\n");
    assert_eq!(ready(&server).await, 200);
    let mut socket = all[1].connect(&server).await;
    socket.envelope().await;
    until("the socket to be counted", async || {
        admin(&server, &["stats", "--json"]).json()["sockets"] == 1
    })
    .await;
    let acts: Vec<_> = acts(&server).into_iter().map(|(act, _)| act).collect();
    assert_eq!(acts, ["drain", "drain", "drain undo"]);
}
