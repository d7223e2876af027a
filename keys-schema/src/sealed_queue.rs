//! Queued envelopes as they lie in storage: sealed to the device that will fetch them.
//!
//! A device's *queue key* is an X25519 key pair. The server keeps the public half and seals with it; the private half is
//! derived from the device's password and is in memory only while the device is connected. What is sealed here is an
//! envelope, whose content the clients have encrypted before: opening a row shows what the server saw when it came.
//!
//! The construction, version 1:
//!
//! - Once per device and *epoch* of a node: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256
//!   and no AEAD, to the device's public queue key, with the info `blind-relay sealed queue v1`. The exported secret of
//!   32 bytes for the context `row key` is the *epoch key*. Only its encapsulation `enc` can be stored.
//! - Per row: `enc (32) ‖ nonce (12) ‖ ciphertext ‖ tag (16)` with AES-256-GCM under the epoch key. Nonces are random, and an
//!   epoch key seals [`EpochKey::MAX_ROWS`] rows at most: that two of them have one nonce happens with a probability below
//!   2^-56. Authenticated with it: the mailbox (8 bytes) and the bucket (2 bytes), big-endian.
//! - The plaintext: length of the envelope (4 bytes, big-endian), the envelope, zeros up to [`Bucket::padded_len`].
//!   The length of a row therefore tells its bucket and no more.
//!
//! Nothing in a row tells its version: it is the bucket's number, of which a later version takes others.

use std::sync::atomic::{AtomicU32, Ordering};

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use bytes::{Buf, Bytes, BytesMut};
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender_with_rng};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::DecodeError;
use crate::given::Given;
use crate::opaque_debug::opaque_debug;

/// The size to which an envelope is padded, by the length of the ciphertext in it: 1, 2, 4, 8, 16, 32, 64, 96, 128 KiB,
/// and above that each multiple of 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// The largest one, in KiB.
    pub const MAX_KIB: u16 = 16 * 1024;
    /// What a row has beside the padded envelope: encapsulation, nonce and tag, in bytes.
    pub const OVERHEAD: usize = ENCAPSULATED + NONCE + TAG;
    /// Room for everything of an envelope that is not its content, and for its length, in bytes.
    pub const ROOM: usize = 192;

    /// The smallest bucket for an envelope of `envelope` bytes whose content has `content` bytes. `None` if it is larger
    /// than any.
    #[must_use]
    pub fn holding(content: usize, envelope: usize) -> Option<Self> {
        // An envelope has at most 160 bytes beside its content, so the content alone decides.
        let bytes = content.max((envelope + LENGTH).saturating_sub(Self::ROOM)).max(1);
        let kib = u16::try_from(bytes.div_ceil(1024)).ok()?;
        let rounded = match kib {
            0..=64 => kib.next_power_of_two(),
            65..=96 => 96,
            97.. => kib.checked_next_multiple_of(64)?,
        };
        (rounded <= Self::MAX_KIB).then_some(Self(rounded))
    }

    /// The bucket of that many KiB, if there is one.
    #[must_use]
    pub fn from_kib(kib: u16) -> Option<Self> {
        let bytes = usize::from(kib) * 1024;
        Self::holding(bytes, bytes).filter(|bucket| bucket.0 == kib)
    }

    /// Its number: KiB of content.
    #[must_use]
    pub const fn kib(self) -> u16 {
        self.0
    }

    /// What it counts for in a queue, in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0) * 1024
    }

    /// Length of every padded envelope of this bucket, in bytes.
    #[must_use]
    pub fn padded_len(self) -> usize {
        usize::from(self.0) * 1024 + Self::ROOM
    }

    /// Length of every row of this bucket, in bytes.
    #[must_use]
    pub fn sealed_len(self) -> usize {
        self.padded_len() + Self::OVERHEAD
    }
}

/// The public half of a device's queue key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueuePublicKey([u8; 32]);

impl QueuePublicKey {
    /// Takes 32 bytes for a key. That they are none shows when something is sealed to it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A device's queue key. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct QueueKey([u8; 32]);

impl QueueKey {
    /// Takes 32 bytes for a key: random ones, or what was derived from a password.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> QueuePublicKey {
        QueuePublicKey(X25519HkdfSha256::sk_to_pk(&self.private()).to_bytes().into())
    }

    fn private(&self) -> PrivateKey {
        PrivateKey::from_bytes(&self.0).expect("any 32 bytes are an X25519 private key")
    }
}

/// What seals to one device for a while. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct EpochKey {
    #[zeroize(skip)]
    encapsulated: [u8; ENCAPSULATED],
    key: [u8; 32],
    #[zeroize(skip)]
    rows: AtomicU32,
}

impl EpochKey {
    /// How many rows it seals.
    pub const MAX_ROWS: u32 = 1 << 20;

    /// A new one, from 32 random bytes that are never used again.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`] if the public key is of low order, with which no secret can be agreed.
    pub fn new(to: &QueuePublicKey, random: &[u8; 32]) -> Result<Self, DecodeError> {
        const UNUSABLE: DecodeError = DecodeError::Malformed {
            what: "queue public key",
        };
        let recipient = PublicKey::from_bytes(&to.0).map_err(|_| UNUSABLE)?;
        let (encapsulated, context) = setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &recipient,
            INFO,
            &mut Given(random),
        )
        .map_err(|_| UNUSABLE)?;
        let mut key = [0; 32];
        context
            .export(ROW_KEY, &mut key)
            .expect("HKDF-SHA256 exports up to 8160 bytes");
        Ok(Self {
            encapsulated: encapsulated.to_bytes().into(),
            key,
            rows: AtomicU32::new(0),
        })
    }

    /// Whether it has sealed as many rows as it may.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.rows.load(Ordering::Relaxed) >= Self::MAX_ROWS
    }

    /// A row with this envelope for this mailbox, with a random nonce. `None` if the envelope does not fit into the bucket, or
    /// the key is spent.
    #[must_use]
    pub fn seal(&self, mailbox: i64, bucket: Bucket, nonce: &[u8; NONCE], envelope: &[u8]) -> Option<Vec<u8>> {
        if self.rows.fetch_add(1, Ordering::Relaxed) >= Self::MAX_ROWS {
            // Keeps the count from ever coming round.
            self.rows.store(Self::MAX_ROWS, Ordering::Relaxed);
            return None;
        }
        let length = u32::try_from(envelope.len()).ok()?;
        let padding = bucket.padded_len().checked_sub(LENGTH + envelope.len())?;
        let mut row = Vec::with_capacity(bucket.sealed_len());
        row.extend_from_slice(&self.encapsulated);
        row.extend_from_slice(nonce);
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(envelope);
        row.resize(row.len() + padding, 0);
        let tag = cipher(&self.key)
            .encrypt_inout_detached(
                &Nonce::from(*nonce),
                &bound_to(mailbox, bucket),
                (&mut row[ENCAPSULATED + NONCE..]).into(),
            )
            .expect("AES-GCM only refuses messages of 64 GiB and more");
        row.extend_from_slice(&tag);
        Some(row)
    }
}

/// What opens the rows of one device: its queue key, and the epoch keys that it found lately.
pub struct Opener {
    key: PrivateKey,
    public: QueuePublicKey,
    /// The latest last.
    epochs: Vec<EpochKey>,
}

impl Opener {
    /// Opens with this key.
    #[must_use]
    pub fn new(key: &QueueKey) -> Self {
        Self {
            key: key.private(),
            public: key.public_key(),
            epochs: Vec::new(),
        }
    }

    /// Its key, for what carries it on behalf of the device.
    #[must_use]
    pub fn key(&self) -> QueueKey {
        QueueKey(self.key.to_bytes().into())
    }

    /// The public half of its key.
    #[must_use]
    pub const fn public_key(&self) -> &QueuePublicKey {
        &self.public
    }

    /// The envelope in a row, or `None` if it was not sealed to this key, for this mailbox and in this bucket. Opened in
    /// place where the row is nobody else's.
    pub fn open(&mut self, mailbox: i64, bucket: Bucket, row: Bytes) -> Option<Bytes> {
        if row.len() != bucket.sealed_len() {
            return None;
        }
        let mut row = BytesMut::from(row);
        let (encapsulated, rest) = row.split_first_chunk_mut::<ENCAPSULATED>()?;
        let (nonce, rest) = rest.split_first_chunk_mut::<NONCE>()?;
        let (padded, tag) = rest.split_last_chunk_mut::<TAG>()?;
        cipher(self.epoch(encapsulated)?)
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                &bound_to(mailbox, bucket),
                (&mut *padded).into(),
                &(*tag).into(),
            )
            .ok()?;
        let length = usize::try_from(u32::from_be_bytes(*padded.first_chunk::<LENGTH>()?)).ok()?;
        let begin = ENCAPSULATED + NONCE + LENGTH;
        let end = begin.checked_add(length).filter(|end| *end <= row.len() - TAG)?;
        row.truncate(end);
        row.advance(begin);
        Some(row.freeze())
    }

    /// The epoch key behind an encapsulation: one of the latest, or agreed anew.
    fn epoch(&mut self, encapsulated: &[u8; ENCAPSULATED]) -> Option<&[u8; 32]> {
        if let Some(known) = self.epochs.iter().position(|epoch| epoch.encapsulated == *encapsulated) {
            return self.epochs.get(known).map(|epoch| &epoch.key);
        }
        let received = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        let context =
            setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(&OpModeR::Base, &self.key, &received, INFO)
                .ok()?;
        let mut epoch = EpochKey {
            encapsulated: *encapsulated,
            key: [0; 32],
            rows: AtomicU32::new(EpochKey::MAX_ROWS),
        };
        context.export(ROW_KEY, &mut epoch.key).ok()?;
        if self.epochs.len() >= EPOCHS {
            self.epochs.remove(0);
        }
        self.epochs.push(epoch);
        self.epochs.last().map(|epoch| &epoch.key)
    }
}

opaque_debug!(QueuePublicKey, QueueKey, EpochKey, Opener);

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(&(*key).into())
}

fn bound_to(mailbox: i64, bucket: Bucket) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&mailbox.to_be_bytes());
    bytes[8..].copy_from_slice(&bucket.0.to_be_bytes());
    bytes
}

const ENCAPSULATED: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
const LENGTH: usize = 4;
/// A page of a queue was mostly sealed by few nodes within few epochs.
const EPOCHS: usize = 16;
const INFO: &[u8] = b"blind-relay sealed queue v1";
const ROW_KEY: &[u8] = b"row key";
