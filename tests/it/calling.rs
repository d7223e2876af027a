//! What the operator tells clients: relays for calls, remote configuration, the time; and what there is not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::support::turn_server::TurnServer;
use crate::support::{Answer, Backend, Person, Server, ask, on_each_backend, random};

on_each_backend! {
    without_turn_servers_the_list_of_relays_is_empty
    relays_come_with_credentials_that_name_nobody
    remote_config_is_the_same_for_all_and_is_sent_once
    what_the_server_has_not_it_does_not_pretend_to_have
    a_spam_report_is_counted_and_goes_nowhere
    the_time_is_told_to_anyone
}

const SECRET: &str = "a secret that a TURN server has as well";

async fn relays(server: &Server, person: &Person) -> Value {
    ask(person.request(server, "GET", "/v2/calling/relays"))
        .await
        .expect(200)
        .json()
}

async fn without_turn_servers_the_list_of_relays_is_empty(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    assert_eq!(relays(&server, &alice).await, json!({ "relays": [] }));
}

async fn relays_come_with_credentials_that_name_nobody(backend: Backend) {
    let settings = [
        (
            "TURN__URLS",
            "turn:turn.example.org:3478?transport=udp,turns:turn.example.org:5349",
        ),
        ("TURN__SECRET", SECRET),
        ("TURN__TTL_SECS", "600"),
    ];
    let server = Server::spawn_with(backend, &settings).await;
    let alice = Person::register(&server).await;
    let answer = ask(alice.request(&server, "GET", "/v2/calling/relays"))
        .await
        .expect(200);
    let now: u64 = answer.header("x-signal-timestamp").unwrap().parse().unwrap();
    let answer = answer.json();
    let relay = &answer["relays"][0];
    assert_eq!(answer["relays"].as_array().unwrap().len(), 1);
    assert_eq!(relay["ttl"], 600);
    assert_eq!(
        relay["urls"],
        json!([
            "turn:turn.example.org:3478?transport=udp",
            "turns:turn.example.org:5349"
        ])
    );
    assert_eq!(relay["urlsWithIps"], json!([]));
    let username = relay["username"].as_str().unwrap();
    let (expires, word) = username.split_once(':').unwrap();
    let left = expires.parse::<u64>().unwrap() - now / 1000;
    assert!((590..=610).contains(&left), "{left}");
    assert_eq!(word.len(), 32);
    let password = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes())
        .unwrap()
        .chain_update(username)
        .finalize();
    assert_eq!(relay["password"], STANDARD.encode(password.into_bytes()));
    // Nothing of one answer comes again in another, by which a TURN server could tell that both are alice's.
    let again = relays(&server, &alice).await;
    assert_ne!(
        again["relays"][0]["username"]
            .as_str()
            .unwrap()
            .split_once(':')
            .unwrap()
            .1,
        word
    );
    let log = format!("{}{}", server.log(), server.metrics().await);
    assert!(!log.contains(SECRET) && !log.contains(word));
}

#[tokio::test]
async fn t55_a_turn_server_takes_the_credentials_until_they_expire_and_learns_no_account() {
    let Some(turn) = TurnServer::start(SECRET).await else {
        return;
    };
    let server = Server::spawn_with(
        Backend::Sqlite,
        &[
            ("TURN__URLS", &format!("turn:{}?transport=udp", turn.address())),
            ("TURN__SECRET", SECRET),
        ],
    )
    .await;
    let alice = Person::register(&server).await;
    let answer = relays(&server, &alice).await;
    let [username, password] = ["username", "password"].map(|name| answer["relays"][0][name].as_str().unwrap());
    assert!(turn.lets_in(username, password).await);
    assert!(!turn.lets_in(username, "another password").await);
    // The same word with an hour that is over, and with a later one that was never given.
    let (expires, word) = username.split_once(':').unwrap();
    let later = format!("{}:{word}", expires.parse::<u64>().unwrap() + 1);
    assert!(!turn.lets_in(&later, password).await);
    let past = format!("1000000000:{word}");
    let of_past = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes())
        .unwrap()
        .chain_update(&past)
        .finalize();
    assert!(!turn.lets_in(&past, &STANDARD.encode(of_past.into_bytes())).await);
    let log = turn.log();
    assert!(log.contains(word), "the search finds what is there: {log}");
    for personal in [&alice.aci, &alice.pni, &alice.number[1..]] {
        assert!(!log.contains(personal), "{log}");
    }
}

async fn remote_config_is_the_same_for_all_and_is_sent_once(backend: Backend) {
    let config = async |server: &Server, person: &Person, known: Option<&str>| -> Answer {
        let request = person.request(server, "GET", "/v2/config");
        ask(known
            .into_iter()
            .fold(request, |request, tag| request.header("if-none-match", tag)))
        .await
    };
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let empty = config(&server, &alice, None).await.expect(200);
    assert_eq!(empty.json(), json!({ "config": {} }));
    let old = empty.header("etag").unwrap();

    let settings = [("REMOTE_CONFIG", "global.calling.max=8, greeting = hello = you")];
    let server = Server::spawn_with(backend, &settings).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let answer = config(&server, &alice, Some(old)).await.expect(200);
    let expected = json!({ "config": { "global.calling.max": "8", "greeting": "hello = you" } });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.looks(), config(&server, &bob, None).await.looks());
    let tag = answer.header("etag").unwrap();
    assert!(tag.starts_with('"') && tag.ends_with('"'));
    for known in [
        tag.to_owned(),
        format!("W/{tag}"),
        format!("{old}, {tag}"),
        "*".to_owned(),
    ] {
        let same = config(&server, &alice, Some(&known)).await.expect(304);
        assert!(same.body.is_empty() && same.header("content-type").is_none());
        assert_eq!(same.header("etag"), Some(tag));
    }
    for other in [old, "", "\"", &tag[1..], &tag[..tag.len() - 1]] {
        config(&server, &alice, Some(other)).await.expect(200);
    }
}

async fn what_the_server_has_not_it_does_not_pretend_to_have(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    for (method, path) in [
        ("GET", "/v1/storage/auth"),
        ("GET", "/v2/directory/auth"),
        ("GET", "/v2/svr/auth"),
        ("GET", "/v2/backup/auth"),
        (
            "GET",
            "/v1/certificate/auth/group?redemptionStartSeconds=0&redemptionEndSeconds=86400",
        ),
        ("PUT", "/v1/challenge"),
        ("POST", "/v1/challenge/push"),
    ] {
        let answer = ask(alice.request(&server, method, path)).await.expect(404);
        assert_eq!(answer.code(), "feature_absent", "{path}");
    }
    for path in [
        "/v1/archives/auth/read",
        "/v1/storage/manifest",
        "/v1/groups",
        "/v1/donation/redeem-receipt",
    ] {
        let answer = ask(alice.request(&server, "GET", path)).await.expect(404);
        assert_eq!(answer.code(), "not_found", "{path}");
    }
}

async fn a_spam_report_is_counted_and_goes_nowhere(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG_LEVEL", "trace")]).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let guid = uuid::Uuid::from_bytes(random()).to_string();
    let nobody = uuid::Uuid::from_bytes(random()).to_string();
    for (source, body) in [
        (&bob.aci, Some(json!({ "token": null }))),
        (&bob.aci, None),
        (&nobody, Some(json!({ "token": "c3BhbSB0b2tlbg==" }))),
        (&bob.number, Some(json!("anything"))),
    ] {
        let request = alice.request(&server, "POST", &format!("/v1/messages/report/{source}/{guid}"));
        let answer = ask(body.iter().fold(request, |request, body| request.json(body)))
            .await
            .expect(202);
        assert!(answer.body.is_empty() && answer.header("content-type").is_none());
    }
    assert!((server.metric("blind_relay_spam_reports_total").await - 4.0).abs() < 0.5);
    let text = format!("{}{}", server.log(), server.metrics().await);
    for word in [&guid, &nobody, &bob.aci, &alice.aci, "c3BhbSB0b2tlbg"] {
        assert!(!text.contains(word), "{word}");
    }
}

async fn the_time_is_told_to_anyone(backend: Backend) {
    let server = Server::spawn(backend).await;
    let answer = ask(server.request("GET", "/v1/time")).await.expect(200);
    let header: i64 = answer.header("x-signal-timestamp").unwrap().parse().unwrap();
    let told = answer.json()["timestamp"].as_i64().unwrap();
    assert!((header - told).abs() < 10_000, "{header} {told}");
}
