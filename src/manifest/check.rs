//! What must hold for a manifest beyond its types: everything is said once, leads somewhere, and fits together.

use std::collections::BTreeSet;

use super::{Entropy, Form, Held, Manifest, Table};

/// Everything that is wrong with it.
pub(super) fn problems(manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    said_once(manifest, &mut problems);
    data_have_places(manifest, &mut problems);
    manifest
        .tables
        .iter()
        .for_each(|table| check_table(table, &mut problems));
    for redis in &manifest.redis {
        check_entropy(&redis.name, redis.form, redis.entropy, &mut problems);
    }
    for object in &manifest.objects {
        check_entropy(&object.name, object.form, object.entropy, &mut problems);
    }
    for metric in &manifest.metrics {
        let unclear = |label: &&super::Label| label.values.is_some() == label.bounded_by.is_some();
        for label in metric.labels.iter().filter(unclear) {
            problems.push(format!(
                "{} does not say either the values of {} or what bounds them",
                metric.name, label.name
            ));
        }
    }
    problems
}

fn said_once(manifest: &Manifest, problems: &mut Vec<String>) {
    once("datum", manifest.data.iter().map(|datum| &datum.id), problems);
    once("table", manifest.tables.iter().map(|table| &table.name), problems);
    once(
        "name in Redis",
        manifest.redis.iter().map(|redis| &redis.name),
        problems,
    );
    once("metric", manifest.metrics.iter().map(|metric| &metric.name), problems);
    once(
        "log field",
        manifest.log_fields.iter().map(|field| &field.name),
        problems,
    );
    once("object", manifest.objects.iter().map(|object| &object.name), problems);
    once("file", manifest.files.iter().map(|file| &file.path), problems);
    once("secret", manifest.secrets.iter().map(|secret| &secret.key), problems);
    once(
        "third party",
        manifest.third_parties.iter().map(|party| &party.name),
        problems,
    );
    for table in &manifest.tables {
        let columns = table.columns.iter().map(|column| &column.name);
        once(&format!("column of {}", table.name), columns, problems);
    }
    let indexes = || manifest.tables.iter().flat_map(|table| &table.indexes);
    once("index of Postgres", indexes().map(|index| &index.postgres), problems);
    once(
        "index of SQLite",
        indexes().filter_map(|index| index.sqlite.as_ref()),
        problems,
    );
}

fn once<'a>(what: &str, names: impl Iterator<Item = &'a String>, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            problems.push(format!("the {what} {name} is there twice"));
        }
    }
}

/// Each place is a part of a datum that there is, and each datum is somewhere.
fn data_have_places(manifest: &Manifest, problems: &mut Vec<String>) {
    let mut named: BTreeSet<&str> = manifest.columns().map(|(_, column)| column.datum.as_str()).collect();
    named.extend(manifest.metrics.iter().map(|metric| metric.datum.as_str()));
    named.extend(manifest.objects.iter().map(|object| object.datum.as_str()));
    named.extend(manifest.files.iter().filter_map(|file| file.datum.as_deref()));
    let carried: BTreeSet<&str> = manifest
        .redis
        .iter()
        .flat_map(|redis| &redis.carries)
        .map(String::as_str)
        .collect();
    for id in named.union(&carried).filter(|id| manifest.datum(id).is_none()) {
        problems.push(format!("there is no datum {id}"));
    }
    for datum in &manifest.data {
        let id = datum.id.as_str();
        // What the log says is in its fields, which are about nothing else.
        let somewhere = named.contains(id) || id == LOG;
        match datum.held {
            None if !somewhere && !carried.contains(id) => problems.push(format!("the datum {id} is nowhere")),
            Some(Held::Memory) if somewhere => problems.push(format!("the datum {id} is not in memory alone")),
            Some(Held::Nowhere) if somewhere || carried.contains(id) => {
                problems.push(format!("the datum {id} is somewhere"));
            }
            _ => {}
        }
        if datum.seen_by.is_empty() {
            problems.push(format!("nobody sees the datum {id}"));
        }
    }
}

fn check_table(table: &Table, problems: &mut Vec<String>) {
    for column in &table.columns {
        let place = format!("{}.{}", table.name, column.name);
        check_entropy(&place, column.form, column.entropy, problems);
    }
    for index in &table.indexes {
        for name in &index.columns {
            match table.column(name) {
                None => problems.push(format!("{} is on {name}, which {} has not", index.postgres, table.name)),
                // What is sealed is not searched for: an index would only sort it for whoever reads the database.
                Some(column) if column.form.is_ciphertext() => {
                    problems.push(format!(
                        "{} is on {}.{name}, which is sealed",
                        index.postgres, table.name
                    ));
                }
                Some(_) => {}
            }
        }
    }
}

fn check_entropy(place: &str, form: Form, entropy: Option<Entropy>, problems: &mut Vec<String>) {
    let fits = match entropy {
        None => !form.is_ciphertext(),
        Some(Entropy::Expected) => form == Form::ClientCiphertext,
        Some(Entropy::Demanded) => form.is_ciphertext() && form != Form::ClientCiphertext,
    };
    if !fits {
        problems.push(format!("the entropy of {place} does not fit its form"));
    }
}

/// The datum of the log.
const LOG: &str = "log";
