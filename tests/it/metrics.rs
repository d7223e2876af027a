//! What the operator's listener shows.

use futures_util::future::join_all;

use crate::support::person::people;
use crate::support::traffic::flood;
use crate::support::{Backend, Person, Server, on_each_backend, until};

on_each_backend! {
    concurrent_sends_share_commits
    sockets_and_requests_are_counted_by_closed_labels
}

async fn concurrent_sends_share_commits(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (senders, recipients) = (people(&server, 50).await, people(&server, 5).await);
    let before = Commits::read(&server).await;
    let sending = recipients
        .iter()
        .enumerate()
        .map(|(n, to)| flood(&server, &senders[n * 10..n * 10 + 10], to, 0..20));
    join_all(sending).await;
    let after = Commits::read(&server).await;
    let (rows, commits) = (after.rows - before.rows, after.commits - before.commits);
    assert!((rows - 1_000.0).abs() < 0.5, "{rows} rows");
    assert!((after.envelopes - before.envelopes - 1_000.0).abs() < 0.5);
    assert!(rows / commits > 1.0, "{rows} rows in {commits} commits");
    let text = server.metrics().await;
    assert!(text.contains("blind_relay_commit_rows_bucket{le=\"8\"}"), "{text}");
}

async fn sockets_and_requests_are_counted_by_closed_labels(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let mut socket = bob.connect(&server).await;
    socket.expect_empty().await;
    assert!((server.metric("blind_relay_sockets{kind=\"device\"}").await - 1.0).abs() < 0.5);
    drop(socket);
    until("the socket's end", async || {
        server.metric("blind_relay_sockets{kind=\"device\"}").await < 0.5
    })
    .await;
    let text = server.metrics().await;
    for personal in [&bob.aci, &bob.pni, &bob.number[1..], "127.0.0.1"] {
        assert!(!text.contains(personal), "{personal}");
    }
}

struct Commits {
    rows: f64,
    commits: f64,
    envelopes: f64,
}

impl Commits {
    async fn read(server: &Server) -> Self {
        Self {
            rows: server.metric("blind_relay_commit_rows_sum").await,
            commits: server.metric("blind_relay_commit_rows_count").await,
            envelopes: server.metric("blind_relay_envelopes_total").await,
        }
    }
}
