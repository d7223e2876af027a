//! Whether the database is the one that was here before.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use super::Check;
use super::services::{PATIENCE, read_only};
use crate::age;
use crate::config::{Config, Database};
use crate::domain::{Age, Restored};
use crate::storage::{MARKS, Marks, postgres};

/// What the next start will find, by what the database says of its age and what this node has seen of it.
pub(super) async fn age(config: &Config) -> Check {
    let seen = match age::read(&age::file(&config.data_dir)) {
        Ok(seen) => seen,
        Err(error) => return Check::fail(NAME, "the mark of this node cannot be read", error.to_string()),
    };
    match timeout(PATIENCE, look(config)).await {
        Ok(Ok((rows, place))) => judge(rows, place.as_deref(), seen.as_ref()),
        // A database that is not there, or has no tables yet, was told of before.
        Ok(Err(_)) => Check::ok(NAME, "none: the database has no tables yet"),
        Err(_) => Check::warn(
            NAME,
            "could not be read in time",
            "see that nothing else holds the database's locks",
        ),
    }
}

/// The rows that tell the age, and where the database is, on a backend that can tell.
async fn look(config: &Config) -> Result<(Rows, Option<Vec<u8>>), sqlx::Error> {
    match &config.database {
        Database::Sqlite(path) => {
            let mut connection = read_only(path).connect().await?;
            Ok((sqlx::query_as(MARKS).fetch_all(&mut connection).await?, None))
        }
        Database::Postgres(url) => {
            let mut connection = PgConnection::connect(url.expose()).await?;
            let rows = sqlx::query_as(MARKS).fetch_all(&mut connection).await?;
            Ok((rows, Some(postgres::place(&mut connection).await?)))
        }
    }
}

fn judge(rows: Rows, place: Option<&[u8]>, seen: Option<&Age>) -> Check {
    const PUT_BACK: &str = "the next start makes all one-time keys invalid; stop every node before that, and run `blind-relay \
                            restore --in-place` to do it now";
    let Ok(marks) = Marks::read(rows) else {
        return Check::fail(
            NAME,
            "what the database says of its age is unreadable: `settings` was changed past the server",
            "put a backup back (docs/backup.md): no node starts on this database",
        );
    };
    // As the next start judges, to whom nobody says anything either.
    if let Some(restored) = marks.judge(seen, false, place) {
        let what = match restored {
            Restored::Told | Restored::Behind => "the database is older than this node has seen it",
            Restored::Copy => "the database is a backup that was put back",
            Restored::Elsewhere => "the database was read in from a dump",
        };
        return Check::warn(NAME, what, PUT_BACK);
    }
    let Some(age) = marks.age() else {
        return Check::ok(NAME, "none yet, the first start begins to count");
    };
    let told = match age.epoch {
        0 => "0, the database was never put back".to_owned(),
        1 => "1, the database was put back once".to_owned(),
        times => format!("{times}, the database was put back so often"),
    };
    if seen.is_some_and(|seen| seen.database == age.database) {
        return Check::ok(NAME, told);
    }
    Check::warn(
        NAME,
        format!("{told}, as it says itself; this node has not seen it before"),
        "if the database was put back from a backup, run `blind-relay restore --in-place` before the start",
    )
}

type Rows = Vec<(String, Vec<u8>)>;

const NAME: &str = "restore epoch";

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
        judge(rows, Some(b"here"), seen.as_ref())
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
        let dump = [&marks[..], &[("database_place", &b"there"[..])]].concat();
        assert_eq!(judged(&marks, Some((2, 7))).verdict, Verdict::Ok);
        assert!(judged(&marks, Some((2, 7))).what.starts_with('2'));
        assert_eq!(judged(&[], None).verdict, Verdict::Ok);
        for check in [
            judged(&marks, Some((2, 8))),
            judged(&marks, Some((3, 1))),
            judged(&copy, Some((2, 7))),
            judged(&dump, Some((2, 7))),
            judged(&marks, None),
            judged(&[], Some((0, 1))),
        ] {
            assert!(matches!(check.verdict, Verdict::Warn(_)), "{check}");
        }
    }

    #[test]
    fn marks_on_which_no_node_starts_fail() {
        for name in ["database_id", "restore_epoch", "generation"] {
            let check = judged(&[("database_id", &[1; 16]), (name, &[0; 7])], Some((2, 7)));
            assert!(matches!(check.verdict, Verdict::Fail(_)), "{name}: {check}");
        }
    }
}
