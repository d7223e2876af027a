//! The server cannot decrypt what people write to each other (B2): nothing that could is among its crates, among the names
//! in the program, or in its own sources.
//!
//! It opens other things, each with a reason: TLS, values that it sealed itself, and what it sealed for a device that is
//! there. Those are listed here, all of them: whoever adds one says here what it opens and with whose key.

mod lists;
mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use crate::layering::{Source, sources_in};

use lists::{CAPABLE_CRATES, OPENERS, OPENING_CRATES, OPENING_SOURCES, OPENING_WORDS, TYPE_PARTS, TYPES};
use search::{
    crates_in, is_capable_crate, is_forbidden_crate, is_forbidden_symbol, is_forbidden_word, opens, symbols, types,
    words,
};

#[test]
fn b2_no_crate_holds_sessions_or_opens_sealed_sender_messages() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let names: Vec<&str> = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert!(
        names.len() > 200 && names.contains(&"keys-schema"),
        "the lock file is read"
    );
    let banned = banned();
    assert!(banned.len() > 10, "deny.toml is read");
    let found: Vec<_> = names
        .iter()
        .filter(|name| is_forbidden_crate(name) || banned.contains(**name))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    // The ban of cargo-deny and the parts of names agree.
    let unseen: Vec<_> = banned.iter().filter(|name| !is_forbidden_crate(name)).collect();
    assert!(unseen.is_empty(), "banned, and in no way forbidden here: {unseen:?}");
}

#[test]
fn b2_crates_that_can_open_anything_are_listed_with_their_reason() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "blind-relay", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("keys-schema") && names.contains("rustls"), "{text}");
    let found = names
        .into_iter()
        .filter(|name| is_capable_crate(name))
        .map(str::to_owned)
        .collect();
    assert_same("crates", CAPABLE_CRATES, &found);
}

/// In the program as the tests run it, and in one that is named in `BLIND_RELAY_TEST_RELEASE`: there fewer names are left
/// after optimisation, here all of them are.
#[test]
fn b2_no_symbol_of_the_program_names_what_decrypts_messages() {
    let release = std::env::var_os("BLIND_RELAY_TEST_RELEASE").map(PathBuf::from);
    for path in [Some(PathBuf::from(env!("CARGO_BIN_EXE_blind-relay"))), release]
        .into_iter()
        .flatten()
    {
        let symbols = symbols(&path);
        // Not vacuous: a stripped program would have none of these.
        for known in ["keys_schema::", "blind_relay::", "rustls::"] {
            assert!(
                symbols.iter().any(|symbol| symbol.contains(known)),
                "no {known} in {}",
                path.display()
            );
        }
        let wrong: Vec<_> = symbols.iter().filter(|symbol| is_forbidden_symbol(symbol)).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
        let allowed: BTreeSet<&str> = OPENING_CRATES.iter().map(|(name, _)| *name).collect();
        let wrong: Vec<_> = symbols
            .iter()
            .filter(|symbol| opens(symbol) && !crates_in(symbol).iter().all(|name| allowed.contains(name)))
            .collect();
        assert!(
            wrong.is_empty(),
            "they open something and are not listed, {}: {wrong:#?}",
            path.display()
        );
    }
}

#[test]
fn b2_what_the_sources_open_is_listed_with_its_reason() {
    let sources = sources();
    let calls = |words: &[&str]| -> BTreeSet<String> {
        let named = sources
            .iter()
            .filter(|source| words.iter().any(|word| source.names(word)));
        named.map(place).collect()
    };
    assert_same("sources", OPENING_SOURCES, &calls(OPENING_WORDS));
    let openers = sources
        .iter()
        .filter(|source| ["SealingKey", "Opener"].iter().any(|name| source.names(name)))
        .filter(|source| source.code.contains(".open(") || source.code.contains("fn open("))
        .map(place)
        .collect();
    assert_same("sources", OPENERS, &openers);
}

#[test]
fn b2_no_type_of_ours_is_a_session_or_a_private_key_of_a_client() {
    let sources = sources();
    let types = sources.iter().flat_map(|source| types(&source.code));
    let found = types
        .filter(|name| TYPE_PARTS.iter().any(|part| name.contains(part)))
        .collect();
    assert_same("types", TYPES, &found);
    let wrong: Vec<_> = sources
        .iter()
        .flat_map(|source| words(&source.code).map(move |word| (place(source), word)))
        .filter(|(_, word)| is_forbidden_word(word))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The scalar of the one private key is multiplied with the base point and signs; it never meets a key of somebody else.
#[test]
fn b2_the_private_key_of_certificates_signs_and_agrees_on_nothing() {
    let sources = sources_in("keys-schema/src");
    let code = |name: &str| {
        sources
            .iter()
            .find(|source| source.path.ends_with(name))
            .unwrap()
            .code
            .clone()
    };
    let functions: Vec<String> = code("private_key.rs")
        .split("fn ")
        .skip(1)
        .map(|rest| words(rest).next().unwrap().to_owned())
        .collect();
    assert_eq!(functions, ["from_bytes", "as_bytes", "public_key", "scalar"]);
    let users: Vec<_> = sources
        .iter()
        .filter(|source| source.code.contains(".scalar()"))
        .map(place)
        .collect();
    assert_eq!(users, ["keys-schema/src/private_key.rs", "keys-schema/src/xeddsa.rs"]);
    for name in ["private_key.rs", "xeddsa.rs"] {
        for word in [
            "MontgomeryPoint",
            "mul_clamped",
            "diffie_hellman",
            "vartime_multiscalar_mul",
        ] {
            let signs = !code(name).contains(word) || name == "xeddsa.rs" && !in_signing(&code(name), word);
            assert!(signs, "{name} has {word}");
        }
    }
}

/// Fails unless exactly what was found is listed.
fn assert_same(what: &str, listed: &[(&str, &str)], found: &BTreeSet<String>) {
    let listed: BTreeMap<&str, &str> = listed.iter().copied().collect();
    let unlisted: Vec<_> = found
        .iter()
        .filter(|name| !listed.contains_key(name.as_str()))
        .collect();
    assert!(
        unlisted.is_empty(),
        "{what} that are not listed with a reason: {unlisted:#?}"
    );
    let gone: Vec<_> = listed.keys().filter(|name| !found.contains(**name)).collect();
    assert!(gone.is_empty(), "{what} that are listed and no longer there: {gone:#?}");
}

/// Whether the word stands in what signs, which is above what verifies.
fn in_signing(code: &str, word: &str) -> bool {
    let (sign, verify) = (code.find("fn sign").unwrap(), code.find("fn verify").unwrap());
    let signing = if sign < verify {
        &code[sign..verify]
    } else {
        &code[sign..]
    };
    signing.contains(word)
}

/// The crates that `deny.toml` bans for this reason.
fn banned() -> BTreeSet<String> {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|ban| ban["reason"].as_str().unwrap().starts_with("B2"))
        .map(|ban| ban["crate"].as_str().unwrap().to_owned())
        .collect()
}

/// The sources of the server and of keys-schema, without tests.
fn sources() -> Vec<Source> {
    let mut sources = sources_in("src");
    sources.extend(sources_in("keys-schema/src"));
    sources
}

fn place(source: &Source) -> String {
    source.path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
