//! From merged values to types: each read names its key, so that a refusal can name it too.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::layers::{Origin, Settings};
use super::secret::Secret;

/// Reads typed values and notes what does not fit. Where it noted something it returns a value nobody will use.
pub(super) struct Reader<'a> {
    settings: &'a mut Settings,
    /// The keys that were read: a test compares them with `defaults.toml`.
    pub(super) seen: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a mut Settings) -> Self {
        Self {
            settings,
            seen: Vec::new(),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> String {
        match self.value(key) {
            Value::String(text) => text,
            other => unreachable!("{key} keeps the type of its default, not {}", other.type_str()),
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        self.value(key) == Value::Boolean(true)
    }

    pub(super) fn integer<N>(&mut self, key: &'static str, range: RangeInclusive<N>) -> N
    where
        N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let number = self.value(key).as_integer().and_then(|number| N::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let remedy = format!("choose a number from {} to {}", range.start(), range.end());
                self.refuse(key, "out of range", remedy);
                *range.start()
            }
        }
    }

    pub(super) fn seconds(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.integer(key, range))
    }

    pub(super) fn millis(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.integer(key, range))
    }

    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(Secret::new)
    }

    pub(super) fn address(&mut self, key: &'static str) -> SocketAddr {
        let text = self.text(key);
        self.parse_address(key, &text)
    }

    pub(super) fn addresses(&mut self, key: &'static str) -> Vec<SocketAddr> {
        let Value::Array(items) = self.value(key) else {
            unreachable!("{key} keeps the type of its default");
        };
        if items.is_empty() {
            self.refuse(key, "no address", "give at least one, such as 127.0.0.1:8080");
        }
        items
            .iter()
            .filter_map(Value::as_str)
            .map(|text| self.parse_address(key, text))
            .collect()
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Vec<String> {
        let Value::Array(items) = self.value(key) else {
            unreachable!("{key} keeps the type of its default");
        };
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A table whose names are the operator's own.
    pub(super) fn table(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Value::Table(items) = self.value(key) else {
            unreachable!("{key} keeps the type of its default");
        };
        items
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
            .collect()
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key);
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| !name.is_empty())
                .collect();
            self.refuse(key, "unknown value", format!("choose {}", names.join(" or ")));
        }
        found
    }

    /// Notes that the value of `key` cannot be used.
    pub(super) fn refuse(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let origin = self
            .settings
            .find(key)
            .map_or(Origin::Default, |setting| setting.origin.clone());
        self.settings.problem(key, &origin, what, remedy);
    }

    fn parse_address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.refuse(
                key,
                "not an address",
                "write IP:PORT, such as 127.0.0.1:8080 or [::1]:8080",
            );
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        })
    }

    fn value(&mut self, key: &'static str) -> Value {
        self.seen.push(key);
        let setting = self.settings.find(key);
        setting
            .unwrap_or_else(|| unreachable!("{key} is in defaults.toml, a test reads all"))
            .value
            .clone()
    }
}
