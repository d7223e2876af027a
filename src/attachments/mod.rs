//! Attachments: upload forms, uploads that can be resumed on any node, downloads.
//!
//! A client asks for a form and is given a random key and a capability to upload under it. Whoever has the key can
//! download; nobody can list, and no row or object says whose an attachment is. Bytes go into immutable objects, one per
//! segment ([`Blobs`]); what is part of an upload, and how far it is, the rows of the database say
//! ([`AttachmentStore`](crate::storage::AttachmentStore)). An object is written before its row, so a row never promises
//! what is not there; objects without a row are swept.

mod blobs;
mod capability;
mod checksum;
mod download;
mod key;
mod places;
mod sweep;
mod upload;

pub mod range;
pub mod tus;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::domain::{Aci, AttachmentName, Budget, Clock, QuotaBucket, REMOVED_DAYS, Timestamp, UploadTimes};
use crate::encoding::hex;
use crate::sealing::derive_bytes;
use crate::storage::{AttachmentStore, StorageError};

pub use blobs::{BlobError, Blobs, S3};
pub use capability::{Capability, CapabilityKey, Class};
pub use checksum::Checksum;
pub use download::{Chunks, Download};
pub use key::{AttachmentKey, KeyRefused, entity_tag};
pub use sweep::Swept;
pub use upload::{BodyEnd, Incoming, Progress};

use places::Places;

/// Bounds of attachments.
#[derive(Clone, Copy, Debug)]
pub struct AttachmentLimits {
    /// The largest attachment.
    pub max_bytes: u64,
    /// What one account may upload in a day.
    pub daily_bytes: u64,
    /// For how many days an attachment is kept.
    pub retention_days: u16,
    /// How long an upload waits for its next byte before it is dropped.
    pub incomplete: Duration,
    /// Uploads that write at the same time. Each holds a segment in memory.
    pub max_uploads: usize,
    /// Downloads at the same time. Each may hold an object open.
    pub max_downloads: usize,
}

/// What a client needs in order to upload.
pub struct Form {
    /// Under which the attachment will be found.
    pub key: AttachmentKey,
    /// What proves that it may be uploaded, as text.
    pub capability: String,
}

/// Why an upload form, an upload or a part of one was refused.
#[derive(Debug)]
pub enum Refused {
    /// Larger than attachments may be.
    TooLarge,
    /// The account has uploaded too much today; the seconds until tomorrow.
    OverBudget(u64),
    /// There is no such upload, or not any more.
    Gone,
    /// The upload stands elsewhere than the request wants to go on.
    Elsewhere {
        /// Where it stands.
        stored: u64,
    },
    /// Another request writes now.
    Overtaken,
    /// The length of the upload is another one.
    OtherLength,
    /// More bytes came than were said.
    Longer,
    /// Too many small parts.
    TooManyParts,
    /// A checksum of a part of an upload whose length is not known.
    ChecksumWithoutLength,
    /// The bytes are not those that the checksum was made of. None of them was kept.
    Checksum,
    /// The account writes to too many uploads at once.
    OwnPlacesTaken,
    /// All accounts together do.
    PlacesTaken,
    /// There are as many downloads as there may be.
    DownloadsTaken,
    /// The body ended before its end.
    Body(BodyEnd),
    /// The database did not do its work.
    Storage(StorageError),
    /// The attachment store did not do its work.
    Blobs(BlobError),
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<BlobError> for Refused {
    fn from(error: BlobError) -> Self {
        Self::Blobs(error)
    }
}

/// Attachments of a node.
pub struct Attachments {
    store: Arc<dyn AttachmentStore>,
    blobs: Blobs,
    capabilities: CapabilityKey,
    clock: Arc<dyn Clock>,
    limits: AttachmentLimits,
    places: Places,
    downloads: Arc<Semaphore>,
    /// The minute in which it was last told that objects are missing.
    missing_told: AtomicI64,
}

impl Attachments {
    /// Attachments over a database and an attachment store.
    pub fn new(
        store: Arc<dyn AttachmentStore>,
        blobs: Blobs,
        capabilities: CapabilityKey,
        clock: Arc<dyn Clock>,
        limits: AttachmentLimits,
    ) -> Self {
        Self {
            store,
            blobs,
            capabilities,
            clock,
            limits,
            places: Places::new(limits.max_uploads),
            downloads: Arc::new(Semaphore::new(limits.max_downloads)),
            missing_told: AtomicI64::new(i64::MIN),
        }
    }

    /// Its bounds.
    pub fn limits(&self) -> &AttachmentLimits {
        &self.limits
    }

    /// What the names of this server's objects begin with: another server's, in the same bucket, begin otherwise, and so
    /// do those of another database under the same pepper.
    pub fn realm(secret: &[u8; 32], database: [u8; 16]) -> String {
        let realm = derive_bytes(secret, &database, "blind-relay attachment realm v1");
        hex(&realm[..8])
    }

    /// Makes an upload form for an account. A length that is given is taken from the account's budget of the day now;
    /// otherwise bytes are taken when they come. The least that an avatar costs is taken now as well: each form of one
    /// leaves a name that is used up when the next is made.
    pub async fn form(&self, owner: Aci, class: Class, length: Option<u64>) -> Result<Form, Refused> {
        let most = match class {
            Class::Attachment => self.limits.max_bytes,
            Class::Avatar => self.limits.max_bytes.min(AVATAR_BYTES),
        };
        if length.is_some_and(|length| length > most) {
            return Err(Refused::TooLarge);
        }
        let now = self.clock.now();
        let key = AttachmentKey::random();
        let paid = match class {
            Class::Attachment => length.map_or(0, |length| length.max(LEAST_COST)),
            Class::Avatar => length.unwrap_or(0).max(LEAST_COST),
        };
        let capability = Capability {
            key: key.clone(),
            class,
            max_bytes: length.unwrap_or(most),
            paid,
            bucket: self.capabilities.bucket(owner, now.day()),
            day: now.day(),
            expires: now.plus_millis(FORM_LIFE_MILLIS),
        };
        if capability.paid > 0 && !self.store.reserve(&self.budget(&capability), capability.paid).await? {
            return Err(self.over_budget());
        }
        Ok(Form {
            capability: self.capabilities.sign(&capability),
            key,
        })
    }

    /// Removes what was uploaded under these paths of avatars, and lets nothing be uploaded under them any more. Their
    /// objects go with the next sweep.
    pub async fn retire(&self, keys: impl IntoIterator<Item = &str>) -> Result<(), StorageError> {
        let names = keys.into_iter().filter_map(|key| AttachmentKey::name_in_path(key).ok());
        let names: Vec<AttachmentName> = names.collect();
        if names.is_empty() {
            return Ok(());
        }
        self.store.retire(&names, self.clock.now()).await
    }

    /// Removes what says how much an account that is gone has uploaded. An upload under a form that it was given before may
    /// yet be counted there.
    pub async fn drop_budgets(&self, owner: Aci) -> Result<(), StorageError> {
        self.store.drop_budgets(&self.budgets_of(owner)).await
    }

    /// Where the bytes of an account are counted that are not forgotten yet.
    pub fn budgets_of(&self, owner: Aci) -> Vec<QuotaBucket> {
        // Of nodes whose clocks differ one may be a day ahead.
        let today = self.clock.now().day();
        (-REMOVED_DAYS - 1..=1)
            .map(|days| self.capabilities.bucket(owner, today.plus(days)))
            .collect()
    }

    /// Uploads of an account that write on this node now.
    pub fn writing(&self, owner: Aci) -> usize {
        let buckets = self.budgets_of(owner);
        buckets.into_iter().map(|bucket| self.places.taken_by(bucket)).sum()
    }

    /// What a capability allows, if this database made it and its time is not over.
    pub fn capability(&self, text: &str) -> Option<Capability> {
        let capability = self.capabilities.verify(text)?;
        (capability.expires > self.clock.now()).then_some(capability)
    }

    fn budget(&self, capability: &Capability) -> Budget {
        Budget {
            bucket: capability.bucket,
            day: capability.day,
            limit: self.limits.daily_bytes,
            least: LEAST_COST,
        }
    }

    fn times(&self, capability: &Capability) -> UploadTimes {
        let now = self.clock.now();
        let days = match capability.class {
            Class::Attachment => i32::from(self.limits.retention_days),
            Class::Avatar => AVATAR_DAYS,
        };
        let incomplete = i64::try_from(self.limits.incomplete.as_millis()).unwrap_or(i64::MAX);
        UploadTimes {
            now,
            drop_at: now.plus_millis(incomplete),
            expires: now.day().plus(days),
        }
    }

    /// Whether it is to be told that objects are missing: not more than once a minute, since whoever has a key can ask
    /// as often as they like.
    fn tells_of_missing(&self) -> bool {
        let minute = self.clock.now().0.div_euclid(60_000);
        self.missing_told.swap(minute, Ordering::Relaxed) != minute
    }

    fn over_budget(&self) -> Refused {
        Refused::OverBudget(seconds_until_tomorrow(self.clock.now()))
    }
}

fn seconds_until_tomorrow(now: Timestamp) -> u64 {
    let left = MILLIS_PER_DAY - now.0.rem_euclid(MILLIS_PER_DAY);
    u64::try_from(left).unwrap_or(0).div_ceil(1000)
}

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;
/// How long a form may be used: an upload can be slow, and be interrupted for a while.
const FORM_LIFE_MILLIS: i64 = MILLIS_PER_DAY;
/// What the smallest upload costs, and each segment at least, so that a budget bounds their numbers as well.
const LEAST_COST: u64 = 64 * 1024;
/// The largest avatar. What is kept for so long is not to be a way around the retention of attachments.
const AVATAR_BYTES: u64 = 10 * 1024 * 1024;
/// Avatars are looked at for as long as a profile stays as it is: one that stays for longer than this loses its picture.
const AVATAR_DAYS: i32 = 400;
/// The most bytes of an object, and of an upload that wait in memory.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
