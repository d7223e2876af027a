//! Whether the database is the one that was here before.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use super::Check;
use super::services::{PATIENCE, read_only};
use crate::age;
use crate::config::{Config, Database};
use crate::domain::Age;

/// What the next start will find, by what the database says of its age and what this node has seen of it.
pub(super) async fn age(config: &Config) -> Check {
    let seen = match age::read(&age::file(&config.data_dir)) {
        Ok(seen) => seen,
        Err(error) => return Check::fail(NAME, "the mark of this node cannot be read", error.to_string()),
    };
    match timeout(PATIENCE, marks(config)).await {
        Ok(Ok(marks)) => judge(&marks, seen.as_ref()),
        // A database that is not there, or has no tables yet, was told of before.
        Ok(Err(_)) => Check::ok(NAME, "none: the database has no tables yet"),
        Err(_) => Check::warn(
            NAME,
            "could not be read in time",
            "see that nothing else holds the database's locks",
        ),
    }
}

async fn marks(config: &Config) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    match &config.database {
        Database::Sqlite(path) => {
            let mut connection = read_only(path).connect().await?;
            sqlx::query_as(MARKS).fetch_all(&mut connection).await
        }
        Database::Postgres(url) => {
            let mut connection = PgConnection::connect(url.expose()).await?;
            sqlx::query_as(MARKS).fetch_all(&mut connection).await
        }
    }
}

fn judge(marks: &[(String, Vec<u8>)], seen: Option<&Age>) -> Check {
    const PUT_BACK: &str = "the next start makes all one-time keys invalid; stop every node before that, and run `blind-relay \
                            restore --in-place` to do it now";
    let value = |name: &str| marks.iter().find(|(of, _)| of == name).map(|(_, value)| value);
    let number = |name: &str| value(name).and_then(|value| Some(u64::from_be_bytes(value.as_slice().try_into().ok()?)));
    let database = value("database_id").and_then(|value| <[u8; 16]>::try_from(value.as_slice()).ok());
    if value("backup_copy").is_some() {
        return Check::warn(NAME, "the database is a backup that was put back", PUT_BACK);
    }
    let age = database.map(|database| Age {
        database,
        epoch: number("restore_epoch").unwrap_or(0),
        generation: number("generation").unwrap_or(0),
    });
    let Some(age) = age else {
        return match seen {
            Some(_) => Check::warn(NAME, "the database is older than this node has seen it", PUT_BACK),
            None => Check::ok(NAME, "none yet, the first start begins to count"),
        };
    };
    let told = match age.epoch {
        0 => "0, the database was never put back".to_owned(),
        1 => "1, the database was put back once".to_owned(),
        times => format!("{times}, the database was put back so often"),
    };
    match seen {
        Some(seen) if age.is_behind(seen) => {
            Check::warn(NAME, "the database is older than this node has seen it", PUT_BACK)
        }
        Some(seen) if age.database == seen.database => Check::ok(NAME, told),
        _ => Check::warn(
            NAME,
            format!("{told}, as it says itself; this node has not seen it before"),
            "if the database was put back from a backup, run `blind-relay restore --in-place` before the start",
        ),
    }
}

const NAME: &str = "restore epoch";
const MARKS: &str = "SELECT name, value FROM settings \
    WHERE name IN ('database_id', 'restore_epoch', 'generation', 'backup_copy')";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn judged(rows: &[(&str, &[u8])], seen: Option<(u64, u64)>) -> Check {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .collect();
        let seen = seen.map(|(epoch, generation)| Age {
            database: [1; 16],
            epoch,
            generation,
        });
        judge(&rows, seen.as_ref())
    }

    #[test]
    fn an_older_database_a_backup_and_an_unknown_one_are_warned_of() {
        let (epoch, generation) = (2_u64.to_be_bytes(), 7_u64.to_be_bytes());
        let marks: [(&str, &[u8]); 3] = [
            ("database_id", &[1; 16]),
            ("restore_epoch", &epoch),
            ("generation", &generation),
        ];
        let copy = [&marks[..], &[("backup_copy", &[1][..])]].concat();
        assert_eq!(judged(&marks, Some((2, 7))).verdict, Verdict::Ok);
        assert!(judged(&marks, Some((2, 7))).what.starts_with('2'));
        assert_eq!(judged(&[], None).verdict, Verdict::Ok);
        for check in [
            judged(&marks, Some((2, 8))),
            judged(&marks, Some((3, 1))),
            judged(&copy, Some((2, 7))),
            judged(&marks, None),
            judged(&[], Some((0, 1))),
        ] {
            assert!(matches!(check.verdict, Verdict::Warn(_)), "{check}");
        }
    }
}
