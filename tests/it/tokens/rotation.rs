//! `blind-relay keys` and the keys that sign tokens.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::server::{Place, postgres_url};
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, ask, on_each_backend, until};

on_each_backend! {
    t74_another_key_signs_while_the_server_runs_and_the_old_one_verifies_what_it_signed
    t74_a_stolen_key_is_worth_nothing_within_a_minute
    keys_are_shown_by_their_names_and_need_no_server
}

fn kid(tokens: &Tokens) -> String {
    let header = tokens.access.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn published(server: &Server) -> Vec<String> {
    let jwks = ask(server.request("GET", "/.well-known/jwks.json"))
        .await
        .expect(200)
        .json();
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn keys(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(&[&["keys"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

async fn t74_another_key_signs_while_the_server_runs_and_the_old_one_verifies_what_it_signed(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let before = Tokens::open(&server, &alice).await;
    assert_eq!(published(&server).await, [kid(&before)]);
    let told = keys(&server, &["rotate"]);
    assert!(told.contains(&kid(&before)));
    let mut after = before.clone();
    until("the new key to sign", async || {
        after = after.next(&server).await;
        kid(&after) != kid(&before)
    })
    .await;
    assert_eq!(published(&server).await, [kid(&after), kid(&before)]);
    assert!(told.contains(&kid(&after)));
    for tokens in [&before, &after] {
        assert_eq!(tokens.whoami(&server).await, 200);
    }
}

async fn t74_a_stolen_key_is_worth_nothing_within_a_minute(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let before = Tokens::open(&server, &alice).await;
    let mut socket = before.connect(&server).await;
    socket.expect_empty().await;
    keys(&server, &["rotate", "--now"]);
    before.until_dead(&server, Duration::from_secs(60)).await;
    // Sessions stand: who has a refresh token goes on, and so does a socket.
    let after = before.next(&server).await;
    assert_eq!(after.whoami(&server).await, 200);
    assert_eq!(published(&server).await, [kid(&after)]);
    socket.keepalive().await;
    socket.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
}

async fn keys_are_shown_by_their_names_and_need_no_server(backend: Backend) {
    let mut server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    assert!(keys(&server, &["show"]).contains(&format!("{}  signs", kid(&tokens))));
    let shown: Value = serde_json::from_str(&keys(&server, &["show", "--json"])).unwrap();
    assert_eq!(shown["token_keys"], serde_json::json!([kid(&tokens)]));
    server.kill();
    keys(&server, &["rotate", "--now"]);
    assert!(!keys(&server, &["show"]).contains(&kid(&tokens)));
    let server = server.restart();
    assert_eq!(tokens.whoami(&server).await, 401);
    tokens.next(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_database_have_the_same_keys_whichever_made_them() {
    if postgres_url().is_none() {
        return;
    }
    let place = Place::new(Backend::Postgres).await;
    let one = Server::start(Arc::clone(&place), "one", &[]);
    let two = Server::start(place, "two", &[]);
    let alice = Person::register(&one).await;
    let mut tokens = Tokens::open(&one, &alice).await;
    assert_eq!(tokens.whoami(&two).await, 200);
    keys(&one, &["rotate"]);
    let old = kid(&tokens);
    // Whichever node signs with the new key first, the other takes it.
    until("the new key to sign", async || {
        for (here, there) in [(&one, &two), (&two, &one)] {
            tokens = tokens.next(here).await;
            assert_eq!(tokens.whoami(there).await, 200);
        }
        kid(&tokens) != old
    })
    .await;
}
