//! The rows of the table: what is measured, in which order, on which server.
//!
//! Rows of a kind that leave something behind have a database of their own; those that do not share one, so that accounts are
//! registered once. Every server is started for its row, with its defaults but for what the load would run into.

mod bundles;
mod drain;
mod idle;
mod login;
mod offline;
mod online;
mod yardsticks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::load::Cost;
use crate::note;
use crate::people::{Person, Template, register};
use crate::report::{Report, Row};
use crate::server::{Backend, Server};
use crate::table::short;

pub(crate) use yardsticks::{Machine, OnDatabase};

/// What to measure, and with what.
pub(crate) struct Plan {
    pub(crate) binary: PathBuf,
    pub(crate) template: Template,
    /// For each measurement that goes by time.
    pub(crate) time: Duration,
    /// Pairs, or senders.
    pub(crate) pairs: usize,
    /// Numbers of idle sockets.
    pub(crate) idle: Vec<usize>,
    pub(crate) logins: usize,
    /// Names of rows, or what they begin with; empty for all.
    pub(crate) chosen: Vec<String>,
    /// Whether the limits are measured, too.
    pub(crate) limits: bool,
    /// The server's tick in the rows that are not about it; `None` for its own.
    pub(crate) answer_tick: Option<String>,
}

impl Plan {
    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        let begins = |chosen: &String| {
            row.strip_prefix(&**chosen)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        self.chosen.is_empty() || self.chosen.iter().any(begins)
    }

    /// Whether any of these is.
    fn wants_any<'a>(&self, mut rows: impl Iterator<Item = &'a str>) -> bool {
        rows.any(|row| self.wants(row))
    }

    async fn start(&self, backend: &Backend, answer_tick: Option<&str>) -> anyhow::Result<Server> {
        Server::start(&self.binary, backend, answer_tick).await
    }
}

/// Names that match no row.
pub(crate) fn unknown(chosen: &[String]) -> Vec<&String> {
    let is_unknown = |name: &&String| {
        let begins = |row: &&str| {
            row.strip_prefix(&***name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        !names().iter().any(|row| begins(&&**row))
    };
    chosen.iter().filter(is_unknown).collect()
}

/// All rows, in their order.
pub(crate) fn names() -> Vec<String> {
    let of = |rows: Vec<&str>| rows.into_iter().map(str::to_owned).collect::<Vec<_>>();
    [
        of(online::ROWS.iter().map(|row| row.name).collect()),
        of(offline::ROWS.iter().map(|row| row.name).collect()),
        of(drain::ROWS.iter().map(|row| row.name).collect()),
        of(bundles::ROWS.iter().map(|row| row.name).collect()),
        of(login::ROWS.to_vec()),
        of(vec![idle::ROW]),
    ]
    .concat()
}

/// Where the databases are.
pub(crate) enum Place {
    /// In files here.
    Sqlite,
    /// On a Postgres that was there, or that was started here.
    Postgres {
        /// Of a database on it.
        url: String,
    },
}

impl Place {
    /// A fresh database.
    async fn backend(&self) -> anyhow::Result<Backend> {
        match self {
            Self::Sqlite => Backend::sqlite(),
            Self::Postgres { url } => Backend::postgres(url).await,
        }
    }
}

/// Measures everything that was chosen on one kind of database.
pub(crate) async fn run(plan: &Plan, machine: &Machine, place: &Place) -> anyhow::Result<Report> {
    let backend = place.backend().await?;
    let mut report = Report {
        backend: backend.version().await?,
        limits: machine.rows.clone(),
        rows: Vec::new(),
    };
    let database = OnDatabase::measure(plan, place, &mut report.limits).await?;
    let mut accounts = Accounts::default();
    online::run(plan, machine, &backend, &mut accounts, &mut report.rows).await?;
    offline::run(plan, machine, &database, place, &mut report.rows).await?;
    drain::run(plan, &backend, &mut accounts, &mut report.rows).await?;
    bundles::run(plan, machine, &database, &backend, &mut accounts, &mut report.rows).await?;
    login::run(plan, &backend, &mut accounts, &mut report.rows).await?;
    idle::run(plan, &backend, &mut accounts, &mut report.rows).await?;
    backend.remove().await?;
    Ok(report)
}

/// Accounts of one database.
#[derive(Default)]
struct Accounts(Vec<Person>);

impl Accounts {
    /// So many; those that there are not yet are registered.
    async fn take(&mut self, server: &Server, template: &Template, count: usize) -> anyhow::Result<&[Person]> {
        let missing = count.saturating_sub(self.0.len());
        if missing > 0 {
            if missing > 1000 {
                note(&format!("registering {missing} accounts"));
            }
            let more = register(server, template, 1_000_000 + self.0.len(), missing).await?;
            self.0.extend(more);
        }
        self.0.get(..count).context("there are as many accounts")
    }
}

/// CPU of a server and its database.
struct Probe<'a> {
    server: &'a Server,
    backend: &'a Backend,
}

impl Cost for Probe<'_> {
    fn cpu(&self) -> anyhow::Result<(f64, Option<f64>)> {
        Ok((self.server.cpu_seconds()?, self.backend.cpu_seconds()?))
    }
}

/// A row that is done, for whoever waits.
fn done(rows: &mut Vec<Row>, row: Row) {
    let figures = [
        row.per_second.map(|rate| format!("{rate:.0} per second")),
        row.cpu().map(|cpu| format!("{cpu:.3} CPU-s per 10,000")),
    ];
    let more = row
        .more
        .iter()
        .map(|(name, value, unit)| format!("{name} {} {unit}", short(*value)));
    let figures: Vec<String> = figures.into_iter().flatten().chain(more).collect();
    note(&format!("  {}: {}", row.name, figures.join(", ")));
    rows.push(row);
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_name_is_a_row_or_whole_words_of_its_beginning() {
        let chosen = |name: &str| vec![name.to_owned()];
        assert!(unknown(&chosen("online")).is_empty());
        assert!(unknown(&chosen("online-16")).is_empty());
        assert_eq!(unknown(&chosen("onl")), [&"onl".to_owned()]);
        assert_eq!(unknown(&chosen("")), [&String::new()]);
    }

    #[test]
    fn the_help_names_every_row() {
        for name in names() {
            assert!(crate::AFTER_HELP.split_whitespace().any(|word| word == name), "{name}");
        }
    }

    #[test]
    fn no_two_rows_have_the_same_name() {
        let mut all = names();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
