//! Whether the lines of a log have only the fields of the manifest, and say nothing that names someone.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use crate::manifest::Manifest;

use super::findings::{At, Findings, Severity, name};
use super::needles::Needles;
use super::progress::Progress;
use super::recognise::{self, Reading};

/// Looks at every line of a file that a server with `log = "json"` wrote, and says how many there were.
pub(super) fn check(
    path: &Path,
    manifest: &Manifest,
    needles: &Needles,
    findings: &mut Findings,
    progress: &mut Progress,
) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the log file cannot be read: {}", error.kind());
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::new(file);
    let (mut lines, mut objects, mut bytes) = (0_u64, 0_u64, 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        lines += 1;
        progress.at("log, KiB", bytes / 1024, length / 1024);
        objects += u64::from(judge(&line, lines, manifest, needles, findings));
    }
    if lines > 0 && objects == 0 {
        return Err("no line of the log file is a JSON object: start the server with --log json".to_owned());
    }
    Ok(format!("{lines} lines"))
}

/// Whether the line is an object.
fn judge(line: &[u8], number: u64, manifest: &Manifest, needles: &Needles, findings: &mut Findings) -> bool {
    let place = || Some(format!("line {number}"));
    if let Some(needle) = needles.find(line) {
        findings.violation(At::check("canary"), format!("{needle} is in the log"), place());
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(line) else {
        if !line.trim_ascii().is_empty() {
            findings.notice(At::check(CHECK), "a line that is no JSON object", place());
            let text = String::from_utf8_lossy(line);
            if let Some(reading) = recognise::in_text(&text) {
                let what = format!("{} in a line that is no JSON object", reading.name());
                findings.add(Severity::Violation, At::check(CHECK), what, 1, place());
            }
        }
        return false;
    };
    for (field, value) in &fields {
        look(field, value, manifest, findings, &place);
    }
    true
}

fn look(field: &str, value: &Value, manifest: &Manifest, findings: &mut Findings, place: &dyn Fn() -> Option<String>) {
    if manifest.log_field(field).is_none() {
        let what = format!("a field that is not declared: {}", name(field));
        findings.violation(At::check(CHECK), what, place());
    }
    match value {
        Value::String(text) => {
            let reading = recognise::in_text(text);
            // The operator's own address, once at the start.
            let allowed = field == "admin" && reading == Some(Reading::NetworkAddress);
            if let Some(reading) = reading.filter(|_| !allowed) {
                let what = format!("{} in the field {}", reading.name(), name(field));
                findings.violation(At::check(CHECK), what, place());
            }
        }
        Value::Object(inner) => inner
            .iter()
            .for_each(|(field, value)| look(field, value, manifest, findings, place)),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(inner) => inner
                        .iter()
                        .for_each(|(field, value)| look(field, value, manifest, findings, place)),
                    // The list stands under a declared name, and its words are looked at as that field's.
                    Value::String(_) => look(field, item, manifest, findings, place),
                    _ => {}
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const CHECK: &str = "log";
/// Lines of ours are short; a longer one is looked at in pieces.
const MAX_LINE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut needles = Needles::new();
        needles.add("a canary", b"the canary's own bytes");
        let (mut findings, mut progress) = (Findings::default(), Progress::new(true));
        check(
            file.path(),
            Manifest::embedded(),
            &needles,
            &mut findings,
            &mut progress,
        )?;
        Ok(findings.into_list().into_iter().map(|finding| finding.what).collect())
    }

    const LINE: &str = "{\"timestamp\":\"2026-01-02T03:04:05.678901Z\",\"level\":\"INFO\",\"message\":\"serving\",\
        \"admin\":\"127.0.0.1:9090\",\"target\":\"blind_relay::server\"}\n";

    #[test]
    fn lines_of_this_program_pass() {
        let spans = "{\"level\":\"WARN\",\"message\":\"slow\",\"span\":{\"name\":\"db.queue.commit\"},\
            \"spans\":[{\"name\":\"db.queue.commit\"}]}\n";
        assert_eq!(found(&format!("{LINE}{spans}\n")).unwrap(), [""; 0]);
        assert_eq!(found("").unwrap(), [""; 0]);
    }

    #[test]
    fn other_fields_and_what_names_someone_are_found() {
        for (line, what) in [
            (
                "{\"level\":\"INFO\",\"peer\":\"x\"}",
                "a field that is not declared: peer",
            ),
            (
                "{\"span\":{\"name\":\"x\",\"aci\":1}}",
                "a field that is not declared: aci",
            ),
            (
                "{\"message\":\"sent to +4915112345678\"}",
                "a phone number in the field message",
            ),
            ("{\"cause\":\"203.0.113.77\"}", "a network address in the field cause"),
            ("{\"admin\":\"alice@example.org\"}", "a mail address in the field admin"),
            (
                "panicked at +4915112345678",
                "a phone number in a line that is no JSON object",
            ),
            ("{\"message\":\"the canary's own bytes\"}", "a canary is in the log"),
        ] {
            let found = found(&format!("{LINE}{line}\n")).unwrap();
            assert!(found.iter().any(|found| found == what), "{line}: {found:?}");
        }
    }

    #[test]
    fn a_log_in_text_form_is_not_audited() {
        assert!(found("2026-01-02 INFO serving\n").unwrap_err().contains("--log json"));
        let mut findings = Findings::default();
        let gone = check(
            Path::new("no/such/file"),
            Manifest::embedded(),
            &Needles::new(),
            &mut findings,
            &mut Progress::new(true),
        );
        assert!(gone.unwrap_err().contains("cannot be read"));
    }
}
