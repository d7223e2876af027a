//! One-time keys that were handed out: which keys of an upload may be stored, for both backends.
//!
//! An id under which a key was handed out names that key for as long as it is kept. The same key again is left out, since
//! whoever was given it uses it; another key under the id is refused, since two conversations would begin under one id.

use std::borrow::Cow;

use crate::domain::KeyUpload;

use super::rows::SpentRow;

/// The upload without the keys that were handed out, and how many those were; `None` if an id names another key than the one
/// that was handed out under it.
pub(super) fn without_spent<'a>(upload: &'a KeyUpload, spent: &[SpentRow]) -> Option<(Cow<'a, KeyUpload>, u32)> {
    if spent.is_empty() {
        return Some((Cow::Borrowed(upload), 0));
    }
    let mut left_out = 0;
    let mut unspent = |kyber: bool, id: u32, key: &[u8]| {
        let known = spent
            .iter()
            .find(|row| row.kyber == kyber && row.key_id == i64::from(id));
        match known {
            None => Some(true),
            Some(row) if row.tail == tail(key) => {
                left_out += 1;
                Some(false)
            }
            Some(_) => None,
        }
    };
    let mut rest = KeyUpload {
        one_time: Vec::new(),
        one_time_kyber: Vec::new(),
        signed: upload.signed.clone(),
        last_resort: upload.last_resort.clone(),
    };
    for key in &upload.one_time {
        if unspent(false, key.id.get(), key.key.serialized())? {
            rest.one_time.push(key.clone());
        }
    }
    for key in &upload.one_time_kyber {
        if unspent(true, key.id.get(), key.key.serialized())? {
            rest.one_time_kyber.push(key.clone());
        }
    }
    Some((Cow::Owned(rest), left_out))
}

/// What is kept of a key. It tells a key from another that was made at random; whoever makes two with the same end on purpose
/// deceives nobody, since neither is handed out again.
pub(super) fn tail(key: &[u8]) -> &[u8] {
    &key[key.len().saturating_sub(TAIL)..]
}

const TAIL: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::{ec_key, kyber_key, signed_key};

    fn row(kyber: bool, id: u32, key: &[u8]) -> SpentRow {
        SpentRow {
            kyber,
            key_id: i64::from(id),
            tail: tail(key).to_vec(),
        }
    }

    fn upload() -> KeyUpload {
        KeyUpload {
            one_time: vec![ec_key(1), ec_key(2)],
            one_time_kyber: vec![kyber_key(1, 1), kyber_key(2, 2)],
            signed: Some(signed_key(7, 8)),
            last_resort: None,
        }
    }

    #[test]
    fn the_same_key_is_left_out_and_the_rest_stays() {
        let upload = upload();
        let spent = [
            row(false, 1, ec_key(1).key.serialized()),
            row(true, 2, kyber_key(2, 2).key.serialized()),
            row(true, 9, kyber_key(9, 9).key.serialized()),
        ];
        let (rest, left_out) = without_spent(&upload, &spent).unwrap();
        assert_eq!(left_out, 2);
        assert!(rest.one_time == [ec_key(2)] && rest.one_time_kyber == [kyber_key(1, 1)]);
        assert!(rest.signed == upload.signed);
        assert!(matches!(without_spent(&upload, &[]), Some((Cow::Borrowed(_), 0))));
    }

    #[test]
    fn another_key_under_a_spent_id_is_refused_and_the_kinds_are_apart() {
        let upload = upload();
        assert!(without_spent(&upload, &[row(false, 2, ec_key(3).key.serialized())]).is_none());
        assert!(without_spent(&upload, &[row(true, 1, kyber_key(3, 1).key.serialized())]).is_none());
        // An EC key under the id of a Kyber key is no other key.
        assert!(without_spent(&upload, &[row(true, 3, ec_key(1).key.serialized())]).is_some());
    }
}
