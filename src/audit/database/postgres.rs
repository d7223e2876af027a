//! PostgreSQL, in one snapshot that cannot write.

use std::str::FromStr;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Column, ConnectOptions, PgConnection, Row as _, TypeInfo, ValueRef};

use super::tables::Table;
use super::{Catalogue, EXPRESSION, LiveIndex, LiveTable, Row, Value, Visitor};

/// A connection inside of a transaction.
pub(in crate::audit) struct Reader {
    connection: PgConnection,
}

impl Reader {
    pub(super) async fn open(url: &str) -> Result<Self, sqlx::Error> {
        let connection = PgConnectOptions::from_str(url)?
            .application_name("blind-relay audit")
            .options(SETTINGS)
            .disable_statement_logging()
            .connect()
            .await?;
        let mut reader = Self { connection };
        reader.execute(BEGIN).await?;
        Ok(reader)
    }

    pub(super) async fn refresh(&mut self) -> Result<(), sqlx::Error> {
        self.execute("ROLLBACK").await?;
        self.execute(BEGIN).await
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(&mut self.connection).await.map(drop)
    }

    pub(super) async fn catalogue(&mut self) -> Result<Catalogue, sqlx::Error> {
        let mut catalogue = Catalogue::default();
        let relations: Vec<(String, String)> = sqlx::query_as(RELATIONS).fetch_all(&mut self.connection).await?;
        for (kind, name) in relations {
            match kind.as_str() {
                "r" | "p" => drop(catalogue.tables.insert(name, LiveTable::default())),
                "v" => catalogue.others.push(("view", name)),
                "m" => catalogue.others.push(("materialized view", name)),
                "f" => catalogue.others.push(("foreign table", name)),
                "S" => catalogue.others.push(("sequence", name)),
                _ => catalogue.others.push(("type with columns", name)),
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
        for &(kind, statement) in OTHERS {
            let names: Vec<String> = sqlx::query_scalar(statement).fetch_all(&mut self.connection).await?;
            catalogue.others.extend(names.into_iter().map(|name| (kind, name)));
        }
        Ok(catalogue)
    }

    pub(super) async fn estimate(&mut self, table: &Table) -> Result<i64, sqlx::Error> {
        // What the statistics say: counting would read the table, or its index, one more time.
        sqlx::query_scalar(ESTIMATE)
            .bind(table.name)
            .fetch_one(&mut self.connection)
            .await
    }

    pub(super) async fn count(&mut self, statement: &'static str) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(statement).fetch_one(&mut self.connection).await
    }

    pub(super) async fn read(&mut self, table: &Table, visitor: &mut dyn Visitor) -> Result<(), sqlx::Error> {
        // The rows wait in the server until they are taken: the connection holds a few at a time.
        let mut rows = sqlx::query(table.postgres_rows)
            .persistent(false)
            .fetch(&mut self.connection);
        let mut told = false;
        while let Some(row) = rows.try_next().await? {
            if !std::mem::replace(&mut told, true) {
                let names: Vec<&str> = row.columns().iter().skip(1).map(Column::name).collect();
                visitor.columns(&names);
            }
            let values = values(&row)?;
            let place = || {
                row.try_get::<&str, _>(0)
                    .map_or_else(|_| "?".to_owned(), |ctid| format!("ctid {ctid}"))
            };
            visitor.row(&Row {
                place: &place,
                values: &values,
            });
        }
        Ok(())
    }
}

fn values(row: &PgRow) -> Result<Vec<Value<'_>>, sqlx::Error> {
    (1..row.len())
        .map(|index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let kind = raw.type_info().into_owned();
            let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
            Ok(match kind.name() {
                "BYTEA" | "UUID" => Value::Bytes(bytes),
                "TEXT" | "VARCHAR" | "NAME" | "CHAR" => {
                    std::str::from_utf8(bytes).map_or(Value::Other(bytes), Value::Text)
                }
                "INT2" | "INT4" | "INT8" | "BOOL" => Value::Integer(integer(bytes)),
                _ => Value::Other(bytes),
            })
        })
        .collect()
}

/// A big-endian integer with sign; a boolean is one byte.
fn integer(bytes: &[u8]) -> i64 {
    match *bytes {
        [a] => i64::from(a),
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const SETTINGS: [(&str, &str); 4] = [
    ("default_transaction_read_only", "on"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "0"),
    ("jit", "off"),
];

// Names of this schema stand alone, others behind their schema: nothing of ours is in another.
const RELATIONS: &str = "SELECT c.relkind::text, \
        CASE WHEN n.nspname = current_schema() THEN c.relname::text ELSE n.nspname || '.' || c.relname END \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') \
        AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
            AND d.deptype = 'e') \
    ORDER BY 1, 2";
const COLUMNS: &str = "SELECT \
        CASE WHEN n.nspname = current_schema() THEN c.relname::text ELSE n.nspname || '.' || c.relname END, \
        a.attname::text, format_type(a.atttypid, NULL) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p') \
        AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY 1, a.attnum";
// Columns that an index only carries along are in it as well.
const INDEXES: &str = "SELECT \
        CASE WHEN n.nspname = current_schema() THEN t.relname::text ELSE n.nspname || '.' || t.relname END, \
        c.relname::text, i.indisunique, i.indpred IS NOT NULL, a.attname::text \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
        JOIN pg_namespace n ON n.oid = t.relnamespace \
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) \
        LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum AND k.attnum > 0 \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ORDER BY 1, 2, k.place";
const ESTIMATE: &str = "SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = to_regclass($1)";

/// What the manifest says there is none of, with a statement that lists the names.
const OTHERS: &[(&str, &str)] = &[
    (
        "trigger",
        "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    ),
    (
        "rule",
        "SELECT r.rulename::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class \
            JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE r.rulename <> '_RETURN' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
    ),
    (
        "function",
        "SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
            AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid \
                AND d.deptype = 'e') ORDER BY 1",
    ),
    ("event trigger", "SELECT evtname::text FROM pg_event_trigger ORDER BY 1"),
    ("publication", "SELECT pubname::text FROM pg_publication ORDER BY 1"),
    (
        "large object",
        "SELECT 'large object' FROM pg_largeobject_metadata LIMIT 1",
    ),
];
