//! Finds canaries in whatever can be read as bytes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::process::{Pid, Signal, kill_process};

use super::marks::{FATES, Fate, Form, Mark, Marks, RAW_TAG, RAW_UNIT, TEXT_TAG, TEXT_UNIT, forms};

/// Knows every form of every canary there was when it was made.
pub(super) struct Search {
    automaton: AhoCorasick,
    patterns: Vec<Pattern>,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy)]
struct Pattern {
    known: Known,
    form: Form,
}

#[derive(Clone, Copy)]
enum Known {
    /// The number is next to it.
    RawTag(Fate),
    TextTag(Fate),
    Mark(usize),
}

/// A canary where it was found.
pub(super) struct Hit {
    pub(super) what: String,
    pub(super) fate: Fate,
    pub(super) place: String,
    near: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} in {}: {}", self.what, self.fate, self.place, self.near)
    }
}

impl Search {
    pub(super) fn new(marks: &Marks) -> Self {
        let all = marks.all();
        let (mut patterns, mut bytes) = (Vec::new(), Vec::new());
        let mut add = |known, value: &[u8]| {
            for (form, text) in forms(value) {
                patterns.push(Pattern { known, form });
                bytes.push(text);
            }
        };
        for fate in FATES {
            add(Known::RawTag(fate), &marks.tags(fate).raw);
            add(Known::TextTag(fate), marks.tags(fate).text.as_bytes());
        }
        for (number, mark) in all.iter().enumerate() {
            if let Some(exact) = &mark.exact {
                add(Known::Mark(number), exact);
            }
        }
        Self {
            automaton: AhoCorasick::new(bytes).unwrap(),
            patterns,
            marks: all,
        }
    }

    /// What is in these bytes, each thing once.
    pub(super) fn bytes(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        let (mut hits, mut seen) = (Vec::new(), BTreeSet::new());
        for found in self.automaton.find_iter(bytes) {
            let pattern = self.patterns[found.pattern().as_usize()];
            let (what, fate) = self.name(pattern, bytes, found.start());
            if seen.insert(what.clone()) && hits.len() < MOST_HITS {
                let near = &bytes[found.start().saturating_sub(96)..(found.end() + 96).min(bytes.len())];
                hits.push(Hit {
                    what: format!("{what} as {:?}", pattern.form),
                    fate,
                    place: format!("{place} at {:#x}", found.start()),
                    near: near.escape_ascii().to_string(),
                });
            }
        }
        hits
    }

    /// What is in a file, which may be gone by now.
    pub(super) fn file(&self, path: &Path) -> Vec<Hit> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(path)
            && file.read_to_end(&mut bytes).is_ok()
        {
            return self.bytes(&path.display().to_string(), &bytes);
        }
        Vec::new()
    }

    /// What is in the files below a directory that `wanted` names, or in their names.
    pub(super) fn directory(&self, directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<Hit> {
        let mut hits = Vec::new();
        for path in files(directory).into_iter().filter(|path| wanted(path)) {
            hits.extend(self.bytes("a file's name", path.as_os_str().as_encoded_bytes()));
            hits.extend(self.file(&path));
        }
        hits
    }

    /// What is in the memory of a process: all that a core file of it would hold, but for what is also in the program
    /// file. It stands still meanwhile.
    pub(super) fn memory(&self, pid: Pid) -> Vec<Hit> {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        kill_process(pid, Signal::STOP).unwrap();
        wait_until_stopped(&process);
        let mut hits = Vec::new();
        let maps = std::fs::read_to_string(process.join("maps")).unwrap();
        let memory = File::open(process.join("mem")).unwrap();
        let mut size = 0;
        for line in maps.lines() {
            let mut columns = line.split_whitespace();
            let (range, rights) = (columns.next().unwrap(), columns.next().unwrap());
            let name = columns.nth(3).unwrap_or("no file");
            if !rights.starts_with('r') || (name.starts_with('/') && !rights.contains('w')) || name.starts_with("[v") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            match memory.read_exact_at(&mut bytes, from) {
                Ok(()) => {}
                // A file that has become shorter than its mapping: what is left of it is searched as a file.
                Err(_) if name.starts_with('/') => continue,
                Err(error) => panic!("{range} {name}: {error}"),
            }
            size += bytes.len();
            hits.extend(self.bytes(&format!("memory ({range} {name})"), &bytes));
        }
        kill_process(pid, Signal::CONT).unwrap();
        assert!(size > 1024 * 1024, "{size} bytes are not the memory of a server");
        hits
    }

    /// What was found, from what is next to a tag.
    fn name(&self, pattern: Pattern, bytes: &[u8], at: usize) -> (String, Fate) {
        let number = match pattern.known {
            Known::Mark(number) => Some(number),
            Known::RawTag(_) => raw_number(pattern.form, bytes, at),
            Known::TextTag(_) => text_number(pattern.form, bytes, at),
        };
        // What is beside a tag may be what came over the rest of a canary.
        let named = |fate: Fate| {
            let number = number.filter(|number| self.marks.get(*number).is_some_and(|mark| mark.fate == fate))?;
            Some(format!("{} ({number})", self.marks[number].what))
        };
        match pattern.known {
            Known::Mark(number) => (self.marks[number].what.to_owned(), self.marks[number].fate),
            Known::RawTag(fate) | Known::TextTag(fate) => (named(fate).unwrap_or_else(|| "a piece".to_owned()), fate),
        }
    }
}

fn raw_number(form: Form, bytes: &[u8], at: usize) -> Option<usize> {
    let number: [u8; 4] = match form {
        Form::Plain => bytes.get(at + RAW_TAG..at + RAW_UNIT)?.try_into().ok()?,
        Form::Reversed => {
            let mut number: [u8; 4] = bytes.get(at.checked_sub(4)?..at)?.try_into().ok()?;
            number.reverse();
            number
        }
        Form::Hex | Form::UpperHex => {
            let digits = str::from_utf8(bytes.get(at + 2 * RAW_TAG..at + 2 * RAW_UNIT)?).ok()?;
            u32::from_str_radix(digits, 16).ok()?.to_be_bytes()
        }
        Form::Base64(from) => {
            let group = STANDARD_NO_PAD.decode(bytes.get(at..at + 16)?).ok()?;
            group.get(RAW_TAG - from..RAW_UNIT - from)?.try_into().ok()?
        }
        _ => return None,
    };
    usize::try_from(u32::from_be_bytes(number)).ok()
}

fn text_number(form: Form, bytes: &[u8], at: usize) -> Option<usize> {
    let digits = match form {
        Form::Plain | Form::UpperCase => bytes.get(at + TEXT_TAG..at + TEXT_UNIT)?.to_vec(),
        Form::Base64(from) => {
            let text = STANDARD_NO_PAD.decode(bytes.get(at..at + 28)?).ok()?;
            text.get(TEXT_TAG - from..TEXT_UNIT - from)?.to_vec()
        }
        _ => return None,
    };
    usize::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()
}

/// Every file below a directory.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    crate::support::attachments::files(&directory.to_path_buf())
}

/// Fails if any of these is there.
#[track_caller]
pub(super) fn expect_none(hits: &[Hit]) {
    let list: Vec<_> = hits.iter().take(40).map(ToString::to_string).collect();
    assert!(hits.is_empty(), "{} canaries:\n{}", hits.len(), list.join("\n"));
}

/// Of one place.
const MOST_HITS: usize = 1000;

/// Returns once no thread of the process runs any more: the signal is only on its way when it has been sent.
fn wait_until_stopped(process: &Path) {
    let stopped = |task: &Path| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        // The state is behind the name, which may hold anything, in brackets.
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']));
        state.unwrap_or(true)
    };
    for _ in 0..5_000 {
        let tasks = std::fs::read_dir(process.join("task")).unwrap();
        if tasks.flatten().all(|task| stopped(&task.path())) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the process goes on");
}
