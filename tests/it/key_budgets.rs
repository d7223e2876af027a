//! One-time keys are spent slowly, whoever asks and however: who is over a budget is answered with keys that are never used up.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::layering::sources_in;
use crate::support::keys::one_time_keys;
use crate::support::person::people;
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend};

on_each_backend! {
    t14_one_account_is_given_three_one_time_keys_of_a_device_in_a_day
    t14_a_retry_with_the_same_key_is_given_the_same_bundles
    t15_many_accounts_spend_what_the_budget_of_the_device_allows_and_its_owner_hears_of_it
    t15_the_last_keys_are_for_those_who_show_the_access_key
    t16_strangers_have_the_same_budgets
}

const LIMITED: &[(&str, &str)] = &[("RATE_LIMITS", "on")];

async fn t14_one_account_is_given_three_one_time_keys_of_a_device_in_a_day(backend: Backend) {
    let server = Server::spawn_with(backend, LIMITED).await;
    let (alice, bob, carol) = (
        Person::register(&server).await,
        Person::register(&server).await,
        Person::register(&server).await,
    );
    let tablet = alice.link(&server).await;
    bob.upload_keys(&server, 1, 100).await;
    let path = keys_of(&bob, "*");
    // The devices of an account have one budget.
    let mut given = Vec::new();
    for caller in [&alice, &alice, &tablet, &tablet, &alice] {
        given.push(is_one_time(&fetch(&server, caller, &path).await.expect(200), &bob));
    }
    assert_eq!(given, [true, true, true, false, false]);
    assert_eq!(left(&server, &bob).await, (97, 97));
    // The PNI's keys are the same device's.
    upload_pni_keys(&server, &bob, 40).await;
    let pni = fetch(&server, &alice, &format!("/v2/keys/PNI:{}/1", bob.pni))
        .await
        .expect(200);
    assert!(pni.json()["devices"][0].get("preKey").is_none());
    for _ in 6..30 {
        fetch(&server, &alice, &path).await.expect(200);
    }
    for refused in [&path, &format!("/v2/keys/PNI:{}/*", bob.pni)] {
        let refused = fetch(&server, &alice, refused).await.expect(429);
        assert_eq!(refused.code(), "rate_limited");
        let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=120).contains(&seconds), "{seconds}");
    }
    assert_eq!(left(&server, &bob).await, (97, 97));
    assert_eq!(last_resorts(&server, "requester").await, 27);
    // Others have budgets of their own, and she has another one for each of them.
    assert!(is_one_time(&fetch(&server, &carol, &path).await.expect(200), &bob));
    carol.upload_keys(&server, 1, 30).await;
    let carols = fetch(&server, &alice, &keys_of(&carol, "1")).await.expect(200);
    assert!(is_one_time(&carols, &carol));
}

async fn t14_a_retry_with_the_same_key_is_given_the_same_bundles(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob, carol) = (
        Person::register(&server).await,
        Person::register(&server).await,
        Person::register(&server).await,
    );
    let tablet = alice.link(&server).await;
    bob.upload_keys(&server, 1, 50).await;
    let (all, one) = (keys_of(&bob, "*"), keys_of(&bob, "1"));
    let retry = |caller: &Person, path: &str, key: &str| {
        ask(caller.request(&server, "GET", path).header("idempotency-key", key))
    };
    let key = "0123456789abcdef";
    let first = retry(&alice, &all, key).await.expect(200);
    assert!(is_one_time(&first, &bob));
    assert_eq!(retry(&alice, &all, key).await.expect(200).looks(), first.looks());
    assert_eq!(retry(&tablet, &all, key).await.expect(200).looks(), first.looks());
    let mut socket = alice.connect(&server).await;
    let header = format!("Idempotency-Key:{key}");
    let tunnelled = socket.ask("GET", &all, &[&header], None).await.expect(200);
    assert_eq!(tunnelled.json(), first.json());
    assert_eq!(left(&server, &bob).await, (49, 49));

    // At once they take once.
    let at_once = join_all((0..10).map(|_| retry(&alice, &all, "at-once-at-once-at-once"))).await;
    let answers: Vec<Value> = at_once.into_iter().map(|answer| answer.expect(200).json()).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]) && answers[0] != first.json());
    assert_eq!(left(&server, &bob).await, (48, 48));

    // Another caller, another selection and another key are other claims.
    let stranger = async || {
        let request = server.request("GET", &one).header("idempotency-key", key);
        let request = request.header("unidentified-access-key", bob.access_key_header());
        ask(request).await.expect(200).json()
    };
    let strangers = stranger().await;
    assert_eq!(stranger().await, strangers);
    let others = [
        first.json(),
        answers[0].clone(),
        strangers,
        retry(&carol, &all, key).await.expect(200).json(),
        retry(&alice, &one, key).await.expect(200).json(),
        retry(&alice, &all, &key.to_uppercase()).await.expect(200).json(),
        fetch(&server, &alice, &all).await.expect(200).json(),
    ];
    for (at, other) in others.iter().enumerate() {
        assert!(!others[..at].contains(other), "{at}");
    }
    assert_eq!(left(&server, &bob).await, (43, 43));

    // With another device it is another account to write to.
    let laptop = bob.link(&server).await;
    let both = retry(&alice, &all, key).await.expect(200).json();
    assert_eq!(both["devices"].as_array().unwrap().len(), 2);
    assert_eq!(both["devices"][1]["deviceId"], laptop.device_id);
    assert_eq!(left(&server, &bob).await, (42, 42));

    let long = "k".repeat(65);
    for bad in ["", "fifteen-letters", "a key with spaces", long.as_str()] {
        let refused = retry(&alice, &all, bad).await.expect(400);
        assert_eq!(refused.code(), "idempotency_key", "{bad}");
    }
    let twice = alice.request(&server, "GET", &all).header("idempotency-key", key);
    ask(twice.header("idempotency-key", key)).await.expect(400);
    assert_eq!(left(&server, &bob).await, (42, 42));
    // What is not there is not remembered.
    let nobody = format!("/v2/keys/{}/1", uuid::Uuid::from_bytes(crate::support::random()));
    retry(&alice, &nobody, key).await.expect(404);
    retry(&alice, &keys_of(&bob, "9"), key).await.expect(404);
}

async fn t15_many_accounts_spend_what_the_budget_of_the_device_allows_and_its_owner_hears_of_it(backend: Backend) {
    let server = Server::spawn_with(backend, LIMITED).await;
    let (bob, crowd) = (Person::register(&server).await, people(&server, 14).await);
    bob.upload_keys(&server, 1, 100).await;
    let mut phone = bob.connect(&server).await;
    let path = keys_of(&bob, "*");
    let mut given = 0;
    for caller in &crowd {
        given += usize::from(is_one_time(&fetch(&server, caller, &path).await.expect(200), &bob));
    }
    // Of 30 in an hour at most 20 are for whoever asks, and half of each at once.
    assert_eq!(given, 10);
    assert_eq!(left(&server, &bob).await, (90, 90));
    assert_eq!(last_resorts(&server, "target").await, 4);
    let (id, notice) = phone.notice().await;
    assert_eq!(
        notice,
        json!({ "code": "prekeys_low", "kind": "aci", "ec": 90, "kyber": 90 })
    );
    phone.answer(id, 400).await;

    // Those who can show the access key find some left, and no more than the budget of all.
    let with_key = async |caller: &Person| {
        let request = caller.request(&server, "GET", &path);
        let request = request.header("unidentified-access-key", bob.access_key_header());
        is_one_time(&ask(request).await.expect(200), &bob)
    };
    let mut given = Vec::new();
    for caller in &crowd[..7] {
        given.push(with_key(caller).await);
    }
    // Who was given one before has two left of its own three.
    assert_eq!(given, [true, true, true, true, true, false, false]);
    assert_eq!(left(&server, &bob).await, (85, 85));
    // It was said once; the hour is not over.
    phone.keepalive().await;
    assert_eq!(phone.notices(), []);
    let said = server.metric("blind_relay_notices_total{code=\"prekeys_low\"}").await;
    assert!((said - 1.0).abs() < 0.5, "{said}");
}

async fn t15_the_last_keys_are_for_those_who_show_the_access_key(backend: Backend) {
    let server = Server::spawn_with(backend, LIMITED).await;
    let (bob, crowd) = (Person::register(&server).await, people(&server, 5).await);
    let tablet = bob.link(&server).await;
    bob.upload_keys(&server, 1, 22).await;
    upload_pni_keys(&server, &bob, 20).await;
    let path = keys_of(&bob, "1");
    let mut given = Vec::new();
    for caller in &crowd[..4] {
        given.push(is_one_time(&fetch(&server, caller, &path).await.expect(200), &bob));
    }
    assert_eq!(given, [true, true, false, false]);
    assert_eq!(left(&server, &bob).await, (20, 20));
    assert_eq!(last_resorts(&server, "reserve").await, 2);
    let dave = &crowd[4];
    let with_key = async |path: &str, key: String| {
        let request = dave.request(&server, "GET", path);
        ask(request.header("unidentified-access-key", key)).await.expect(200)
    };
    assert!(!is_one_time(&with_key(&path, dave.access_key_header()).await, &bob));
    assert!(is_one_time(&with_key(&path, bob.access_key_header()).await, &bob));
    // The key of an ACI opens nothing of a PNI: it would tell that the two are one account.
    let pni = with_key(&format!("/v2/keys/PNI:{}/1", bob.pni), bob.access_key_header()).await;
    assert!(pni.json()["devices"][0].get("preKey").is_none());
    // One's own devices need no proof.
    assert!(is_one_time(&fetch(&server, &tablet, &path).await.expect(200), &bob));
    assert_eq!(left(&server, &bob).await, (18, 18));

    // Whoever lets in everyone has not shown everyone the key.
    let mut attributes = bob.attributes();
    attributes["unrestrictedUnidentifiedAccess"] = true.into();
    let open = bob.request(&server, "PUT", "/v1/accounts/attributes").json(&attributes);
    ask(open).await.expect(204);
    let stranger = async |key: String| {
        let request = server.request("GET", &path).header("unidentified-access-key", key);
        is_one_time(&ask(request).await.expect(200), &bob)
    };
    assert!(!stranger(dave.access_key_header()).await);
    assert!(stranger(bob.access_key_header()).await);
    assert_eq!(left(&server, &bob).await, (17, 17));
}

async fn t16_strangers_have_the_same_budgets(backend: Backend) {
    let server = Server::spawn_with(backend, LIMITED).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    bob.upload_keys(&server, 1, 100).await;
    let path = keys_of(&bob, "*");
    let key = bob.access_key_header();
    let header = format!("unidentified-access-key:{key}");
    let mut socket = Socket::open(&server, None, &[]).await.unwrap();
    // Plainly and through a socket, they are those of one network.
    let mut given = Vec::new();
    for plainly in [true, false, true, false, true, false] {
        let answer = if plainly {
            ask(server.request("GET", &path).header("unidentified-access-key", &key)).await
        } else {
            socket.ask("GET", &path, &[&header], None).await
        };
        given.push(is_one_time(&answer.expect(200), &bob));
    }
    assert_eq!(given, [true, true, true, false, false, false]);
    for _ in 6..30 {
        socket.ask("GET", &path, &[&header], None).await.expect(200);
    }
    let refused = socket.ask("GET", &path, &[&header], None).await.expect(429);
    assert!(refused.header("retry-after").is_some());
    ask(server.request("GET", &path).header("unidentified-access-key", &key))
        .await
        .expect(429);
    assert_eq!(left(&server, &bob).await, (97, 97));
    assert!(is_one_time(&fetch(&server, &alice, &path).await.expect(200), &bob));
}

/// The budgets are in one place, and there is no way around it.
#[test]
fn t16_keys_are_taken_through_the_budgets_only() {
    let sources = sources_in("src");
    let naming = |name: &str| -> Vec<String> {
        let files = sources.iter().filter(|source| source.code.contains(name));
        let mut files: Vec<_> = files.map(|source| source.path.to_string_lossy().into_owned()).collect();
        files
            .iter_mut()
            .for_each(|path| *path = path.rsplit_once("src/").unwrap().1.to_owned());
        files.sort();
        files
    };
    assert_eq!(naming(".take_bundles("), ["directory/claims.rs"]);
    assert_eq!(naming("claims.take("), ["directory/mod.rs"]);
    assert_eq!(naming("Limit::OneTimeKeys"), ["directory/mod.rs"]);
    assert_eq!(naming("Limit::KeyFetches"), ["http/keys.rs"]);
    assert_eq!(naming("Claim {"), ["http/key_claims.rs", "http/keys.rs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_two_nodes_count_together_while_redis_is_there_and_give_strict_shares_without() {
    let (Some(_), Some(mut redis)) = (postgres_url(), RedisServer::spawn()) else {
        return;
    };
    let (one, two) = spawn_pair(&redis.url(), LIMITED).await;
    let (bob, carol, crowd) = (
        Person::register(&one).await,
        Person::register(&one).await,
        people(&one, 3).await,
    );
    bob.upload_keys(&one, 1, 100).await;
    carol.upload_keys(&one, 1, 100).await;
    let given = async |of: &Person, caller: &Person, nodes: &[&Server]| {
        let (path, mut given) = (keys_of(of, "1"), Vec::new());
        for node in nodes {
            given.push(is_one_time(&fetch(node, caller, &path).await.expect(200), of));
        }
        given
    };
    let in_turns = [&one, &two, &one, &two, &one, &two];
    assert_eq!(
        given(&bob, &crowd[0], &in_turns).await,
        [true, true, true, false, false, false]
    );
    redis.stop();
    // Who had all three gets no new budget from the outage.
    assert_eq!(given(&bob, &crowd[0], &in_turns).await, [false; 6]);
    // A quarter of three is less than one, and one is the least.
    assert_eq!(
        given(&carol, &crowd[0], &in_turns).await,
        [true, true, false, false, false, false]
    );
    // Of those for whoever asks, a quarter is two on each node.
    assert_eq!(
        given(&carol, &crowd[1], &in_turns[..4]).await,
        [true, true, false, false]
    );
    assert_eq!(given(&carol, &crowd[2], &in_turns[..4]).await, [false; 4]);
    assert_eq!(left(&two, &carol).await, (96, 96));
}

fn keys_of(person: &Person, device: &str) -> String {
    format!("/v2/keys/{}/{device}", person.aci)
}

async fn fetch(server: &Server, caller: &Person, path: &str) -> Answer {
    ask(caller.request(server, "GET", path)).await
}

/// Whether the bundle of the person's first device has one-time keys, of both kinds or of none.
fn is_one_time(answer: &Answer, of: &Person) -> bool {
    let device = &answer.json()["devices"][0];
    let ec = device.get("preKey").is_some();
    let kyber = device["pqPreKey"]["publicKey"] != of.aci_last_resort["publicKey"];
    assert_eq!(ec, kyber, "{device}");
    ec
}

async fn left(server: &Server, person: &Person) -> (u64, u64) {
    let answer = ask(person.request(server, "GET", "/v2/keys")).await.expect(200).json();
    (answer["count"].as_u64().unwrap(), answer["pqCount"].as_u64().unwrap())
}

async fn upload_pni_keys(server: &Server, person: &Person, count: u32) {
    let keys = one_time_keys(&person.pni_identity, 1, count);
    ask(person.request(server, "PUT", "/v2/keys?identity=PNI").json(&keys))
        .await
        .expect(204);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
async fn last_resorts(server: &Server, why: &str) -> u64 {
    let metric = format!("blind_relay_last_resort_bundles_total{{why=\"{why}\"}}");
    server.metric(&metric).await as u64
}
