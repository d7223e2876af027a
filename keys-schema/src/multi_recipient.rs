//! Multi-recipient messages: one sealed-sender ciphertext for many devices, with a little key material for each account.
//!
//! What is read is the "sent message" of sealed sender v2; what a recipient is handed is the "received message", put
//! together from its own key material and the shared rest. Layout, numbers big-endian:
//!
//! ```text
//! version     0x23: recipients are 17-byte fixed-width service ids; 0x22: bare 16-byte ACIs
//! count       varint, the number of entries
//! entry       service id, then
//!               devices: id (1 byte, 1 to 127), 2 bytes: top bit = another device follows, low 14 bits = registration id
//!               and 48 bytes of key material
//!             or one zero byte: a recipient that the sender left out on purpose, without key material
//! shared rest the sender's ephemeral key (32 bytes), then the message
//! ```
//!
//! [`MultiRecipientMessage::parse`] agrees with the official parser, but for a count in more bytes than it needs, which
//! that one misreads. What it accepts is not yet fit for delivery: it leaves duplicates, empty lists and stumps to the server,
//! for which there is [`MultiRecipientMessage::check_for_delivery`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use thiserror::Error;

use crate::framing::{self, RECEIVED_HEAD};
use crate::opaque_debug::opaque_debug;
use crate::{Aci, DecodeError, ServiceId};

/// A multi-recipient message as the sender wrote it, read.
///
/// The shared rest stays a view of the input; only ids, device records and key material, a few dozen bytes a recipient,
/// are copied. What is allocated is bounded by a small multiple of the input's length, whatever its count says.
#[derive(Clone, PartialEq, Eq)]
pub struct MultiRecipientMessage {
    recipients: Vec<Recipient>,
    excluded: Vec<ServiceId>,
    shared: Bytes,
}

/// One account that is to receive the message.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whom it is for.
    pub service_id: ServiceId,
    /// The account's devices as the sender knows them, in the order of the message; at least one, and maybe one twice.
    pub devices: Vec<RecipientDevice>,
    key_material: [u8; KEY_MATERIAL],
}

/// One device of a [`Recipient`], as the sender knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecipientDevice {
    /// The device's number, 1 to 127.
    pub id: u8,
    /// The registration id the sender's session is with, 0 to 2^14 - 1.
    pub registration_id: u16,
}

/// Why a message that parses is not delivered.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Undeliverable {
    /// The message names nobody, or only recipients that are left out.
    #[error("the message has no recipients")]
    NoRecipients,
    /// After the ephemeral key there is less than the shortest message.
    #[error("the message is cut off")]
    Truncated,
    /// A recipient would be handed text where keys should be.
    #[error("the message is no ciphertext")]
    NotCiphertext,
    /// A recipient's device is named twice, in one entry or in two.
    #[error("the message names a device twice")]
    DuplicateDevice,
}

impl MultiRecipientMessage {
    /// Reads a message.
    ///
    /// An account with several entries becomes one recipient, at the place and with the key material of the first, and
    /// with the devices of all. Bit 14 of a device's record means nothing.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ServiceIdForm`] for a kind of service id that there is not, and [`DecodeError::Malformed`] for all
    /// else: another version, a count that is missing, above 2^32 - 1, longer than it needs to be or not met, a device id
    /// of 0 after others or above 127, fewer than 32 bytes after the last entry, and an account that is left out and has
    /// another entry of either kind.
    pub fn parse(message: Bytes) -> Result<Self, DecodeError> {
        let mut rest = Reader(&message);
        let id_length = match rest.byte()? {
            VERSION_ACIS => 16,
            VERSION_SERVICE_IDS => 17,
            _ => return Err(MALFORMED),
        };
        let count = rest.varint()?;
        // No entry is shorter than an id and a zero byte. So the count is checked before anything is allocated for it.
        if count > rest.0.len() / (id_length + 1) {
            return Err(MALFORMED);
        }
        let mut entries = Entries::default();
        for _ in 0..count {
            let service_id = rest.service_id(id_length)?;
            let devices = rest.devices()?;
            if devices.is_empty() {
                entries.exclude(service_id)?;
            } else {
                entries.add(service_id, devices, rest.chunk()?)?;
            }
        }
        if rest.0.len() < EPHEMERAL_KEY {
            return Err(MALFORMED);
        }
        let shared = message.slice(message.len() - rest.0.len()..);
        let Entries {
            recipients, excluded, ..
        } = entries;
        Ok(Self {
            recipients,
            excluded,
            shared,
        })
    }

    /// Who is to receive the message, in the order of their first entries, each once.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Whom the sender left out on purpose, in the order of the message. They take no part in delivery, in finding out
    /// which accounts and devices there are, or in authorisation.
    #[must_use]
    pub fn excluded(&self) -> &[ServiceId] {
        &self.excluded
    }

    /// Whether a server may deliver the message, by the rules that the parser does not have.
    ///
    /// # Errors
    ///
    /// [`Undeliverable`] says which rule it breaks.
    pub fn check_for_delivery(&self) -> Result<(), Undeliverable> {
        if self.recipients.is_empty() {
            return Err(Undeliverable::NoRecipients);
        }
        if self.shared.len() < EPHEMERAL_KEY + AUTHENTICATION_TAG {
            return Err(Undeliverable::Truncated);
        }
        for recipient in &self.recipients {
            let mut head = [0; RECEIVED_HEAD];
            let (own, shared) = head.split_at_mut(1 + KEY_MATERIAL);
            own.copy_from_slice(&recipient.content_head());
            shared.copy_from_slice(&self.shared[..EPHEMERAL_KEY]);
            if !framing::begins_received(&head) {
                return Err(Undeliverable::NotCiphertext);
            }
            let mut seen: u128 = 0;
            for device in &recipient.devices {
                let bit = 1 << device.id;
                if seen & bit != 0 {
                    return Err(Undeliverable::DuplicateDevice);
                }
                seen |= bit;
            }
        }
        Ok(())
    }

    /// What each device of `recipient` is to be handed, whatever the version that was sent.
    #[must_use]
    pub fn content_for(&self, recipient: &Recipient) -> Vec<u8> {
        let mut content = Vec::with_capacity(self.content_length());
        content.push(VERSION_RECEIVED);
        content.extend_from_slice(&recipient.key_material);
        content.extend_from_slice(&self.shared);
        content
    }

    /// Length of [`content_for`](Self::content_for) in bytes: the same for every recipient.
    #[must_use]
    pub fn content_length(&self) -> usize {
        1 + KEY_MATERIAL + self.shared.len()
    }

    /// What all recipients share, the end of each one's content: a view of the message that was parsed.
    #[must_use]
    pub fn shared(&self) -> &Bytes {
        &self.shared
    }
}

impl Recipient {
    /// What the recipient's content begins with: the version and 48 bytes of key material. [`MultiRecipientMessage::shared`]
    /// is the rest.
    #[must_use]
    pub fn content_head(&self) -> [u8; 1 + KEY_MATERIAL] {
        let mut head = [VERSION_RECEIVED; 1 + KEY_MATERIAL];
        head[1..].copy_from_slice(&self.key_material);
        head
    }
}

opaque_debug!(MultiRecipientMessage, Recipient, RecipientDevice);

const VERSION_ACIS: u8 = 0x22;
const VERSION_SERVICE_IDS: u8 = 0x23;
const VERSION_RECEIVED: u8 = 0x22;
const MAX_DEVICE_ID: u8 = 127;
const HAS_MORE: u16 = 0x8000;
const REGISTRATION_ID: u16 = 0x3fff;
const KEY_MATERIAL: usize = 48;
const EPHEMERAL_KEY: usize = 32;
/// Of AES-256-GCM-SIV (RFC 8452), at the end of every message.
const AUTHENTICATION_TAG: usize = 16;
const MALFORMED: DecodeError = DecodeError::Malformed {
    what: "multi-recipient message",
};

/// What has been read so far, and where each account is in it.
#[derive(Default)]
struct Entries {
    recipients: Vec<Recipient>,
    excluded: Vec<ServiceId>,
    /// Index into `recipients`, or `None` for an account that is left out. Ordered and not hashed: nobody chooses ids
    /// that collide, and equal input takes equal work.
    seen: BTreeMap<ServiceId, Option<usize>>,
}

impl Entries {
    fn exclude(&mut self, service_id: ServiceId) -> Result<(), DecodeError> {
        let Entry::Vacant(place) = self.seen.entry(service_id) else {
            return Err(MALFORMED);
        };
        place.insert(None);
        self.excluded.push(service_id);
        Ok(())
    }

    fn add(
        &mut self,
        service_id: ServiceId,
        devices: Vec<RecipientDevice>,
        key_material: [u8; KEY_MATERIAL],
    ) -> Result<(), DecodeError> {
        match self.seen.entry(service_id) {
            Entry::Vacant(place) => {
                place.insert(Some(self.recipients.len()));
                self.recipients.push(Recipient {
                    service_id,
                    devices,
                    key_material,
                });
                Ok(())
            }
            Entry::Occupied(place) => {
                let index = place.get().ok_or(MALFORMED)?;
                self.recipients[index].devices.extend(devices);
                Ok(())
            }
        }
    }
}

/// The bytes not yet read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.chunk().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Result<usize, DecodeError> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(MALFORMED);
                }
                let value = u32::try_from(value).map_err(|_| MALFORMED)?;
                return usize::try_from(value).map_err(|_| MALFORMED);
            }
        }
        Err(MALFORMED)
    }

    fn service_id(&mut self, length: usize) -> Result<ServiceId, DecodeError> {
        if length == 16 {
            return self.chunk().map(|uuid| Aci::new(uuid::Uuid::from_bytes(uuid)).into());
        }
        ServiceId::from_fixed_width(&self.chunk()?)
    }

    /// The devices of an entry; none for a recipient that is left out.
    fn devices(&mut self) -> Result<Vec<RecipientDevice>, DecodeError> {
        let mut devices = Vec::new();
        loop {
            let id = self.byte()?;
            if id == 0 && devices.is_empty() {
                return Ok(devices);
            }
            if id == 0 || id > MAX_DEVICE_ID {
                return Err(MALFORMED);
            }
            let record = u16::from_be_bytes(self.chunk()?);
            devices.push(RecipientDevice {
                id,
                registration_id: record & REGISTRATION_ID,
            });
            if record & HAS_MORE == 0 {
                return Ok(devices);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envelope::Type;

    const ALICE: u8 = 0xa1;
    const BOB: u8 = 0xb0;
    /// What stands for the message: longer than its tag.
    const TEXT: &[u8] = b"a message with its tag";

    /// A device record: id and registration id, with the top bit if another follows.
    type Record = (u8, u16);

    fn entry(account: u8, records: &[Record], key: u8) -> Vec<u8> {
        let mut entry = vec![0x00];
        entry.extend_from_slice(&[account; 16]);
        for (id, record) in records {
            entry.push(*id);
            entry.extend_from_slice(&record.to_be_bytes());
        }
        entry.extend_from_slice(&[key; KEY_MATERIAL]);
        entry
    }

    fn left_out(account: u8) -> Vec<u8> {
        let mut entry = vec![0x00];
        entry.extend_from_slice(&[account; 16]);
        entry.push(0);
        entry
    }

    fn message(count: &[u8], entries: &[Vec<u8>]) -> Bytes {
        let mut message = vec![VERSION_SERVICE_IDS];
        message.extend_from_slice(count);
        message.extend(entries.concat());
        message.extend_from_slice(&[0xee; EPHEMERAL_KEY]);
        message.extend_from_slice(TEXT);
        message.into()
    }

    fn parse(count: &[u8], entries: &[Vec<u8>]) -> Result<MultiRecipientMessage, DecodeError> {
        MultiRecipientMessage::parse(message(count, entries))
    }

    fn devices(recipient: &Recipient) -> Vec<Record> {
        let devices = recipient.devices.iter();
        devices.map(|device| (device.id, device.registration_id)).collect()
    }

    #[test]
    fn entries_of_one_account_are_one_recipient_with_the_first_key_material() {
        let read = parse(
            &[3],
            &[
                entry(ALICE, &[(1, 0x8005), (2, 6)], 0x11),
                entry(BOB, &[(1, 7)], 0x22),
                entry(ALICE, &[(3, 8)], 0x33),
            ],
        )
        .expect("parses");
        let [alice, bob] = read.recipients() else {
            panic!("two recipients");
        };
        assert_eq!(devices(alice), [(1, 5), (2, 6), (3, 8)]);
        assert_eq!(devices(bob), [(1, 7)]);
        assert_eq!(read.content_for(alice)[1..49], [0x11; 48]);
        assert_eq!(read.content_for(bob)[1..49], [0x22; 48]);
        assert_eq!(read.check_for_delivery(), Ok(()));
    }

    #[test]
    fn a_device_named_twice_is_not_delivered() {
        for entries in [
            vec![entry(ALICE, &[(1, 0x8005), (1, 5)], 0)],
            vec![entry(ALICE, &[(127, 5)], 0), entry(ALICE, &[(127, 6)], 0)],
        ] {
            let count = [u8::try_from(entries.len()).expect("few")];
            let read = parse(&count, &entries).expect("parses");
            assert_eq!(read.check_for_delivery(), Err(Undeliverable::DuplicateDevice));
        }
        let read = parse(&[2], &[entry(ALICE, &[(1, 5)], 0), entry(BOB, &[(1, 5)], 0)]).expect("parses");
        assert_eq!(read.check_for_delivery(), Ok(()));
    }

    #[test]
    fn a_message_too_short_for_its_tag_is_not_delivered() {
        let whole = message(&[1], &[entry(ALICE, &[(1, 5)], 0)]);
        let end = whole.len() - TEXT.len();
        let check = |end: usize| {
            let read = MultiRecipientMessage::parse(whole.slice(..end)).expect("parses");
            read.check_for_delivery()
        };
        assert_eq!(check(end + 15), Err(Undeliverable::Truncated));
        assert_eq!(check(end + 16), Ok(()));
    }

    /// What is delivered has the framing of what it is declared as.
    #[test]
    fn what_would_be_handed_over_as_text_is_not_delivered() {
        let framed = |read: &MultiRecipientMessage| {
            let mut all = read.recipients().iter().map(|recipient| read.content_for(recipient));
            all.all(|content| framing::check(Type::UnidentifiedSender, &content).is_ok())
        };
        let read = parse(&[2], &[entry(ALICE, &[(1, 5)], 0), entry(BOB, &[(1, 5)], b'#')]).expect("parses");
        assert_eq!((read.check_for_delivery(), framed(&read)), (Ok(()), true));
        let mut text = vec![VERSION_SERVICE_IDS, 2];
        text.extend([entry(ALICE, &[(1, 5)], 0xee), entry(BOB, &[(1, 5)], b'a')].concat());
        text.extend(b"what should be a key and a ciphertext, and is a letter");
        let read = MultiRecipientMessage::parse(text.into()).expect("parses");
        assert_eq!(
            (read.check_for_delivery(), framed(&read)),
            (Err(Undeliverable::NotCiphertext), false)
        );
    }

    #[test]
    fn a_message_for_nobody_is_not_delivered() {
        assert_eq!(
            parse(&[0], &[]).expect("parses").check_for_delivery(),
            Err(Undeliverable::NoRecipients)
        );
        let read = parse(&[2], &[left_out(ALICE), left_out(BOB)]).expect("parses");
        assert_eq!(read.excluded().len(), 2);
        assert_eq!(read.check_for_delivery(), Err(Undeliverable::NoRecipients));
    }

    #[test]
    fn whoever_is_left_out_has_one_entry() {
        assert!(parse(&[2], &[left_out(ALICE), entry(BOB, &[(1, 5)], 0)]).is_ok());
        for entries in [
            [left_out(ALICE), left_out(ALICE)],
            [left_out(ALICE), entry(ALICE, &[(1, 5)], 0)],
            [entry(ALICE, &[(1, 5)], 0), left_out(ALICE)],
        ] {
            assert_eq!(parse(&[2], &entries).err(), Some(MALFORMED));
        }
    }

    #[test]
    fn device_ids_are_1_to_127() {
        for id in [1, 2, 127] {
            assert!(parse(&[1], &[entry(ALICE, &[(id, 5)], 0)]).is_ok());
        }
        for id in [128, 255] {
            assert_eq!(parse(&[1], &[entry(ALICE, &[(id, 5)], 0)]).err(), Some(MALFORMED));
        }
        assert_eq!(
            parse(&[1], &[entry(ALICE, &[(1, 0x8005), (0, 5)], 0)]).err(),
            Some(MALFORMED)
        );
    }

    #[test]
    fn registration_ids_have_14_bits() {
        let read = parse(&[1], &[entry(ALICE, &[(1, 0xffff), (2, 0x7fff)], 0)]).expect("parses");
        assert_eq!(devices(&read.recipients()[0]), [(1, 0x3fff), (2, 0x3fff)]);
    }

    #[test]
    fn a_count_has_one_form() {
        let one = [entry(ALICE, &[(1, 5)], 0)];
        for count in [
            &[0x81, 0x00][..],
            &[0x81, 0x80, 0x00],
            &[0x81, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x80; 40],
        ] {
            assert_eq!(parse(count, &one).err(), Some(MALFORMED), "{count:x?}");
        }
        let many: Vec<Vec<u8>> = (0..200).map(left_out).collect();
        assert_eq!(parse(&[0xc8, 0x01], &many).expect("parses").excluded().len(), 200);
    }

    #[test]
    fn a_count_beyond_the_message_is_refused() {
        for count in [
            &[0x7f][..],
            &[0xff, 0xff, 0x03],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(parse(count, &[left_out(ALICE)]).err(), Some(MALFORMED), "{count:x?}");
        }
    }

    #[test]
    fn every_cut_before_the_end_of_the_ephemeral_key_is_refused() {
        let whole = message(&[2], &[entry(ALICE, &[(1, 0x8005), (2, 5)], 0), left_out(BOB)]);
        let least = whole.len() - TEXT.len();
        for length in 0..whole.len() {
            let read = MultiRecipientMessage::parse(whole.slice(..length));
            assert_eq!(read.is_ok(), length >= least, "{length}");
        }
    }

    #[test]
    fn what_recipients_share_is_not_copied() {
        let whole = message(&[1], &[entry(ALICE, &[(1, 5)], 0)]);
        let read = MultiRecipientMessage::parse(whole.clone()).expect("parses");
        assert!(whole.as_ptr_range().contains(&read.shared().as_ptr()));
        assert_eq!(read.shared().len(), EPHEMERAL_KEY + TEXT.len());
    }

    #[test]
    fn debug_shows_nothing() {
        let read = parse(&[1], &[entry(ALICE, &[(1, 5)], 0)]).expect("parses");
        assert_eq!(format!("{read:?}"), "MultiRecipientMessage");
        assert_eq!(format!("{:?}", read.recipients()), "[Recipient]");
    }
}
