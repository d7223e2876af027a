//! The manifest: all that this server stores, says or shows, and what it is for. What is not in it must not exist.
//!
//! The list itself is `keys-schema/manifest.toml`, whose head explains each of its fields; here are its types, the one
//! reader, and the questions that the audit and the tests ask. It is part of the program, so that a running server can be
//! held against what its own release promised.

mod check;
mod datum;
mod place;
mod table;

use std::sync::LazyLock;

use serde::Deserialize;

pub use datum::{Datum, Held, Subject, Viewer};
pub use place::{
    BoundedBy, ConfigSecret, File, Label, LogField, LogFieldOrigin, Metric, MetricKind, ObjectName, RedisKind,
    RedisName, ThirdParty,
};
pub use table::{Column, ColumnType, Engine, Entropy, Form, Index, IndexKind, Table};

/// All that the server stores, says or shows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What is in none of its places, in any form.
    pub never: Vec<String>,
    /// What the server knows, in words.
    #[serde(rename = "datum")]
    pub data: Vec<Datum>,
    /// Tables, equal on both databases but for types and the names of indexes.
    #[serde(rename = "table")]
    pub tables: Vec<Table>,
    /// Keys and channels in Redis.
    pub redis: Vec<RedisName>,
    /// Metrics with their labels.
    #[serde(rename = "metric")]
    pub metrics: Vec<Metric>,
    /// Fields that a line of the log may have.
    #[serde(rename = "log_field")]
    pub log_fields: Vec<LogField>,
    /// Names of objects in the attachment store.
    #[serde(rename = "object")]
    pub objects: Vec<ObjectName>,
    /// Files that the server writes.
    #[serde(rename = "file")]
    pub files: Vec<File>,
    /// Settings that are secrets.
    #[serde(rename = "secret")]
    pub secrets: Vec<ConfigSecret>,
    /// Services of others that the server speaks to, or that clients reach with what it gives them.
    #[serde(rename = "third_party")]
    pub third_parties: Vec<ThirdParty>,
}

/// A text that is no manifest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the manifest: {}", .0.join("; "))]
pub struct ManifestError(
    /// Each thing that is wrong with it.
    pub Vec<String>,
);

impl Manifest {
    /// The manifest of this release.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    /// Reads a manifest and checks that it holds together.
    ///
    /// # Errors
    /// If it has unknown or missing fields, or says something twice, of nothing, or against itself.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError(vec![error.to_string()]))?;
        let problems = check::problems(&manifest);
        if problems.is_empty() {
            Ok(manifest)
        } else {
            Err(ManifestError(problems))
        }
    }

    /// The datum of this id.
    pub fn datum(&self, id: &str) -> Option<&Datum> {
        self.data.iter().find(|datum| datum.id == id)
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The column of this name.
    pub fn column(&self, table: &str, column: &str) -> Option<&Column> {
        self.table(table)?.column(column)
    }

    /// Every column with its table.
    pub fn columns(&self) -> impl Iterator<Item = (&Table, &Column)> {
        let tables = self.tables.iter();
        tables.flat_map(|table| table.columns.iter().map(move |column| (table, column)))
    }

    /// Who or what a column is about: what its datum is about, unless the column says otherwise.
    pub fn subject(&self, column: &Column) -> Subject {
        let of_datum = || self.datum(&column.datum).map_or(Subject::Nobody, |datum| datum.about);
        column.about.unwrap_or_else(of_datum)
    }

    /// The columns that are about such a subject, as an export must show them and an erasure must empty them.
    pub fn columns_about(&self, subject: Subject) -> impl Iterator<Item = (&Table, &Column)> {
        self.columns()
            .filter(move |(_, column)| self.subject(column) == subject)
    }

    /// Whether Redis may have a key or channel of this name.
    pub fn redis_name(&self, kind: RedisKind, name: &str) -> Option<&RedisName> {
        self.redis
            .iter()
            .find(|known| known.kind == kind && known.matches(name))
    }

    /// The metric of a series as the exporter spells it, which appends `_bucket`, `_sum` and `_count` to a histogram.
    pub fn metric_of_series(&self, series: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.has_series(series))
    }

    /// The log field of this name.
    pub fn log_field(&self, name: &str) -> Option<&LogField> {
        self.log_fields.iter().find(|field| field.name == name)
    }
}

static EMBEDDED: LazyLock<Manifest> = LazyLock::new(|| {
    // A test reads it in every run, so that no release has one that is refused.
    Manifest::parse(keys_schema::MANIFEST).expect("the manifest in the program holds together")
});

#[cfg(test)]
mod tests;
