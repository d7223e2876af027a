//! What is in the databases, asked of the databases.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use blind_relay::manifest::{Engine, Manifest, Table};
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::program;
use crate::support::server::Place;
use crate::support::{Backend, on_each_backend};

on_each_backend! {
    b1_the_live_schema_equals_the_manifest
    b1_what_the_manifest_does_not_list_is_found
}

async fn b1_the_live_schema_equals_the_manifest(backend: Backend) {
    let place = Place::new(backend).await;
    migrate(&place, "up");
    let live = Live::read(&place).await;
    assert_eq!(live.differences(engine(backend)), [""; 0]);
    // Every step back, and forth again.
    let steps = live.steps;
    assert!(steps > 1);
    for _ in 0..steps {
        migrate(&place, "down");
    }
    let empty = Live::read(&place).await;
    let left: Vec<_> = empty.columns.keys().collect();
    assert!(left.iter().all(|table| *table == "_sqlx_migrations"), "{left:?}");
    migrate(&place, "up");
    assert_eq!(Live::read(&place).await.differences(engine(backend)), [""; 0]);
}

async fn b1_what_the_manifest_does_not_list_is_found(backend: Backend) {
    let place = Place::new(backend).await;
    migrate(&place, "up");
    for (plant, found) in [
        ("CREATE TABLE extra (id INTEGER)", "table extra"),
        ("ALTER TABLE accounts ADD COLUMN extra INTEGER", "column accounts.extra"),
        ("ALTER TABLE profiles DROP COLUMN avatar", "column profiles.avatar"),
        (
            "CREATE INDEX extra_index ON devices (last_seen)",
            "index devices: extra_index",
        ),
        ("DROP INDEX devices_idle", "index devices: devices_idle"),
        ("CREATE VIEW extra_view AS SELECT aci FROM accounts", "extra_view"),
    ] {
        execute(&place, plant).await;
        let differences = Live::read(&place).await.differences(engine(backend));
        assert!(
            differences.iter().any(|line| line.contains(found)),
            "{found}: {differences:?}"
        );
    }
    let more: &[(&str, &str)] = match backend {
        Backend::Sqlite => &[(
            "CREATE TRIGGER extra_trigger AFTER DELETE ON settings BEGIN SELECT 1; END",
            "extra_trigger",
        )],
        Backend::Postgres => &[
            ("CREATE SEQUENCE extra_sequence", "extra_sequence"),
            (
                "CREATE MATERIALIZED VIEW extra_copy AS SELECT aci FROM accounts",
                "extra_copy",
            ),
            ("CREATE SCHEMA extra_schema", "extra_schema"),
            (
                "CREATE FUNCTION extra_function() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
                "extra_function",
            ),
            (
                "CREATE TRIGGER extra_trigger AFTER DELETE ON settings EXECUTE FUNCTION extra_function()",
                "extra_trigger",
            ),
            (
                "ALTER TABLE settings ALTER COLUMN name TYPE VARCHAR(9)",
                "column settings.name",
            ),
        ],
    };
    for (plant, found) in more {
        execute(&place, plant).await;
        let differences = Live::read(&place).await.differences(engine(backend));
        assert!(
            differences.iter().any(|line| line.contains(found)),
            "{found}: {differences:?}"
        );
    }
}

fn engine(backend: Backend) -> Engine {
    match backend {
        Backend::Sqlite => Engine::Sqlite,
        Backend::Postgres => Engine::Postgres,
    }
}

/// What a database says of itself.
struct Live {
    /// By table: name and declared type of each column.
    columns: BTreeMap<String, BTreeMap<String, String>>,
    /// By table: name, columns, whether unique and whether partial of each index.
    indexes: BTreeMap<String, BTreeMap<String, LiveIndex>>,
    /// Views, triggers, functions and whatever else is no table, column or index.
    others: Vec<String>,
    /// How many migrations it has seen.
    steps: i64,
}

#[derive(Debug, PartialEq, Eq)]
struct LiveIndex {
    columns: Vec<String>,
    unique: bool,
    partial: bool,
}

impl Live {
    async fn read(place: &Place) -> Self {
        let (columns, indexes, others, steps) = match place.database_url() {
            None => {
                let mut db = sqlite(place).await;
                (
                    sqlx::query_as(SQLITE_COLUMNS).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_as(SQLITE_INDEXES).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_scalar(SQLITE_OTHERS).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_scalar(STEPS).fetch_one(&mut db).await.unwrap(),
                )
            }
            Some(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                (
                    sqlx::query_as(POSTGRES_COLUMNS).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_as(POSTGRES_INDEXES).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_scalar(POSTGRES_OTHERS).fetch_all(&mut db).await.unwrap(),
                    sqlx::query_scalar(STEPS).fetch_one(&mut db).await.unwrap(),
                )
            }
        };
        let mut live = Self {
            columns: BTreeMap::new(),
            indexes: BTreeMap::new(),
            others,
            steps,
        };
        let columns: Vec<(String, String, String)> = columns;
        for (table, column, declared) in columns {
            live.columns.entry(table).or_default().insert(column, declared);
        }
        let indexes: Vec<(String, String, bool, bool, String)> = indexes;
        for (table, name, unique, partial, columns) in indexes {
            let columns = columns.split(',').map(str::to_owned).collect();
            let index = LiveIndex {
                columns,
                unique,
                partial,
            };
            live.indexes.entry(table).or_default().insert(name, index);
        }
        live
    }

    /// Everything in which it is not as the manifest says.
    fn differences(&self, engine: Engine) -> Vec<String> {
        let manifest = Manifest::embedded();
        let mut differences = self.others.clone();
        let listed: BTreeSet<&str> = manifest.tables.iter().map(|table| table.name.as_str()).collect();
        let live: BTreeSet<&str> = self.columns.keys().map(String::as_str).collect();
        differences.extend(listed.symmetric_difference(&live).map(|name| format!("table {name}")));
        for table in manifest
            .tables
            .iter()
            .filter(|table| live.contains(table.name.as_str()))
        {
            self.compare(table, engine, &mut differences);
        }
        differences
    }

    fn compare(&self, table: &Table, engine: Engine, differences: &mut Vec<String>) {
        let name = &table.name;
        let live = &self.columns[name];
        for column in &table.columns {
            match live.get(&column.name) {
                Some(declared) if column.column_type.is_declared(engine, declared) => {}
                declared => differences.push(format!("column {name}.{} is {declared:?}", column.name)),
            }
        }
        let unlisted = live.keys().filter(|column| table.column(column).is_none());
        differences.extend(unlisted.map(|column| format!("column {name}.{column} is not listed")));

        let listed: BTreeMap<&str, LiveIndex> = table
            .indexes_on(engine)
            .map(|(index_name, index)| {
                let index = LiveIndex {
                    columns: index.columns.clone(),
                    unique: index.is_unique(),
                    partial: index.partial,
                };
                (index_name, index)
            })
            .collect();
        let none = BTreeMap::new();
        let live = self.indexes.get(name).unwrap_or(&none);
        for (index, shape) in &listed {
            if live.get(*index) != Some(shape) {
                differences.push(format!("index {name}: {index} is {:?}", live.get(*index)));
            }
        }
        let unlisted = live.keys().filter(|index| !listed.contains_key(index.as_str()));
        differences.extend(unlisted.map(|index| format!("index {name}: {index} is not listed")));
    }
}

fn migrate(place: &Place, direction: &str) {
    let status = program()
        .args(["migrate", direction])
        .current_dir(place.path())
        .env("BLIND_RELAY_DATA_DIR", place.path().join("data"))
        .env("BLIND_RELAY_PEPPER_FILE", place.path().join("pepper"))
        .envs(place.database_url().map(|url| ("BLIND_RELAY_DATABASE_URL", url)))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "migrate {direction}");
}

async fn sqlite(place: &Place) -> SqliteConnection {
    let url = format!("sqlite://{}", place.sqlite().display());
    SqliteConnection::connect(&url).await.unwrap()
}

async fn execute(place: &Place, statement: &'static str) {
    match place.database_url() {
        None => drop(sqlx::query(statement).execute(&mut sqlite(place).await).await.unwrap()),
        Some(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut db).await.unwrap();
        }
    }
}

const STEPS: &str = "SELECT count(*) FROM _sqlx_migrations";
const SQLITE_COLUMNS: &str = "SELECT t.name, c.name, c.type FROM sqlite_master t, pragma_table_xinfo(t.name) c \
    WHERE t.type = 'table'";
const SQLITE_INDEXES: &str = "SELECT t.name, i.name, i.\"unique\", i.partial, \
        (SELECT group_concat(coalesce(k.name, '?')) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno) k) \
    FROM sqlite_master t, pragma_index_list(t.name) i WHERE t.type = 'table'";
const SQLITE_OTHERS: &str = "SELECT type || ' ' || name FROM sqlite_master WHERE type NOT IN ('table', 'index')";
// Of every schema but the system's own, so that nothing hides in another one.
const POSTGRES_COLUMNS: &str = "SELECT c.table_name::text, c.column_name::text, c.data_type::text \
    FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name) \
    WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema')";
const POSTGRES_INDEXES: &str = "SELECT r.relname::text, i.relname::text, x.indisunique, x.indpred IS NOT NULL, \
        (SELECT string_agg(coalesce(a.attname, '?'), ',' ORDER BY k.place) \
         FROM unnest(x.indkey) WITH ORDINALITY AS k(number, place) \
         LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number AND k.number <> 0) \
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class r ON r.oid = x.indrelid \
    JOIN pg_namespace n ON n.oid = r.relnamespace \
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";
const POSTGRES_OTHERS: &str = "SELECT format('relation %s of kind %s', c.relname, c.relkind) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind NOT IN ('r', 'i') \
    UNION ALL SELECT format('schema %s', nspname) FROM pg_namespace \
        WHERE nspname NOT IN ('public', 'information_schema') AND nspname NOT LIKE 'pg\\_%' \
    UNION ALL SELECT format('function %s', p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') \
    UNION ALL SELECT format('trigger %s', tgname) FROM pg_trigger WHERE NOT tgisinternal \
    UNION ALL SELECT format('event trigger %s', evtname) FROM pg_event_trigger \
    UNION ALL SELECT format('rule %s', rulename) FROM pg_rules WHERE schemaname NOT IN ('pg_catalog', 'information_schema') \
    UNION ALL SELECT format('extension %s', extname) FROM pg_extension WHERE extname <> 'plpgsql' \
    UNION ALL SELECT format('publication %s', pubname) FROM pg_publication \
    UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata";
