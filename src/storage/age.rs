//! How old the database is, and what happens to one that was put back: the same for both backends.
//!
//! A database that was put back knows nothing of what it did since. One-time keys that were handed out would be handed out
//! again; so all of them become invalid, in the transaction that notices it, and their ids are kept as if they had been handed
//! out. What proves something once goes as well.

use async_trait::async_trait;

use super::StorageError;
use crate::domain::{Age, Aged, Day, Restored};
use crate::sealing::random;

/// The database's own age.
#[async_trait]
pub trait AgeStore: Send + Sync {
    /// Counts one more look. If the database was put back since `seen`, or the caller was told so, everything is made invalid
    /// that must not be used twice, once, however many nodes notice it.
    async fn advance(&self, seen: Option<&Age>, told: bool, today: Day) -> Result<Aged, StorageError>;
}

/// What `settings` says of the age.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    database: Option<[u8; 16]>,
    epoch: u64,
    generation: u64,
    copy: bool,
    place: Option<Vec<u8>>,
}

impl Marks {
    /// From rows of `settings`.
    pub(crate) fn read(rows: Vec<(String, Vec<u8>)>) -> Result<Self, StorageError> {
        let mut marks = Self::default();
        for (name, value) in rows {
            match name.as_str() {
                "database_id" => marks.database = Some(array(&value)?),
                "restore_epoch" => marks.epoch = u64::from_be_bytes(array(&value)?),
                "generation" => marks.generation = u64::from_be_bytes(array(&value)?),
                "backup_copy" => marks.copy = true,
                "database_place" => marks.place = Some(value),
                _ => {}
            }
        }
        Ok(marks)
    }

    /// The age, if there is one.
    pub(crate) fn age(&self) -> Option<Age> {
        Some(Age {
            database: self.database?,
            epoch: self.epoch,
            generation: self.generation,
        })
    }

    /// Whether the database was put back. `place` is where it is now, on a backend that can tell.
    pub(crate) fn judge(&self, seen: Option<&Age>, told: bool, place: Option<&[u8]>) -> Option<Restored> {
        if told {
            return Some(Restored::Told);
        }
        if self.copy {
            return Some(Restored::Copy);
        }
        if let (Some(was), Some(is)) = (&self.place, place)
            && was != is
        {
            return Some(Restored::Elsewhere);
        }
        let seen = seen?;
        // From before there were marks: what was seen had them.
        let behind = self.age().is_none_or(|age| age.is_behind(seen));
        behind.then_some(Restored::Behind)
    }

    /// The age after this look.
    pub(super) fn next(&self, seen: Option<&Age>, restored: Option<Restored>) -> Age {
        let seen = seen.filter(|seen| self.database.is_none_or(|own| own == seen.database));
        let epoch = seen.map_or(self.epoch, |seen| seen.epoch.max(self.epoch));
        let generation = seen.map_or(self.generation, |seen| seen.generation.max(self.generation));
        Age {
            database: self.database.or(seen.map(|seen| seen.database)).unwrap_or_else(random),
            epoch: if restored.is_some() {
                epoch.saturating_add(1)
            } else {
                self.epoch
            },
            generation: generation.saturating_add(1),
        }
    }
}

fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], StorageError> {
    value.try_into().map_err(|_| StorageError::Corrupt {
        table: "settings",
        column: "value",
    })
}

/// The rows of `settings` that [`Marks::read`] understands.
pub(crate) const MARKS: &str = "SELECT name, value FROM settings \
    WHERE name IN ('database_id', 'restore_epoch', 'generation', 'backup_copy', 'database_place')";
/// Writes one of them.
pub(super) const SET_MARK: &str = "INSERT INTO settings (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// It is no copy any more.
pub(super) const DROP_COPY_MARK: &str = "DELETE FROM settings WHERE name = 'backup_copy'";

/// What is made invalid, by statements for both backends.
pub(super) const DROP_KEYS: [&str; 2] = ["DELETE FROM one_time_ec_keys", "DELETE FROM one_time_kyber_keys"];
pub(super) const DROP_TOKENS: &str = "DELETE FROM token_sessions";
/// A key that was ended with `keys rotate --now` after the copy was made would sign again.
pub(super) const DROP_TOKEN_KEYS: &str = "DELETE FROM token_keys";
pub(super) const DROP_INVITES: &str = "DELETE FROM invites";
pub(super) const DROP_SESSIONS: &str = "DELETE FROM verification_sessions";
pub(super) const DROP_OFFERS: &str = "DELETE FROM link_offers";
/// Numbers that were given out since are given to nothing else: envelopes have guids from theirs, and a device that has seen a
/// later revision of what its account keeps is told the whole list.
pub(super) const PASS_NUMBERS_OVER: [&str; 2] = [
    "UPDATE mailboxes SET last_seq = last_seq + 4294967296",
    "UPDATE account_data_counters SET revision = revision + 4294967296, horizon = revision + 4294967296",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, &[u8])]) -> Marks {
        let rows = rows.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        Marks::read(rows.collect()).unwrap()
    }

    fn marks(epoch: u64, generation: u64) -> Marks {
        rows(&[
            ("database_id", &[1; 16]),
            ("restore_epoch", &epoch.to_be_bytes()),
            ("generation", &generation.to_be_bytes()),
        ])
    }

    fn seen(database: u8, epoch: u64, generation: u64) -> Age {
        Age {
            database: [database; 16],
            epoch,
            generation,
        }
    }

    #[test]
    fn a_new_database_is_not_put_back_and_gets_a_name() {
        let marks = Marks::default();
        assert_eq!(marks.judge(None, false, Some(b"here")), None);
        let (one, two) = (marks.next(None, None), marks.next(None, None));
        assert_eq!((one.epoch, one.generation), (0, 1));
        assert_ne!(one.database, two.database);
    }

    #[test]
    fn an_older_database_is_noticed_and_its_epoch_is_one_that_nobody_has_seen() {
        let seen_last = seen(1, 3, 70);
        for (marks, restored) in [
            (marks(3, 70), None),
            (marks(3, 71), None),
            (marks(3, 69), Some(Restored::Behind)),
            (marks(0, 900), Some(Restored::Behind)),
            (marks(4, 1), None),
            // From before there were marks.
            (Marks::default(), Some(Restored::Behind)),
        ] {
            assert_eq!(marks.judge(Some(&seen_last), false, None), restored, "{marks:?}");
            let next = marks.next(Some(&seen_last), restored);
            assert_eq!(next.database, [1; 16]);
            assert_eq!(next.epoch, if restored.is_some() { 4 } else { marks.epoch });
            assert!(!next.is_behind(&seen_last));
        }
    }

    #[test]
    fn what_was_seen_of_another_database_says_nothing() {
        let other = seen(2, 9, 900);
        assert_eq!(marks(0, 5).judge(Some(&other), false, None), None);
        assert_eq!(marks(0, 5).next(Some(&other), None), seen(1, 0, 6));
    }

    #[test]
    fn a_copy_a_dump_and_the_operators_word_are_enough() {
        let mut marks = marks(1, 5);
        marks.place = Some(b"there".to_vec());
        assert_eq!(marks.judge(None, false, Some(b"there")), None);
        assert_eq!(marks.judge(None, false, Some(b"here")), Some(Restored::Elsewhere));
        assert_eq!(marks.judge(None, true, Some(b"there")), Some(Restored::Told));
        marks.copy = true;
        assert_eq!(marks.judge(None, false, None), Some(Restored::Copy));
        assert_eq!(marks.next(None, Some(Restored::Copy)), seen(1, 2, 6));
    }

    #[test]
    fn a_mark_of_another_length_is_refused() {
        let row = ("generation".to_owned(), vec![0; 7]);
        assert!(matches!(Marks::read(vec![row]), Err(StorageError::Corrupt { .. })));
    }
}
