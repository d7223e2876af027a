//! What the admin socket and `blind-relay admin` say to each other, in JSON.

use serde::{Deserialize, Serialize};

use crate::domain::{AdminAct, AdminEntry, AdminOutcome, ChainEnd, LogPage, Pseudonym};
use crate::encoding::{hex, read_hex};

/// `GET /stats`: sums, and what is open on the node that was asked.
#[derive(Debug, Deserialize, Serialize)]
pub struct StatsOut {
    /// Of the program.
    pub version: String,
    /// Since the node was started.
    pub uptime_secs: u64,
    /// Accounts.
    pub accounts: u64,
    /// Of these, suspended ones.
    pub suspended: u64,
    /// Devices.
    pub devices: u64,
    /// What waits in queues.
    pub queued: Vec<QueuedOut>,
    /// One-time EC keys that nobody has taken.
    pub one_time_ec_keys: u64,
    /// One-time Kyber keys that nobody has taken.
    pub one_time_kyber_keys: u64,
    /// Invites that let somebody in yet.
    pub invites: usize,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Devices that are connected to this node.
    pub connected_devices: usize,
    /// WebSockets of this node.
    pub sockets: usize,
    /// Whether this node sends its clients elsewhere.
    pub draining: bool,
    /// How often limits have refused on this node since it was started; those that have.
    pub refused: Vec<RefusedOut>,
}

/// The envelopes of one bucket.
#[derive(Debug, Deserialize, Serialize)]
pub struct QueuedOut {
    /// The bucket's size.
    pub bucket_kib: u32,
    /// How many.
    pub envelopes: u64,
    /// All of them.
    pub bytes: u64,
}

/// A limit that has refused.
#[derive(Debug, Deserialize, Serialize)]
pub struct RefusedOut {
    /// Which.
    pub limit: String,
    /// How often.
    pub times: u64,
}

/// `GET /accounts/{aci}`
#[derive(Debug, Deserialize, Serialize)]
pub struct AccountOut {
    /// Whether the account is suspended.
    pub suspended: bool,
    /// How many devices it has.
    pub devices: u32,
    /// The last day on which one of them was seen, in days since 1970.
    pub last_seen_day: i32,
}

/// `POST /invites`
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InviteIn {
    /// How many numbers it lets in.
    pub uses: u32,
    /// For how many days.
    pub days: u16,
    /// Digits alone, for clients that take nothing else.
    pub digits: bool,
    /// Whether it also starts a number over that has an account.
    pub recover: bool,
}

/// An invite, without its code.
#[derive(Debug, Deserialize, Serialize)]
pub struct InviteOut {
    /// By which it is revoked.
    pub id: String,
    /// How many numbers it still lets in.
    pub uses_left: u32,
    /// Whether it also starts a number over that has an account.
    pub recovers: bool,
    /// The last day on which it is good, in days since 1970.
    pub expires_day: i32,
    /// The day on which it was made.
    pub created_day: i32,
}

/// A new invite. The code is told here and nowhere else.
#[derive(Debug, Deserialize, Serialize)]
pub struct InviteMade {
    /// What lets somebody in.
    pub code: String,
    /// The invite.
    pub invite: InviteOut,
}

/// `GET /invites`
#[derive(Debug, Deserialize, Serialize)]
pub struct InvitesOut {
    /// The oldest first.
    pub invites: Vec<InviteOut>,
}

/// `GET`, `PUT` and `DELETE /drain`
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct DrainOut {
    /// Whether clients are being sent elsewhere.
    pub draining: bool,
    /// WebSockets that are open yet.
    pub sockets: usize,
}

/// `GET /log`
#[derive(Debug, Deserialize, Serialize)]
pub struct LogOut {
    /// In the order of their places.
    pub entries: Vec<EntryOut>,
    /// The last entry that was dropped because its time had come.
    pub anchor: EndOut,
    /// The newest entry.
    pub head: EndOut,
    /// The name in the log of the account that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// An entry of the log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EntryOut {
    /// Its place.
    pub seq: i64,
    /// When, in minutes since 1970.
    pub minute: i64,
    /// What, by its number.
    pub act: i64,
    /// What, in words.
    pub what: String,
    /// What came of it, by its number.
    pub outcome: i64,
    /// What came of it, in words.
    pub result: String,
    /// Whom it was about, in hex.
    pub target: Option<String>,
    /// The user of the machine who did it.
    pub uid: i64,
    /// Of the entry before and this one, in hex.
    pub hash: String,
}

/// A place in the chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct EndOut {
    /// The place; 0 before the first entry.
    pub seq: i64,
    /// The hash of the entry there, in hex.
    pub hash: String,
}

/// Why an act was refused.
#[derive(Debug, Deserialize)]
pub struct ErrorOut {
    /// Stable.
    pub code: String,
    /// In words.
    pub message: String,
}

impl LogOut {
    /// A page, as it is told.
    pub fn new(page: &LogPage, account: Option<Pseudonym>) -> Self {
        Self {
            entries: page.entries.iter().map(EntryOut::from).collect(),
            anchor: EndOut::from(&page.ends.anchor),
            head: EndOut::from(&page.ends.head),
            account: account.map(|account| hex(&account.0)),
        }
    }
}

impl From<&AdminEntry> for EntryOut {
    fn from(entry: &AdminEntry) -> Self {
        let name = |names: &[&'static str], number: i64| {
            let known = usize::try_from(number).ok().and_then(|number| names.get(number));
            known.map_or_else(|| "(not of this server)".to_owned(), |name| (*name).to_owned())
        };
        Self {
            seq: entry.seq,
            minute: entry.minute,
            act: entry.act,
            what: name(&AdminAct::ALL.map(|(_, name)| name), entry.act),
            outcome: entry.outcome,
            result: name(&AdminOutcome::ALL.map(|(_, name)| name), entry.outcome),
            target: entry.target.as_deref().map(hex),
            uid: entry.uid,
            hash: hex(&entry.hash),
        }
    }
}

impl EntryOut {
    /// What the chain is made of. What is not hexadecimal stands for no bytes, and so does not fit.
    pub fn entry(&self) -> AdminEntry {
        AdminEntry {
            seq: self.seq,
            minute: self.minute,
            act: self.act,
            outcome: self.outcome,
            target: self.target.as_deref().map(bytes),
            uid: self.uid,
            hash: bytes(&self.hash),
        }
    }
}

impl From<&ChainEnd> for EndOut {
    fn from(end: &ChainEnd) -> Self {
        Self {
            seq: end.seq,
            hash: hex(&end.hash),
        }
    }
}

impl EndOut {
    /// The place; `None` if the hash is none.
    pub fn end(&self) -> Option<ChainEnd> {
        let mut hash = [0; 32];
        read_hex(&self.hash, &mut hash)?;
        Some(ChainEnd { seq: self.seq, hash })
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; text.len() / 2];
    match read_hex(text, &mut bytes) {
        Some(()) => bytes,
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AdminRecord;

    #[test]
    fn an_entry_that_was_told_is_the_one_that_is_stored() {
        for target in [None, Some(Pseudonym([9; 32]))] {
            let record = AdminRecord {
                act: AdminAct::AccountDelete,
                target,
                uid: 7,
                minute: 4,
            };
            let (entry, _) = record.entry(AdminOutcome::NotFound, &ChainEnd::BEGINNING);
            let told = EntryOut::from(&entry);
            assert_eq!(
                (told.what.as_str(), told.result.as_str()),
                ("account delete", "not found")
            );
            assert_eq!(told.entry(), entry);
        }
    }

    #[test]
    fn what_nobody_here_wrote_is_told_as_it_is() {
        let mut entry = AdminEntry {
            seq: 1,
            minute: -5,
            act: 99,
            outcome: -1,
            target: Some(vec![1, 2]),
            uid: i64::MAX,
            hash: vec![],
        };
        let told = EntryOut::from(&entry);
        assert_eq!(
            (told.what.as_str(), told.result.as_str()),
            ("(not of this server)", "(not of this server)")
        );
        assert_eq!(told.entry(), entry);
        entry.hash = vec![3; 31];
        assert_eq!(EntryOut::from(&entry).entry(), entry);
        assert_eq!(bytes("0g"), b"");
    }
}
