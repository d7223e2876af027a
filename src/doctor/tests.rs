use std::fs;
use std::path::Path;

use super::*;
use crate::config::parse_toml;
use crate::tls::self_signed;

async fn check(dir: &Path, more: &str, name: &str) -> Check {
    let text = format!("data_dir = '{}'\n{more}", dir.join("data").display());
    let config = parse_toml(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut found = checks(&config, SystemClock.now()).await;
    found.retain(|check| check.name == name);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn a_fresh_machine_is_well_and_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let config = parse_toml(&format!(
        "data_dir = '{}'\nlimits.max_connections = 1",
        dir.path().join("data").display()
    ));
    let found = checks(&config.unwrap(), SystemClock.now()).await;
    assert!(found.iter().all(|check| check.verdict == Verdict::Ok), "{found:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn answers_whose_time_tells_who_is_connected_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let off = check(dir.path(), "relay.answer_tick_millis = 0", "answers").await;
    assert!(matches!(off.verdict, Verdict::Warn(_)), "{off}");
    let slow = check(dir.path(), "relay.answer_tick_millis = 50", "answers").await;
    assert!(slow.verdict == Verdict::Ok && slow.what.contains("50 ms"), "{slow}");
}

#[tokio::test]
async fn a_file_that_is_no_database_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not.db");
    fs::write(&file, "x".repeat(4_096)).unwrap();
    let check = check(
        dir.path(),
        &format!("database_url = 'sqlite:{}'", file.display()),
        "database",
    )
    .await;
    assert!(matches!(check.verdict, Verdict::Fail(_)), "{check}");
}

#[tokio::test]
async fn a_database_in_write_ahead_mode_is_read_and_not_changed() {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
    use sqlx::{ConnectOptions, Connection};
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut connection: SqliteConnection = options.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap();
    sqlx::query("CREATE TABLE t (x)")
        .execute(&mut connection)
        .await
        .unwrap();
    let setting = format!("database_url = 'sqlite:{}'", file.display());
    assert_eq!(
        check(dir.path(), &setting, "database").await.verdict,
        Verdict::Ok,
        "while it is in use"
    );
    connection.close().await.unwrap();
    let before = fs::read(&file).unwrap();
    assert_eq!(
        check(dir.path(), &setting, "database").await.verdict,
        Verdict::Ok,
        "while nobody uses it"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn services_that_do_not_answer_fail_without_their_passwords() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let database = format!("database_url = 'postgres://relay:hunter2@127.0.0.1:{port}/relay'");
    let redis = format!("redis_url = 'redis://:hunter2@127.0.0.1:{port}'");
    for (setting, name) in [(database, "database"), (redis, "redis")] {
        let check = check(dir.path(), &setting, name).await;
        assert!(matches!(check.verdict, Verdict::Fail(_)), "{check}");
        assert!(!check.to_string().contains("hunter2"), "{check}");
    }
}

#[tokio::test]
async fn certificates_are_judged_by_the_days_they_have_left() {
    let dir = tempfile::tempdir().unwrap();
    let day = 24 * 60 * 60 * 1_000;
    for (age, wanted) in [(0, "ok"), (355, "warn"), (370, "FAIL")] {
        let tls = dir.path().join(age.to_string());
        let made = self_signed::ensure(&tls, SystemClock.now().plus_millis(-age * day)).unwrap();
        let setting = format!(
            "tls_cert = '{}'\ntls_key = '{}'",
            made.files.cert.display(),
            made.files.key.display()
        );
        let line = check(dir.path(), &setting, "tls").await.to_string();
        assert!(line.starts_with(wanted), "{line}");
    }
}

#[tokio::test]
async fn reachable_listeners_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let reachable = "listen = '0.0.0.0:8080'\nregistration = 'open'";
    assert!(matches!(
        check(dir.path(), reachable, "listeners").await.verdict,
        Verdict::Warn(_)
    ));
    assert!(matches!(
        check(dir.path(), reachable, "registration").await.verdict,
        Verdict::Warn(_)
    ));
}

#[tokio::test]
async fn who_may_register_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, wanted) in [
        ("registration = 'invite'", "ok    registration: by invite"),
        (
            "registration = 'otp'\nregistration_work_bits = 20\n[codes]\nsms = 'log'",
            "ok    registration: by codes, to numbers on standard output, none to e-mail addresses, after 20 bits of work",
        ),
        (
            "listen = '0.0.0.0:8080'",
            "warn  registration: closed, because nothing says who may register",
        ),
        (
            "listen = '0.0.0.0:8080'\nregistration = 'closed'",
            "ok    registration: closed",
        ),
    ] {
        let line = check(dir.path(), settings, "registration").await.to_string();
        assert!(line.starts_with(wanted), "{line}");
    }
}

#[test]
fn a_line_says_what_is_wrong_and_the_next_how_to_mend_it() {
    assert_eq!(Check::ok("tls", "off").to_string(), "ok    tls: off");
    assert_eq!(
        Check::fail("tls", "expired", "renew it").to_string(),
        "FAIL  tls: expired\n      mend: renew it"
    );
}
