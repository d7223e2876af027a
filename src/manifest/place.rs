//! The places beside the database where something can be: Redis, metrics, the log, the attachment store, files, settings,
//! services of others.

use serde::Deserialize;

use super::{Entropy, Form};

/// A name in Redis.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisName {
    /// Its name; `*` stands for any characters.
    pub name: String,
    /// What it is.
    pub kind: RedisKind,
    /// What its values or messages look like.
    pub form: Form,
    /// Whether they must look like random bytes.
    pub entropy: Option<Entropy>,
    /// What passes there.
    pub carries: Vec<String>,
    /// What it is for.
    pub what: String,
}

/// What a name in Redis is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RedisKind {
    /// Something stored.
    Key,
    /// Messages that are not stored.
    Channel,
}

/// A metric.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// How it counts.
    pub kind: MetricKind,
    /// The datum that it shows a sum of.
    pub datum: String,
    /// What it counts.
    pub what: String,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// How a metric counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Upwards.
    Counter,
    /// Up and down.
    Gauge,
    /// By size.
    Histogram,
}

/// A label of a metric. It says its values, or what bounds them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// All its values.
    pub values: Option<Vec<String>>,
    /// What bounds its values, where they are too many to list.
    pub bounded_by: Option<BoundedBy>,
}

/// A closed set of label values that is listed elsewhere.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BoundedBy {
    /// The patterns of the route list, those of WebSockets and health, and `none`.
    Routes,
    /// Statuses of HTTP.
    Statuses,
    /// Names of the declared rate limits.
    Limits,
}

/// A field of a line in the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogField {
    /// Its name.
    pub name: String,
    /// What writes it.
    pub origin: LogFieldOrigin,
    /// What it says.
    pub what: String,
}

/// What writes a field of the log.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LogFieldOrigin {
    /// The log itself, on each line.
    Format,
    /// A line of the program.
    Event,
}

/// How objects in the attachment store are named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// Below the directory, or the bucket's prefix; what is in braces differs from object to object.
    pub name: String,
    /// The datum that its bytes are.
    pub datum: String,
    /// What its bytes look like.
    pub form: Form,
    /// Whether they must look like random bytes.
    pub entropy: Option<Entropy>,
    /// What it is.
    pub what: String,
}

/// A file or directory that the server writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where, by default: below the data directory. What is in braces differs.
    pub path: String,
    /// The setting that names another place.
    pub setting: Option<String>,
    /// Its permission bits, in octal; absent where the process's umask decides.
    pub mode: Option<String>,
    /// Whether whoever reads it has a secret.
    pub secret: bool,
    /// The datum that it holds; absent where that is whatever the tables hold.
    pub datum: Option<String>,
    /// What it is.
    pub what: String,
}

/// A setting that is a secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSecret {
    /// The setting. Its value can also come from the file that KEY`_file` names.
    pub key: String,
    /// What it is.
    pub what: String,
    /// What whoever has it can do.
    pub opens: String,
}

/// A service of others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThirdParty {
    /// What it is.
    pub name: String,
    /// The setting without which there is none.
    pub setting: String,
    /// What it gets.
    pub gets: String,
    /// What it is for.
    pub why: String,
}

impl RedisName {
    /// Whether a name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.name.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.is_empty()
    }
}

impl Metric {
    /// Whether the exporter writes such a series for it.
    pub fn has_series(&self, series: &str) -> bool {
        match series.strip_prefix(self.name.as_str()) {
            Some("") => self.kind != MetricKind::Histogram,
            Some("_bucket" | "_sum" | "_count") => self.kind == MetricKind::Histogram,
            _ => false,
        }
    }

    /// The label of this name. The buckets of a histogram also have `le`, which says a boundary.
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.labels.iter().find(|label| label.name == name)
    }
}
