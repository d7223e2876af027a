//! Whether the metrics page shows only the metrics, labels and label values of the manifest.

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::http::routes::ROUTES;
use crate::limits::DECLARED;
use crate::manifest::{BoundedBy, Label, Manifest, MetricKind};
use crate::telemetry;

use super::findings::{At, Findings, name};
use super::needles::Needles;
use super::recognise;

/// The program's own metrics, as it describes them to whatever records them.
pub(super) fn check_program(manifest: &Manifest, findings: &mut Findings) -> String {
    let names = Names::default();
    ::metrics::with_local_recorder(&names, telemetry::metrics::describe);
    let names = names.0.into_inner().unwrap_or_default();
    for known in &names {
        if !manifest.metrics.iter().any(|metric| metric.name == *known) {
            let what = format!("the program has a metric that is not declared: {}", name(known));
            findings.violation(At::check(CHECK), what, None);
        }
    }
    format!("{} described by the program", names.len())
}

/// A page of `/metrics`, and how many series it had. An error says why it is no page of this program.
pub(super) fn check_page(
    page: &str,
    manifest: &Manifest,
    needles: &Needles,
    findings: &mut Findings,
) -> Result<String, String> {
    let lines = || {
        page.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let mut series = Vec::new();
    for line in lines() {
        series.push(parse(line).ok_or("the answer is no page of metrics")?);
    }
    // Another program may have the port. One series of ours is enough for every other to count as a leak.
    let ours = |(name, _): &(&str, Vec<(&str, String)>)| manifest.metric_of_series(name).is_some();
    if !series.is_empty() && !series.iter().any(ours) {
        return Err("the page is another program's".to_owned());
    }
    for (series, labels) in &series {
        judge(manifest, series, labels, findings);
    }
    if let Some(needle) = needles.find(page.as_bytes()) {
        findings.violation(At::check("canary"), format!("{needle} is on the metrics page"), None);
    }
    Ok(format!("{} series on the page", series.len()))
}

fn judge(manifest: &Manifest, series: &str, labels: &[(&str, String)], findings: &mut Findings) {
    let at = At::check(CHECK);
    let Some(metric) = manifest.metric_of_series(series) else {
        findings.violation(at, format!("a metric that is not declared: {}", name(series)), None);
        return;
    };
    for (label, value) in labels {
        let is_boundary = *label == "le" && metric.kind == MetricKind::Histogram && series.ends_with("_bucket");
        if is_boundary {
            if value.parse::<f64>().is_err() {
                findings.violation(at, format!("a boundary of {series} that is no number"), None);
            }
            continue;
        }
        let Some(declared) = metric.label(label) else {
            findings.violation(
                at,
                format!("a label of {series} that is not declared: {}", name(label)),
                None,
            );
            continue;
        };
        if !fits(declared, value) {
            findings.violation(at, format!("a value of {series}{{{label}}} that is not declared"), None);
        }
        if let Some(reading) = recognise::in_text(value) {
            findings.violation(at, format!("{} in {series}{{{label}}}", reading.name()), None);
        }
    }
}

fn fits(label: &Label, value: &str) -> bool {
    if let Some(values) = &label.values {
        return values.iter().any(|known| known == value);
    }
    match label.bounded_by {
        Some(BoundedBy::Routes) => ROUTES.iter().any(|route| route.path == value) || BESIDE_THE_LIST.contains(&value),
        Some(BoundedBy::Statuses) => value.len() == 3 && value.parse().is_ok_and(|status: u16| status >= 100),
        Some(BoundedBy::Limits) => DECLARED.iter().any(|limit| limit.name == value),
        None => false,
    }
}

/// Name and labels of `name{label="value",…} number`.
fn parse(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(chars.next()?.1),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.trim(), value));
            rest = after[end..].trim_start_matches([',', ' ']);
        }
        rest = &rest[1..];
    }
    let number = rest.split_whitespace().next()?;
    (!name.is_empty() && number.parse::<f64>().is_ok()).then_some((name, labels))
}

/// Collects names and records nothing.
#[derive(Default)]
struct Names(std::sync::Mutex<Vec<String>>);

impl Names {
    #[expect(clippy::needless_pass_by_value, reason = "the trait's own type")]
    fn push(&self, name: KeyName) {
        if let Ok(mut names) = self.0.lock() {
            names.push(name.as_str().to_owned());
        }
    }
}

impl Recorder for Names {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.push(name);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.push(name);
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.push(name);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

const CHECK: &str = "metrics";
/// What is counted and stands in no list: no route, sockets, health.
const BESIDE_THE_LIST: [&str; 6] = [
    "none",
    "/v1/websocket",
    "/v1/websocket/provisioning",
    "/v1/keepalive/provisioning",
    "/health/live",
    "/health/ready",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Result<Vec<String>, String> {
        let mut findings = Findings::default();
        check_page(page, Manifest::embedded(), &Needles::new(), &mut findings)?;
        Ok(findings.into_list().into_iter().map(|finding| finding.what).collect())
    }

    /// A page of ours with one more line.
    fn with(line: &str) -> Vec<String> {
        let ours = &Manifest::embedded().metrics[0].name;
        found(&format!(
            "# TYPE x counter\n{ours}{{route=\"none\",transport=\"http\",status=\"404\"}} 3\n{line}\n"
        ))
        .unwrap()
    }

    #[test]
    fn what_is_declared_passes() {
        let mut findings = Findings::default();
        assert!(!check_program(Manifest::embedded(), &mut findings).starts_with("0 "));
        assert!(findings.into_list().is_empty());
        for line in [
            "",
            "blind_relay_sends_total{outcome=\"accepted\"} 10",
            "blind_relay_commit_seconds_bucket{le=\"+Inf\"} 10",
            "blind_relay_requests_total{route=\"/v1/messages/{destination}\",transport=\"websocket\",status=\"200\"} 1",
        ] {
            assert_eq!(with(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn other_metrics_labels_and_values_are_found() {
        for (line, what) in [
            ("blind_relay_senders_total 1", "a metric that is not declared"),
            (
                "blind_relay_commits_total{account=\"x\"} 1",
                "a label of blind_relay_commits_total",
            ),
            (
                "blind_relay_sends_total{outcome=\"to_bob\"} 1",
                "a value of blind_relay_sends_total{outcome}",
            ),
            ("blind_relay_commit_seconds_bucket{le=\"often\"} 1", "a boundary"),
            (
                "blind_relay_requests_total{route=\"/v1/messages/9d0652a3-dcc3-4d11-975f-74d61598733f\"} 1",
                "a service id in text",
            ),
        ] {
            let found = with(line);
            assert!(found.iter().any(|found| found.contains(what)), "{line}: {found:?}");
        }
    }

    #[test]
    fn another_programs_page_is_none() {
        assert_eq!(found("go_threads 7\n").unwrap_err(), "the page is another program's");
        assert_eq!(found("<html>").unwrap_err(), "the answer is no page of metrics");
        assert!(found("").unwrap().is_empty());
    }

    #[test]
    fn lines_are_read_with_escapes_and_without_labels() {
        assert_eq!(parse("a_b 1"), Some(("a_b", vec![])));
        let line = "a{x=\"1,}\\\"\",y=\"\"} 2.5e3 123";
        assert_eq!(
            parse(line),
            Some(("a", vec![("x", "1,}\"".into()), ("y", String::new())]))
        );
        for line in ["a", "a{", "a{x}", "a{x=\"1\"", "{} 1", "a b"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
