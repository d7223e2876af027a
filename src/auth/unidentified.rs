//! Who may reach an account without saying who they are.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::domain::{AccessKey, Account};

use super::ServerSecrets;

/// Whether a stranger who shows `shown` may fetch this account's keys and write to it.
pub fn allows_unidentified(secrets: &ServerSecrets, account: &Account, shown: &AccessKey) -> bool {
    allows_unidentified_all(secrets, [account], shown)
}

/// Whether a stranger who shows `shown` may write to all of these accounts: it is the XOR of the access keys of those
/// that are not open to everyone. If all are, any key will do.
pub fn allows_unidentified_all<'a>(
    secrets: &ServerSecrets,
    accounts: impl IntoIterator<Item = &'a Account>,
    shown: &AccessKey,
) -> bool {
    let mut combined = Zeroizing::new([0; 16]);
    let mut restricted = false;
    for account in accounts {
        if account.access.unrestricted {
            continue;
        }
        restricted = true;
        let sealed = account.access.sealed_key.as_ref();
        let Some(key) = sealed.and_then(|sealed| secrets.open_access_key(account.aci, sealed)) else {
            return false;
        };
        for (sum, byte) in combined.iter_mut().zip(&key.0) {
            *sum ^= byte;
        }
    }
    // Constant-time, although the key is no secret from those who may use it: a stranger who probes keys must not learn
    // how many leading bytes were right.
    !restricted || bool::from(combined.as_slice().ct_eq(&shown.0))
}

/// Whether `shown` is the account's access key, however open the account is.
pub fn is_access_key(secrets: &ServerSecrets, account: &Account, shown: &AccessKey) -> bool {
    let sealed = account.access.sealed_key.as_ref();
    let key = sealed.and_then(|sealed| secrets.open_access_key(account.aci, sealed));
    key.is_some_and(|key| bool::from(key.0.as_slice().ct_eq(&shown.0)))
}

/// By which those who have the account's access key see that it is still the right one; `None` if it has none. Tells
/// nothing to others: the key is derived from the profile key, and has as many bits as it has.
pub fn access_key_checksum(secrets: &ServerSecrets, account: &Account) -> Option<[u8; 32]> {
    let sealed = account.access.sealed_key.as_ref()?;
    let key = secrets.open_access_key(account.aci, sealed)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
    mac.update(&[0; 32]);
    Some(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnidentifiedAccess;
    use crate::storage::conformance::fixtures::account;

    fn open_to(secrets: &ServerSecrets, n: u8, key: Option<[u8; 16]>, unrestricted: bool) -> Account {
        let account = account(n, 10);
        let sealed_key = key.map(|key| secrets.seal_access_key(account.aci, &AccessKey(key)));
        Account {
            access: UnidentifiedAccess {
                sealed_key,
                unrestricted,
            },
            ..account
        }
    }

    fn secrets() -> ServerSecrets {
        ServerSecrets::from_pepper(&[1; 32])
    }

    #[test]
    fn an_account_that_is_open_to_everyone_still_knows_its_key() {
        let secrets = secrets();
        for unrestricted in [false, true] {
            let account = open_to(&secrets, 1, Some([7; 16]), unrestricted);
            assert!(is_access_key(&secrets, &account, &AccessKey([7; 16])));
            assert!(!is_access_key(&secrets, &account, &AccessKey([8; 16])));
        }
        let without = open_to(&secrets, 1, None, true);
        assert!(!is_access_key(&secrets, &without, &AccessKey([0; 16])));
    }

    #[test]
    fn one_account_is_opened_by_its_key_alone() {
        let secrets = secrets();
        let account = open_to(&secrets, 1, Some([7; 16]), false);
        assert!(allows_unidentified(&secrets, &account, &AccessKey([7; 16])));
        for bit in 0..128 {
            let mut wrong = [7; 16];
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!allows_unidentified(&secrets, &account, &AccessKey(wrong)), "bit {bit}");
        }
        let without = open_to(&secrets, 1, None, false);
        assert!(!allows_unidentified(&secrets, &without, &AccessKey([0; 16])));
    }

    #[test]
    fn many_accounts_are_opened_by_the_xor_of_the_keys_of_those_that_have_one_to_show() {
        let secrets = secrets();
        let accounts = [
            open_to(&secrets, 1, Some([0b0011; 16]), false),
            open_to(&secrets, 2, Some([0b0101; 16]), false),
            open_to(&secrets, 3, Some([0b1111; 16]), true),
            open_to(&secrets, 4, None, true),
        ];
        assert!(allows_unidentified_all(&secrets, &accounts, &AccessKey([0b0110; 16])));
        assert!(!allows_unidentified_all(&secrets, &accounts, &AccessKey([0b1001; 16])));
        assert!(allows_unidentified_all(&secrets, &accounts[2..], &AccessKey([9; 16])));
    }

    #[test]
    fn an_account_without_a_key_closes_the_whole_list() {
        let secrets = secrets();
        let accounts = [
            open_to(&secrets, 1, Some([3; 16]), false),
            open_to(&secrets, 2, None, false),
        ];
        assert!(!allows_unidentified_all(&secrets, &accounts, &AccessKey([3; 16])));
    }
}
