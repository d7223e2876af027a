//! The report: signed JSON for machines and third parties, text for people.
//!
//! The file is one JSON object, `{"report":…,"public_key":"…","signature":"…"}`. The signature is Ed25519 over the exact
//! bytes of the report's own object as they stand in the file, so that nobody must agree on a canonical form. The key is
//! made for this and signs nothing else.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::findings::{Finding, Severity};
use crate::domain::{Timestamp, date};
use crate::encoding;
use crate::secret_file::{self, SecretFileError};

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// [`FORMAT`].
    pub(super) format: String,
    /// The program that looked.
    pub(super) program: String,
    /// Its version.
    pub(super) version: String,
    /// SHA-256 of the manifest that it held the system against.
    pub(super) manifest_sha256: String,
    /// `sqlite` or `postgres`.
    pub(super) backend: String,
    /// When it began: UTC, to the minute.
    pub(super) began: String,
    /// How long it took.
    pub(super) seconds: u64,
    /// What it comes to.
    pub(super) verdict: Verdict,
    /// Every check, and how far it came.
    pub(super) checks: Vec<Check>,
    /// What was read.
    pub(super) tables: Vec<Table>,
    /// What was found, the worst first.
    pub(super) findings: Vec<Finding>,
}

/// What an audit comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Everything that was asked for was looked at, and nothing was wrong.
    Clean,
    /// Something is wrong.
    Violations,
    /// Nothing wrong was seen, and not everything could be looked at.
    Incomplete,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Check {
    /// Its name.
    pub(super) name: String,
    /// How far it came.
    pub(super) state: State,
    /// What was looked at, or why it was not.
    pub(super) note: String,
}

/// How far a check came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It was made.
    Done,
    /// It was not asked for, or there is nothing to look at.
    Skipped,
    /// It was asked for and could not be made.
    Failed,
}

/// What was read of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: String,
    /// Its columns.
    pub(super) columns: Vec<String>,
    /// Its indexes, as `columns` or `unique columns`.
    pub(super) indexes: Vec<String>,
    /// Rows read.
    pub(super) rows: u64,
    /// Bytes of values read.
    pub(super) bytes: u64,
}

/// A report file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed<'a> {
    #[serde(borrow)]
    report: &'a RawValue,
    public_key: String,
    signature: String,
}

/// Why a report is not to be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    /// The file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The key could not be read or made.
    #[error("key: {0}; {remedy}", remedy = .0.remedy())]
    Key(#[from] SecretFileError),
    /// It is no report.
    #[error("not a report of an audit")]
    Malformed,
    /// It was changed, or signed by someone else than it says.
    #[error("the signature does not fit: the report was changed after it was signed")]
    Forged,
    /// It was signed with another key than the expected one.
    #[error("signed with another key, {0}")]
    OtherKey(String),
}

impl Report {
    /// Whether something is wrong, or not everything was seen.
    pub(super) fn verdict(checks: &[Check], findings: &[Finding]) -> Verdict {
        if findings.iter().any(|finding| finding.severity == Severity::Violation) {
            Verdict::Violations
        } else if checks.iter().any(|check| check.state == State::Failed) {
            Verdict::Incomplete
        } else {
            Verdict::Clean
        }
    }

    /// Writes the signed file, for its owner alone.
    pub(super) fn write(&self, path: &Path, key: &Key) -> Result<(), ReportError> {
        let signed = key.sign(self)?;
        secret_file::replace(path, signed.as_bytes()).map_err(|error| ReportError::File {
            path: path.to_owned(),
            error,
        })
    }

    /// For people.
    pub(super) fn as_text(&self) -> String {
        let mut text = format!(
            "{} {}, {} on {}, manifest {}\n\n",
            self.program,
            self.version,
            self.began,
            self.backend,
            self.manifest_sha256.get(..16).unwrap_or_default()
        );
        for check in &self.checks {
            let mark = match check.state {
                State::Done => "done",
                State::Skipped => "skip",
                State::Failed => "FAIL",
            };
            let _ = writeln!(text, "{mark:<5} {}: {}", check.name, check.note);
        }
        text.push('\n');
        for table in &self.tables {
            let _ = writeln!(
                text,
                "{:>10} rows {:>15} bytes  {}",
                table.rows, table.bytes, table.name
            );
        }
        text.push('\n');
        for finding in &self.findings {
            let mark = match finding.severity {
                Severity::Violation => "VIOLATION",
                Severity::Notice => "notice",
            };
            let place = match (&finding.table, &finding.column) {
                (Some(table), Some(column)) => format!(" {table}.{column}:"),
                (Some(table), None) => format!(" {table}:"),
                _ => String::new(),
            };
            let times = if finding.count > 1 {
                format!(", {} times", finding.count)
            } else {
                String::new()
            };
            let _ = writeln!(text, "{mark:<9} {}:{place} {}{times}", finding.check, finding.what);
            if !finding.places.is_empty() {
                let more = if finding.count > finding.places.len() as u64 {
                    ", …"
                } else {
                    ""
                };
                let _ = writeln!(text, "          at {}{more}", finding.places.join(", "));
            }
        }
        let verdict = match self.verdict {
            Verdict::Clean => "clean: what was looked at keeps the manifest",
            Verdict::Violations => "VIOLATIONS: the manifest is not kept",
            Verdict::Incomplete => "incomplete: nothing wrong was seen, and not everything was looked at",
        };
        let _ = writeln!(text, "{verdict} ({} s)", self.seconds);
        text
    }
}

/// What signs reports.
pub(super) struct Key(SigningKey);

impl Key {
    /// The key in that file: 64 hex digits, made when missing.
    pub(super) fn read_or_create(path: &Path) -> Result<Self, ReportError> {
        Ok(Self(SigningKey::from_bytes(&*secret_file::read_or_create(path)?)))
    }

    /// What verifies them, in hexadecimal.
    pub(super) fn public(&self) -> String {
        encoding::hex(self.0.verifying_key().as_bytes())
    }

    fn sign(&self, report: &Report) -> Result<String, ReportError> {
        let body = serde_json::to_string_pretty(report).map_err(|_| ReportError::Malformed)?;
        let signature = encoding::hex(&self.0.sign(body.as_bytes()).to_bytes());
        Ok(format!(
            "{{\"report\":{body},\n\"public_key\":\"{}\",\n\"signature\":\"{signature}\"}}\n",
            self.public()
        ))
    }
}

/// Reads a report file and checks its signature; `key` is the public key that it must be signed with, if that is known.
/// Returns the report with the key that signed it.
pub(super) fn verify(path: &Path, key: Option<&str>) -> Result<(Report, String), ReportError> {
    let failed = |error| ReportError::File {
        path: path.to_owned(),
        error,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(ReportError::Malformed);
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let signed: Signed<'_> = serde_json::from_str(&text).map_err(|_| ReportError::Malformed)?;
    let (mut public, mut signature) = ([0; 32], [0; 64]);
    encoding::read_hex(&signed.public_key, &mut public).ok_or(ReportError::Malformed)?;
    encoding::read_hex(&signed.signature, &mut signature).ok_or(ReportError::Malformed)?;
    let verifying = VerifyingKey::from_bytes(&public).map_err(|_| ReportError::Malformed)?;
    // Strict: no key of small order, under which anything verifies.
    verifying
        .verify_strict(signed.report.get().as_bytes(), &Signature::from_bytes(&signature))
        .map_err(|_| ReportError::Forged)?;
    let public = encoding::hex(&public);
    if key.is_some_and(|key| !key.eq_ignore_ascii_case(&public)) {
        return Err(ReportError::OtherKey(public));
    }
    let report: Report = serde_json::from_str(signed.report.get()).map_err(|_| ReportError::Malformed)?;
    if report.format != FORMAT {
        return Err(ReportError::Malformed);
    }
    Ok((report, public))
}

/// An instant as reports have it: UTC, to the minute.
pub(super) fn minute(at: Timestamp) -> String {
    let (day, minute) = (at.minute().div_euclid(24 * 60), at.minute().rem_euclid(24 * 60));
    format!("{}T{:02}:{:02}Z", date(day), minute / 60, minute % 60)
}

/// What [`Report::format`] says.
pub(super) const FORMAT: &str = "blind-relay audit blindness 1";
const MAX_BYTES: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let checks = vec![Check {
            name: "schema".to_owned(),
            state: State::Done,
            note: "17 tables".to_owned(),
        }];
        let findings = vec![Finding {
            severity: Severity::Violation,
            check: "values".to_owned(),
            what: "a phone number".to_owned(),
            table: Some("settings".to_owned()),
            column: Some("name".to_owned()),
            count: 3,
            places: vec!["row 1".to_owned()],
        }];
        Report {
            format: FORMAT.to_owned(),
            program: "blind-relay".to_owned(),
            version: "0.1.0".to_owned(),
            manifest_sha256: "00".repeat(32),
            backend: "sqlite".to_owned(),
            began: "2026-01-02T03:04Z".to_owned(),
            seconds: 5,
            verdict: Report::verdict(&checks, &findings),
            checks,
            tables: Vec::new(),
            findings,
        }
    }

    #[test]
    fn what_is_signed_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::read_or_create(&dir.path().join("audit-key")).unwrap();
        let path = dir.path().join("report.json");
        report().write(&path, &key).unwrap();
        assert_eq!(verify(&path, None).unwrap(), (report(), key.public()));
        assert_eq!(verify(&path, Some(&key.public())).unwrap().0, report());
        let again = Key::read_or_create(&dir.path().join("audit-key")).unwrap();
        assert_eq!(again.public(), key.public());
        let other = Key::read_or_create(&dir.path().join("another-key")).unwrap();
        assert!(matches!(
            verify(&path, Some(&other.public())),
            Err(ReportError::OtherKey(_))
        ));
    }

    #[test]
    fn any_change_of_a_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::read_or_create(&dir.path().join("audit-key")).unwrap();
        let path = dir.path().join("report.json");
        report().write(&path, &key).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            let verified = verify(&path, Some(&key.public()));
            // Only white space between the parts is nobody's.
            let blank = whole[at].is_ascii_whitespace() && changed[at].is_ascii_whitespace();
            assert!(verified.is_err() || blank, "byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(verify(&path, None), Err(ReportError::Malformed)));
    }

    #[test]
    fn a_report_that_was_signed_anew_needs_the_key_to_be_known() {
        let dir = tempfile::tempdir().unwrap();
        let (key, path) = (Key(SigningKey::from_bytes(&[1; 32])), dir.path().join("report.json"));
        report().write(&path, &Key(SigningKey::from_bytes(&[2; 32]))).unwrap();
        assert!(verify(&path, None).is_ok());
        assert!(matches!(
            verify(&path, Some(&key.public())),
            Err(ReportError::OtherKey(_))
        ));
    }

    #[test]
    fn minutes_are_dates() {
        for (millis, text) in [
            (0, "1970-01-01T00:00Z"),
            (951_782_399_999, "2000-02-28T23:59Z"),
            (951_782_400_000, "2000-02-29T00:00Z"),
            (1_767_323_096_000, "2026-01-02T03:04Z"),
            (4_107_542_399_000, "2100-02-28T23:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00Z"),
        ] {
            assert_eq!(minute(Timestamp(millis)), text);
        }
    }

    #[test]
    fn the_verdict_is_the_worst() {
        let check = |state| Check {
            name: String::new(),
            state,
            note: String::new(),
        };
        let notice = Finding {
            severity: Severity::Notice,
            ..report().findings[0].clone()
        };
        assert_eq!(Report::verdict(&[check(State::Skipped)], &[notice]), Verdict::Clean);
        assert_eq!(Report::verdict(&[check(State::Failed)], &[]), Verdict::Incomplete);
        assert_eq!(
            Report::verdict(&[check(State::Failed)], &report().findings),
            Verdict::Violations
        );
        let text = report().as_text();
        assert!(
            text.contains("VIOLATION values: settings.name: a phone number, 3 times"),
            "{text}"
        );
    }
}
