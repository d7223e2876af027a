//! `blind-relay audit`: holds a running system against the manifest, and writes down what it found.
//!
//! It changes nothing that it audits. Each check tells what it looked at, or why it could not; what could not be looked at
//! is never counted as well.

mod canary;
mod client;
mod database;
mod entropy;
mod findings;
mod log;
mod metrics;
mod needles;
mod progress;
mod recognise;
mod redis;
mod report;
mod schema;
#[cfg(test)]
mod testing;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use sha2::{Digest, Sha256};

use crate::cli::{AuditStep, BlindnessArgs};
use crate::config::{self, Config, Tls};
use crate::domain::{Clock, SystemClock, Timestamp};
use crate::encoding;
use crate::manifest::{Engine, Manifest};
use crate::secret_file;
use crate::server::{location, say};
use crate::storage::migrate::{self, Schema};

use canary::Canary;
use client::Client;
use database::{Catalogue, Database, ORPHANS, TABLES};
use findings::{At, Findings, Severity};
use needles::Needles;
use progress::Progress;
use report::{Check, FORMAT, Key, Report, State, Table, Verdict};
use values::{Scan, Seek};

/// Runs the step. The exit status is 0 if all is well, 1 if it is not, and 2 if that could not be found out.
pub async fn run(config: &Config, step: AuditStep) -> ExitCode {
    match step {
        AuditStep::Blindness(arguments) => blindness(config, &arguments).await,
        AuditStep::Verify { file, public_key } => match report::verify(&file, public_key.as_deref()) {
            Ok((report, key)) => {
                let known = if public_key.is_some() {
                    "the expected key"
                } else {
                    "a key to compare"
                };
                say(&format!("{}signed with {known}: {key}\n", report.as_text()));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("blind-relay: {}: {error}", file.display());
                ExitCode::FAILURE
            }
        },
    }
}

async fn blindness(config: &Config, arguments: &BlindnessArgs) -> ExitCode {
    let report = match audit(config, arguments, SystemClock.now()).await {
        Ok(report) => report,
        Err(why) => {
            eprintln!("blind-relay: cannot audit: {why}");
            return ExitCode::from(CANNOT);
        }
    };
    say(&report.as_text());
    if let Some(path) = &arguments.report {
        match write(&report, path, &key_path(config, arguments)) {
            Ok(public) => say(&format!("report: {}, signed with {public}\n", path.display())),
            Err(why) => {
                eprintln!("blind-relay: the report was not written: {why}");
                return ExitCode::from(CANNOT);
            }
        }
    }
    match report.verdict {
        Verdict::Clean => ExitCode::SUCCESS,
        Verdict::Violations => ExitCode::FAILURE,
        Verdict::Incomplete => ExitCode::from(CANNOT),
    }
}

fn key_path(config: &Config, arguments: &BlindnessArgs) -> PathBuf {
    let default = || config.data_dir.join("audit-key");
    arguments.key.clone().unwrap_or_else(default)
}

fn write(report: &Report, path: &Path, key: &Path) -> Result<String, String> {
    if let Some(directory) = key.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = secret_file::create_private_dir(directory);
        made.map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let key = Key::read_or_create(key).map_err(|error| error.to_string())?;
    report.write(path, &key).map_err(|error| error.to_string())?;
    Ok(key.public())
}

/// Looks at everything. An error says why nothing could be looked at.
async fn audit(config: &Config, arguments: &BlindnessArgs, now: Timestamp) -> Result<Report, String> {
    match migrate::check(&location(config)).await {
        Ok(Schema::Current) => {}
        Ok(Schema::Outdated) => {
            return Err("the database is not at this release's schema; start the server first".into());
        }
        Err(error) => return Err(error.to_string()),
    }
    // The error may quote a URL.
    let opened = Database::open(config).await;
    let database = opened.map_err(|_| "the database cannot be opened; see `blind-relay doctor`".to_owned())?;
    let mut audit = Audit {
        config,
        arguments,
        now,
        manifest: Manifest::embedded(),
        engine: match &config.database {
            config::Database::Sqlite(_) => Engine::Sqlite,
            config::Database::Postgres(_) => Engine::Postgres,
        },
        database,
        findings: Findings::default(),
        progress: Progress::new(arguments.quiet),
        checks: Vec::new(),
        tables: Vec::new(),
    };
    audit.everything().await;
    Ok(audit.finish())
}

struct Audit<'a> {
    config: &'a Config,
    arguments: &'a BlindnessArgs,
    now: Timestamp,
    manifest: &'static Manifest,
    engine: Engine,
    database: Database,
    findings: Findings,
    progress: Progress,
    checks: Vec<Check>,
    tables: Vec<Table>,
}

impl Audit<'_> {
    async fn everything(&mut self) {
        let mut canary = None;
        if let Some(url) = &self.arguments.canary {
            let planted = match Client::new(url, self.authority().as_deref()) {
                Ok(client) => Canary::plant(client).await,
                Err(why) => Err(why),
            };
            match planted {
                Ok(planted) => canary = Some(planted),
                Err(why) => self.note("canary", State::Failed, why),
            }
        } else {
            self.note("canary", State::Skipped, "give --canary URL to send some".to_owned());
        }
        let needles = canary.as_ref().map_or_else(Needles::new, Canary::secrets);

        let rows = self.rows(&needles).await;
        self.tell("database", rows);
        self.redis().await;
        self.metrics(&needles).await;
        self.log(&needles);

        // Whatever happened until here, the accounts go.
        if let Some(mut canary) = canary {
            let cleared = canary.clear().await;
            let sought = self.remains(&canary.remains()).await;
            self.tell("canary", cleared.and(sought));
        }
    }

    fn note(&mut self, name: &str, state: State, note: String) {
        self.checks.push(Check {
            name: name.to_owned(),
            state,
            note,
        });
    }

    fn tell(&mut self, name: &str, done: Result<String, String>) {
        match done {
            Ok(note) => self.note(name, State::Done, note),
            Err(why) => self.note(name, State::Failed, why),
        }
    }

    /// The catalogue, every row, and every owner.
    async fn rows(&mut self, needles: &Needles) -> Result<String, String> {
        self.database.refresh().await.map_err(|error| unreadable(&error))?;
        let catalogue = self.database.catalogue().await.map_err(|error| unreadable(&error))?;
        let note = schema::check(self.manifest, self.engine, &catalogue, &mut self.findings);
        self.note("schema", State::Done, note);
        let (mut rows, mut bytes) = (0, 0);
        for (index, known) in TABLES.iter().enumerate() {
            let (Some(declared), Some(live)) = (self.manifest.table(known.name), catalogue.tables.get(known.name))
            else {
                continue;
            };
            let estimate = self
                .database
                .estimate(index)
                .await
                .map_err(|error| unreadable(&error))?;
            let mut scan = Scan::new(
                declared,
                self.now,
                needles,
                &mut self.findings,
                &mut self.progress,
                estimate,
            );
            let read = self.database.read(index, &mut scan).await;
            let scanned = scan.finish();
            self.tables.push(Table {
                name: known.name.to_owned(),
                columns: live.columns.iter().map(|(column, _)| findings::name(column)).collect(),
                indexes: live.indexes.values().map(schema::shown).collect(),
                rows: scanned.rows,
                bytes: scanned.bytes,
            });
            read.map_err(|error| format!("{}: {}", known.name, unreadable(&error)))?;
            rows += scanned.rows;
            bytes += scanned.bytes;
        }
        self.owners(&catalogue).await?;
        self.files(needles)?;
        Ok(format!("{rows} rows, {bytes} bytes of values"))
    }

    async fn owners(&mut self, catalogue: &Catalogue) -> Result<(), String> {
        for (index, rule) in ORPHANS.iter().enumerate() {
            // What is missing is a violation of its own.
            if !catalogue.tables.contains_key(rule.table) || !catalogue.tables.contains_key(rule.owner) {
                continue;
            }
            let orphans = self.database.orphans(index).await.map_err(|error| unreadable(&error))?;
            if orphans > 0 {
                let what = format!("rows that belong to nothing in {}", rule.owner);
                let at = At::table("owners", rule.table);
                self.findings.add(Severity::Violation, at, what, orphans, None);
            }
        }
        self.note("owners", State::Done, format!("{} kinds of rows", ORPHANS.len()));
        Ok(())
    }

    /// On SQLite the bytes of the file and its log as well: what was freed, or stands where no statement looks.
    fn files(&mut self, needles: &Needles) -> Result<(), String> {
        let config::Database::Sqlite(path) = &self.config.database else {
            return Ok(());
        };
        if needles.is_empty() {
            return Ok(());
        }
        for suffix in ["", "-wal"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            let found = search(Path::new(&file), needles, &mut self.progress);
            match found.map_err(|error| format!("a file of the database cannot be read: {}", error.kind()))? {
                Some(needle) => {
                    let what = format!("{needle} is in the bytes of the database's file{suffix}");
                    self.findings.violation(At::check("canary"), what, None);
                }
                None => continue,
            }
        }
        Ok(())
    }

    async fn redis(&mut self) {
        let Some(url) = &self.config.redis_url else {
            self.note("redis", State::Skipped, "none is configured".to_owned());
            return;
        };
        let done = redis::check(url.expose(), self.manifest, &mut self.findings, &mut self.progress).await;
        self.tell("redis", done);
    }

    async fn metrics(&mut self, needles: &Needles) {
        let own = metrics::check_program(self.manifest, &mut self.findings);
        let given = self.arguments.metrics.is_some();
        let url = self.arguments.metrics.clone();
        let url = url.unwrap_or_else(|| format!("http://{}", self.config.admin_listen));
        let page = match Client::new(&url, None) {
            Ok(client) => client.ask(Method::GET, "/metrics", None, None).await,
            Err(why) => Err(why),
        };
        let page = page.and_then(|answer| match answer.status {
            200 => String::from_utf8(answer.body.to_vec()).map_err(|_| "the answer is no text".to_owned()),
            status => Err(format!("the answer was {status}")),
        });
        let shown = page.and_then(|page| metrics::check_page(&page, self.manifest, needles, &mut self.findings));
        match shown {
            Ok(shown) => self.note("metrics", State::Done, format!("{own}, {shown}")),
            Err(why) if given => self.note("metrics", State::Failed, why),
            Err(why) => {
                let note = format!("{own}; no page: {why}; give --metrics URL to look at one");
                self.note("metrics", State::Skipped, note);
            }
        }
    }

    fn log(&mut self, needles: &Needles) {
        let Some(path) = &self.arguments.log_file else {
            let note = "give --log-file FILE to look at what a server with --log json wrote".to_owned();
            self.note("log", State::Skipped, note);
            return;
        };
        let done = log::check(path, self.manifest, needles, &mut self.findings, &mut self.progress);
        self.tell("log", done);
    }

    /// What is left of accounts that were deleted.
    async fn remains(&mut self, needles: &Needles) -> Result<String, String> {
        self.database.refresh().await.map_err(|error| unreadable(&error))?;
        let catalogue = self.database.catalogue().await.map_err(|error| unreadable(&error))?;
        for (index, known) in TABLES.iter().enumerate() {
            if !catalogue.tables.contains_key(known.name) {
                continue;
            }
            let mut seek = Seek {
                table: known.name,
                needles,
                findings: &mut self.findings,
                meaning: " of an account that was deleted",
                names: Vec::new(),
            };
            let read = self.database.read(index, &mut seek).await;
            read.map_err(|error| format!("{}: {}", known.name, unreadable(&error)))?;
        }
        Ok("two accounts came, wrote to each other and went; three messages".to_owned())
    }

    /// What signed the server's certificate.
    fn authority(&self) -> Option<PathBuf> {
        self.arguments.ca.clone().or_else(|| match &self.config.tls {
            Tls::SelfSigned { dir } => Some(dir.join("ca-cert.pem")),
            Tls::Off | Tls::Files { .. } => None,
        })
    }

    fn finish(self) -> Report {
        let findings = self.findings.into_list();
        Report {
            format: FORMAT.to_owned(),
            program: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest_sha256: encoding::hex(&Sha256::digest(keys_schema::MANIFEST)),
            backend: self.database.name().to_owned(),
            began: report::minute(self.now),
            seconds: self.progress.elapsed().as_secs(),
            verdict: Report::verdict(&self.checks, &findings),
            checks: self.checks,
            tables: self.tables,
            findings,
        }
    }
}

/// The kind alone: a driver's text may quote what it was given.
fn unreadable(error: &sqlx::Error) -> String {
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(|code| code.into_owned()));
    match (code, error) {
        (Some(code), _) => format!("the database refused: code {code}"),
        (None, sqlx::Error::Io(error)) => format!("the database went away: {}", error.kind()),
        (None, _) => "the database could not be read".to_owned(),
    }
}

/// A secret that is in the file. One that is not there has none.
fn search(path: &Path, needles: &Needles, progress: &mut Progress) -> std::io::Result<Option<&'static str>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let (mut window, mut read) = (Vec::new(), 0_u64);
    loop {
        // What the last piece ended with: a secret may lie across.
        let keep = window.len().min(needles.longest());
        window.drain(..window.len() - keep);
        let more = file.by_ref().take(PIECE).read_to_end(&mut window)?;
        if let Some(needle) = needles.find(&window) {
            return Ok(Some(needle));
        }
        if more == 0 {
            return Ok(None);
        }
        read += more as u64;
        progress.at(
            "bytes of the database's file, in pieces",
            read / PIECE * 256,
            length / PIECE * 256,
        );
    }
}

/// The exit status of an audit that could not be made.
const CANNOT: u8 = 2;
const PIECE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_across_two_pieces_of_a_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut needles = Needles::new();
        needles.add("a canary", b"the canary's own bytes");
        for at in [0, 100, 1024 * 1024 - 10, 1024 * 1024, 2 * 1024 * 1024 - 22] {
            let mut bytes = vec![7; 2 * 1024 * 1024];
            bytes[at..at + 22].copy_from_slice(b"the canary's own bytes");
            std::fs::write(file.path(), bytes).unwrap();
            let found = search(file.path(), &needles, &mut Progress::new(true)).unwrap();
            assert_eq!(found, Some("a canary"), "{at}");
        }
        std::fs::write(file.path(), vec![7; 3_000_000]).unwrap();
        assert_eq!(search(file.path(), &needles, &mut Progress::new(true)).unwrap(), None);
        assert_eq!(
            search(Path::new("no/such/file"), &needles, &mut Progress::new(true)).unwrap(),
            None
        );
    }
}
