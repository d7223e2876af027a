//! Uploads: opened, written in parts, complete with their last byte.
//!
//! Bytes gather in memory up to a segment; the segment becomes an object, and then a row. A part that is interrupted
//! leaves what came as a shorter segment. A segment that may be the last one is held back until the part has ended, so that
//! a part with more bytes than were said completes nothing.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::capability::Capability;
use super::places::Full;
use super::{Attachments, LEAST_COST, Refused, SEGMENT_BYTES};
use crate::domain::{Appended, NewUpload, Opened, Segment, Turn, TurnTaken, Upload};
use crate::sealing::random;
use crate::telemetry::metrics;

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The client went away.
    Cut,
    /// Nothing came for too long, or too little.
    Stalled,
    /// The server stops.
    Stopping,
}

/// A part of an upload as it comes.
pub struct Incoming {
    /// Where it begins.
    pub at: u64,
    /// How many bytes the upload will have, if the request says so.
    pub length: Option<u64>,
    /// How many bytes this part will have, if the request says so.
    pub announced: Option<u64>,
    /// SHA-256 of this part: without it nothing of the part is kept.
    pub checksum: Option<[u8; 32]>,
    /// The bytes.
    pub body: BoxStream<'static, Result<Bytes, BodyEnd>>,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The upload.
    pub upload: Upload,
    /// Whether all of it is there.
    pub complete: bool,
}

impl From<Upload> for Progress {
    fn from(upload: Upload) -> Self {
        Self {
            complete: upload.drop_at.is_none(),
            upload,
        }
    }
}

impl Attachments {
    /// Opens the upload of a form. One that is open already, or complete, is answered as it stands.
    pub async fn open(&self, capability: &Capability, length: Option<u64>) -> Result<Progress, Refused> {
        if length.is_some_and(|length| length > capability.max_bytes) {
            return Err(Refused::TooLarge);
        }
        let upload = NewUpload {
            name: capability.key.name(),
            length,
            paid: capability.paid,
            least: LEAST_COST,
            budget: self.budget(capability),
            times: self.times(capability),
        };
        match self.store.open(&upload).await? {
            Opened::At(found) if length.is_some() && found.length != length => Err(Refused::OtherLength),
            Opened::At(found) => Ok(found.into()),
            Opened::Gone => Err(Refused::Gone),
            Opened::OverBudget => Err(self.over_budget()),
        }
    }

    /// How far the upload of a form is.
    pub async fn progress(&self, capability: &Capability) -> Result<Progress, Refused> {
        let found = self.store.find_upload(&capability.key.name(), self.clock.now()).await?;
        found.map(Progress::from).ok_or(Refused::Gone)
    }

    /// Gives the upload up, or removes what it became.
    pub async fn remove(&self, capability: &Capability) -> Result<(), Refused> {
        let name = capability.key.name();
        if !self.store.remove(&name, self.clock.now()).await? {
            return Err(Refused::Gone);
        }
        // If this fails, the next sweep does it.
        if self.blobs.clear(&name).await.is_ok() {
            self.store.cleared(&[name]).await?;
        }
        Ok(())
    }

    /// Writes a part. What came before an interruption is kept, unless the part has a checksum.
    pub async fn write(&self, capability: &Capability, part: Incoming) -> Result<Progress, Refused> {
        let written = self.try_write(capability, part).await;
        metrics::attachment_part(match &written {
            Ok(progress) if progress.complete => "complete",
            Ok(_) => "stored",
            Err(Refused::Body(_)) => "interrupted",
            Err(Refused::Storage(_) | Refused::Blobs(_)) => "unavailable",
            Err(_) => "refused",
        });
        written
    }

    async fn try_write(&self, capability: &Capability, mut part: Incoming) -> Result<Progress, Refused> {
        let largest = part
            .length
            .into_iter()
            .chain(part.announced.map(|bytes| part.at.saturating_add(bytes)));
        if largest.max().is_some_and(|largest| largest > capability.max_bytes) {
            return Err(Refused::TooLarge);
        }
        let _place = self.places.take(capability.bucket).map_err(|full| match full {
            Full::Own => Refused::OwnPlacesTaken,
            Full::All => Refused::PlacesTaken,
        })?;
        let turn = Turn {
            at: part.at,
            length: part.length,
            budget: self.budget(capability),
            times: self.times(capability),
        };
        let (turn, length) = match self.store.take_turn(&capability.key.name(), &turn).await? {
            TurnTaken::Writing { turn, length } => (turn, length),
            TurnTaken::Complete => {
                while let Some(bytes) = part.body.next().await {
                    if !bytes.map_err(Refused::Body)?.is_empty() {
                        return Err(Refused::Longer);
                    }
                }
                return self.progress(capability).await;
            }
            TurnTaken::Elsewhere(Upload { stored, .. }) => return Err(Refused::Elsewhere { stored }),
            TurnTaken::OtherLength => return Err(Refused::OtherLength),
            TurnTaken::Gone => return Err(Refused::Gone),
            TurnTaken::OverBudget => return Err(self.over_budget()),
        };
        let room = length.unwrap_or(capability.max_bytes).saturating_sub(part.at);
        let too_long = if length.is_some() {
            Refused::Longer
        } else {
            Refused::TooLarge
        };
        if part.announced.is_some_and(|bytes| bytes > room) {
            return Err(too_long);
        }
        let mut writing = Writing {
            attachments: self,
            capability,
            turn,
            at: part.at,
            gathered: Vec::new(),
            staged: part.checksum.map(|_| Vec::new()),
            standing: None,
            last: Instant::now(),
        };
        let (mut came, mut digest) = (0_u64, Sha256::new());
        loop {
            match part.body.next().await {
                Some(Ok(bytes)) => {
                    came = came.saturating_add(bytes.len() as u64);
                    if came > room {
                        writing.give_up().await;
                        return Err(too_long);
                    }
                    metrics::attachment_bytes("in", bytes.len());
                    if part.checksum.is_some() {
                        digest.update(&bytes);
                    }
                    writing.gather(&bytes).await?;
                }
                Some(Err(end)) => {
                    if part.checksum.is_some() {
                        writing.give_up().await;
                    } else {
                        writing.store_gathered().await?;
                    }
                    return Err(Refused::Body(end));
                }
                None => break,
            }
        }
        if part
            .checksum
            .is_some_and(|sum| sum != <[u8; 32]>::from(digest.finalize()))
        {
            writing.give_up().await;
            return Err(Refused::Checksum);
        }
        writing.finish().await
    }
}

/// One request that writes.
struct Writing<'a> {
    attachments: &'a Attachments,
    capability: &'a Capability,
    turn: i64,
    /// Where the gathered bytes begin.
    at: u64,
    gathered: Vec<u8>,
    /// Segments that wait for the checksum of the part, if it has one.
    staged: Option<Vec<Segment>>,
    /// How the upload stood after the last segment.
    standing: Option<Upload>,
    /// When that was, or when the request began.
    last: Instant,
}

impl Writing<'_> {
    async fn gather(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        // A slow client must not be taken for one that is gone.
        if self.staged.is_none() && self.last.elapsed() > self.attachments.limits.incomplete / 2 {
            self.store_gathered().await?;
        }
        while !bytes.is_empty() {
            // A full segment is stored when more comes: until then it may be the last one.
            if self.gathered.len() == SEGMENT_BYTES {
                self.store_gathered().await?;
            }
            let room = SEGMENT_BYTES - self.gathered.len();
            let (fitting, rest) = bytes.split_at(room.min(bytes.len()));
            self.gathered.extend_from_slice(fitting);
            bytes = rest;
        }
        Ok(())
    }

    async fn store_gathered(&mut self) -> Result<(), Refused> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
        let segment = Segment {
            start: self.at,
            length: bytes.len() as u64,
            tag: i64::from_be_bytes(random()),
        };
        let name = self.capability.key.name();
        if let Err(error) = self.attachments.blobs.put(&name, &segment, bytes).await {
            // It may be there all the same.
            self.attachments.blobs.discard(&name, &[segment]).await;
            self.give_up().await;
            return Err(error.into());
        }
        self.at += segment.length;
        match &mut self.staged {
            Some(staged) => staged.push(segment),
            None => self.append(&[segment]).await?,
        }
        Ok(())
    }

    async fn append(&mut self, segments: &[Segment]) -> Result<(), Refused> {
        let (attachments, capability) = (self.attachments, self.capability);
        let name = capability.key.name();
        let (budget, times) = (attachments.budget(capability), attachments.times(capability));
        let appended = attachments
            .store
            .append(&name, self.turn, segments, &budget, &times)
            .await;
        let refused = match appended {
            Ok(Appended::At(upload)) => {
                self.standing = Some(upload);
                self.last = Instant::now();
                return Ok(());
            }
            Ok(Appended::Overtaken) => Refused::Overtaken,
            Ok(Appended::TooMany) => Refused::TooManyParts,
            Ok(Appended::OverBudget) => attachments.over_budget(),
            // Whether the rows are there is not known, so the objects stay: what is no part of anything is swept.
            Err(error) => return Err(error.into()),
        };
        attachments.blobs.discard(&name, segments).await;
        Err(refused)
    }

    async fn finish(mut self) -> Result<Progress, Refused> {
        self.store_gathered().await?;
        if let Some(staged) = self.staged.take().filter(|staged| !staged.is_empty()) {
            self.append(&staged).await?;
        }
        match self.standing {
            Some(upload) => Ok(upload.into()),
            None => self.attachments.progress(self.capability).await,
        }
    }

    /// Deletes what is no part of the upload yet.
    async fn give_up(&mut self) {
        if let Some(staged) = self.staged.take() {
            let name = self.capability.key.name();
            self.attachments.blobs.discard(&name, &staged).await;
        }
    }
}
