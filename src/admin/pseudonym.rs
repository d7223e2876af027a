//! Names under which the log knows what an act was about. Whoever knows an id and asks the server finds its entries; whoever
//! reads the log alone learns no id.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::domain::{Aci, InviteId, Pseudonym};

/// The key of the names, which comes from the pepper.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Pseudonyms([u8; 32]);

impl Pseudonyms {
    /// Names under this key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Of an account.
    pub fn account(&self, aci: Aci) -> Pseudonym {
        self.name(b"account", aci.as_bytes())
    }

    /// Of an invite.
    pub fn invite(&self, id: &InviteId) -> Pseudonym {
        self.name(b"invite ", id.0.as_bytes())
    }

    fn name(&self, kind: &[u8; 7], id: &[u8; 16]) -> Pseudonym {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(kind);
        mac.update(id);
        Pseudonym(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_thing_under_one_key() {
        let id = uuid::Uuid::from_bytes([7; 16]);
        let (names, others) = (Pseudonyms::new([1; 32]), Pseudonyms::new([2; 32]));
        let account = names.account(Aci::new(id));
        assert_eq!(account, names.account(Aci::new(id)));
        assert_ne!(account, names.account(Aci::new(uuid::Uuid::from_bytes([8; 16]))));
        assert_ne!(account, names.invite(&InviteId(id)));
        assert_ne!(account, others.account(Aci::new(id)));
    }
}
