//! The registration lock: a number that is in use is registered anew only by who knows a value that its owner set.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::{matches, verifier};
use crate::domain::{Account, SecretVerifier, Timestamp};
use crate::encoding::read_hex;

/// The value, which clients derive from a secret of their owner: 32 bytes, 64 hexadecimal digits on the wire.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RegistrationLock([u8; 32]);

impl RegistrationLock {
    /// Parses the wire form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lock = Self([0; 32]);
        read_hex(text, &mut lock.0)?;
        Some(lock)
    }

    /// A fresh verifier for this lock.
    pub fn verifier(&self) -> SecretVerifier {
        verifier(&self.0)
    }
}

impl fmt::Debug for RegistrationLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistrationLock")
    }
}

/// For how many more milliseconds the account's lock keeps out who shows this value, or none; `None` if it does not.
///
/// A lock holds until seven whole days have passed since the day on which the account was last seen: a number that has
/// found a new owner must become free some time.
pub(super) fn holds_for(account: &Account, shown: Option<&RegistrationLock>, now: Timestamp) -> Option<i64> {
    let lock = account.lock.as_ref()?;
    if shown.is_some_and(|shown| matches(&shown.0, lock)) {
        return None;
    }
    // A clock that was ahead once must not keep the number for ever.
    let last_seen = account
        .devices
        .iter()
        .map(|device| device.last_seen)
        .max()?
        .min(now.day());
    let remaining = last_seen.plus(DAYS + 1).midnight().0.saturating_sub(now.0);
    (remaining > 0).then_some(remaining)
}

/// What whoever registers the number of a suspended account is told: the same as of an account with a lock that was in use
/// today. It holds for as long as the account is suspended.
pub(super) fn suspended_for(now: Timestamp) -> i64 {
    now.day().plus(DAYS + 1).midnight().0.saturating_sub(now.0)
}

const DAYS: i32 = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Day;
    use crate::storage::conformance::fixtures;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eFF";

    #[test]
    fn a_lock_is_64_hexadecimal_digits_in_either_case() {
        let lock = RegistrationLock::parse(DIGITS).unwrap();
        assert_eq!((lock.0[1], lock.0[10], lock.0[31]), (1, 10, 255));
        assert!(RegistrationLock::parse(&DIGITS.to_uppercase()).unwrap().0 == lock.0);
        for bad in [
            "",
            &DIGITS[1..],
            &format!("{DIGITS}0"),
            &DIGITS.replace('0', "g"),
            &"é".repeat(32),
        ] {
            assert!(RegistrationLock::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{lock:?}"), "RegistrationLock");
    }

    #[test]
    fn a_lock_holds_for_seven_whole_days_after_the_account_was_last_seen() {
        let lock = RegistrationLock::parse(DIGITS).unwrap();
        let other = RegistrationLock::parse(&DIGITS.replace('1', "2")).unwrap();
        let mut account = fixtures::account(1, 10);
        let seen = account.devices[0].last_seen;
        let late = seen.plus(8).midnight();
        assert_eq!(holds_for(&account, None, Timestamp(0)), None, "there is none");
        account.lock = Some(lock.verifier());
        for shown in [None, Some(&other)] {
            assert_eq!(holds_for(&account, shown, late.plus_millis(-1)), Some(1));
            assert_eq!(holds_for(&account, shown, late), None);
        }
        assert_eq!(holds_for(&account, Some(&lock), late.plus_millis(-1)), None);
        let early = seen.plus(-1000).midnight();
        assert_eq!(
            holds_for(&account, None, early),
            Some(8 * 24 * 60 * 60 * 1000),
            "seen in the future"
        );
        account.devices.push(fixtures::device(1, 11));
        account.devices[1].last_seen = Day(seen.0 + 1);
        assert!(
            holds_for(&account, None, late).is_some(),
            "another device was seen later"
        );
    }
}
