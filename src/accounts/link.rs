//! Linking: a primary offers, and a new device takes up the offer.
//!
//! The offer's token is known to the primary and to whom it gives it. The server keeps its hash, and the account's number
//! sealed to a key derived from the token: a linked device is to know its number, and the server has the number only
//! while a device of the account asks.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::{DeviceSecret, Number, Password, link_token_hash, open_link_number, queue_key, seal_link_number};
use crate::directory::{KeysRefused, check_signed};
use crate::domain::{
    Account, Aci, Actor, Capabilities, Clock, Device, DeviceId, DeviceLink, DeviceName, LinkOffer, LinkTokenHash,
    Linked, Pni, RegistrationId, ServiceId, SignedKeys,
};
use crate::encoding::BASE64_URL;
use crate::sealing::random;
use crate::storage::{AccountStore, DeviceStore, StorageError};

use super::created_at::created_at;
use super::register::random_mailbox;

/// What a primary gives to a device that it wants to link: URL-safe base64 of 32 random bytes. Its hash is taken over
/// that text, so that who has the text can name the hash.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkToken(String);

impl LinkToken {
    /// A new one.
    fn random() -> Self {
        Self(BASE64_URL.encode(random::<32>()))
    }

    /// Takes any text; one of another form opens nothing.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The wire form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the offer is found.
    pub fn hash(&self) -> LinkTokenHash {
        link_token_hash(self.0.as_bytes())
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkToken")
    }
}

/// A device as it asks to be linked, checked for form.
#[derive(Clone)]
pub struct LinkRequest {
    /// Proves that the primary wants it.
    pub token: LinkToken,
    /// Its password.
    pub password: Password,
    /// Of the ACI namespace.
    pub registration_id: RegistrationId,
    /// Of the PNI namespace.
    pub pni_registration_id: RegistrationId,
    /// Keeps a connection instead of being woken by push.
    pub fetches_messages: bool,
    /// Encrypted device name.
    pub name: Option<DeviceName>,
    /// What the client can do.
    pub capabilities: Capabilities,
    /// Signed by the account's ACI identity key; checked here.
    pub aci_keys: SignedKeys,
    /// Signed by the account's PNI identity key; checked here.
    pub pni_keys: SignedKeys,
}

/// A linked device.
#[derive(Clone, Debug)]
pub struct LinkedDevice {
    /// Its account.
    pub aci: Aci,
    /// The account's second id.
    pub pni: Pni,
    /// Its number.
    pub id: DeviceId,
}

/// Why an offer was not made, or not taken up.
#[derive(Debug, thiserror::Error)]
pub enum LinkRefused {
    /// The token was never given out, was used, or has expired.
    #[error("the link token is not valid")]
    Token,
    /// The account has as many devices as it may have.
    #[error("the account has {current} devices, and may have {max}")]
    Full {
        /// Devices that there are.
        current: u8,
        /// Devices that there may be.
        max: u8,
    },
    /// The device cannot do what all others of the account can.
    #[error("the device lacks a capability of the account")]
    Downgrade,
    /// A key is not acceptable.
    #[error(transparent)]
    Keys(#[from] KeysRefused),
    /// The device that offers is gone.
    #[error("the device that offers is gone")]
    Gone,
    /// Other links of the account were quicker, again and again.
    #[error("the account's devices change too quickly")]
    Busy,
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes offers, and takes devices in.
pub struct Linker {
    accounts: Arc<dyn AccountStore>,
    devices: Arc<dyn DeviceStore>,
    clock: Arc<dyn Clock>,
    max_devices: u8,
}

impl Linker {
    /// A linker for accounts of at most `max_devices` devices, the primary included.
    pub fn new(
        accounts: Arc<dyn AccountStore>,
        devices: Arc<dyn DeviceStore>,
        clock: Arc<dyn Clock>,
        max_devices: u8,
    ) -> Self {
        Self {
            accounts,
            devices,
            clock,
            max_devices,
        }
    }

    /// Makes an offer for ten minutes, in the name of a primary that has just shown its number.
    pub async fn offer(&self, account: &Account, number: &Number, by: &Actor) -> Result<LinkToken, LinkRefused> {
        self.check_room(account)?;
        let token = LinkToken::random();
        let offer = LinkOffer {
            key: token.hash(),
            aci: account.aci,
            sealed_number: seal_link_number(token.0.as_bytes(), account.aci, number),
            expires: self.clock.now().plus_millis(OFFERED_FOR_MILLIS),
        };
        if self.devices.offer(&offer, by).await? {
            Ok(token)
        } else {
            Err(LinkRefused::Gone)
        }
    }

    /// Takes the device in, and uses the offer up.
    pub async fn link(&self, request: &LinkRequest) -> Result<LinkedDevice, LinkRefused> {
        let offer = self.devices.find_offer(&request.token.hash(), self.clock.now()).await?;
        let offer = offer.ok_or(LinkRefused::Token)?;
        let number = open_link_number(request.token.0.as_bytes(), offer.aci, &offer.sealed_number);
        let number = number.ok_or(LinkRefused::Token)?;
        for _ in 0..ROUNDS {
            let account = self.accounts.find(&ServiceId::Aci(offer.aci)).await?;
            let account = account.filter(|account| !account.suspended).ok_or(LinkRefused::Token)?;
            check_signed(&account.aci_identity, &request.aci_keys)?;
            check_signed(&account.pni_identity, &request.pni_keys)?;
            if is_downgrade(&account, request.capabilities) {
                return Err(LinkRefused::Downgrade);
            }
            self.check_room(&account)?;
            let id = lowest_free(&account).ok_or(LinkRefused::Busy)?;
            let link = self.device_link(request, &offer, &account, id, &number);
            match self.devices.link(&link, self.clock.now()).await? {
                Linked::Done => {
                    return Ok(LinkedDevice {
                        aci: account.aci,
                        pni: account.pni,
                        id,
                    });
                }
                Linked::NoOffer => return Err(LinkRefused::Token),
                Linked::Full(current) => {
                    return Err(LinkRefused::Full {
                        current,
                        max: self.max_devices,
                    });
                }
                // Another device was linked in between.
                Linked::IdTaken => {}
            }
        }
        Err(LinkRefused::Busy)
    }

    /// The device of this account that took up the offer of that token, if one has.
    pub async fn linked_with(&self, token: &LinkTokenHash, aci: Aci) -> Result<Option<DeviceId>, StorageError> {
        self.devices.linked_with(token, aci, self.clock.now()).await
    }

    fn check_room(&self, account: &Account) -> Result<(), LinkRefused> {
        let current = u8::try_from(account.devices.len()).unwrap_or(u8::MAX);
        if current < self.max_devices {
            return Ok(());
        }
        Err(LinkRefused::Full {
            current,
            max: self.max_devices,
        })
    }

    fn device_link(
        &self,
        request: &LinkRequest,
        offer: &LinkOffer,
        account: &Account,
        id: DeviceId,
        number: &Number,
    ) -> DeviceLink {
        let credential = request.password.verifier();
        let mailbox = random_mailbox();
        let secret = DeviceSecret::derive(&request.password, &credential.salt);
        let now = self.clock.now();
        let device = Device {
            queue_key: queue_key(&request.password, &credential.salt).public_key(),
            id,
            mailbox,
            registration_id: request.registration_id,
            pni_registration_id: request.pni_registration_id,
            name: request.name.clone(),
            sealed_number: secret.seal_number(mailbox, number),
            credential,
            fetches_messages: request.fetches_messages,
            capabilities: request.capabilities,
            last_seen: now.day(),
            created_at: created_at(&account.aci_identity, id, request.registration_id, now),
        };
        DeviceLink {
            offer: offer.key,
            aci: account.aci,
            device,
            aci_keys: request.aci_keys.clone(),
            pni_keys: request.pni_keys.clone(),
            max_devices: self.max_devices,
            remembered_until: now.plus_millis(REMEMBERED_FOR_MILLIS),
        }
    }
}

/// The lowest id that no device of the account has.
fn lowest_free(account: &Account) -> Option<DeviceId> {
    (2..=u64::from(DeviceId::MAX))
        .filter_map(|id| DeviceId::new(id).ok())
        .find(|id| account.device(*id).is_none())
}

/// Whether the new device would take a capability from the account that counts only if every device has it.
fn is_downgrade(account: &Account, new: Capabilities) -> bool {
    let all_have = |name: &str| account.devices.iter().all(|device| device.capabilities.has(name));
    OF_ALL_DEVICES.iter().any(|name| !new.has(name) && all_have(name))
}

/// `spqr` counts in the same way, but is no condition of entry here: clients without it are to be able to link.
const OF_ALL_DEVICES: [&str; 3] = ["profiles_v2", "usernameChangeSyncMessage", "optionalPhoneNumber"];
const OFFERED_FOR_MILLIS: i64 = 10 * 60 * 1000;
const REMEMBERED_FOR_MILLIS: i64 = 60 * 60 * 1000;
/// In each of them another device was linked, and an account has at most 127.
const ROUNDS: u8 = DeviceId::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::{account, device};

    fn having(all: &[&[&str]]) -> Account {
        let device = |(index, names): (usize, &&[&str])| Device {
            id: DeviceId::new(index as u64 + 1).unwrap(),
            capabilities: capabilities(names),
            ..device(1, 10)
        };
        Account {
            devices: all.iter().enumerate().map(device).collect(),
            ..account(1, 10)
        }
    }

    fn capabilities(names: &[&str]) -> Capabilities {
        Capabilities::from_names(names.iter().map(|name| (*name, true)))
    }

    #[test]
    fn a_device_may_lack_what_not_all_others_have_and_never_needs_spqr() {
        let modern: &[&str] = &["spqr", "profiles_v2", "storage"];
        assert!(is_downgrade(&having(&[modern, modern]), capabilities(&["spqr"])));
        assert!(!is_downgrade(&having(&[modern, &["spqr"]]), capabilities(&["spqr"])));
        assert!(!is_downgrade(&having(&[modern]), capabilities(&["profiles_v2"])));
        assert!(!is_downgrade(&having(&[&["spqr", "transfer"]]), capabilities(&[])));
    }

    #[test]
    fn new_devices_get_the_lowest_free_id() {
        let mut account = having(&[&[], &[], &[]]);
        assert_eq!(lowest_free(&account), DeviceId::new(4).ok());
        account.devices.remove(1);
        assert_eq!(lowest_free(&account), DeviceId::new(2).ok());
    }

    #[test]
    fn a_token_never_prints_itself_and_names_its_hash() {
        let token = LinkToken::random();
        assert_eq!(format!("{token:?}"), "LinkToken");
        assert!(token.hash() == LinkToken::new(token.as_str().to_owned()).hash());
        assert!(token.hash() != LinkToken::random().hash());
    }
}
