//! SQLite, while a server has the file open: readers take no lock that a writer waits for.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Column, ConnectOptions, Decode, Row as _, Sqlite, SqliteConnection, TypeInfo, Value as _, ValueRef};

use super::tables::Table;
use super::{Catalogue, EXPRESSION, LiveIndex, Row, Value, Visitor};

/// A connection.
pub(in crate::audit) struct Reader {
    connection: SqliteConnection,
}

impl Reader {
    pub(super) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let connection = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("query_only", "ON")
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", "-8192")
            .disable_statement_logging()
            .connect()
            .await?;
        Ok(Self { connection })
    }

    pub(super) async fn catalogue(&mut self) -> Result<Catalogue, sqlx::Error> {
        let mut catalogue = Catalogue::default();
        let things: Vec<(String, String)> = sqlx::query_as(THINGS).fetch_all(&mut self.connection).await?;
        for (kind, name) in things {
            match kind.as_str() {
                // Counts of rows for the planner. Its larger sisters hold values.
                "table" if name == "sqlite_stat1" => {}
                "table" => drop(catalogue.tables.insert(name, super::LiveTable::default())),
                "view" => catalogue.others.push(("view", name)),
                "trigger" => catalogue.others.push(("trigger", name)),
                // Told with their tables.
                "index" => {}
                _ => catalogue.others.push(("thing of an unknown kind", name)),
            }
        }
        let columns: Vec<(String, String, String)> = sqlx::query_as(COLUMNS).fetch_all(&mut self.connection).await?;
        for (table, name, kind) in columns {
            if let Some(table) = catalogue.tables.get_mut(&table) {
                table.columns.push((name, kind));
            }
        }
        let indexes: Vec<(String, String, bool, bool, Option<String>)> =
            sqlx::query_as(INDEXES).fetch_all(&mut self.connection).await?;
        for (table, name, unique, partial, column) in indexes {
            let Some(table) = catalogue.tables.get_mut(&table) else {
                continue;
            };
            let index = table.indexes.entry(name).or_insert_with(|| LiveIndex {
                columns: Vec::new(),
                unique,
                partial,
            });
            index.columns.push(column.unwrap_or_else(|| EXPRESSION.to_owned()));
        }
        Ok(catalogue)
    }

    pub(super) async fn estimate(&mut self, table: &Table) -> Result<i64, sqlx::Error> {
        self.count(table.sqlite_count).await
    }

    pub(super) async fn count(&mut self, statement: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(statement).fetch_one(&mut self.connection).await
    }

    pub(super) async fn read(&mut self, table: &Table, visitor: &mut dyn Visitor) -> Result<(), sqlx::Error> {
        let mut from = i64::MIN;
        let (mut number, mut told) = (0_u64, false);
        loop {
            let mut rows = sqlx::query(table.sqlite_page)
                .bind(from)
                .bind(PAGE)
                .fetch(&mut self.connection);
            let mut last = None;
            let mut of_page = 0;
            while let Some(row) = rows.try_next().await? {
                if !std::mem::replace(&mut told, true) {
                    let names: Vec<&str> = row.columns().iter().skip(1).map(Column::name).collect();
                    visitor.columns(&names);
                }
                let id: i64 = row.try_get(0)?;
                let values = values(&row)?;
                (last, of_page, number) = (Some(id), of_page + 1, number + 1);
                let place = || match table.rowid_is_value {
                    true => format!("row {number} in the order of the key"),
                    false => format!("rowid {id}"),
                };
                visitor.row(&Row {
                    place: &place,
                    values: &values,
                });
            }
            from = match last.and_then(|last| last.checked_add(1)) {
                Some(next) if of_page == PAGE => next,
                _ => return Ok(()),
            };
        }
    }
}

fn values(row: &SqliteRow) -> Result<Vec<Value<'_>>, sqlx::Error> {
    (1..row.len())
        .map(|index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            // What the value is, not what its column says.
            let kind = raw.to_owned().type_info().name().to_owned();
            let decoded = match kind.as_str() {
                "INTEGER" | "BOOLEAN" | "BIGINT" => <i64 as Decode<Sqlite>>::decode(raw).map(Value::Integer),
                "TEXT" => <&str as Decode<Sqlite>>::decode(raw).map(Value::Text),
                "BLOB" => <&[u8] as Decode<Sqlite>>::decode(raw).map(Value::Bytes),
                _ => <&[u8] as Decode<Sqlite>>::decode(raw).map(Value::Other),
            };
            decoded.map_err(sqlx::Error::Decode)
        })
        .collect()
}

/// Rows of one short transaction: some milliseconds.
const PAGE: i64 = 2_000;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const THINGS: &str = "SELECT type, name FROM sqlite_schema ORDER BY type, name";
const COLUMNS: &str = "SELECT s.name, c.name, c.type FROM sqlite_schema s JOIN pragma_table_xinfo(s.name) c \
    WHERE s.type = 'table' ORDER BY s.name, c.cid";
const INDEXES: &str = "SELECT s.name, l.name, l.\"unique\", l.partial, x.name FROM sqlite_schema s \
    JOIN pragma_index_list(s.name) l JOIN pragma_index_xinfo(l.name) x \
    WHERE s.type = 'table' AND x.key = 1 ORDER BY s.name, l.name, x.seqno";
