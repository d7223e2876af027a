//! A server that has worked passes, also while it works; what an audit writes down can be checked and not be changed.

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::Value;

use super::run::{admin, audit, file, verify};
use crate::support::person::people;
use crate::support::traffic::flood;
use crate::support::{Backend, Person, Server, ask, on_each_backend};

on_each_backend! {
    b1_b3_the_audit_passes_on_a_server_that_has_carried_ten_thousand_messages
    b3_canaries_of_the_audit_leave_nothing_behind
    the_audit_passes_on_an_account_that_has_something_of_everything
    a_report_that_was_changed_is_not_verified
    an_audit_that_cannot_look_says_so
}

const SENDERS: usize = 40;
const RECIPIENTS: usize = 5;
const EACH: u32 = 50;

async fn b1_b3_the_audit_passes_on_a_server_that_has_carried_ten_thousand_messages(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "debug")]).await;
    let (senders, recipients) = (people(&server, SENDERS).await, people(&server, RECIPIENTS).await);
    let sending = |range: std::ops::Range<u32>| {
        let recipients = recipients.iter();
        join_all(recipients.map(|to| flood(&server, &senders, to, range.clone()).boxed()))
    };
    sending(0..EACH - 5).await;
    // Of one recipient's nothing is left; of the others' all.
    let mut socket = recipients[0].connect(&server).await;
    assert_eq!(socket.drain().await.len(), SENDERS * (EACH - 5) as usize);
    socket.keepalive().await;

    let log = file(&server, "relay.log");
    std::fs::write(&log, server.log()).unwrap();
    let report = file(&server, "report.json");
    let (url, admin) = (format!("http://{}", server.address()), admin(&server).await);
    let arguments = [
        "--canary",
        &url,
        "--metrics",
        &admin,
        "--log-file",
        log.to_str().unwrap(),
        "--report",
        report.to_str().unwrap(),
    ];
    // The last ones come while the audit looks.
    let (audit, _) = tokio::join!(audit(&server, &arguments, &[]), sending(EACH - 5..EACH));
    audit.expect_clean();
    for check in ["schema", "owners", "database", "metrics", "log", "canary"] {
        assert!(
            audit.out.contains(&format!("done  {check}: ")),
            "{check}: {}",
            audit.out
        );
    }
    assert!(server.metric("blind_relay_envelopes_total").await >= 10_000.0);

    let shown = verify(&server, &[report.to_str().unwrap()]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let report = &report["report"];
    assert_eq!(
        (&report["verdict"], &report["findings"]),
        (&"clean".into(), &Value::Array(vec![]))
    );
    let tables = report["tables"].as_array().unwrap();
    let envelopes = tables.iter().find(|table| table["name"] == "envelopes").unwrap();
    let waiting = (RECIPIENTS - 1) * SENDERS * (EACH - 5) as usize;
    assert!(envelopes["rows"].as_u64().unwrap() >= waiting as u64, "{envelopes}");
}

async fn b3_canaries_of_the_audit_leave_nothing_behind(backend: Backend) {
    let server = Server::spawn(backend).await;
    let bob = Person::register(&server).await;
    let url = format!("http://{}", server.address());
    audit(&server, &["--canary", &url], &[]).await.expect_clean();
    let audit = audit(&server, &[], &[]).await;
    audit.expect_clean();
    let rows = |table: &str| {
        let line = audit.out.lines().find(|line| line.ends_with(table)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(
        (rows("  accounts"), rows("  mailboxes"), rows("  envelopes")),
        (1, 1, 0)
    );
    ask(bob.request(&server, "GET", "/v1/accounts/whoami"))
        .await
        .expect(200);
}

async fn the_audit_passes_on_an_account_that_has_something_of_everything(backend: Backend) {
    let server = Server::spawn(backend).await;
    let sender = Person::register(&server).await;
    let _filled = crate::support::filled::Filled::new(&server, &sender).await;
    let audit = audit(&server, &[], &[]).await;
    audit.expect_clean();
}

async fn a_report_that_was_changed_is_not_verified(backend: Backend) {
    let server = Server::spawn(backend).await;
    let report = file(&server, "report.json");
    let path = report.to_str().unwrap();
    let audit = audit(&server, &["--report", path], &[]).await;
    audit.expect_clean();
    let (_, key) = audit.out.trim_end().rsplit_once(' ').unwrap();
    assert_eq!(verify(&server, &[path, "--public-key", key]).await.code, 0);

    let whole = std::fs::read_to_string(&report).unwrap();
    let seconds = whole.replacen("\"rows\": 0", "\"rows\": 1", 1);
    assert_ne!(whole, seconds);
    std::fs::write(&report, seconds).unwrap();
    let refused = verify(&server, &[path]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("the report was changed"), "{}", refused.err);

    // Whoever signs anew needs another key.
    let own = file(&server, "own-key");
    let again = super::run::audit(&server, &["--report", path, "--key", own.to_str().unwrap()], &[]).await;
    again.expect_clean();
    assert_eq!(verify(&server, &[path]).await.code, 0);
    let refused = verify(&server, &[path, "--public-key", key]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("another key"), "{}", refused.err);
    assert_eq!(verify(&server, &["no-such-report.json"]).await.code, 1);
}

async fn an_audit_that_cannot_look_says_so(backend: Backend) {
    let server = Server::spawn_with(backend, &[("REGISTRATION", "closed")]).await;
    let url = format!("http://{}", server.address());
    let closed = audit(&server, &["--canary", &url], &[]).await;
    assert_eq!(closed.code, 2, "{}", closed.out);
    assert!(closed.out.contains("takes no registrations"), "{}", closed.out);
    for (arguments, why) in [
        (["--metrics", "http://127.0.0.1:1"], "FAIL  metrics: cannot reach"),
        (["--log-file", "no-such.log"], "FAIL  log: the log file cannot be read"),
        (["--canary", "https://127.0.0.1:1"], "FAIL  canary: name the authority"),
    ] {
        let audit = audit(&server, &arguments, &[]).await;
        assert_eq!(audit.code, 2, "{}", audit.out);
        assert!(audit.out.contains(why), "{why}: {}", audit.out);
    }
    let nowhere = [("DATABASE_URL", "sqlite:no-such.db")];
    let audit = audit(&server, &[], &nowhere).await;
    assert_eq!((audit.code, audit.out.as_str()), (2, ""), "{}", audit.err);
    assert!(!file(&server, "no-such.db").exists());
}
