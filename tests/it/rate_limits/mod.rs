//! Rate limits: every route has one, they are told as they hold, and they hold over several nodes, with Redis and without.

mod page;

use blind_relay::http::routes::{Access, ROUTES, Route};
use blind_relay::limits::DECLARED;
use serde_json::json;

use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Answer, Backend, Person, Server, Socket, ask, on_each_backend, random, send, until};

on_each_backend! {
    t46_a_crawl_of_user_names_ends_at_the_budget
    t45_guessing_at_credentials_ends_at_the_budget_for_known_and_unknown_alike
}

/// A hundredth of what is declared, so that a test reaches the end of it.
const SCARCE: &[(&str, &str)] = &[("RATE_LIMITS", "0.01")];

/// The path with something in the place of every parameter.
fn path_of(route: &Route) -> String {
    let parts = route.path.split('/').map(|part| match part {
        "{device}" => "*",
        part if part.starts_with('{') => "256f1cbe-cf34-4e97-9a77-d969199ffb1b",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn is_limited(answer: &Answer) -> bool {
    if answer.status != 429 {
        return false;
    }
    let seconds: u64 = answer.header("retry-after").expect("clients read it").parse().unwrap();
    assert!(seconds >= 1);
    true
}

/// Asks until the limit of the route answers. No bucket holds more than a few at this scale.
async fn until_limited(route: &Route, asking: impl AsyncFn() -> Answer) {
    for _ in 0..60 {
        if is_limited(&asking().await) {
            return;
        }
    }
    panic!("{} {} has no limit", route.method, route.path);
}

#[tokio::test]
async fn t16_t58_b17_every_route_refuses_strangers_beyond_its_limit() {
    let server = Server::spawn_with(Backend::Sqlite, SCARCE).await;
    for route in ROUTES {
        let path = path_of(route);
        until_limited(route, async || {
            ask(server.request(&route.method.to_uppercase(), &path)).await
        })
        .await;
    }
    assert!(is_limited(&ask(server.request("GET", "/nowhere")).await));
    // A balancer's checks are not for anyone to use up.
    for _ in 0..100 {
        ask(server.request("GET", "/health/live")).await.expect(200);
    }
}

/// What is refused before its credentials are looked at counts all the same.
#[tokio::test]
async fn t16_t58_what_cannot_be_read_is_no_way_around_a_limit() {
    let server = Server::spawn_with(Backend::Sqlite, SCARCE).await;
    let basic = crate::support::person::basic("256f1cbe-cf34-4e97-9a77-d969199ffb1b", "not the password");
    for (method, path) in [
        ("GET", "/v2/keys?identity=aci&identity=pni"),
        ("GET", "/v1/certificate/delivery?includeE164=%FF&includeE164=%FF"),
        ("PUT", "/v1/provisioning/%FF"),
        ("GET", "/v1/profile/%FF"),
        ("PUT", "/v1/messages/%FF"),
        ("GET", "/v2/keys/%FF/1"),
        ("GET", "/v1/accounts/username_hash/%FF"),
    ] {
        let mut refused = false;
        for _ in 0..60 {
            let request = server.request(method, path).header("authorization", &basic);
            refused |= is_limited(&ask(request).await);
        }
        assert!(refused, "{method} {path}");
    }
}

#[tokio::test]
async fn t16_t58_every_route_refuses_a_device_beyond_its_limit() {
    let server = Server::spawn_with(Backend::Sqlite, SCARCE).await;
    let alice = Person::register(&server).await;
    let for_devices = |route: &&Route| {
        matches!(
            route.access,
            Access::Device | Access::Password | Access::Primary | Access::DeviceOrAccessKey | Access::Anonymous
        )
    };
    // What ends the account comes last.
    let (ending, others): (Vec<_>, Vec<_>) = ROUTES
        .iter()
        .filter(for_devices)
        .partition(|route| route.path == "/v1/accounts/me");
    for route in others.into_iter().chain(ending) {
        let path = path_of(route);
        until_limited(route, async || {
            ask(alice.request(&server, &route.method.to_uppercase(), &path)).await
        })
        .await;
    }
    // Nothing of it depends on how the request comes.
    let mut socket = alice.connect(&server).await;
    let answer = socket.ask("GET", "/v1/accounts/whoami", &[], None).await;
    assert!(is_limited(&answer), "{answer:?}");
    assert_eq!(answer.code(), "rate_limited");
}

/// Inside a socket credentials of a request are not looked at, and an account makes no code and no lookup cheaper.
#[tokio::test]
async fn t16_t46_no_socket_gets_around_the_limits_of_strangers() {
    for device in [false, true] {
        let server = Server::spawn_with(Backend::Sqlite, &[("RATE_LIMITS", "0.05")]).await;
        let alice = Person::register(&server).await;
        let mut socket = if device {
            alice.connect(&server).await
        } else {
            Socket::open(&server, None, &[]).await.unwrap()
        };
        let header = format!(
            "authorization: {}",
            crate::support::person::basic("+15550100001", "junk junk junk")
        );
        let number = json!({ "number": Person::new().number });
        let elements = json!({ "elements": [] });
        let hash = format!("/v1/accounts/username_hash/{}", base64_url(&random::<32>()));
        let asked = [
            ("POST", "/v1/verification/session", Some(&number), true),
            ("POST", "/v1/profile/identity_check/batch", Some(&elements), true),
            ("GET", hash.as_str(), None, !device),
        ];
        for (method, path, body, limited) in asked {
            let mut refused = false;
            // Fewer than ordinary requests of a device may be.
            for _ in 0..8 {
                let answer = socket.ask(method, path, &[&header], body).await;
                refused |= is_limited(&answer);
            }
            assert_eq!(refused, limited, "{method} {path}, a device's own: {device}");
        }
    }
}

#[tokio::test]
async fn sockets_have_a_limit_for_strangers_and_for_devices() {
    let server = Server::spawn_with(Backend::Sqlite, SCARCE).await;
    let alice = Person::register(&server).await;
    for (path, authorized) in [
        ("/v1/websocket", false),
        ("/v1/websocket", true),
        ("/v1/websocket/provisioning", false),
    ] {
        let mut refused = false;
        for _ in 0..10 {
            let request = server
                .request("GET", path)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
            let request = if authorized {
                request.header("authorization", alice.authorization())
            } else {
                request
            };
            let response = request.send().await.unwrap();
            if response.status() == 429 {
                assert!(response.headers().contains_key("retry-after"));
                refused = true;
                break;
            }
            assert_eq!(response.status(), 101);
        }
        assert!(refused, "{path}, authorized: {authorized}");
    }
}

async fn t46_a_crawl_of_user_names_ends_at_the_budget(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RATE_LIMITS", "0.1")]).await;
    let look = async |path: String| ask(server.request("GET", &path)).await;
    let mut found = 0;
    for _ in 0..40 {
        let hash = base64_url(&random::<32>());
        let answer = look(format!("/v1/accounts/username_hash/{hash}")).await;
        found += u32::from(!is_limited(&answer));
    }
    assert_eq!(found, 12, "a tenth of 120");
    // Other ways to find somebody are of the same budget.
    let id = uuid::Uuid::from_bytes(random());
    let answer = look(format!("/v1/accounts/username_link/{id}")).await;
    assert!(is_limited(&answer), "{answer:?}");
    let head = ask(server.request("HEAD", &format!("/v1/accounts/account/{id}"))).await;
    assert_eq!(head.status, 429);
    let check = json!({ "elements": [] });
    let answer = ask(server.request("POST", "/v1/profile/identity_check/batch").json(&check)).await;
    assert!(is_limited(&answer), "{answer:?}");
    // The operator sees it.
    assert!(server.metrics().await.contains("limit=\"lookups\""));
}

async fn t45_guessing_at_credentials_ends_at_the_budget_for_known_and_unknown_alike(backend: Backend) {
    let server = Server::spawn_with(backend, &[("RATE_LIMITS", "0.1")]).await;
    let alice = Person::register(&server).await;
    let unknown = uuid::Uuid::from_bytes(random()).to_string();
    let mut refusals = Vec::new();
    for attempt in 0..30 {
        let user = if attempt % 2 == 0 {
            alice.aci.clone()
        } else {
            unknown.clone()
        };
        let basic = crate::support::person::basic(&user, "not the password");
        let request = server
            .request("GET", "/v1/accounts/whoami")
            .header("authorization", basic);
        refusals.push(ask(request).await);
    }
    let limited = refusals.iter().filter(|answer| is_limited(answer)).count();
    assert_eq!(limited, 20, "beyond a tenth of 100 a wrong guess is answered 429");
    assert!(refusals[..10].iter().all(|answer| answer.status == 401));
    let body = &refusals[29].body;
    assert!(refusals[10..].iter().all(|answer| answer.body == *body));
    // Whoever has the right ones is not kept out by whoever guesses next door.
    ask(alice.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
}

#[tokio::test]
async fn the_limits_in_force_are_told_with_their_scale() {
    let server = Server::spawn_with(Backend::Sqlite, &[("RATE_LIMITS", "2")]).await;
    let told = ask(server.request("GET", "/v1/limits")).await.expect(200).json();
    assert_eq!(told["enforced"], true);
    let limits = told["limits"].as_array().unwrap();
    assert_eq!(limits.len(), DECLARED.len());
    for (told, declared) in limits.iter().zip(DECLARED) {
        assert_eq!(told["name"], declared.name);
        assert_eq!(told["burst"], declared.burst * 2);
        let every = u64::try_from(declared.every.as_millis()).unwrap();
        assert_eq!(told["everyMillis"], every / 2);
    }
    assert_eq!(told["routes"].as_array().unwrap().len(), ROUTES.len());
    assert!(server.log().contains("rate limits are not those that are declared"));

    let off = Server::spawn(Backend::Sqlite).await;
    let told = ask(off.request("GET", "/v1/limits")).await.expect(200).json();
    assert_eq!(
        (&told["enforced"], told["limits"].as_array().unwrap().len()),
        (&json!(false), 0)
    );
    assert!(off.log().contains("rate limits are off"), "{}", off.log());
    let doctor = off.run(&["doctor"]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("warn  rate limits: off"), "{said}");
}

/// How many of so many lookups at a node pass.
async fn lookups(server: &Server, count: u32) -> u32 {
    let mut passed = 0;
    for _ in 0..count {
        let path = format!("/v1/accounts/username_hash/{}", base64_url(&random::<32>()));
        passed += u32::from(!is_limited(&ask(server.request("GET", &path)).await));
    }
    passed
}

/// How many of so many verification sessions at a node are opened.
async fn sessions(server: &Server, count: u32) -> u32 {
    let mut passed = 0;
    for _ in 0..count {
        let body = json!({ "number": Person::new().number });
        let answer = ask(server.request("POST", "/v1/verification/session").json(&body)).await;
        passed += u32::from(!is_limited(&answer));
    }
    passed
}

#[tokio::test]
async fn t60_nodes_count_together_and_without_redis_each_allows_a_strict_share() {
    if postgres_url().is_none() {
        return;
    }
    let Some(mut redis) = RedisServer::spawn() else { return };
    let (one, two) = spawn_pair(&redis.url(), &[("RATE_LIMITS", "0.2")]).await;
    until("a count in redis", async || {
        ask(one.request("GET", "/v1/time")).await;
        lookups(&one, 1).await;
        redis.stored_keys().await > 0
    })
    .await;
    // 24 at once; a few were used while Redis was being found.
    let (mut passed, mut asked) = (0, 0);
    while asked < 60 {
        passed += lookups(&one, 1).await + lookups(&two, 1).await;
        asked += 2;
    }
    assert!((1..=24).contains(&passed), "{passed} for both nodes together");

    // Emptied, it has forgotten; the nodes have not.
    redis.flush_and_cut().await;
    let again = lookups(&one, 30).await + lookups(&two, 30).await;
    assert!(again <= 24, "{again} after it was emptied");

    redis.stop();
    // 12 at once for both; a quarter of it for each.
    let (at_one, at_two) = (sessions(&one, 10).await, sessions(&two, 10).await);
    assert_eq!((at_one, at_two), (3, 3));
    assert!(redis.start());
}

#[tokio::test]
async fn t60_a_frozen_redis_opens_no_limit_and_delivery_goes_on() {
    if postgres_url().is_none() {
        return;
    }
    let Some(redis) = RedisServer::spawn() else { return };
    let (one, two) = spawn_pair(&redis.url(), &[("RATE_LIMITS", "1")]).await;
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    redis.pause();
    let opened = sessions(&two, 40).await;
    assert!(opened <= 15, "{opened}: a quarter of 60 at most");
    send(&one, &alice, &bob, b"meanwhile").await.expect(200);
    let mut socket = bob.connect(&two).await;
    assert_eq!(socket.drain().await, [&b"meanwhile"[..]]);
    redis.resume();
}

#[tokio::test]
async fn b16_redis_has_counts_under_hashes_that_expire() {
    if postgres_url().is_none() {
        return;
    }
    let Some(redis) = RedisServer::spawn() else { return };
    let (one, _two) = spawn_pair(&redis.url(), &[("RATE_LIMITS", "1")]).await;
    until("a count in redis", async || {
        lookups(&one, 1).await;
        redis.stored_keys().await > 0
    })
    .await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    for key in keys {
        let hash = key.strip_prefix("blind-relay:limit:").expect("nothing else is stored");
        assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let lives: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!((1..=24 * 60 * 60 * 1000).contains(&lives), "{lives}");
        let value: String = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        value.parse::<u64>().expect("a moment");
    }
}

fn base64_url(bytes: &[u8]) -> String {
    crate::support::usernames::url_safe(bytes)
}
