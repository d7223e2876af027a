//! `admin log verify`: follows the chain from its beginning to its head.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::json;

use crate::admin::wire::{EndOut, LogOut};
use crate::domain::{ChainEnd, ChainFault, ChainWalk};
use crate::server::say;

use super::PAGE;
use super::client::Client;

/// What was found.
struct Found {
    entries: u64,
    anchor: EndOut,
    head: EndOut,
    faults: Vec<ChainFault>,
    /// Of the head that was noted; `None` if none was given.
    noted: Option<Noted>,
}

/// What has become of a head that was noted earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noted {
    There,
    /// Another entry is there, or none.
    Gone,
    /// The log begins behind it now. If its year is not over, the beginning was cut off.
    Dropped,
}

impl Found {
    /// Whether all is as it should be, and the head that was noted is there to show it.
    fn is_whole(&self) -> bool {
        self.faults.is_empty() && matches!(self.noted, None | Some(Noted::There))
    }
}

/// Verifies, and says what was found.
pub(super) async fn run(client: &Client, noted: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let noted = noted.map(parse).transpose()?;
    let found = walk(client, noted).await?;
    say(&if json { as_json(&found) } else { in_words(&found) });
    Ok(if found.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn walk(client: &Client, noted: Option<ChainEnd>) -> anyhow::Result<Found> {
    let unreadable = || anyhow!("the log's ends are unreadable: `settings` was changed past the server");
    let first: LogOut = client.get("/log?limit=0").await?.json()?;
    let anchor = first.anchor.end().ok_or_else(unreadable)?;
    let mut walk = ChainWalk::from(anchor);
    let mut entries = 0;
    let mut state = noted.map(|noted| {
        if noted.seq < anchor.seq {
            Noted::Dropped
        } else if noted == anchor {
            Noted::There
        } else {
            Noted::Gone
        }
    });
    loop {
        // The head is that of the last page: what was appended meanwhile is seen as well.
        let page: LogOut = client
            .get(&format!("/log?after={}&limit={PAGE}", walk.at().seq))
            .await?
            .json()?;
        if page.entries.is_empty() {
            let head = page.head.end().ok_or_else(unreadable)?;
            return Ok(Found {
                entries,
                anchor: first.anchor,
                head: page.head,
                faults: walk.finish(head),
                noted: state,
            });
        }
        for told in page.entries {
            walk.step(&told.entry());
            entries += 1;
            if noted == Some(walk.at()) {
                state = Some(Noted::There);
            }
        }
    }
}

fn parse(text: &str) -> anyhow::Result<ChainEnd> {
    let end = text.split_once(':').and_then(|(seq, hash)| {
        let seq = seq.parse().ok()?;
        let hash = hash.to_owned();
        EndOut { seq, hash }.end()
    });
    end.ok_or_else(|| {
        anyhow!("--noted takes a head as `log verify` shows it: a number, a colon, 64 hexadecimal digits")
    })
}

fn in_words(found: &Found) -> String {
    let mut text = String::new();
    for fault in &found.faults {
        let _ = writeln!(text, "WRONG  {}", describe(fault));
    }
    match found.noted {
        Some(Noted::There) => text.push_str("the head that was noted is there\n"),
        Some(Noted::Gone) => {
            text.push_str("WRONG  the head that was noted is not there: the log was cut, or written anew\n");
        }
        Some(Noted::Dropped) => text.push_str(
            "WRONG  the head that was noted is not there: the log begins behind it; unless it was noted more than a year ago, \
             the log was cut\n",
        ),
        None => {}
    }
    let verdict = match found.noted {
        _ if !found.faults.is_empty() => "the log is not as the server wrote it",
        Some(Noted::Gone | Noted::Dropped) => {
            "each follows from the one before, but nothing shows that this is the log whose head was noted"
        }
        Some(Noted::There) | None => "nothing was changed, removed, inserted or exchanged",
    };
    let _ = writeln!(text, "{} entries: {verdict}", found.entries);
    if found.anchor.seq > 0 {
        let _ = writeln!(text, "entries up to {} are not kept any more", found.anchor.seq);
    }
    let _ = writeln!(text, "head  {}:{}", found.head.seq, found.head.hash);
    if !found.is_whole() {
        // The head of such a log is not one to be noted.
        return text;
    }
    text.push_str(
        "Whoever can write to the database can cut off the newest entries, or write all of the log anew, and this cannot \
         see it.\nNote the head where nobody on this machine can change it, and give it to the next verify with --noted.\n",
    );
    text
}

fn describe(fault: &ChainFault) -> String {
    match fault {
        ChainFault::Missing(first, last) if first == last => format!("entry {first} is missing"),
        ChainFault::Missing(first, last) => format!("entries {first} to {last} are missing"),
        ChainFault::Changed(seq) => {
            format!("entry {seq} does not follow from the one before: it was changed, exchanged or put there")
        }
        ChainFault::Added(seq) => format!("entry {seq} is behind the end of the log"),
    }
}

fn as_json(found: &Found) -> String {
    let faults: Vec<_> = found
        .faults
        .iter()
        .map(|fault| {
            let seq = match fault {
                ChainFault::Missing(seq, _) | ChainFault::Changed(seq) | ChainFault::Added(seq) => seq,
            };
            json!({ "seq": seq, "what": describe(fault) })
        })
        .collect();
    let noted = found.noted.map(|noted| match noted {
        Noted::There => "there",
        Noted::Gone => "gone",
        Noted::Dropped => "dropped",
    });
    let told = json!({
        "whole": found.is_whole(),
        "entries": found.entries,
        "anchor": found.anchor,
        "head": found.head,
        "faults": faults,
        "noted": noted,
    });
    format!("{told}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_shown() {
        let head = EndOut {
            seq: 41,
            hash: "ab".repeat(32),
        };
        assert_eq!(
            parse(&format!("{}:{}", head.seq, head.hash)).unwrap(),
            head.end().unwrap()
        );
        for bad in ["", "41", "41:", "x:00", &format!("41:{}", "a".repeat(63))] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn t24_a_head_that_is_not_there_is_no_all_clear() {
        let end = |seq| EndOut {
            seq,
            hash: "ab".repeat(32),
        };
        for (noted, whole) in [
            (None, true),
            (Some(Noted::There), true),
            (Some(Noted::Gone), false),
            (Some(Noted::Dropped), false),
        ] {
            let found = Found {
                entries: 4,
                anchor: end(5),
                head: end(9),
                faults: vec![],
                noted,
            };
            let said = in_words(&found);
            assert_eq!(said.contains("nothing was changed"), whole, "{said}");
            assert_eq!(said.contains("Note the head"), whole, "{said}");
            assert_eq!(said.contains("WRONG"), !whole, "{said}");
            assert!(as_json(&found).contains(&format!("\"whole\":{whole}")));
        }
    }

    #[test]
    fn each_fault_names_its_entry() {
        for (fault, named) in [
            (ChainFault::Missing(5, 5), "entry 5 is missing"),
            (ChainFault::Missing(5, 9), "entries 5 to 9 are missing"),
            (ChainFault::Changed(7), "entry 7 does not follow"),
            (ChainFault::Added(10), "entry 10 is behind"),
        ] {
            assert!(describe(&fault).starts_with(named));
        }
    }
}
