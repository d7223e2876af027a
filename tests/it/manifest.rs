//! The manifest (`keys-schema/manifest.toml`) against everything that it is about: the databases, the metrics, the log,
//! Redis, files and settings. Nothing is there that it does not list, and it lists nothing that is not there.

mod files;
mod log;
mod metrics;
mod pages;
mod redis;
mod schema;
mod settings;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::layering::{collect, test_modules, without_test_modules};

/// The files of `src`, without what is compiled for tests only. Paths begin at `src`.
fn server_code() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap()))
        .collect();
    let for_tests: Vec<PathBuf> = texts.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    let code: Vec<_> = texts
        .into_iter()
        .filter(|(file, _)| !for_tests.iter().any(|test| file.with_extension("").starts_with(test)))
        .map(|(file, text)| (file.strip_prefix(root).unwrap().to_owned(), without_test_modules(&text)))
        .collect();
    assert!(code.len() > 100, "the sources are where they are looked for");
    code
}

/// The text of a file of this repository.
fn repository_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The built program, without settings from the environment.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blind-relay"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BLIND_RELAY_")) {
        command.env_remove(name);
    }
    command
}
