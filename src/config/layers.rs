//! The layers of settings and where each value came from.
//!
//! `defaults.toml` is the list of keys: a layer can replace a value it finds there and nothing else. Whatever else it
//! says is a [`Problem`] that names the nearest known key; loading goes on, so that an operator sees all of them at once.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `defaults.toml`.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// A file that holds one secret.
    SecretFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::SecretFile(path) => write!(f, "secret file {}", path.display()),
        }
    }
}

/// A setting that cannot be used, and how to mend it. Holds no values of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or what stands in its place.
    pub key: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}; {}", self.key, self.origin, self.what, self.remedy)
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, in the order of the layers.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// One value of the command line.
pub struct Flag {
    /// The key it sets.
    pub key: &'static str,
    /// As it was typed, e.g. `--listen`.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// A key with its value and origin.
pub struct Setting {
    /// Dotted, e.g. `queue.max_envelopes`.
    pub key: String,
    /// The value, of the type that the default has.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// The merged layers, in the order of `defaults.toml`.
pub struct Settings {
    entries: Vec<Setting>,
    /// What the layers said wrongly.
    pub problems: Vec<Problem>,
}

impl Settings {
    /// The defaults alone.
    pub fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("defaults.toml is TOML, a test reads it");
        let mut entries = Vec::new();
        for (key, value) in table {
            match value {
                // An empty table is one whose keys are the operator's own: a setting as a whole.
                Value::Table(inner) if !inner.is_empty() => {
                    entries.extend(inner.into_iter().map(|(name, value)| Setting {
                        key: format!("{key}.{name}"),
                        value,
                        origin: Origin::Default,
                    }))
                }
                value => entries.push(Setting {
                    key,
                    value,
                    origin: Origin::Default,
                }),
            }
        }
        Self {
            entries,
            problems: Vec::new(),
        }
    }

    /// Every key, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.entries.iter()
    }

    /// The setting of a key that is in `defaults.toml`.
    pub fn find(&self, key: &str) -> Option<&Setting> {
        self.entries.iter().find(|setting| setting.key == key)
    }

    /// Lays the text of a configuration file over what is there.
    pub fn apply_toml(&mut self, text: &str, path: &Path) {
        let origin = Origin::File(path.to_owned());
        match text.parse::<Table>() {
            Ok(table) => self.apply_table("", table, &origin),
            Err(error) => {
                // Not the error's own text: it quotes the line, which may hold a password.
                let line = error.span().map_or(1, |span| {
                    1 + text
                        .as_bytes()
                        .iter()
                        .take(span.start)
                        .filter(|byte| **byte == b'\n')
                        .count()
                });
                let what = format!("line {line} is not TOML");
                self.problem(
                    "configuration",
                    &origin,
                    what,
                    "quote strings and write one key = value per line",
                );
            }
        }
    }

    /// Lays the variables that start with `BLIND_RELAY_` over what is there.
    pub fn apply_environment(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(short) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if short == "CONFIG" || short == "BIN" || short.starts_with("TEST_") {
                continue;
            }
            let origin = Origin::Environment(name.to_owned());
            let key = short.to_ascii_lowercase().replace("__", ".");
            let Some(index) = self.index(&key).filter(|_| short == short.to_ascii_uppercase()) else {
                let remedy = match self.nearest(&key) {
                    Some(nearest) => format!("the nearest known name is {}", environment_name(nearest)),
                    None => "`blind-relay config` lists every key".to_owned(),
                };
                self.problem(name, &origin, "unknown variable", remedy);
                continue;
            };
            let Some(text) = value.to_str() else {
                self.problem(&key, &origin, "the value is not UTF-8", "write it in UTF-8");
                continue;
            };
            match parse_like(&self.entries[index].value, text) {
                Some(value) => self.set(index, value, origin),
                None => self.wrong_type(index, &origin),
            }
        }
    }

    /// Lays the flags over what is there.
    pub fn apply_flags(&mut self, flags: Vec<Flag>) {
        for flag in flags {
            let origin = Origin::Flag(flag.name);
            match self.index(flag.key) {
                Some(index) => self.replace(index, flag.value, origin),
                None => self.unknown(flag.key, &origin),
            }
        }
    }

    /// Puts the text of a secret's file in the place of the secret.
    pub fn set_secret(&mut self, key: &str, text: &str, path: &Path) {
        if let Some(index) = self.index(key) {
            self.set(
                index,
                Value::String(text.to_owned()),
                Origin::SecretFile(path.to_owned()),
            );
        }
    }

    /// Notes a problem.
    pub fn problem(&mut self, key: &str, origin: &Origin, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin: origin.clone(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    fn apply_table(&mut self, prefix: &str, table: Table, origin: &Origin) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match (self.index(&key), value) {
                (Some(index), value) => self.replace(index, value, origin.clone()),
                // Tables do not nest in `defaults.toml`, so neither does this.
                (None, Value::Table(inner)) if prefix.is_empty() && self.is_table(&key) => {
                    self.apply_table(&format!("{key}."), inner, origin);
                }
                (None, _) if self.is_table(&key) => {
                    self.problem(&key, origin, "is a table", format!("write [{key}] and its keys below"));
                }
                (None, _) => self.unknown(&key, origin),
            }
        }
    }

    fn replace(&mut self, index: usize, value: Value, origin: Origin) {
        let value = match (&self.entries[index].value, value) {
            // One address may stand without brackets.
            (Value::Array(_), Value::String(one)) => Value::Array(vec![Value::String(one)]),
            (_, value) => value,
        };
        if fits(&self.entries[index].value, &value) {
            self.set(index, value, origin);
        } else {
            self.wrong_type(index, &origin);
        }
    }

    fn set(&mut self, index: usize, value: Value, origin: Origin) {
        let entry = &mut self.entries[index];
        entry.value = value;
        entry.origin = origin;
    }

    fn wrong_type(&mut self, index: usize, origin: &Origin) {
        let (key, wanted) = (self.entries[index].key.clone(), describe(&self.entries[index].value));
        self.problem(&key, origin, "wrong kind of value", format!("write {wanted}"));
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let remedy = match self.nearest(key) {
            Some(nearest) => format!("the nearest known key is {nearest}"),
            None => "`blind-relay config` lists every key".to_owned(),
        };
        self.problem(key, origin, "unknown key", remedy);
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .map(|setting| {
                // A key that was written without its table, or in the wrong one, is near as well.
                let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
                let whole = strsim::jaro_winkler(key, &setting.key);
                (
                    whole.max(strsim::jaro_winkler(&leaf(key), &leaf(&setting.key))),
                    setting.key.as_str(),
                )
            })
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, key)| key)
    }

    fn index(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|setting| setting.key == key)
    }

    fn is_table(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }
}

/// The variable that sets a key.
pub fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// The file that names every key.
pub const DEFAULTS: &str = include_str!("defaults.toml");

const PREFIX: &str = "BLIND_RELAY_";

fn fits(default: &Value, value: &Value) -> bool {
    match (default, value) {
        (Value::Array(_), Value::Array(items)) => items.iter().all(Value::is_str),
        (Value::Table(_), Value::Table(items)) => items.iter().all(|(_, value)| value.is_str()),
        _ => default.same_type(value),
    }
}

fn parse_like(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::Integer(_) => text.trim().replace('_', "").parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Value::Table(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let pairs = items.map(|item| {
                let (name, value) = item.split_once('=')?;
                Some((name.trim().to_owned(), Value::String(value.trim().to_owned())))
            });
            pairs.collect::<Option<Table>>().map(Value::Table)
        }
        _ => Some(Value::String(text.to_owned())),
    }
}

fn describe(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of strings",
        Value::Table(_) => "name = \"value\", with quotes around a name that has dots",
        _ => "a string",
    }
}
