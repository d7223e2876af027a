//! How names are looked for: in crates, in symbols of a program, in sources.

use std::collections::BTreeSet;
use std::path::Path;

use object::{Object as _, ObjectSymbol as _};

use super::lists::{CAPABLE_NAMES, CAPABLE_PARTS, FORBIDDEN_CRATES, FORBIDDEN_PARTS, FORBIDDEN_WORDS, OPENING};

pub(super) fn is_forbidden_crate(name: &str) -> bool {
    FORBIDDEN_CRATES.iter().any(|part| name.contains(part))
}

pub(super) fn is_capable_crate(name: &str) -> bool {
    CAPABLE_NAMES.contains(&name) || CAPABLE_PARTS.iter().any(|part| name.contains(part))
}

pub(super) fn is_forbidden_symbol(symbol: &str) -> bool {
    words(symbol).any(is_forbidden_word)
}

pub(super) fn is_forbidden_word(word: &str) -> bool {
    let word = word.replace('_', "").to_lowercase();
    FORBIDDEN_WORDS.contains(&word.as_str()) || FORBIDDEN_PARTS.iter().any(|part| word.contains(part))
}

/// Whether it is the path of something in Rust that opens something.
pub(super) fn opens(symbol: &str) -> bool {
    let small = symbol.to_lowercase();
    small.contains("::") && OPENING.iter().any(|part| small.contains(part))
}

/// The crates with which the paths of a symbol begin.
pub(super) fn crates_in(symbol: &str) -> BTreeSet<&str> {
    let mut crates = BTreeSet::new();
    for (at, _) in symbol.match_indices("::") {
        let before = &symbol[..at];
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |end| end + 1);
        let name = &before[start..];
        let begins = !before[..start].ends_with("::") && !before[..start].ends_with('}');
        if begins && !name.is_empty() && !["alloc", "core", "std"].contains(&name) {
            crates.insert(name);
        }
    }
    crates
}

/// All names in the tables of symbols, as they were in the sources.
pub(super) fn symbols(program: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter_map(|symbol| symbol.name().ok())
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .collect()
}

pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The names of the types that a source declares.
pub(super) fn types(code: &str) -> Vec<String> {
    let keyword = |word: &str| ["struct", "enum", "type", "trait", "union"].contains(&word);
    let words: Vec<&str> = words(code).collect();
    words
        .windows(2)
        .filter(|pair| keyword(pair[0]) && pair[1].starts_with(|c: char| c.is_uppercase()))
        .map(|pair| pair[1].to_owned())
        .collect()
}

#[test]
fn the_search_for_what_decrypts_finds_what_is_planted() {
    for planted in [
        "libsignal-protocol",
        "libsignal-protocol-fork",
        "vodozemac",
        "my-double-ratchet",
        "openmls_traits",
        "mls-rs-core",
    ] {
        assert!(is_forbidden_crate(planted), "{planted}");
    }
    assert!(!is_forbidden_crate("signal-hook-registry") && !is_forbidden_crate("tokio"));
    for planted in [
        "rsa",
        "ring",
        "x25519-dalek",
        "xsalsa20poly1305",
        "crypto_box",
        "ml-kem",
        "pqc_kyber",
    ] {
        assert!(is_capable_crate(planted), "{planted}");
    }
    assert!(!is_capable_crate("stringprep") && !is_capable_crate("tracing-core"));
    for planted in [
        "libsignal_protocol::session_cipher::message_decrypt",
        "<signal::DoubleRatchet as core::fmt::Debug>::fmt",
        "blind_relay::relay::sealed_sender_decrypt::{{closure}}",
        "session_cipher_decrypt_signal_message",
        "_olm_session::decrypt_message",
        "keys_schema::usmc::Usmc",
    ] {
        assert!(is_forbidden_symbol(planted), "{planted}");
    }
    for harmless in [
        "rustls::record_layer::RecordLayer::set_message_decrypter",
        "keys_schema::proto::Envelope",
        "blind_relay::relay::session::Session::window_open",
        "aws_lc_0_47_0_EVP_AEAD_CTX_open",
    ] {
        assert!(!is_forbidden_symbol(harmless), "{harmless}");
    }
    assert!(opens("hpke::setup::setup_receiver") && !opens("std::fs::OpenOptions::open"));
    assert!(
        !opens("aws_lc_0_47_0_AES_decrypt"),
        "names of C code are held against the words alone"
    );
    assert_eq!(
        crates_in("<alloc::vec::Vec<u8> as aead::Aead>::decrypt::<snow::State, &'static str>"),
        BTreeSet::from(["aead", "snow"])
    );
    assert_eq!(
        types("pub struct A(u8);\nenum B<T> { C }\npub(crate) type D = E;\nfn f(struct_like: F) {}\n"),
        ["A", "B", "D"]
    );
}
