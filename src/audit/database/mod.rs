//! The database under audit: its catalogue, and every row of it, read without getting in the way of the server that uses it.
//!
//! SQLite is read in pages, each a short transaction of its own: a long one would keep the server from emptying its log, and
//! then from writing. PostgreSQL is read in one snapshot, row by row as they come. Neither connection can write.

mod postgres;
mod sqlite;
mod tables;

use std::collections::BTreeMap;

use crate::config::{self, Config};

pub(super) use tables::{ORPHANS, TABLES};

/// A connection that only reads.
pub(super) enum Database {
    /// A file.
    Sqlite(Box<sqlite::Reader>),
    /// A server.
    Postgres(Box<postgres::Reader>),
}

/// What the database says that it holds.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Tables by name.
    pub(super) tables: BTreeMap<String, LiveTable>,
    /// Whatever else there is: its kind and its name.
    pub(super) others: Vec<(&'static str, String)>,
}

/// A table as it is.
#[derive(Debug, Default)]
pub(super) struct LiveTable {
    /// Columns in their order: name and type, as the database calls it.
    pub(super) columns: Vec<(String, String)>,
    /// Indexes by name.
    pub(super) indexes: BTreeMap<String, LiveIndex>,
}

/// An index as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveIndex {
    /// Its columns in their order; [`EXPRESSION`] where it has none.
    pub(super) columns: Vec<String>,
    /// Whether it refuses doubles.
    pub(super) unique: bool,
    /// Whether it leaves rows out.
    pub(super) partial: bool,
}

/// What an index has in place of a column.
pub(super) const EXPRESSION: &str = "(expression)";

/// One row.
pub(super) struct Row<'a> {
    /// Where it is, for whoever looks for it: no value of the row.
    pub(super) place: &'a dyn Fn() -> String,
    /// Its values, in the order of the names that came before.
    pub(super) values: &'a [Value<'a>],
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Nothing.
    Null,
    /// A number or a boolean.
    Integer(i64),
    /// Text.
    Text(&'a str),
    /// Bytes, a UUID's among them.
    Bytes(&'a [u8]),
    /// Something that no declared column has, as the database sends it.
    Other(&'a [u8]),
}

/// What is told of each row, and once before of the columns.
pub(super) trait Visitor: Send {
    /// The names of the columns.
    fn columns(&mut self, names: &[&str]);
    /// A row.
    fn row(&mut self, row: &Row<'_>);
}

impl Database {
    /// Opens the configured one.
    pub(super) async fn open(config: &Config) -> Result<Self, sqlx::Error> {
        Ok(match &config.database {
            config::Database::Sqlite(path) => Self::Sqlite(Box::new(sqlite::Reader::open(path).await?)),
            config::Database::Postgres(url) => Self::Postgres(Box::new(postgres::Reader::open(url.expose()).await?)),
        })
    }

    /// For the report.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Looks anew from here on: PostgreSQL shows what was committed by now.
    pub(super) async fn refresh(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(reader) => reader.refresh().await,
        }
    }

    /// What is there.
    pub(super) async fn catalogue(&mut self) -> Result<Catalogue, sqlx::Error> {
        match self {
            Self::Sqlite(reader) => reader.catalogue().await,
            Self::Postgres(reader) => reader.catalogue().await,
        }
    }

    /// About how many rows there are in [`TABLES`]`[table]`.
    pub(super) async fn estimate(&mut self, table: usize) -> Result<u64, sqlx::Error> {
        let count = match self {
            Self::Sqlite(reader) => reader.estimate(&TABLES[table]).await?,
            Self::Postgres(reader) => reader.estimate(&TABLES[table]).await?,
        };
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Every row of [`TABLES`]`[table]`.
    pub(super) async fn read(&mut self, table: usize, visitor: &mut dyn Visitor) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(reader) => reader.read(&TABLES[table], visitor).await,
            Self::Postgres(reader) => reader.read(&TABLES[table], visitor).await,
        }
    }

    /// How many rows [`ORPHANS`]`[rule]` finds.
    pub(super) async fn orphans(&mut self, rule: usize) -> Result<u64, sqlx::Error> {
        let count = match self {
            Self::Sqlite(reader) => reader.count(ORPHANS[rule].count).await?,
            Self::Postgres(reader) => reader.count(ORPHANS[rule].count).await?,
        };
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
