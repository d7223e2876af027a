//! Everything that a database holds, past the server: every row of every table, whatever they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Column as _, Connection, PgConnection, Row as _, SqliteConnection, TypeInfo, ValueRef};

use super::{Server, hex};

/// A row by its columns. Bytes and ids are in hexadecimal digits, numbers in decimal ones; what is null is not there.
pub(crate) type DumpedRow = BTreeMap<String, String>;

/// The rows of a database by their tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dump(pub(crate) BTreeMap<String, BTreeSet<DumpedRow>>);

impl Dump {
    /// What the server's database holds now.
    pub(crate) async fn of(server: &Server) -> Self {
        let mut dump = match server.place().database_url() {
            Some(url) => postgres(url).await,
            None => sqlite(server).await,
        };
        // It counts on by itself.
        if let Some(settings) = dump.0.get_mut("settings") {
            settings.retain(|row| row.get("name").is_none_or(|name| name != "generation"));
        }
        dump
    }

    /// The rows of a table.
    pub(crate) fn rows(&self, table: &str) -> &BTreeSet<DumpedRow> {
        &self.0[table]
    }

    /// The rows that are here and not there, by their tables; without tables of which there are none.
    pub(crate) fn without(&self, there: &Self) -> BTreeMap<&str, Vec<&DumpedRow>> {
        let mut more = BTreeMap::new();
        for (table, rows) in &self.0 {
            let known = there.rows(table);
            let rows: Vec<_> = rows.iter().filter(|row| !known.contains(*row)).collect();
            if !rows.is_empty() {
                more.insert(table.as_str(), rows);
            }
        }
        more
    }
}

/// The values of these rows that are long enough to say whose they are: ids, keys, hashes, ciphertext.
pub(crate) fn telling<'a>(rows: impl IntoIterator<Item = &'a DumpedRow>) -> BTreeSet<&'a str> {
    let values = rows.into_iter().flat_map(BTreeMap::values);
    values
        .map(String::as_str)
        .filter(|value| value.len() >= TELLING)
        .collect()
}

async fn sqlite(server: &Server) -> Dump {
    let options = SqliteConnectOptions::new()
        .filename(server.place().sqlite())
        .read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let mut dump = BTreeMap::new();
    for table in sqlx::query_scalar::<_, String>(SQLITE_TABLES)
        .fetch_all(&mut db)
        .await
        .unwrap()
    {
        let rows = sqlx::query(whole(format!("SELECT * FROM {table}")))
            .fetch_all(&mut db)
            .await
            .unwrap();
        dump.insert(table, rows.iter().map(sqlite_row).collect());
    }
    Dump(dump)
}

fn sqlite_row(row: &SqliteRow) -> DumpedRow {
    let mut dumped = DumpedRow::new();
    for column in row.columns() {
        let at = column.ordinal();
        let raw = row.try_get_raw(at).unwrap();
        let kind = raw.type_info().name().to_owned();
        let value = match kind.as_str() {
            _ if raw.is_null() => continue,
            "BLOB" => hex(&row.get::<Vec<u8>, _>(at)),
            "TEXT" => row.get(at),
            "INTEGER" | "BOOLEAN" => row.get_unchecked::<i64, _>(at).to_string(),
            other => panic!("a value of type {other}"),
        };
        dumped.insert(column.name().to_owned(), value);
    }
    dumped
}

async fn postgres(url: &str) -> Dump {
    let mut db = PgConnection::connect(url).await.unwrap();
    let mut dump = BTreeMap::new();
    for table in sqlx::query_scalar::<_, String>(POSTGRES_TABLES)
        .fetch_all(&mut db)
        .await
        .unwrap()
    {
        let rows: Vec<String> = sqlx::query_scalar(whole(format!("SELECT to_jsonb(t)::text FROM {table} AS t")))
            .fetch_all(&mut db)
            .await
            .unwrap();
        dump.insert(table, rows.iter().map(|row| postgres_row(row)).collect());
    }
    Dump(dump)
}

fn postgres_row(json: &str) -> DumpedRow {
    let row: BTreeMap<String, Value> = serde_json::from_str(json).unwrap();
    let values = row.into_iter().filter_map(|(column, value)| {
        let value = match value {
            Value::Null => return None,
            Value::Bool(value) => u8::from(value).to_string(),
            Value::String(text) => match text.strip_prefix("\\x") {
                Some(digits) => digits.to_owned(),
                None => uuid::Uuid::parse_str(&text).map_or(text, |id| id.as_simple().to_string()),
            },
            other => other.to_string(),
        };
        Some((column, value))
    });
    values.collect()
}

/// Names of tables come from the database itself.
#[expect(clippy::disallowed_types, reason = "no statement can name a table by a parameter")]
fn whole(statement: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(statement)
}

/// Sixteen hexadecimal digits: fewer could be anybody's.
const TELLING: usize = 16;
const SQLITE_TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlx%' \
    AND name NOT LIKE 'sqlite@_%' ESCAPE '@'";
const POSTGRES_TABLES: &str = "SELECT table_name::text FROM information_schema.tables \
    WHERE table_schema = current_schema() AND table_name NOT LIKE '%sqlx%'";
