//! Rust as a row of words, to read what a macro is given. Comments are gone, strings are one word.

use std::iter::Peekable;
use std::str::Chars;

/// A word of Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A name or a keyword.
    Name(String),
    /// What stands between the quotes of a string.
    Text(String),
    /// Any other single character; of a number or a character constant the word `0`.
    Sign(char),
}

impl Word {
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Name(own) if own == name)
    }
}

/// The words of a piece of Rust.
pub(super) fn words(code: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = code.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '/' if rest.peek() == Some(&'/') => drop(rest.by_ref().find(|c| *c == '\n')),
            '/' if rest.peek() == Some(&'*') => skip_block(&mut rest),
            '"' => words.push(Word::Text(text(&mut rest))),
            '\'' => skip_quoted(&mut rest, &mut words),
            c if c.is_alphabetic() || c == '_' => {
                let name = name(c, &mut rest);
                match (name.as_str(), rest.peek()) {
                    ("r" | "br", Some('"' | '#')) => raw(&mut rest, &mut words),
                    // A prefix of a string.
                    ("b" | "c", Some('"' | '\'')) => {}
                    _ => words.push(Word::Name(name)),
                }
            }
            c if c.is_ascii_digit() => {
                name(c, &mut rest);
                words.push(Word::Sign('0'));
            }
            c if c.is_whitespace() => {}
            c => words.push(Word::Sign(c)),
        }
    }
    words
}

/// The words up to the bracket that closes the one at `open`, without both.
pub(super) fn inside(words: &[Word], open: usize) -> Option<&[Word]> {
    let opening = |c| matches!(c, '(' | '[' | '{');
    let closing = |c| matches!(c, ')' | ']' | '}');
    if !matches!(words.get(open), Some(Word::Sign(c)) if opening(*c)) {
        return None;
    }
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate().skip(open) {
        match word {
            Word::Sign(c) if opening(*c) => depth += 1,
            Word::Sign(c) if closing(*c) => {
                depth -= 1;
                if depth == 0 {
                    return Some(&words[open + 1..at]);
                }
            }
            _ => {}
        }
    }
    None
}

/// What stands between the commas that are in no bracket.
pub(super) fn items(words: &[Word]) -> Vec<&[Word]> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, word) in words.iter().enumerate() {
        match word {
            Word::Sign('(' | '[' | '{') => depth += 1,
            Word::Sign(')' | ']' | '}') => depth -= 1,
            Word::Sign(',') if depth == 0 => {
                items.push(&words[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&words[start..]);
    items.retain(|item| !item.is_empty());
    items
}

fn name(first: char, rest: &mut Peekable<Chars<'_>>) -> String {
    let mut name = first.to_string();
    while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

fn text(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => {
                text.push(c);
                text.extend(rest.next());
            }
            c => text.push(c),
        }
    }
    text
}

fn raw(rest: &mut Peekable<Chars<'_>>, words: &mut Vec<Word>) {
    let mut hashes = 0;
    while rest.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if rest.next_if_eq(&'"').is_none() {
        // A name that is written as `r#type`.
        return;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let mut text = String::new();
    for c in rest.by_ref() {
        text.push(c);
        if let Some(whole) = text.strip_suffix(&end) {
            words.push(Word::Text(whole.to_owned()));
            return;
        }
    }
}

fn skip_block(rest: &mut Peekable<Chars<'_>>) {
    let (mut depth, mut last) = (1, ' ');
    rest.next();
    for c in rest.by_ref() {
        match (last, c) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                last = c;
                continue;
            }
        }
        last = ' ';
        if depth == 0 {
            return;
        }
    }
}

/// A character constant, or a lifetime.
fn skip_quoted(rest: &mut Peekable<Chars<'_>>, words: &mut Vec<Word>) {
    let mut ahead = rest.clone();
    let (first, second) = (ahead.next(), ahead.next());
    if first != Some('\\') && second != Some('\'') {
        return;
    }
    rest.next();
    if first == Some('\\') {
        rest.next();
    }
    rest.by_ref().find(|c| *c == '\'');
    words.push(Word::Sign('0'));
}

#[test]
fn rust_is_read_as_words() {
    let code = r##"a!("x // \" y", 'b', '\'', b"z"); // c!("d")
        /* e /* f */ g!() */ fn h<'i>(j: &'i str) -> u8 { r#"k"l"#; 0x1f } "##;
    let read = words(code);
    let texts: Vec<_> = read
        .iter()
        .filter_map(|word| match word {
            Word::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["x // \\\" y", "z", "k\"l"]);
    let names: Vec<_> = read
        .iter()
        .filter_map(|word| match word {
            Word::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["a", "fn", "h", "i", "j", "i", "str", "u8"]);
    let call = words("f(a, g(b, c), [d, e]) h");
    let arguments = inside(&call, 1).unwrap();
    assert_eq!(items(arguments).len(), 3);
    assert!(inside(&call, 0).is_none());
    assert!(inside(&words("(a"), 0).is_none());
}
