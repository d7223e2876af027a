//! What an operator does to accounts, and the chain in which every such act is written down.
//!
//! An entry's hash is that of the entry before together with its own content, so that whoever changes, removes, inserts or
//! exchanges entries has to write all later ones anew. Who can do that leaves no trace but one: the head, if somebody has
//! noted it elsewhere.

use sha2::{Digest, Sha256};

use super::Day;

/// What the operator did, or tried. Only ever appended to: the numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAct {
    /// A path of the admin socket that does not exist.
    UnknownPath,
    /// A method that a path of the admin socket does not have.
    UnknownMethod,
    /// Looked at one account.
    AccountShow,
    /// Suspended an account.
    AccountSuspend,
    /// Resumed an account.
    AccountResume,
    /// Deleted an account.
    AccountDelete,
    /// Made invitations.
    InviteCreate,
    /// Took an invitation back.
    InviteRevoke,
    /// Sent the clients of a node elsewhere.
    Drain,
    /// Let clients in again.
    DrainUndo,
}

impl AdminAct {
    /// All of them, in the order of their numbers, with the names that the operator is shown.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::UnknownPath, "unknown path"),
        (Self::UnknownMethod, "unknown method"),
        (Self::AccountShow, "account show"),
        (Self::AccountSuspend, "account suspend"),
        (Self::AccountResume, "account resume"),
        (Self::AccountDelete, "account delete"),
        (Self::InviteCreate, "invite create"),
        (Self::InviteRevoke, "invite revoke"),
        (Self::Drain, "drain"),
        (Self::DrainUndo, "drain undo"),
    ];
}

/// What came of an act. Only ever appended to: the numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminOutcome {
    /// It took place.
    Done,
    /// There is no such thing.
    NotFound,
    /// It did not take place: it was asked for in no form that means anything, or beyond a limit.
    Refused,
    /// It was not finished.
    Failed,
}

impl AdminOutcome {
    /// All of them, in the order of their numbers, with the names that the operator is shown.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Done, "done"),
        (Self::NotFound, "not found"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
    ];
}

/// An act that is about to be written down.
#[derive(Clone, Copy, Debug)]
pub struct AdminRecord {
    /// What.
    pub act: AdminAct,
    /// Whom it is about, under a name that is of use only to who knows the id.
    pub target: Option<Pseudonym>,
    /// The user of the machine who did it.
    pub uid: u32,
    /// When, in minutes since 1970.
    pub minute: i64,
}

impl AdminRecord {
    /// The entry behind that end of the chain, as it is stored, and the end that it is then.
    pub fn entry(&self, outcome: AdminOutcome, before: &ChainEnd) -> (AdminEntry, ChainEnd) {
        let act = AdminAct::ALL.iter().position(|(act, _)| *act == self.act);
        let outcome = AdminOutcome::ALL.iter().position(|(known, _)| *known == outcome);
        let number = |position: Option<usize>| position.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1);
        let mut entry = AdminEntry {
            seq: before.seq + 1,
            minute: self.minute,
            act: number(act),
            outcome: number(outcome),
            target: self.target.map(|target| target.0.to_vec()),
            uid: i64::from(self.uid),
            hash: Vec::new(),
        };
        let hash = entry.hash_after(&before.hash);
        entry.hash = hash.to_vec();
        let end = ChainEnd { seq: entry.seq, hash };
        (entry, end)
    }
}

/// HMAC of an id under a key that is not in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pseudonym(pub [u8; 32]);

/// An entry as it is stored. Nothing about it is believed before the chain was verified, so that its fields may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminEntry {
    /// Its place.
    pub seq: i64,
    /// When, in minutes since 1970.
    pub minute: i64,
    /// What, by its number.
    pub act: i64,
    /// What came of it, by its number.
    pub outcome: i64,
    /// Whom it was about.
    pub target: Option<Vec<u8>>,
    /// The user of the machine who did it.
    pub uid: i64,
    /// Of the entry before and this one.
    pub hash: Vec<u8>,
}

impl AdminEntry {
    /// The hash that it must have behind this one: SHA-256 of a constant, that hash, the numbers as 8 bytes each, most
    /// significant first, the length of the target likewise, and the target.
    pub fn hash_after(&self, before: &[u8; 32]) -> [u8; 32] {
        let target = self.target.as_deref().unwrap_or_default();
        let length = i64::try_from(target.len()).unwrap_or(i64::MAX);
        let mut hash = Sha256::new();
        hash.update(LABEL);
        hash.update(before);
        for number in [self.seq, self.minute, self.act, self.outcome, self.uid, length] {
            hash.update(number.to_be_bytes());
        }
        hash.update(target);
        hash.finalize().into()
    }
}

/// A place in the chain, and the hash of the entry there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// The place; 0 before the first entry.
    pub seq: i64,
    /// The hash; zero before the first entry.
    pub hash: [u8; 32],
}

impl ChainEnd {
    /// Before the first entry.
    pub const BEGINNING: Self = Self { seq: 0, hash: [0; 32] };
}

/// Where the stored part of the chain begins and ends, kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnds {
    /// The last entry that was dropped because its time had come.
    pub anchor: ChainEnd,
    /// The newest entry.
    pub head: ChainEnd,
}

impl ChainEnds {
    /// Of a chain without entries.
    pub const EMPTY: Self = Self {
        anchor: ChainEnd::BEGINNING,
        head: ChainEnd::BEGINNING,
    };

    /// As it is stored.
    pub fn to_bytes(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        for (end, part) in [self.anchor, self.head].iter().zip(bytes.chunks_exact_mut(40)) {
            part[..8].copy_from_slice(&end.seq.to_be_bytes());
            part[8..].copy_from_slice(&end.hash);
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; `None` if it did not write that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 80] = bytes.try_into().ok()?;
        let end = |at: usize| {
            Some(ChainEnd {
                seq: i64::from_be_bytes(bytes[at..at + 8].try_into().ok()?),
                hash: bytes[at + 8..at + 40].try_into().ok()?,
            })
        };
        Some(Self {
            anchor: end(0)?,
            head: end(40)?,
        })
    }
}

/// What is wrong with a chain, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// Entries from the one to the other are not there.
    Missing(i64, i64),
    /// The entry does not follow from the one before: it was changed, exchanged or put there.
    Changed(i64),
    /// An entry is behind the end of the chain.
    Added(i64),
}

/// Follows a chain from its anchor, entry by entry.
#[derive(Debug)]
pub struct ChainWalk {
    at: ChainEnd,
    /// Whether the hash of the entry before is known.
    known: bool,
    faults: Vec<ChainFault>,
}

impl ChainWalk {
    /// Begins behind the anchor.
    pub fn from(anchor: ChainEnd) -> Self {
        Self {
            at: anchor,
            known: true,
            faults: Vec::new(),
        }
    }

    /// The next entry, in the order of their places.
    pub fn step(&mut self, entry: &AdminEntry) {
        if entry.seq > self.at.seq + 1 {
            self.fault(ChainFault::Missing(self.at.seq + 1, entry.seq - 1));
            self.known = false;
        }
        if entry.seq <= self.at.seq || (self.known && entry.hash_after(&self.at.hash)[..] != entry.hash[..]) {
            self.fault(ChainFault::Changed(entry.seq));
        }
        // What is stored is believed for the next one, so that each change is named once and where it is.
        match <[u8; 32]>::try_from(entry.hash.as_slice()) {
            Ok(hash) => {
                self.at = ChainEnd { seq: entry.seq, hash };
                self.known = true;
            }
            Err(_) => {
                self.at.seq = entry.seq;
                self.known = false;
            }
        }
    }

    /// Where it has come to.
    pub fn at(&self) -> ChainEnd {
        self.at
    }

    /// What was wrong, when all entries have been seen.
    pub fn finish(mut self, head: ChainEnd) -> Vec<ChainFault> {
        if self.at.seq < head.seq {
            self.fault(ChainFault::Missing(self.at.seq + 1, head.seq));
        } else if self.at.seq > head.seq {
            self.fault(ChainFault::Added(head.seq + 1));
        } else if self.at.hash != head.hash && !self.faults.contains(&ChainFault::Changed(head.seq)) {
            self.fault(ChainFault::Changed(head.seq));
        }
        self.faults
    }

    fn fault(&mut self, fault: ChainFault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }
}

/// What an operator is shown of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountGlance {
    /// Whether it is suspended.
    pub suspended: bool,
    /// How many devices it has.
    pub devices: u32,
    /// The last day on which one of them was seen.
    pub last_seen: Day,
}

/// Sums over all accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Accounts.
    pub accounts: u64,
    /// Of these, suspended ones.
    pub suspended: u64,
    /// Devices.
    pub devices: u64,
    /// Envelopes that wait, by their bucket in KiB.
    pub queued: Vec<(u32, u64)>,
    /// One-time EC keys that nobody has taken.
    pub ec_keys: u64,
    /// One-time Kyber keys that nobody has taken.
    pub kyber_keys: u64,
    /// Bytes of the database.
    pub database_bytes: u64,
}

/// A page of the log, and where all of it begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Entries, in the order of their places.
    pub entries: Vec<AdminEntry>,
    /// As they were when the entries were read.
    pub ends: ChainEnds,
}

const LABEL: &[u8] = b"blind-relay admin log v1";
/// A chain of which everything is wrong need not be told of entry by entry.
const MAX_FAULTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: i64) -> (Vec<AdminEntry>, ChainEnds) {
        let mut head = ChainEnd::BEGINNING;
        let entries = (0..length)
            .map(|n| {
                let record = AdminRecord {
                    act: AdminAct::AccountSuspend,
                    target: (n % 2 == 0).then_some(Pseudonym([7; 32])),
                    uid: 1000,
                    minute: 30_000_000 + n,
                };
                let (entry, end) = record.entry(AdminOutcome::Done, &head);
                head = end;
                entry
            })
            .collect();
        let anchor = ChainEnd::BEGINNING;
        (entries, ChainEnds { anchor, head })
    }

    fn faults(entries: &[AdminEntry], ends: &ChainEnds) -> Vec<ChainFault> {
        let mut walk = ChainWalk::from(ends.anchor);
        for entry in entries {
            walk.step(entry);
        }
        walk.finish(ends.head)
    }

    #[test]
    fn a_chain_that_nobody_touched_is_whole() {
        for length in [0, 1, 9] {
            let (entries, ends) = chain(length);
            assert_eq!(faults(&entries, &ends), []);
            assert_eq!(ChainEnds::from_bytes(&ends.to_bytes()), Some(ends));
        }
        assert_eq!(ChainEnds::from_bytes(&[0; 79]), None);
    }

    #[test]
    fn t24_every_changed_field_is_found_at_its_place() {
        let (whole, ends) = chain(9);
        let changes: [fn(&mut AdminEntry); 8] = [
            |entry| entry.minute += 1,
            |entry| entry.act += 1,
            |entry| entry.outcome += 1,
            |entry| entry.uid = 0,
            |entry| entry.target = None,
            |entry| entry.target = Some(vec![8; 32]),
            |entry| entry.hash[31] ^= 1,
            |entry| entry.hash.truncate(31),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut entries = whole.clone();
            change(&mut entries[4]);
            assert_eq!(faults(&entries, &ends)[0], ChainFault::Changed(5), "change {n}");
        }
    }

    #[test]
    fn t24_what_was_removed_inserted_exchanged_or_cut_is_found() {
        let (whole, ends) = chain(9);
        let mut removed = whole.clone();
        removed.remove(4);
        assert_eq!(faults(&removed, &ends), [ChainFault::Missing(5, 5)]);
        // As if it had never been: the others moved up.
        for entry in &mut removed[4..] {
            entry.seq -= 1;
        }
        assert_eq!(faults(&removed, &ends)[0], ChainFault::Changed(5));
        let mut inserted = whole.clone();
        inserted.insert(4, whole[2].clone());
        for (seq, entry) in (1..).zip(&mut inserted) {
            entry.seq = seq;
        }
        assert_eq!(faults(&inserted, &ends)[0], ChainFault::Changed(5));
        let mut exchanged = whole.clone();
        exchanged.swap(4, 6);
        (exchanged[4].seq, exchanged[6].seq) = (5, 7);
        assert_eq!(
            faults(&exchanged, &ends)[..2],
            [ChainFault::Changed(5), ChainFault::Changed(6)]
        );
        assert_eq!(faults(&whole[..7], &ends), [ChainFault::Missing(8, 9)]);
        assert_eq!(faults(&whole[2..], &ends), [ChainFault::Missing(1, 2)]);
        let (longer, _) = chain(10);
        assert_eq!(faults(&longer, &ends), [ChainFault::Added(10)]);
    }

    #[test]
    fn a_chain_goes_on_behind_its_anchor() {
        let (whole, ends) = chain(9);
        let anchor = ChainEnd {
            seq: 3,
            hash: whole[2].hash.clone().try_into().unwrap(),
        };
        let cut = ChainEnds { anchor, ..ends };
        assert_eq!(faults(&whole[3..], &cut), []);
        let moved = ChainEnds {
            anchor: ChainEnd {
                hash: [1; 32],
                ..anchor
            },
            ..ends
        };
        assert_eq!(faults(&whole[3..], &moved), [ChainFault::Changed(4)]);
    }

    #[test]
    fn a_chain_of_which_nothing_is_right_is_told_of_within_bounds() {
        let (mut entries, ends) = chain(300);
        for entry in &mut entries {
            entry.uid = 0;
        }
        assert_eq!(faults(&entries, &ends).len(), MAX_FAULTS);
    }

    #[test]
    fn an_entry_is_hashed_as_the_documentation_says() {
        let (entry, end) = AdminRecord {
            act: AdminAct::AccountShow,
            target: Some(Pseudonym([1; 32])),
            uid: 5,
            minute: 3,
        }
        .entry(AdminOutcome::NotFound, &ChainEnd::BEGINNING);
        let mut hashed = LABEL.to_vec();
        hashed.extend([0; 32]);
        for number in [1_u64, 3, 2, 1, 5, 32] {
            hashed.extend(number.to_be_bytes());
        }
        hashed.extend([1; 32]);
        assert_eq!(entry.hash, Sha256::digest(&hashed)[..]);
        assert_eq!((end.seq, &end.hash[..]), (1, &entry.hash[..]));
    }
}
