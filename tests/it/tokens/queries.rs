//! Secrets in URLs, and pages of other sites (T09).

use blind_relay::http::routes::ROUTES;

use crate::support::socket::try_open_at;
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, Socket, ask, on_each_backend};

on_each_backend! {
    t09_a_secret_in_a_query_is_refused_on_every_route_and_kept_nowhere
}

async fn t09_a_secret_in_a_query_is_refused_on_every_route_and_kept_nowhere(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "debug")]).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    let queries = [
        format!("access_token={}", tokens.access),
        format!("x={}", tokens.access),
        format!("Authorization=Bearer%20{}", tokens.access),
        format!("refreshToken={}", tokens.refresh),
        format!("login={}&password={}", alice.aci, alice.password),
    ];
    let paths = ROUTES.iter().map(|route| (route.method.to_uppercase(), route.path));
    let beside = [
        "/health/ready",
        "/nowhere",
        "/v1/websocket",
        "/v1/websocket/provisioning",
    ];
    let all: Vec<_> = paths.chain(beside.map(|path| ("GET".to_owned(), path))).collect();
    for (n, (method, path)) in all.iter().enumerate() {
        let query = &queries[n % queries.len()];
        for request in [
            server.request(method, &format!("{path}?{query}")),
            tokens.request(&server, method, &format!("{path}?{query}")),
        ] {
            let refused = ask(request).await.expect(400);
            if method != "HEAD" {
                assert_eq!(refused.code(), "secret_in_query", "{method} {path}");
            }
            assert!(
                !refused
                    .body
                    .windows(20)
                    .any(|part| tokens.access.as_bytes().starts_with(part))
            );
        }
    }
    for query in &queries {
        let refused = ask(server.request("GET", &format!("/v1/accounts/whoami?{query}")))
            .await
            .expect(400);
        assert_eq!(refused.code(), "secret_in_query");
        let upgrade = try_open_at(server.address(), &format!("/v1/websocket/?{query}"), &[]).await;
        assert_eq!(upgrade.err(), Some(400));
        // Nor does a socket that is open take it.
        let mut socket = tokens.connect(&server).await;
        let inner = format!("/v1/accounts/whoami?{query}");
        let refused = socket.ask("GET", &inner, &[], None).await.expect(400);
        assert_eq!(refused.code(), "secret_in_query");
    }
    let (log, metrics) = (server.log(), server.metrics().await);
    for secret in [&tokens.access, &tokens.refresh, &alice.password] {
        assert!(!log.contains(secret.as_str()) && !metrics.contains(secret.as_str()));
        let end = &secret[secret.len() - 20..];
        assert!(!log.contains(end) && !metrics.contains(end));
    }
    assert_eq!(tokens.whoami(&server).await, 200);
}

#[tokio::test]
async fn t09_pages_of_other_sites_open_no_sockets() {
    let settings = [("ALLOWED_ORIGINS", "https://chat.example.org,http://localhost:3000")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let alice = Person::register(&server).await;
    let tokens = Tokens::open(&server, &alice).await;
    let own = format!("http://{}", server.address());
    let own_in_tls = format!("https://{}", server.address());
    for (origin, allowed) in [
        (own.as_str(), true),
        (&own_in_tls, true),
        ("https://chat.example.org", true),
        ("http://localhost:3000", true),
        ("https://evil.example", false),
        ("https://chat.example.org.evil.example", false),
        ("http://chat.example.org", false),
        ("http://localhost", false),
        ("null", false),
        ("", false),
    ] {
        for authorization in [Some(tokens.bearer()), Some(alice.authorization()), None] {
            let opened = Socket::open(&server, authorization.as_deref(), &[("origin", origin)]).await;
            assert_eq!(opened.err(), (!allowed).then_some(403), "{origin}");
        }
        let provisioning = try_open_at(server.address(), "/v1/websocket/provisioning/", &[("origin", origin)]).await;
        assert_eq!(provisioning.err(), (!allowed).then_some(403), "{origin}");
    }
    // Whoever says where it is reached is held to it.
    let settings = [("PUBLIC_URL", "https://relay.example.org")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let own = format!("http://{}", server.address());
    for (origin, allowed) in [
        ("https://relay.example.org", true),
        ("http://relay.example.org", false),
        (&own, false),
    ] {
        let opened = Socket::open(&server, None, &[("origin", origin)]).await;
        assert_eq!(opened.err(), (!allowed).then_some(403), "{origin}");
    }
}
