//! A suspended account is out, everywhere and soon; what comes for it waits; it is let in again as it was.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::admin;
use crate::support::person::{basic, until_dead, verified_session};
use crate::support::redis_server::RedisServer;
use crate::support::server::{Place, postgres_url, spawn_pair};
use crate::support::{Backend, Person, Server, Socket, ask, hex, on_each_backend, random, send, until};

on_each_backend! {
    t24_a_suspended_account_is_out_until_it_is_resumed
    what_is_sent_to_a_suspended_account_waits_for_it
    a_suspension_is_not_escaped_by_registering_anew
    a_suspended_account_takes_in_no_device
}

/// Within which credentials are dead and sockets closed on every node.
const LIMIT: Duration = Duration::from_secs(5);

/// The close code of a socket, which must come within [`LIMIT`].
async fn closed_in_time(mut socket: Socket) -> Option<u16> {
    tokio::time::timeout(LIMIT, socket.close_code())
        .await
        .expect("closed in time")
}

async fn token(server: &Server, person: &Person) -> Value {
    ask(person.request(server, "POST", "/v1/auth/token"))
        .await
        .expect(200)
        .json()
}

fn bearer(server: &Server, token: &Value) -> reqwest::RequestBuilder {
    let token = token["accessToken"].as_str().unwrap();
    server
        .request("GET", "/v1/accounts/whoami")
        .header("authorization", format!("Bearer {token}"))
}

async fn t24_a_suspended_account_is_out_until_it_is_resumed(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let laptop = alice.link(&server).await;
    let tokens = token(&server, &alice).await;
    ask(bearer(&server, &tokens)).await.expect(200);
    let phone_socket = alice.connect(&server).await;
    let laptop_socket = laptop.connect(&server).await;
    // One that asks and is told of nothing that comes.
    let quiet = [("x-signal-disable-messages", "true")];
    let mut asking = Socket::open(&server, Some(&alice.authorization()), &quiet)
        .await
        .unwrap();
    asking.ask("GET", "/v1/accounts/whoami", &[], None).await.expect(200);
    let mut bystander = bob.connect(&server).await;

    let said = admin(&server, &["account", "suspend", &alice.aci]).well();
    assert!(said.starts_with("suspended"), "{said}");
    // At once on the node that was told.
    for device in [&alice, &laptop] {
        ask(device.request(&server, "GET", "/v1/accounts/whoami"))
            .await
            .expect(401);
        let refused = Socket::open(&server, Some(&device.authorization()), &[]).await.err();
        assert_eq!(refused, Some(403));
    }
    ask(bearer(&server, &tokens)).await.expect(401);
    let refresh = json!({ "refreshToken": tokens["refreshToken"] });
    ask(server.request("POST", "/v1/auth/refresh").json(&refresh))
        .await
        .expect(401);
    ask(alice.request(&server, "POST", "/v1/auth/token")).await.expect(401);
    for socket in [phone_socket, laptop_socket, asking] {
        assert_eq!(closed_in_time(socket).await, Some(4401));
    }
    bystander.expect_empty().await;
    bystander.keepalive().await;
    let told = admin(&server, &["account", "show", &alice.aci, "--json"]).json();
    assert_eq!(told["suspended"], true);

    // To others it looks as it did.
    ask(bob.request(&server, "GET", &format!("/v2/keys/{}/1", alice.aci)))
        .await
        .expect(200);
    ask(server.request("HEAD", &format!("/v1/accounts/account/{}", alice.aci)))
        .await
        .expect(200);

    assert_eq!(admin(&server, &["account", "resume", &alice.aci]).well(), "resumed\n");
    for device in [&alice, &laptop] {
        ask(device.request(&server, "GET", "/v1/accounts/whoami"))
            .await
            .expect(200);
        device.connect(&server).await;
    }
    ask(bearer(&server, &tokens)).await.expect(200);
}

async fn what_is_sent_to_a_suspended_account_waits_for_it(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &bob, &alice, b"before").await.expect(200);
    admin(&server, &["account", "suspend", &alice.aci]).well();
    send(&server, &bob, &alice, b"meanwhile").await.expect(200);
    ask(alice.request(&server, "GET", "/v1/messages")).await.expect(401);
    // A second time changes nothing.
    admin(&server, &["account", "suspend", &alice.aci]).well();
    admin(&server, &["account", "resume", &alice.aci]).well();
    let waiting = alice.fetch(&server).await;
    assert_eq!(waiting["messages"].as_array().unwrap().len(), 2);
}

async fn a_suspension_is_not_escaped_by_registering_anew(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let recovery = crate::support::keys::base64(&random::<32>());
    let lock = hex(&random::<32>());
    let mut attributes = alice.attributes();
    attributes["recoveryPassword"] = recovery.clone().into();
    attributes["registrationLock"] = lock.clone().into();
    ask(alice
        .request(&server, "PUT", "/v1/accounts/attributes")
        .json(&attributes))
    .await
    .expect(204);
    admin(&server, &["account", "suspend", &alice.aci]).well();

    let mut newcomer = Person::new();
    newcomer.number.clone_from(&alice.number);
    let session = verified_session(&server, &alice.number).await;
    let plain = newcomer.registration(&session);
    let mut with_lock = plain.clone();
    with_lock["accountAttributes"]["registrationLock"] = lock.into();
    let mut with_recovery = plain.clone();
    with_recovery.as_object_mut().unwrap().remove("sessionId");
    with_recovery["recoveryPassword"] = recovery.into();
    // With whatever secret: as of a number whose account has a lock.
    for body in [&plain, &with_lock, &with_recovery] {
        let refused = ask(newcomer.registering(&server).json(body)).await.expect(423);
        let told = refused.json();
        assert!(told["timeRemaining"].as_i64().unwrap() > 7 * 24 * 60 * 60 * 1000);
        assert!(!told.to_string().contains("suspend"));
    }
    // Whoever proves nothing learns nothing.
    let mut unproven = plain.clone();
    unproven["sessionId"] = crate::support::person::open_session(&server, &alice.number)
        .await
        .into();
    ask(newcomer.registering(&server).json(&unproven)).await.expect(401);
    let mut wrong = with_recovery.clone();
    wrong["recoveryPassword"] = crate::support::keys::base64(&random::<32>()).into();
    ask(newcomer.registering(&server).json(&wrong)).await.expect(403);

    admin(&server, &["account", "resume", &alice.aci]).well();
    ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
    let mut own = with_lock;
    own["sessionId"] = verified_session(&server, &alice.number).await.into();
    ask(newcomer.registering(&server).json(&own)).await.expect(200);
}

async fn a_suspended_account_takes_in_no_device(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let code = alice.link_code(&server).await;
    let device = alice.new_device();
    admin(&server, &["account", "suspend", &alice.aci]).well();
    let refused = ask(device.linking(&server, &code)).await;
    let unknown = ask(device.linking(&server, "nobody's code")).await;
    assert_eq!((refused.status, &refused.body), (unknown.status, &unknown.body));
    admin(&server, &["account", "resume", &alice.aci]).well();
    ask(device.linking(&server, &code)).await.expect(200);
}

/// Suspended at one node, out on the other.
async fn across(one: &Server, two: &Server) {
    let alice = Person::register(one).await;
    let laptop = alice.link(one).await;
    let quiet = [("x-signal-disable-messages", "true")];
    let tokens = token(two, &alice).await;
    for person in [&alice, &laptop] {
        until("the account at the other node", async || {
            ask(person.request(two, "GET", "/v1/accounts/whoami")).await.status == 200
        })
        .await;
    }
    let with_deliveries = alice.connect(two).await;
    let without = Socket::open(two, Some(&laptop.authorization()), &quiet).await.unwrap();
    ask(bearer(two, &tokens)).await.expect(200);
    admin(one, &["account", "suspend", &alice.aci]).well();
    let sockets = async { tokio::join!(closed_in_time(with_deliveries), closed_in_time(without)) };
    let credentials = until_dead(two, &laptop, LIMIT);
    let tokens_die = tokio::time::timeout(
        LIMIT,
        until("tokens to die", async || ask(bearer(two, &tokens)).await.status == 401),
    );
    let (codes, (), died) = tokio::join!(sockets, credentials, tokens_die);
    assert_eq!(codes, (Some(4401), Some(4401)));
    assert!(died.is_ok());
    let refused = Socket::open(two, Some(&basic(&alice.aci, &alice.password)), &[])
        .await
        .err();
    assert_eq!(refused, Some(403));
    admin(two, &["account", "resume", &alice.aci]).well();
    until("the account to be let in again", async || {
        ask(alice.request(one, "GET", "/v1/accounts/whoami")).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t24_a_suspended_account_is_out_on_another_node_with_redis() {
    let (Some(redis), Some(_)) = (RedisServer::spawn(), postgres_url()) else {
        return;
    };
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    across(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t24_a_suspended_account_is_out_on_another_node_without_redis() {
    if postgres_url().is_none() {
        return;
    }
    let place = Place::new(Backend::Postgres).await;
    let one = Server::start(Arc::clone(&place), "one", &[]);
    let two = Server::start(place, "two", &[]);
    across(&one, &two).await;
}
