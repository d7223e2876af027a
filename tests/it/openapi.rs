//! The document that describes the interface, as it is served.

use blind_relay::http::routes::ROUTES;

use crate::support::{Backend, Person, Server, ask};

#[tokio::test]
async fn the_document_is_served_to_anyone_and_names_every_route() {
    let server = Server::spawn(Backend::Sqlite).await;
    let answer = ask(server.request("GET", "/openapi.json")).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let operation = &document["paths"][path][route.method];
        assert_eq!(
            operation["x-max-body-bytes"], route.max_body,
            "{} {}",
            route.method, route.path
        );
    }

    let tag = answer.header("etag").unwrap().to_owned();
    let again = ask(server.request("GET", "/openapi.json").header("if-none-match", &tag)).await;
    let again = again.expect(304);
    assert!(again.body.is_empty() && again.header("content-type").is_none());
    assert_eq!(again.header("etag"), Some(tag.as_str()));
    let other = server.request("GET", "/openapi.json").header("if-none-match", "\"x\"");
    ask(other).await.expect(200);

    // It is the same inside a socket.
    let mut socket = Person::register(&server).await.connect(&server).await;
    let inside = socket.ask("GET", "/openapi.json", &[], None).await.expect(200);
    assert_eq!(inside.body, answer.body);
}

/// Nobody is told more of the server by the document than by its answers.
#[tokio::test]
async fn the_document_is_the_same_for_everyone() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let closed = Server::spawn_with(Backend::Sqlite, &[("REGISTRATION", "closed")]).await;
    let bodies = [
        ask(server.request("GET", "/openapi.json")).await,
        ask(alice.request(&server, "GET", "/openapi.json")).await,
        ask(closed.request("GET", "/openapi.json")).await,
    ];
    let [one, others @ ..] = bodies.map(|answer| answer.expect(200).body);
    assert!(others.iter().all(|other| *other == one));
}
