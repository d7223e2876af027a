//! Finds tests in sources by reading them: Rust's own, those that a macro makes for each backend, and the stories that the
//! official library is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::layering::collect;

/// The folders whose Rust tests count.
const RUST: &[&str] = &["src", "tests/it", "keys-schema/src", "keys-schema/tests", "bench/src"];

/// `B9` or `T45`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    kind: char,
    number: u8,
}

impl Id {
    /// From its form in a document.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let kind = text.chars().next().filter(|kind| matches!(kind, 'B' | 'T'))?;
        let digits = &text[1..];
        let number = digits
            .parse()
            .ok()
            .filter(|_| digits.len() <= 2 && !digits.starts_with('+'))?;
        Some(Self { kind, number })
    }

    /// All from this one to that one.
    pub(super) fn up_to(self, last: Self) -> Vec<Self> {
        let kind = self.kind;
        (self.number..=last.number)
            .map(|number| Self { kind, number })
            .collect()
    }

    /// As it begins the name of a test.
    pub(super) fn as_prefix(self) -> String {
        format!("{}_", self.to_string().to_lowercase())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            'T' => write!(f, "T{:02}", self.number),
            kind => write!(f, "{kind}{}", self.number),
        }
    }
}

/// A test.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    name: String,
    pub(super) ids: BTreeSet<Id>,
    /// Its file.
    pub(super) place: String,
    backends: BTreeSet<&'static str>,
}

impl Found {
    fn new(name: &str, place: &str, backends: BTreeSet<&'static str>) -> Self {
        Self {
            name: name.to_owned(),
            ids: ids_in(name),
            place: place.to_owned(),
            backends,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// In words.
    pub(super) fn backends(&self) -> String {
        if self.backends.is_empty() {
            return "no backend".to_owned();
        }
        self.backends.iter().copied().collect::<Vec<_>>().join(", ")
    }
}

/// The ids with which a name begins.
fn ids_in(name: &str) -> BTreeSet<Id> {
    name.split(['_', ' ', ':'])
        .map_while(|word| {
            let lower = word.starts_with(['b', 't']) && word[1..].starts_with(|c: char| c.is_ascii_digit());
            lower.then(|| Id::parse(&word.to_uppercase()))?
        })
        .collect()
}

/// Every test of the repository.
pub(super) fn repository(root: &Path) -> Vec<Found> {
    let mut files = Vec::new();
    for folder in RUST {
        collect(&root.join(folder), &mut files);
    }
    let read = |path: PathBuf| {
        let place = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (place, std::fs::read_to_string(path).unwrap())
    };
    let mut sources: Vec<(String, String)> = files.into_iter().map(read).collect();
    sources.sort();
    let mut found = suites(&sources);
    for (place, text) in &sources {
        found.extend(rust_tests(place, text));
    }
    let stories = root.join("tests/interop/stories");
    let mut chapters: Vec<_> = std::fs::read_dir(stories)
        .unwrap()
        .map(|entry| read(entry.unwrap().path()))
        .collect();
    chapters.sort();
    for (place, text) in &chapters {
        found.extend(
            story_names(text)
                .into_iter()
                .map(|name| Found::new(name, place, both())),
        );
    }
    found
}

/// The tests of one file that are functions of it, or are made of them by `on_each_backend!`.
fn rust_tests(place: &str, text: &str) -> Vec<Found> {
    let functions = functions(text);
    let mut found = Vec::new();
    let each: BTreeSet<&str> = blocks(text, "on_each_backend! {").flat_map(words).collect();
    for name in &each {
        let mut backends = marks(&functions, name);
        backends.extend(both());
        found.push(Found::new(name, place, backends));
    }
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    for (at, line) in lines.iter().enumerate() {
        if *line != "#[test]" && !line.starts_with("#[tokio::test") {
            continue;
        }
        let rest = &lines[at + 1..];
        let attributes: Vec<&&str> = rest
            .iter()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .collect();
        let ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
        if let Some(name) = rest.get(attributes.len()).and_then(|line| function_name(line))
            && !ignored
        {
            found.push(Found::new(name, place, marks(&functions, name)));
        }
    }
    found
}

/// The properties that `storage/conformance.rs` lists, each a test of every backend that its suite is made for.
fn suites(sources: &[(String, String)]) -> Vec<Found> {
    let (place, text) = sources
        .iter()
        .find(|(place, _)| place == "src/storage/conformance.rs")
        .expect("the conformance suite has its place");
    let mut found = Vec::new();
    for block in blocks(text, "macro_rules! ") {
        let Some(suite) = block.split_whitespace().next().filter(|name| name.ends_with("_suite")) else {
            continue;
        };
        let made = format!("{suite}!(crate::storage::testing::");
        let backends: BTreeSet<&'static str> = sources
            .iter()
            .flat_map(|(_, text)| text.match_indices(&made).map(|(at, _)| &text[at + made.len()..]))
            .map(|rest| if rest.starts_with("postgres") { POSTGRES } else { SQLITE })
            .collect();
        for properties in block.split("conformance::suite! {").skip(1) {
            let properties = properties.split('}').next().unwrap_or_default();
            let (_, properties) = properties.split_once(':').unwrap_or_default();
            for name in words(properties) {
                found.push(Found::new(name, place, backends.clone()));
            }
        }
    }
    assert!(found.len() > 50, "the conformance suite is read");
    found
}

/// From each `opening` to the brace that closes it at the line's own indentation, without `opening` itself.
fn blocks<'a>(text: &'a str, opening: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(opening).filter_map(move |(at, _)| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let indentation = &text[line..at];
        indentation.trim().is_empty().then_some(())?;
        let inside = &text[at + opening.len()..];
        let end = inside.find(&format!("\n{indentation}}}"))?;
        Some(&inside[..end])
    })
}

/// The words of a list, without its comments.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(|line| line.split_once("//").map_or(line, |(words, _)| words))
        .flat_map(str::split_whitespace)
}

/// The functions of a file, and their text.
fn functions(text: &str) -> BTreeMap<&str, &str> {
    let mut starts = text.lines().scan(0, |offset, line| {
        let start = *offset;
        *offset += line.len() + 1;
        Some((start, line))
    });
    let mut functions = BTreeMap::new();
    for (start, line) in starts.by_ref() {
        let trimmed = line.trim_start();
        if let Some(name) = function_name(trimmed) {
            let indentation = &line[..line.len() - trimmed.len()];
            let end = text[start..]
                .find(&format!("\n{indentation}}}"))
                .unwrap_or(text.len() - start);
            functions.insert(name, &text[start..start + end]);
        }
    }
    functions
}

fn function_name(line: &str) -> Option<&str> {
    let words = ["pub(crate) ", "pub(super) ", "pub ", "async ", "const "];
    let mut line = line;
    for word in words {
        line = line.strip_prefix(word).unwrap_or(line);
    }
    let rest = line.strip_prefix("fn ")?;
    rest.find(['(', '<'])
        .map(|end| &rest[..end])
        .filter(|name| !name.starts_with('$'))
}

/// The backends of which a test speaks, itself or in functions of its file that it calls.
fn marks(functions: &BTreeMap<&str, &str>, test: &str) -> BTreeSet<&'static str> {
    let (mut open, mut seen, mut marks) = (vec![test], BTreeSet::new(), BTreeSet::new());
    while let Some(name) = open.pop() {
        let Some(text) = functions.get(name).filter(|_| seen.insert(name)) else {
            continue;
        };
        marks.extend(
            MARKS
                .iter()
                .filter(|(mark, _)| text.contains(mark))
                .map(|(_, backend)| *backend),
        );
        open.extend(
            functions
                .keys()
                .copied()
                .filter(|called| text.contains(&format!("{called}("))),
        );
    }
    marks
}

/// The names in `story('…'` and ``story(`…` ``.
fn story_names(text: &str) -> Vec<&str> {
    text.split("story(")
        .skip(1)
        .filter_map(|rest| {
            let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '`'))?;
            rest[1..].split(quote).next()
        })
        .collect()
}

fn both() -> BTreeSet<&'static str> {
    BTreeSet::from([SQLITE, POSTGRES])
}

const SQLITE: &str = "SQLite";
const POSTGRES: &str = "PostgreSQL";
const REDIS: &str = "Redis";
const MARKS: &[(&str, &str)] = &[
    ("Backend::Sqlite", SQLITE),
    ("testing::sqlite(", SQLITE),
    ("testing::empty_sqlite(", SQLITE),
    ("Backend::Postgres", POSTGRES),
    ("testing::postgres(", POSTGRES),
    ("testing::empty_postgres(", POSTGRES),
    ("spawn_pair(", POSTGRES),
    ("RedisServer::", REDIS),
    ("REDIS_URL", REDIS),
    ("spawn_pair(", REDIS),
];

#[test]
fn ids_begin_names() {
    let show = |name| ids_in(name).iter().map(Id::to_string).collect::<Vec<_>>();
    assert_eq!(show("t10_b9_t11_a_bad_batch"), ["B9", "T10", "T11"]);
    assert_eq!(show("t01_wrong_codes"), ["T01"]);
    assert_eq!(show("t39: a queue survives"), ["T39"]);
    for none in [
        "tries_are_counted",
        "b_9",
        "bytes_of_t10",
        "t123_too_far",
        "t_",
        "base64_t10",
    ] {
        assert!(show(none).is_empty(), "{none}");
    }
}

#[test]
fn every_form_of_a_test_is_found() {
    let text = "on_each_backend! {\n    t01_each // not this\n    t02_with_redis\n}\n\
                async fn t02_with_redis(backend: Backend) {\n    start()\n}\n\
                fn start() {\n    RedisServer::start()\n}\n\
                #[test]\nfn t03_plain() {\n}\n\
                #[tokio::test(start_paused = true)]\n#[expect(lint)]\nasync fn t04_async() {\n    Backend::Sqlite\n}\n\
                #[test]\n#[ignore]\nfn t05_ignored() {\n}\n\
                mod tests {\n    #[tokio::test]\n    async fn t06_inside() {\n        testing::postgres(ROOMY)\n    }\n}\n\
                macro_rules! m { () => { #[test] fn $name() {} } }\n";
    let found: Vec<_> = rust_tests("here", text)
        .iter()
        .map(|test| format!("{} {}", test.name(), test.backends()))
        .collect();
    assert_eq!(
        found,
        [
            "t01_each PostgreSQL, SQLite",
            "t02_with_redis PostgreSQL, Redis, SQLite",
            "t03_plain no backend",
            "t04_async SQLite",
            "t06_inside PostgreSQL",
        ]
    );
    assert_eq!(
        story_names("story('t39: one', x); story(`two`, y); story(name)"),
        ["t39: one", "two"]
    );
    let text = "macro_rules! a_suite {\n    () => {\n        $crate::storage::conformance::suite! { $open, m:\n            t07_one\n\
                        two\n        }\n    };\n}\n";
    let made = format!("{text}{}", "");
    assert_eq!(blocks(&made, "macro_rules! ").count(), 1);
}
