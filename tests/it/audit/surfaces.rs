//! What is not in the database: Redis, metrics, the log.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::run::{audit, file};
use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Person, Server, on_each_backend, send};

on_each_backend! {
    b7_an_undeclared_log_field_is_found
    b7_a_network_address_in_the_log_is_found
    b7_an_undeclared_metric_is_found
    b7_an_undeclared_label_is_found
    b1_an_undeclared_redis_key_is_found
    b1_an_undeclared_redis_channel_is_found
}

/// A server that has logged and counted something, with its log in a file.
async fn with_log(backend: Backend, more: &str) -> (Server, String) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "trace")]).await;
    let alice = Person::register(&server).await;
    send(&server, &alice, &alice, b"note to self").await;
    server.metrics().await;
    let path = file(&server, "relay.log");
    let log = server.log();
    assert!(log.contains("\"message\":\"serving\""), "{log}");
    std::fs::write(&path, format!("{log}{more}")).unwrap();
    (server, path.to_str().unwrap().to_owned())
}

async fn b7_an_undeclared_log_field_is_found(backend: Backend) {
    let (server, log) = with_log(backend, "").await;
    audit(&server, &["--log-file", &log], &[]).await.expect_clean();
    let line = "{\"level\":\"INFO\",\"message\":\"sent\",\"sender\":17,\"target\":\"blind_relay::http\"}\n";
    std::fs::write(&log, format!("{}{line}", std::fs::read_to_string(&log).unwrap())).unwrap();
    audit(&server, &["--log-file", &log], &[])
        .await
        .expect("log: a field that is not declared: sender");
}

async fn b7_a_network_address_in_the_log_is_found(backend: Backend) {
    let line = "{\"level\":\"WARN\",\"message\":\"slow\",\"cause\":\"203.0.113.77\"}\n";
    let (server, log) = with_log(backend, line).await;
    audit(&server, &["--log-file", &log], &[])
        .await
        .expect("log: a network address in the field cause");
}

async fn b7_an_undeclared_metric_is_found(backend: Backend) {
    let server = Server::spawn(backend).await;
    let page = "blind_relay_commits_total 3\nblind_relay_last_sender 17\n";
    audit(&server, &["--metrics", &serve(page)], &[])
        .await
        .expect("metrics: a metric that is not declared: blind_relay_last_sender");
}

async fn b7_an_undeclared_label_is_found(backend: Backend) {
    let server = Server::spawn(backend).await;
    let page = "blind_relay_commits_total 3\nblind_relay_sends_total{outcome=\"accepted\",account=\"b\"} 3\n";
    audit(&server, &["--metrics", &serve(page)], &[])
        .await
        .expect("metrics: a label of blind_relay_sends_total that is not declared: account");
    let page = "blind_relay_commits_total 3\nblind_relay_sends_total{outcome=\"to_a_friend\"} 3\n";
    audit(&server, &["--metrics", &serve(page)], &[])
        .await
        .expect("metrics: a value of blind_relay_sends_total{outcome} that is not declared");
}

async fn b1_an_undeclared_redis_key_is_found(backend: Backend) {
    let Some(redis) = RedisServer::spawn() else { return };
    let server = Server::spawn(backend).await;
    let url = redis.url();
    audit(&server, &[], &[("REDIS_URL", &url)]).await.expect_clean();
    let mut connection = redis.connection().await;
    redis::cmd("SET")
        .arg("presence:4915112345678")
        .arg(1)
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    let found = audit(&server, &[], &[("REDIS_URL", &url)]).await;
    found.expect("redis: a key that is not declared: presence:");
    assert!(!found.out.contains("49151"), "{}", found.out);
}

async fn b1_an_undeclared_redis_channel_is_found(backend: Backend) {
    let Some(redis) = RedisServer::spawn() else { return };
    let server = Server::spawn(backend).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.subscribe("blind-relay:hints").await.unwrap();
    let url = redis.url();
    audit(&server, &[], &[("REDIS_URL", &url)]).await.expect_clean();
    listener.subscribe("blind-relay:senders").await.unwrap();
    audit(&server, &[], &[("REDIS_URL", &url)])
        .await
        .expect("redis: a channel that is not declared: blind-relay:senders");
}

/// An admin listener that answers once, with this page.
fn serve(page: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(answer.as_bytes());
    });
    url
}
