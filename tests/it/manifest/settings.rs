//! Settings: those that the configuration reads as secrets, those that it masks, and those that the manifest calls so.

use std::collections::BTreeSet;

use blind_relay::config::DEFAULTS;
use blind_relay::manifest::Manifest;

use super::server_code;
use super::words::{Word, words};

#[test]
fn secret_settings_equal_the_manifest() {
    let listed: BTreeSet<String> = Manifest::embedded()
        .secrets
        .iter()
        .map(|secret| secret.key.clone())
        .collect();
    let (mut read, mut masked, mut typed) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (path, code) in server_code()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src/config"))
    {
        let code = words(&code);
        for (at, word) in code.iter().enumerate() {
            match &code[at..] {
                [Word::Sign('.'), name, Word::Sign('('), Word::Text(key), ..] if name.is("secret") => {
                    read.insert(key.clone());
                }
                [Word::Sign('.'), name, Word::Sign('('), ..] if name.is("secret") => {
                    panic!("{} reads a secret by a name that is not written there", path.display());
                }
                [start, secrets, ..] if start.is("const") && secrets.is("SECRETS") => {
                    let list = code[at..].iter().take_while(|word| **word != Word::Sign(';'));
                    // The semicolon of the array's type ends it early.
                    let more = code[at..].iter().skip_while(|word| **word != Word::Sign('='));
                    let texts = list.chain(more.take_while(|word| **word != Word::Sign(';')));
                    masked.extend(texts.filter_map(|word| match word {
                        Word::Text(text) => Some(text.clone()),
                        _ => None,
                    }));
                }
                // `name: Secret`, `name: Option<Secret>` and `Name(Secret)` of a type.
                _ if word.is("Secret") && matches!(code[at - 1], Word::Sign(':' | '<' | '(')) => typed += 1,
                _ => {}
            }
        }
    }
    assert_eq!(read, listed);
    assert_eq!(masked, listed);
    assert!(typed >= listed.len(), "fields of secrets are read: {typed}");
}

/// Every setting that the manifest names is one, and the file of each secret too.
#[test]
fn settings_that_the_manifest_names_exist() {
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let exists = |key: &str| match key.split_once('.') {
        Some((table, key)) => defaults[table].as_table().unwrap().contains_key(key),
        None => defaults.contains_key(key),
    };
    let manifest = Manifest::embedded();
    let secrets = manifest
        .secrets
        .iter()
        .flat_map(|secret| [secret.key.clone(), format!("{}_file", secret.key)]);
    let files = manifest.files.iter().filter_map(|file| file.setting.clone());
    let parties = manifest.third_parties.iter().map(|party| party.setting.clone());
    let in_words = manifest.data.iter().flat_map(|datum| {
        let parts: Vec<String> = datum.kept.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        parts
    });
    let missing: Vec<_> = secrets
        .chain(files)
        .chain(parties)
        .chain(in_words)
        .filter(|key| !exists(key))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
