//! Pages that are written from the manifest: the tables of the threat model, and what users are told.
//!
//! `BLESS=1 cargo test --test it manifest::pages` writes them; otherwise they are compared.

use std::collections::BTreeMap;
use std::fmt::Write;

use blind_relay::manifest::{Column, Datum, Form, Held, Manifest, RedisKind, Subject, Table, Viewer};

use super::repository_file;

#[test]
fn the_tables_of_the_threat_model_are_written_from_the_manifest() {
    let page = repository_file(THREAT_MODEL);
    let (before, rest) = page.split_once(BEGIN).expect("where the tables begin");
    let (_, after) = rest.split_once(END).expect("where the tables end");
    compare(
        THREAT_MODEL,
        &page,
        &format!("{before}{BEGIN}{}{END}{after}", tables(Manifest::embedded())),
    );
}

#[test]
fn the_page_for_users_is_written_from_the_manifest() {
    compare(FOR_USERS, &repository_file(FOR_USERS), &for_users(Manifest::embedded()));
}

#[test]
fn pages_hold_every_datum_and_every_place() {
    let manifest = Manifest::embedded();
    let (tables, for_users) = (tables(manifest), for_users(manifest));
    for datum in &manifest.data {
        assert!(
            tables.contains(&cell(&datum.form)) && for_users.contains(&datum.plain),
            "{}",
            datum.id
        );
    }
    for (table, column) in manifest.columns() {
        let row = tables
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", table.name)))
            .unwrap();
        assert!(row.contains(&format!("`{}`", column.name)), "{}", column.name);
    }
}

fn compare(path: &str, current: &str, written: &str) {
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::write(file, written).unwrap();
        return;
    }
    let differs = current
        .lines()
        .zip(written.lines())
        .find(|(current, written)| current != written);
    assert!(
        current == written,
        "{path} is not what the manifest says: run BLESS=1 cargo test --test it manifest::pages. {differs:?}"
    );
}

const THREAT_MODEL: &str = "docs/threat-model.md";
const FOR_USERS: &str = "docs/what-this-server-knows.md";
const BEGIN: &str = "<!-- Written from keys-schema/manifest.toml, down to its end: change that, and run \
                     `BLESS=1 cargo test --test it manifest::pages`. -->\n";
const END: &str = "<!-- The end of what is written from the manifest. -->\n";

/// For auditors: what is known, and where it is.
fn tables(manifest: &Manifest) -> String {
    let mut page = String::from(
        "\n| datum | form at rest now | why | how long | who sees it | goal, where it differs |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for datum in &manifest.data {
        let goal = datum.goal.as_deref().unwrap_or_default();
        let row = [
            &datum.title,
            &datum.form,
            &datum.why,
            &datum.kept,
            &viewers(datum),
            goal,
        ];
        line(&mut page, &row);
    }
    write!(page, "\nNever, in any form: {}.\n", manifest.never.join(", ")).unwrap();

    page.push_str(
        "\nThe tables of the database, with every column by its form. Indexes are in the manifest.\n\n\
         | table | a row is | columns |\n| --- | --- | --- |\n",
    );
    for table in &manifest.tables {
        line(&mut page, &[&format!("`{}`", table.name), &table.what, &by_form(table)]);
    }
    page.push_str("\nWhat else there is:\n\n| place | name | what |\n| --- | --- | --- |\n");
    for redis in &manifest.redis {
        let place = match redis.kind {
            RedisKind::Key => "Redis, key",
            RedisKind::Channel => "Redis, channel; nothing is stored",
        };
        let what = format!("{}: {}", redis.what, form_word(redis.form));
        line(&mut page, &[place, &format!("`{}`", redis.name), &what]);
    }
    for object in &manifest.objects {
        let what = format!("{}: {}", object.what, form_word(object.form));
        line(&mut page, &["attachment store", &format!("`{}`", object.name), &what]);
    }
    for file in &manifest.files {
        let place = match (file.secret, &file.mode) {
            (true, Some(mode)) => format!("file, {mode}, **secret**"),
            (true, None) => "file, **secret**".to_owned(),
            (false, Some(mode)) => format!("file, {mode}"),
            (false, None) => "file".to_owned(),
        };
        line(&mut page, &[&place, &format!("`{}`", file.path), &file.what]);
    }
    for secret in &manifest.secrets {
        let what = format!("{}. It opens: {}", secret.what, secret.opens);
        line(&mut page, &["secret setting", &format!("`{}`", secret.key), &what]);
    }
    for party in &manifest.third_parties {
        let what = format!("gets {}, so that {}", party.gets, party.why);
        let place = format!("third party, with `{}`", party.setting);
        line(&mut page, &[&place, &party.name, &what]);
    }
    let fields: Vec<_> = manifest
        .log_fields
        .iter()
        .map(|field| format!("`{}`", field.name))
        .collect();
    line(
        &mut page,
        &[
            "log",
            &fields.join(" "),
            "the fields of a line; messages are constant text",
        ],
    );
    line(
        &mut page,
        &["metrics", "[metrics.md](metrics.md)", "sums with closed sets of labels"],
    );
    page.push('\n');
    page
}

/// The columns, those of one form together, in the order in which forms come first.
fn by_form(table: &Table) -> String {
    let mut order: Vec<Form> = Vec::new();
    let mut columns: BTreeMap<Form, Vec<&Column>> = BTreeMap::new();
    for column in &table.columns {
        if !order.contains(&column.form) {
            order.push(column.form);
        }
        columns.entry(column.form).or_default().push(column);
    }
    let names = |form: &Form| {
        let names: Vec<_> = columns[form]
            .iter()
            .map(|column| format!("`{}`", column.name))
            .collect();
        format!("{} {}", form_word(*form), names.join(" "))
    };
    order.iter().map(names).collect::<Vec<_>>().join("; ")
}

fn form_word(form: Form) -> &'static str {
    match form {
        Form::AccountId => "account id",
        Form::Random => "random",
        Form::KeyedHash => "keyed hash",
        Form::SaltedHash => "salted hash",
        Form::Hash => "hash",
        Form::SealedToDevice => "sealed to the device",
        Form::SealedUnderPepper => "sealed under the pepper",
        Form::ClientCiphertext => "client ciphertext",
        Form::ClientDerived => "derived by the client",
        Form::AttachmentPath => "path of an attachment",
        Form::PublicKey => "public key",
        Form::Signature => "signature",
        Form::ServerValue => "the server's own",
        Form::Counter => "counter",
        Form::Number => "the client's number",
        Form::Choice => "choice",
        Form::Day => "day",
        Form::Instant => "time",
        Form::Clear => "constant text",
    }
}

fn viewers(datum: &Datum) -> String {
    let codes: Vec<String> = datum.seen_by.iter().map(|viewer| code(*viewer).to_owned()).collect();
    match &datum.seen_note {
        Some(note) => format!("{}. {}", codes.join(" "), note.trim_end_matches('.')),
        None => codes.join(" "),
    }
}

fn code(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Nd => "Nd",
        Viewer::Db => "Db",
        Viewer::Ob => "Ob",
        Viewer::Rd => "Rd",
        Viewer::Ow => "Ow",
        Viewer::Pub => "Pub",
        Viewer::Ad => "Ad",
        Viewer::Operator => "operator",
    }
}

fn line(page: &mut String, cells: &[&str]) {
    for text in cells {
        let text = cell(text);
        page.push_str(if text.is_empty() { "|" } else { "| " });
        page.push_str(&text);
        page.push(' ');
    }
    page.push_str("|\n");
}

/// A text that is no two cells.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// For everyone who has an account.
fn for_users(manifest: &Manifest) -> String {
    let mut page = String::from(INTRODUCTION);
    for (subject, heading, before) in [
        (Subject::Account, "Your account", ""),
        (Subject::Device, "Your devices", ""),
        (Subject::Contact, "The people you write to", CONTACTS),
        (Subject::Nobody, "What is about nobody", NOBODY),
    ] {
        write!(page, "\n## {heading}\n{before}").unwrap();
        let about = || manifest.data.iter().filter(|datum| datum.about == subject);
        let (kept, passing): (Vec<_>, Vec<_>) = about().partition(|datum| datum.held.is_none());
        kept.iter().for_each(|datum| entry(&mut page, datum));
        if !passing.is_empty() {
            let heading = if kept.is_empty() { "" } else { PASSING };
            page.push_str(heading);
            passing.iter().for_each(|datum| entry(&mut page, datum));
        }
    }
    page.push_str("\n## What it never has\n\nIn no form, anywhere:\n\n");
    for never in &manifest.never {
        writeln!(page, "- {never}").unwrap();
    }
    page.push_str("\n## Who else is involved\n\nDepending on how the server is set up, these get:\n\n");
    for party in &manifest.third_parties {
        writeln!(page, "- **{}:** {}, so that {}.", party.name, party.gets, party.why).unwrap();
    }
    page.push_str(HOW_TO_CHECK);
    page
}

fn entry(page: &mut String, datum: &Datum) {
    let who: Vec<&str> = datum.seen_by.iter().map(|viewer| in_words(*viewer)).collect();
    let more = datum
        .seen_note
        .as_ref()
        .map(|note| format!(" {note}"))
        .unwrap_or_default();
    let place = match datum.held {
        Some(Held::Memory) => "in memory, ",
        Some(Held::Nowhere) | None => "",
    };
    write!(
        page,
        "\n### {}\n\n{}\n\n- *Why:* {}.\n- *How long:* {place}{}.\n- *Who sees it:* {}.{more}\n",
        datum.heading,
        datum.plain,
        datum.why,
        datum.kept,
        who.join(", ")
    )
    .unwrap();
}

fn in_words(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Nd => "the server while it works",
        Viewer::Db => "whoever reads its database",
        Viewer::Ob => "whoever reads its attachment store",
        Viewer::Rd => "whoever listens to its Redis",
        Viewer::Ow => "you",
        Viewer::Pub => "people who may write to you",
        Viewer::Ad => "whoever administers the server",
        Viewer::Operator => "whoever runs the server",
    }
}

const INTRODUCTION: &str = "\
# What this server knows about you

For everyone who has an account on a server that runs blind-relay. It says what the server keeps about you, why, for how
long, and who can see it. It is complete: what is not here, the server does not have.

Your messages are encrypted on your device and decrypted on the devices of those whom you write to. The server passes them
on and cannot read them. To pass them on it has to know some things, and this is the list of those things.

*Whoever reads its database* means anyone who gets hold of it: a thief of a disk or a backup, or whoever administers it.
*The server while it works* means the running program, and so, if they watch it, whoever runs it. Names such as
`queue.retention_days` are settings: the number beside them is what it is unless whoever runs your server chose another.

<!-- Written from keys-schema/manifest.toml: change that, and run `BLESS=1 cargo test --test it manifest::pages`. -->
";
const PASSING: &str = "
And what is never written down: it is in the memory of the server for a while, or not with the server at all.
";
const CONTACTS: &str = "
Nothing about them is written down. The server has no list of your contacts, and its database does not say who wrote to
whom.
";
const NOBODY: &str = "
What follows belongs to the server itself, or to nobody that it could name.
";
const HOW_TO_CHECK: &str = "
## How to check

This page is written from the list that the program itself carries,
[keys-schema/manifest.toml](../keys-schema/manifest.toml). Tests hold the databases, the log, the metrics, Redis and the files
of a running server against that list, and whoever runs a server can do the same with theirs: `blind-relay audit
blindness`. What each kind of attacker can and cannot do is in [SECURITY.md](../SECURITY.md), the same list for auditors in the
[threat model](threat-model.md).
";
