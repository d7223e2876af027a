//! Which module may know which: modules cannot enforce a direction, so this reads every path that starts at the crate.
//!
//! What is compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Module, and what it may import of ours beside itself.
const ALLOWED: &[(&str, &[&str])] = &[
    // Below everything.
    ("domain", &[]),
    ("encoding", &[]),
    ("manifest", &[]),
    ("sealing", &["domain"]),
    ("secret_file", &["encoding"]),
    // The layers an envelope passes.
    ("storage", &["domain", "sealing", "telemetry"]),
    ("wakeup", &["domain", "sealing", "telemetry"]),
    ("auth", &["domain", "storage", "sealing", "encoding", "telemetry"]),
    (
        "accounts",
        // The keys of a device that is being linked are checked by the rules of the directory.
        &[
            "domain",
            "storage",
            "auth",
            "directory",
            "sealing",
            "encoding",
            "telemetry",
        ],
    ),
    ("calling", &["domain", "encoding"]),
    (
        "codes",
        &["accounts", "auth", "domain", "encoding", "sealing", "telemetry"],
    ),
    (
        "attachments",
        &["domain", "storage", "sealing", "encoding", "telemetry"],
    ),
    ("directory", &["domain", "limits", "sealing", "storage", "telemetry"]),
    ("limits", &["domain", "encoding", "sealing", "telemetry"]),
    ("provisioning", &["domain", "sealing", "wakeup"]),
    (
        "relay",
        &["domain", "provisioning", "storage", "wakeup", "sealing", "telemetry"],
    ),
    ("retention", &["attachments", "domain", "storage", "telemetry"]),
    (
        "http",
        &[
            "accounts",
            "admin",
            "attachments",
            "auth",
            "calling",
            "certificates",
            "directory",
            "domain",
            "encoding",
            "limits",
            "provisioning",
            "relay",
            "sealing",
            "storage",
            "telemetry",
            "wakeup",
        ],
    ),
    // The operator's side. What acts through the admin socket sees no queue and no key.
    ("admin", &["accounts", "domain", "encoding", "storage"]),
    ("console", &["admin", "cli", "config", "domain", "server"]),
    ("telemetry", &["config"]),
    ("config", &["limits", "secret_file", "telemetry"]),
    ("certificates", &["domain", "encoding", "sealing", "secret_file"]),
    ("age", &["domain", "encoding", "secret_file", "storage", "telemetry"]),
    (
        "backup",
        &["age", "auth", "config", "domain", "secret_file", "server", "storage"],
    ),
    ("cli", &["config"]),
    ("tls", &["domain", "secret_file"]),
    (
        "doctor",
        &[
            "age",
            "config",
            "domain",
            "limits",
            "secret_file",
            "server",
            "storage",
            "telemetry",
            "tls",
        ],
    ),
    (
        "audit",
        &[
            "cli",
            "config",
            "domain",
            "encoding",
            "http",
            "limits",
            "manifest",
            "sealing",
            "secret_file",
            "server",
            "storage",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "accounts",
            "admin",
            "age",
            "attachments",
            "auth",
            "calling",
            "certificates",
            "cli",
            "codes",
            "config",
            "directory",
            "domain",
            "encoding",
            "http",
            "limits",
            "provisioning",
            "relay",
            "retention",
            "sealing",
            "secret_file",
            "storage",
            "telemetry",
            "tls",
            "wakeup",
        ],
    ),
];

/// Crates that stop at one place, and the modules in which they may be named.
const CONFINED: &[(&str, &[&str])] = &[
    ("keys_schema::proto", &["audit", "http"]),
    ("prost::", &["audit", "http"]),
    ("sqlx", &["audit", "storage", "doctor"]),
    ("axum", &["http", "server"]),
    ("schemars", &["http"]),
    ("object_store", &["attachments"]),
    ("jsonwebtoken", &["auth"]),
    ("lettre", &["codes"]),
    ("reqwest", &["codes"]),
    ("redis::", &["audit", "limits", "wakeup", "doctor"]),
    ("tokio_tungstenite", &["audit", "http"]),
];

/// What `domain` does not know at all.
const NOT_IN_DOMAIN: &[&str] = &["sqlx", "axum", "tokio", "redis", "tracing", "http::", "serde"];

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(allowed) = allowed.get(source.module.as_str()) else {
            wrong.push(format!("{} is in no row of the table", source.path.display()));
            continue;
        };
        seen.insert(source.module.clone());
        for import in source.imports() {
            if import != source.module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let missing: Vec<_> = allowed.keys().filter(|module| !seen.contains(**module)).collect();
    assert!(missing.is_empty(), "rows without a module: {missing:?}");
}

#[test]
fn crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, modules) in CONFINED {
            if source.names(name) && !modules.contains(&source.module.as_str()) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
        for name in NOT_IN_DOMAIN.iter().filter(|_| source.module == "domain") {
            if source.names(name) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What an operator may do is what there is of it: neither the acts nor their handlers name anything else.
#[test]
fn t24_b14_the_admin_socket_reaches_no_queue_no_key_and_no_credential() {
    const NOT_THERE: &[&str] = &[
        "Storage",
        "EnvelopeQueue",
        "KeyStore",
        "DeviceStore",
        "AccountStore",
        "TokenStore",
        "ProfileStore",
        "ExportStore",
        "Relay",
        "Directory",
        "Authenticator",
        "ServerSecrets",
        "Issuer",
        "Registrar",
        "Linker",
        "Tokens",
        "Node",
        "AppState",
        "QueueOpener",
        "DeviceSecret",
    ];
    let mut seen = 0;
    for source in sources() {
        let path = source.path.to_str().unwrap();
        let of_the_acts = path.contains("src/admin/") || path.contains("src/http/operator/");
        // Where the two meet: it is held against the methods of its trait, which are few.
        if !of_the_acts || path.ends_with("operator/surroundings.rs") {
            continue;
        }
        seen += 1;
        let named: Vec<_> = NOT_THERE.iter().filter(|name| source.names(name)).collect();
        assert!(named.is_empty(), "{path} names {named:?}");
    }
    assert_eq!(seen, 7);
}

#[test]
fn only_telemetry_spells_a_metric() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.module != "telemetry" && source.code.contains("blind_relay_"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The lint on the type does not see its constructor.
#[test]
fn sql_is_constant_text() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.code.contains("AssertSqlSafe"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_reader_finds_every_form_of_an_import() {
    let source = Source {
        path: PathBuf::from("src/relay/deep/file.rs"),
        module: "relay".to_owned(),
        depth: 3,
        code: "use crate::{auth::Number, http::{routes, error}, domain};\nuse super::super::super::tls::X;\n\
               fn f(x: crate::config::Config) { super::super::writer::go() }"
            .to_owned(),
    };
    let imports: Vec<_> = source.imports().into_iter().collect();
    assert_eq!(imports, ["auth", "config", "domain", "http", "tls"]);
    let text = "a();\n#[cfg(test)]\nmod tests {\n    b();\n}\nc();\n";
    assert_eq!(without_test_modules(text), "a();\nc();\n");
    assert_eq!(
        without_comments("use crate::a; // crate::b\n//! crate::c\n"),
        "use crate::a; \n\n"
    );
}

/// One file of the server.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    module: String,
    /// Modules from the crate's root down to this one.
    depth: usize,
    pub(crate) code: String,
}

impl Source {
    /// The modules of ours that its paths begin with.
    fn imports(&self) -> BTreeSet<String> {
        let up = "super::".repeat(self.depth);
        let mut found = BTreeSet::new();
        for root in ["crate::", up.as_str()] {
            for (at, _) in self.code.match_indices(root) {
                found.extend(first_names(&self.code[at + root.len()..]));
            }
        }
        found
    }

    /// Whether the name stands there as a word of its own.
    pub(crate) fn names(&self, name: &str) -> bool {
        let starts_word = |at: usize| !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let ends_word =
            |at: usize| name.ends_with("::") || !self.code[at..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        self.code
            .match_indices(name)
            .any(|(at, _)| starts_word(at) && ends_word(at + name.len()))
    }
}

/// The first names of a path, or of each path in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        text[..text
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())]
            .to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The server's, without the module map and the thin program, which see everything.
fn sources() -> Vec<Source> {
    let mut sources = sources_in("src");
    sources.retain(|source| source.module != "lib" && source.module != "main");
    sources
}

/// The files of a folder of this repository, without what is compiled for tests only and without comments.
pub(crate) fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap()))
        .collect();
    let for_tests: Vec<PathBuf> = texts.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    let sources: Vec<_> = texts
        .into_iter()
        .filter(|(file, _)| !for_tests.iter().any(|test| file.with_extension("").starts_with(test)))
        .map(|(file, text)| {
            let inside = file.strip_prefix(&root).unwrap().with_extension("");
            let mut parts: Vec<_> = inside.iter().map(|part| part.to_str().unwrap()).collect();
            if parts.last() == Some(&"mod") {
                parts.pop();
            }
            let code = without_comments(&without_test_modules(&text));
            Source {
                path: file.clone(),
                module: parts[0].to_owned(),
                depth: parts.len(),
                code,
            }
        })
        .collect();
    assert!(sources.len() > 10, "the sources are where they are looked for");
    sources
}

/// All Rust files below.
pub(crate) fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files, without extension, of modules that are declared for tests only.
pub(crate) fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let inside = match file.file_name().unwrap().to_str().unwrap() {
        "mod.rs" | "lib.rs" | "main.rs" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    declared
        .filter_map(|pair| pair[1].strip_suffix(';')?.rsplit_once("mod "))
        .map(|(_, name)| inside.join(name))
        .collect()
}

/// The text without modules written out under `#[cfg(test)]`: up to the first closing brace at their own indentation.
pub(crate) fn without_test_modules(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = lines
            .peek()
            .is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
        if line.trim() == "#[cfg(test)]" && opens {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            for skipped in lines.by_ref() {
                if skipped == end {
                    break;
                }
            }
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.split_once("//").map_or(line, |(code, _)| code)))
        .collect()
}
