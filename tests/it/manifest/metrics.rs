//! Metrics: the one file that spells them, the page about them, what a server shows, and the manifest say the same.

use std::collections::{BTreeMap, BTreeSet};

use blind_relay::http::routes::ROUTES;
use blind_relay::limits::DECLARED;
use blind_relay::manifest::{BoundedBy, Label, Manifest, MetricKind};

use super::words::{Word, inside, items, words};
use super::{repository_file, server_code};
use crate::support::attachments::{content, downloaded, uploaded};
use crate::support::{Backend, Person, Server, ask, on_each_backend, random, send, single};

on_each_backend! {
    b7_a_running_server_shows_only_metrics_and_labels_of_the_manifest
}

#[test]
fn b7_metrics_and_their_labels_equal_the_manifest() {
    assert_eq!(Spelled::read().metrics, listed());
}

/// Name, kind, labels and values in the words of the page.
#[test]
fn the_page_about_metrics_equals_the_manifest() {
    let page = repository_file("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `blind_relay_"));
    let mut on_page = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else {
            panic!("{row}")
        };
        let name = quoted(name).remove(0);
        let metric = Manifest::embedded().metrics.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the manifest"));
        assert_eq!(kind, word(metric.kind), "{name}");
        let listed: Vec<&str> = metric.labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(quoted(labels), listed, "{name}");
        let said = quoted(meaning);
        for value in metric.labels.iter().filter_map(|label| label.values.as_ref()).flatten() {
            assert!(said.contains(&value.as_str()), "{name} is not said to have {value}");
        }
        if metric.labels.iter().all(|label| label.values.is_some()) {
            let values = |label: &Label| label.values.iter().flatten().cloned().collect::<Vec<_>>();
            let all: Vec<String> = metric.labels.iter().flat_map(values).collect();
            let more: Vec<_> = said
                .iter()
                .filter(|said| !all.iter().any(|value| value == *said))
                .collect();
            assert!(more.is_empty(), "{name} is said to have {more:?}");
        }
        assert!(on_page.insert(name), "{name} is there twice");
    }
    let listed: BTreeSet<&str> = Manifest::embedded()
        .metrics
        .iter()
        .map(|metric| metric.name.as_str())
        .collect();
    assert_eq!(on_page, listed);
}

/// A value that the program passes as it stands is listed, and a value that is listed stands somewhere in the program.
#[test]
fn b7_values_of_labels_are_in_the_manifest_and_in_the_program() {
    let spelled = Spelled::read();
    let (mut constants, mut passed) = (BTreeSet::new(), 0);
    for (path, code) in server_code() {
        if path.ends_with("telemetry/metrics.rs") {
            continue;
        }
        let code = words(&code);
        for (at, word) in code.iter().enumerate() {
            if let Word::Text(text) = word {
                constants.insert(text.clone());
            }
            let [
                name,
                Word::Sign(':'),
                Word::Sign(':'),
                Word::Name(function),
                Word::Sign('('),
                ..,
            ] = &code[at..]
            else {
                continue;
            };
            let Some(metrics) = spelled.functions.get(function).filter(|_| name.is("metrics")) else {
                continue;
            };
            let arguments = inside(&code, at + 4).unwrap();
            for argument in items(arguments) {
                let [Word::Text(value)] = argument else { continue };
                passed += 1;
                let fits = |metric: &String| {
                    let metric = Manifest::embedded().metric_of_series(metric).unwrap();
                    metric.labels.iter().any(|label| allows(label, value))
                };
                assert!(metrics.iter().any(fits), "{}: {function}({value:?})", path.display());
            }
        }
    }
    assert!(passed > 10, "calls are read: {passed}");
    let labels = Manifest::embedded().metrics.iter().flat_map(|metric| &metric.labels);
    let missing: Vec<_> = labels
        .filter_map(|label| label.values.as_ref())
        .flatten()
        .filter(|value| !constants.contains(*value))
        .collect();
    assert!(missing.is_empty(), "nothing says {missing:?}");
}

async fn b7_a_running_server_shows_only_metrics_and_labels_of_the_manifest(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    bob.upload_keys(&server, 1, 1).await;
    for _ in 0..2 {
        ask(alice.request(&server, "GET", &format!("/v2/keys/{}/1", bob.aci)))
            .await
            .expect(200);
    }
    send(&server, &alice, &bob, b"text").await.expect(200);
    let mut stale = single(&bob, 1, &random::<64>());
    stale["messages"][0]["destinationRegistrationId"] = 0.into();
    ask(alice.request(&server, "PUT", &bob.inbox()).json(&stale))
        .await
        .expect(410);
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await.len(), 1);
    send(&server, &alice, &bob, b"more").await.expect(200);
    socket.content().await;
    socket.keepalive().await;
    drop(bob.connect(&server).await);
    let large = single(&bob, 1, &[7; 200_000]);
    ask(alice.request(&server, "PUT", &bob.inbox()).json(&large))
        .await
        .expect(413);
    let form = uploaded(&server, &alice, &content(1_000)).await;
    downloaded(&server, &form).await;
    let report = format!("/v1/messages/report/{}/{}", alice.aci, uuid::Uuid::from_bytes(random()));
    ask(bob.request(&server, "POST", &report)).await.expect(202);
    ask(server.request("GET", "/nowhere")).await.expect(404);

    let text = server.metrics().await;
    let series = unlisted(&text);
    assert!(series.is_empty(), "{series:?}");
    for shown in [
        "requests_total{",
        "sends_total{",
        "pushed_total{",
        "sockets{",
        "attachment_bytes_total{",
        "kyber_keys",
    ] {
        assert!(text.contains(&format!("blind_relay_{shown}")), "{shown} {text}");
    }
}

#[test]
fn what_the_manifest_does_not_list_is_found_among_metrics() {
    for (line, finds) in [
        ("blind_relay_sockets{kind=\"device\"} 1", false),
        ("blind_relay_commit_rows_bucket{le=\"8\"} 1", false),
        ("blind_relay_commit_seconds_sum 0.25", false),
        (
            "blind_relay_requests_total{route=\"/v1/messages/{destination}\",transport=\"http\",status=\"200\"} 2",
            false,
        ),
        (
            "blind_relay_requests_total{route=\"/v1/messages/abc\",transport=\"http\",status=\"200\"} 2",
            true,
        ),
        (
            "blind_relay_requests_total{route=\"none\",transport=\"http\",status=\"2000\"} 2",
            true,
        ),
        ("blind_relay_sockets{kind=\"other\"} 1", true),
        ("blind_relay_sockets{kind=\"device\",aci=\"x\"} 1", true),
        ("blind_relay_envelopes_total{le=\"8\"} 1", true),
        ("blind_relay_sockets 1", true),
        ("blind_relay_accounts 1", true),
        ("process_cpu_seconds_total 1", true),
    ] {
        assert_eq!(!unlisted(line).is_empty(), finds, "{line}");
    }
}

/// The series of an exposition that the manifest does not allow.
fn unlisted(text: &str) -> Vec<&str> {
    let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    series.filter(|line| !is_listed(line)).collect()
}

fn is_listed(line: &str) -> bool {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let Some(metric) = Manifest::embedded().metric_of_series(name) else {
        return false;
    };
    let labels = labels.strip_suffix('}').unwrap();
    let pairs: Vec<_> = labels.split("\",").filter(|pair| !pair.is_empty()).collect();
    let pairs = pairs
        .iter()
        .map(|pair| pair.trim_end_matches('"').split_once("=\"").unwrap());
    let (boundaries, pairs): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| *name == "le");
    boundaries.len() == usize::from(name.ends_with("_bucket"))
        && pairs.len() == metric.labels.len()
        && pairs
            .iter()
            .all(|(name, value)| metric.label(name).is_some_and(|label| allows(label, value)))
}

fn allows(label: &Label, value: &str) -> bool {
    match (&label.values, label.bounded_by) {
        (Some(values), None) => values.iter().any(|known| known == value),
        (None, Some(BoundedBy::Routes)) => {
            BESIDE_THE_LIST.contains(&value) || ROUTES.iter().any(|route| route.path == value)
        }
        (None, Some(BoundedBy::Statuses)) => value.parse().is_ok_and(|status: u16| (100..600).contains(&status)),
        (None, Some(BoundedBy::Limits)) => DECLARED.iter().any(|limit| limit.name == value),
        _ => false,
    }
}

/// Metrics by name, each with its kind and labels.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

fn listed() -> Metrics {
    let metrics = Manifest::embedded().metrics.iter();
    metrics
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| label.name.clone()).collect();
            (metric.name.clone(), (word(metric.kind).to_owned(), labels))
        })
        .collect()
}

fn word(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What `src/telemetry/metrics.rs` spells.
struct Spelled {
    metrics: Metrics,
    /// The metrics that each of its functions counts.
    functions: BTreeMap<String, BTreeSet<String>>,
}

impl Spelled {
    fn read() -> Self {
        let code = words(&repository_file("src/telemetry/metrics.rs"));
        let mut names = BTreeMap::new();
        for window in code.windows(8) {
            let [
                start,
                Word::Name(constant),
                Word::Sign(':'),
                ..,
                Word::Sign('='),
                Word::Text(text),
                Word::Sign(';'),
            ] = window
            else {
                continue;
            };
            if start.is("const") {
                names.insert(constant.clone(), text.clone());
            }
        }
        assert!(names.len() > 15, "{names:?}");
        let (mut metrics, mut functions) = (Metrics::new(), BTreeMap::<_, BTreeSet<_>>::new());
        let mut function = String::new();
        for at in 0..code.len() {
            match &code[at..] {
                [word, Word::Name(name), ..] if word.is("fn") => function.clone_from(name),
                [Word::Name(kind), Word::Sign('!'), Word::Sign('('), ..] if KINDS.contains(&kind.as_str()) => {
                    let arguments = items(inside(&code, at + 2).unwrap());
                    let [[Word::Name(constant)], labels @ ..] = &arguments[..] else {
                        panic!("{kind}! is given {arguments:?}");
                    };
                    let name = &names[constant];
                    functions
                        .entry(function.clone())
                        .or_default()
                        .insert(series(kind, name));
                    let labels = labels.iter().map(|label| match label {
                        [Word::Text(label), Word::Sign('='), Word::Sign('>'), ..] => label.clone(),
                        other => panic!("{kind}! is given {other:?}"),
                    });
                    let known = metrics
                        .entry(name.clone())
                        .or_insert_with(|| (kind.clone(), BTreeSet::new()));
                    assert_eq!(known.0, *kind, "{name}");
                    known.1.extend(labels);
                }
                _ => {}
            }
        }
        let unused: Vec<_> = names.values().filter(|name| !metrics.contains_key(*name)).collect();
        assert!(unused.is_empty(), "nothing counts {unused:?}");
        Self { metrics, functions }
    }
}

/// A series of the metric.
fn series(kind: &str, name: &str) -> String {
    if kind == "histogram" {
        format!("{name}_sum")
    } else {
        name.to_owned()
    }
}

/// What was asked for is no route, or one that is not in the list: of WebSockets, and of health, which every listener has.
const BESIDE_THE_LIST: [&str; 6] = [
    "none",
    "/v1/websocket",
    "/v1/websocket/provisioning",
    "/v1/keepalive/provisioning",
    "/health/live",
    "/health/ready",
];
const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];
