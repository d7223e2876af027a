//! What runs elsewhere: database and Redis. Each has a few seconds to answer.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, timeout};

use super::Check;
use super::age::age;
use crate::config::{Config, Database, Secret};
use crate::domain::Timestamp;
use crate::server::{key_files, location};
use crate::storage::migrate::{self, Location, Schema};

/// Whether the database answers, how quickly, whether its clock agrees with `now`, and whether its tables are those of
/// this release.
pub async fn database(config: &Config, now: Timestamp) -> Vec<Check> {
    let mut checks = match &config.database {
        Database::Sqlite(path) => vec![sqlite(path).await],
        Database::Postgres(url) => postgres(url, now).await,
    };
    if !checks.iter().any(Check::failed) {
        checks.push(schema(&location(config)).await);
    }
    if !checks.iter().any(Check::failed) {
        checks.extend(trust_root(config).await);
        checks.push(age(config).await);
    }
    checks
}

async fn schema(location: &Location) -> Check {
    const NAME: &str = "schema";
    match timeout(PATIENCE, migrate::check(location)).await {
        Ok(Ok(Schema::Current)) => Check::ok(NAME, "the one of this release"),
        Ok(Ok(Schema::Outdated)) => Check::ok(NAME, "older or empty, the next start brings it up to date"),
        Ok(Err(error)) => Check::fail(NAME, "not usable", error.to_string()),
        Err(_) => Check::fail(
            NAME,
            "could not be read in time",
            "see that nothing else holds the database's locks",
        ),
    }
}

/// Whether the trust root of the key files is the database's, if both have one. Keys that cannot be read are told of by
/// their own check.
async fn trust_root(config: &Config) -> Option<Check> {
    const NAME: &str = "trust root";
    const PINNED: &str = "SELECT value FROM settings WHERE name = 'trust_root'";
    let ours = key_files(config).public_trust_root().ok()?;
    let pinned = async {
        Ok::<Option<Vec<u8>>, sqlx::Error>(match &config.database {
            Database::Sqlite(path) => {
                let mut connection = read_only(path).connect().await?;
                sqlx::query_scalar(PINNED).fetch_optional(&mut connection).await?
            }
            Database::Postgres(url) => {
                let mut connection = PgConnection::connect(url.expose()).await?;
                sqlx::query_scalar(PINNED).fetch_optional(&mut connection).await?
            }
        })
    };
    // A database without tables has none, and a database that is not there was told of before.
    let pinned = timeout(PATIENCE, pinned).await.ok()?.ok()??;
    Some(match ours {
        Some(ours) if ours.serialized() == pinned => Check::ok(NAME, "the one of the database"),
        Some(_) => Check::fail(
            NAME,
            "another than the database's, which clients pin",
            "move the key files away, and copy another node's trust root or server key to their places",
        ),
        None => Check::fail(
            NAME,
            "the database has one, and there is no key under it here",
            "copy another node's trust root or server key to its place, or restore one of them from a backup",
        ),
    })
}

pub(super) fn read_only(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
}

async fn sqlite(path: &Path) -> Check {
    let shown = path.display();
    if !path.exists() {
        return Check::ok(
            DATABASE,
            format!("{shown} does not exist yet, the first start makes it"),
        );
    }
    let asked = async {
        let mut connection: SqliteConnection = read_only(path).connect().await?;
        let begin = Instant::now();
        // Reads the file's first page, which a file of another kind fails.
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .execute(&mut connection)
            .await?;
        Ok::<_, sqlx::Error>(begin.elapsed())
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(took)) => answered(format!("SQLite file {shown}"), took),
        Ok(Err(error)) => Check::fail(
            DATABASE,
            format!("{shown}: {error}"),
            "restore the file from a backup, or name another",
        ),
        Err(_) => Check::fail(
            DATABASE,
            format!("{shown} is locked"),
            "end the other process that uses the file",
        ),
    }
}

async fn postgres(url: &Secret, now: Timestamp) -> Vec<Check> {
    let begun = Instant::now();
    let asked = async {
        let mut connection = PgConnection::connect(url.expose()).await?;
        let connected = Instant::now();
        let version: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await?;
        let took = connected.elapsed();
        let millis: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&mut connection)
            .await?;
        let waited = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        let _ = connection.close().await;
        Ok::<_, sqlx::Error>((version, took, millis.saturating_sub(waited)))
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok((version, took, theirs))) => {
            vec![
                answered(format!("PostgreSQL {version}"), took),
                clock(now, Timestamp(theirs)),
            ]
        }
        Ok(Err(error)) => {
            let remedy = "check that it runs, and the host, name, user and password in database_url";
            vec![Check::fail(DATABASE, format!("PostgreSQL: {error}"), remedy)]
        }
        Err(_) => {
            let what = format!("PostgreSQL does not answer within {} s", PATIENCE.as_secs());
            vec![Check::fail(
                DATABASE,
                what,
                "check the host in database_url and the firewall between",
            )]
        }
    }
}

fn answered(what: String, took: Duration) -> Check {
    let what = format!("{what} answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
    if took > Duration::from_millis(50) {
        return Check::warn(
            DATABASE,
            what,
            "bring the database nearer: every accepted message waits for it",
        );
    }
    Check::ok(DATABASE, what)
}

fn clock(ours: Timestamp, theirs: Timestamp) -> Check {
    let apart = ours.0.abs_diff(theirs.0) / 1_000;
    let what = format!("{apart} s from the database's");
    match apart {
        0..5 => Check::ok("clock", what),
        5..=300 => Check::warn(
            "clock",
            what,
            "synchronise the clocks of both machines (chrony, systemd-timesyncd)",
        ),
        _ => Check::fail(
            "clock",
            what,
            "synchronise the clocks of both machines (chrony, systemd-timesyncd)",
        ),
    }
}

/// Whether Redis answers, if there is to be one.
pub async fn redis(config: &Config) -> Check {
    const NAME: &str = "redis";
    let Some(url) = &config.redis_url else {
        return Check::ok(NAME, "none: a single node");
    };
    let asked = async {
        let client = redis::Client::open(url.expose())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let begin = Instant::now();
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        let took = begin.elapsed();
        let about: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        Ok::<_, redis::RedisError>((took, about))
    };
    // Without Redis the server runs, and other nodes hear of new envelopes at their next look.
    let remedy = "check that it runs, and the host, port and password in redis_url; until then nodes learn of each \
                  other's envelopes only by the fallback tick";
    match timeout(PATIENCE, asked).await {
        Ok(Ok((took, about))) => {
            let version = about
                .lines()
                .find_map(|line| line.strip_prefix("redis_version:"))
                .unwrap_or("?");
            Check::ok(
                NAME,
                format!("{version} answers in {:.1} ms", took.as_secs_f64() * 1_000.0),
            )
        }
        Ok(Err(error)) => Check::fail(NAME, error.to_string(), remedy),
        Err(_) => Check::fail(NAME, format!("does not answer within {} s", PATIENCE.as_secs()), remedy),
    }
}

const DATABASE: &str = "database";
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::domain::{Clock, SystemClock};

    /// The setting for a service that tests were given, or `None` to skip.
    fn given(variable: &str, key: &str) -> Option<Config> {
        match std::env::var(variable) {
            Ok(url) => Some(crate::config::parse_toml(&format!("{key} = '{url}'")).unwrap()),
            Err(_) if std::env::var_os("BLIND_RELAY_TEST_REQUIRE_ALL").is_some() => panic!("{variable} is not set"),
            Err(_) => {
                eprintln!("skipped: {variable} is not set");
                None
            }
        }
    }

    #[tokio::test]
    async fn a_postgres_that_answers_is_well_and_so_is_its_clock() {
        if let Some(config) = given("BLIND_RELAY_TEST_POSTGRES_URL", "database_url") {
            let checks = database(&config, SystemClock.now()).await;
            assert_eq!(checks.len(), 4, "{checks:?}");
            assert!(
                checks[0].what.starts_with("PostgreSQL 1") && !checks[0].failed(),
                "{checks:?}"
            );
            assert_eq!(checks[1].verdict, Verdict::Ok, "{checks:?}");
        }
    }

    #[tokio::test]
    async fn a_redis_that_answers_is_well() {
        if let Some(config) = given("BLIND_RELAY_TEST_REDIS_URL", "redis_url") {
            let check = redis(&config).await;
            assert_eq!(check.verdict, Verdict::Ok, "{check}");
            assert!(check.what.contains(" answers in "), "{check}");
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let clock = |seconds: i64| clock(Timestamp(seconds * 1_000), Timestamp(0)).verdict;
        assert_eq!(clock(-4), Verdict::Ok);
        assert!(matches!(clock(-300), Verdict::Warn(_)));
        assert!(matches!(clock(301), Verdict::Fail(_)));
    }
}
