//! The log's fields: those that the program's lines can write, read from the program.
//!
//! The reading is strict. A line of the log that is written in any other way than the plain ones fails the test, since
//! nobody could say what it writes.

use std::collections::BTreeSet;

use blind_relay::manifest::{LogFieldOrigin, Manifest};
use serde_json::Value;

use super::server_code;
use super::words::{Word, inside, items, words};
use crate::support::{Backend, Person, Server, ask, on_each_backend, send};

on_each_backend! {
    b7_a_running_server_logs_only_fields_of_the_manifest
}

#[test]
fn b7_log_fields_equal_the_manifest() {
    let mut found = BTreeSet::new();
    for (path, code) in server_code() {
        let fields = fields(&words(&code)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        found.extend(fields);
    }
    let listed: BTreeSet<String> = Manifest::embedded()
        .log_fields
        .iter()
        .filter(|field| field.origin == LogFieldOrigin::Event)
        .map(|field| field.name.clone())
        .collect();
    assert_eq!(found, listed);
}

#[test]
fn b7_lines_of_the_log_that_could_hide_a_field_are_refused() {
    let read = |code: &str| fields(&words(code));
    let fine = "tracing::warn!(cause = error.log_safe_cause(), \"text\"); info!(%address, count, \"text\"); \
                debug!(\"text\"); #[tracing::instrument(name = \"db.x\", level = \"debug\", skip_all)] fn f() {} \
                error!(a.b = %f(x, y), \"text\",); let error = x != y; tracing::info!(c = \"constant\", \"text\");";
    let names: Vec<_> = read(fine).unwrap().into_iter().collect();
    assert_eq!(names, ["a.b", "address", "c", "cause", "count"]);
    for (bad, why) in [
        ("tracing::warn!(?error, \"text\")", "Debug"),
        ("tracing::warn!(cause = ?error, \"text\")", "Debug"),
        ("tracing::warn!(\"text {error}\")", "constant"),
        ("tracing::warn!(\"text {}\", error)", "constant"),
        ("tracing::warn!(cause = 1, \"text\", more)", "after the message"),
        ("tracing::warn!(cause = 1)", "no message"),
        ("tracing::warn!(target: \"other\", \"text\")", "not a field"),
        ("tracing::warn!({ cause = 1 }, \"text\")", "not a field"),
        ("tracing::warn!(concat!(\"a\"))", "not a field"),
        ("tracing::event!(Level::INFO, \"text\")", "event"),
        ("tracing::info_span!(\"x\")", "info_span"),
        ("tracing::Span::current().record(\"aci\", 1)", "Span"),
        ("use tracing::warn as quiet;", "renamed"),
        ("use tracing::*;", "tracing"),
        ("use tracing::{info, Span};", "Span"),
        ("#[tracing::instrument]", "instrument"),
        ("#[tracing::instrument(level = \"debug\")]", "skip_all"),
        ("#[instrument(skip_all, fields(aci))]", "fields"),
        ("#[instrument(skip_all, err)]", "err"),
        ("#[instrument(skip_all, ret(Debug))]", "ret"),
        ("tracing::warn!(cause = 1, \"text\"", "not closed"),
        ("log::warn!(\"text\")", "not of tracing"),
    ] {
        let refused = read(bad).map_err(|error| error.contains(why));
        assert_eq!(refused, Err(true), "{bad}: {:?}", read(bad));
    }
}

async fn b7_a_running_server_logs_only_fields_of_the_manifest(backend: Backend) {
    let server = Server::spawn_with(backend, &[("LOG", "json"), ("LOG_LEVEL", "trace")]).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"text").await.expect(200);
    bob.connect(&server).await.content().await;
    ask(alice.request(&server, "GET", "/v1/devices")).await.expect(200);
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 1, "{log}");
    let mut names = BTreeSet::new();
    lines.iter().for_each(|line| collect_names(line, &mut names));
    assert!(names.contains("timestamp") && names.contains("admin"), "{names:?}");
    names.retain(|name| Manifest::embedded().log_field(name).is_none());
    assert_eq!(names, BTreeSet::new(), "{log}");
}

fn collect_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            names.extend(fields.keys().cloned());
            fields.values().for_each(|value| collect_names(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}

/// The fields that code can write into the log.
fn fields(code: &[Word]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for (at, word) in code.iter().enumerate() {
        let Word::Name(name) = word else { continue };
        let next = code.get(at + 1);
        if name == "tracing" && next == Some(&Word::Sign(':')) {
            check_path(&code[at + 1..])?;
        } else if LEVELS.contains(&name.as_str()) && next == Some(&Word::Sign('!')) && opens(code.get(at + 2)) {
            if !is_ours(&code[..at]) {
                return Err(format!("{name}! is not of tracing"));
            }
            let arguments = inside(code, at + 2).ok_or("a macro that is not closed")?;
            event(arguments, &mut found)?;
        } else if name == "instrument" && is_attribute(&code[..at]) {
            let arguments = inside(code, at + 1).ok_or("instrument without arguments takes all arguments as fields")?;
            span(arguments)?;
        }
    }
    Ok(found)
}

/// What follows `tracing` in a path: only what is known to be read here, or to write nothing.
fn check_path(path: &[Word]) -> Result<(), String> {
    let path: Vec<&Word> = path.iter().skip_while(|word| **word == Word::Sign(':')).collect();
    let check = |word: &Word| match word {
        Word::Name(name) if KNOWN.contains(&name.as_str()) || LEVELS.contains(&name.as_str()) => Ok(()),
        other => Err(format!("tracing::{other:?} is not read by this test")),
    };
    let after = |at: usize| path.get(at).copied();
    match after(0) {
        Some(Word::Sign('{')) => {
            let end = path.iter().position(|word| **word == Word::Sign('}'));
            let names = path.iter().take(end.ok_or("an import that is not closed")?).skip(1);
            names
                .filter(|word| ***word != Word::Sign(','))
                .try_for_each(|word| check(word))
        }
        Some(word) => {
            check(word)?;
            match after(1) {
                Some(renamed) if renamed.is("as") => Err("a macro is renamed".to_owned()),
                _ => Ok(()),
            }
        }
        None => Err("tracing is cut off".to_owned()),
    }
}

fn opens(word: Option<&Word>) -> bool {
    matches!(word, Some(Word::Sign('(' | '[' | '{')))
}

/// Whether these words do not name another crate whose macro it would be.
fn is_ours(before: &[Word]) -> bool {
    match before {
        [.., crate_name, Word::Sign(':'), Word::Sign(':')] => crate_name.is("tracing"),
        _ => true,
    }
}

/// Whether these words end with `#[`, or `#[tracing::`.
fn is_attribute(before: &[Word]) -> bool {
    let mut before = before.iter().rev().peekable();
    if before.next_if(|word| **word == Word::Sign(':')).is_some() {
        before.next_if(|word| **word == Word::Sign(':'));
        before.next_if(|word| word.is("tracing"));
    }
    before.next() == Some(&Word::Sign('[')) && before.next() == Some(&Word::Sign('#'))
}

/// Fields, then a constant message, and nothing else.
fn event(arguments: &[Word], found: &mut BTreeSet<String>) -> Result<(), String> {
    let items = items(arguments);
    let Some((message, before)) = items.split_last() else {
        return Err("an event that has no message".to_owned());
    };
    for item in before {
        if let [Word::Text(text)] = item {
            return Err(if text.contains('{') {
                format!("the message {text:?} is not constant")
            } else {
                format!("something comes after the message {text:?}")
            });
        }
        found.insert(field(item)?);
    }
    match message {
        [Word::Text(text)] if text.contains('{') => Err(format!("the message {text:?} is not constant")),
        [Word::Text(_)] => Ok(()),
        other => field(other).and_then(|name| Err(format!("an event with {name} has no message"))),
    }
}

/// `name`, `%name`, `name = value` or `name = %value`, where the name may have dots.
fn field(item: &[Word]) -> Result<String, String> {
    let refused = || format!("{item:?} is not a field");
    let debug = || format!("{item:?} is written by Debug");
    let words = match item {
        [Word::Sign('%'), rest @ ..] => rest,
        [Word::Sign('?'), ..] => return Err(debug()),
        all => all,
    };
    let mut name = String::new();
    let mut rest = words.iter().peekable();
    loop {
        let Some(Word::Name(part)) = rest.next() else {
            return Err(refused());
        };
        name.push_str(part);
        match rest.next() {
            None => return Ok(name),
            Some(Word::Sign('.')) => name.push('.'),
            Some(Word::Sign('=')) => break,
            Some(_) => return Err(refused()),
        }
    }
    match rest.peek() {
        None => Err(refused()),
        Some(Word::Sign('?')) => Err(debug()),
        Some(_) => Ok(name),
    }
}

/// A span has a constant name and no fields.
fn span(arguments: &[Word]) -> Result<(), String> {
    let mut skips = false;
    for item in items(arguments) {
        match item {
            [name, Word::Sign('='), Word::Text(_)] if name.is("name") || name.is("level") => {}
            [all] if all.is("skip_all") => skips = true,
            other => return Err(format!("a span with {other:?}")),
        }
    }
    if skips {
        Ok(())
    } else {
        Err("a span without skip_all takes all arguments as fields".to_owned())
    }
}

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
/// What else of the crate may be named: it makes the log and writes nothing into it.
const KNOWN: [&str; 4] = ["instrument", "subscriber", "Subscriber", "level_filters"];
