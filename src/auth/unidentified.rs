//! Who may reach an account without saying who they are.

use subtle::ConstantTimeEq;

use crate::domain::{AccessKey, Account};

use super::ServerSecrets;

/// Whether a stranger who shows `shown` may fetch this account's keys and write to it.
pub fn allows_unidentified(secrets: &ServerSecrets, account: &Account, shown: &AccessKey) -> bool {
    if account.access.unrestricted {
        return true;
    }
    let Some(key) = account
        .access
        .sealed_key
        .as_ref()
        .and_then(|sealed| secrets.open_access_key(account.aci, sealed))
    else {
        return false;
    };
    // Constant-time, although the key is no secret from those who may use it: a stranger who probes keys must not learn
    // how many leading bytes were right.
    key.0.ct_eq(&shown.0).into()
}
