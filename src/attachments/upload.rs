//! Uploads: opened, written in parts, complete with their last byte.
//!
//! Bytes gather in memory up to a segment; the segment becomes an object, and then a row. A part that is interrupted
//! leaves what came as a shorter segment. A segment that may be the last one is held back until the part has ended, so that
//! a part with more bytes than were said completes nothing.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::capability::Capability;
use super::checksum::Checksum;
use super::places::Full;
use super::{Attachments, Refused, SEGMENT_BYTES};
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
    /// Another account's upload has its place.
    Displaced,
}

/// A part of an upload as it comes.
pub struct Incoming {
    /// Where it begins.
    pub at: u64,
    /// How many bytes the upload will have, if the request says so.
    pub length: Option<u64>,
    /// How many bytes this part will have, if the request says so.
    pub announced: Option<u64>,
    /// What the bytes of this part have: without it nothing of the part is kept.
    pub checksum: Option<Checksum>,
    /// The bytes. Whoever has read their end may ask again.
    pub body: BoxStream<'static, Result<Bytes, BodyEnd>>,
}

impl Incoming {
    /// Refuses a first part that cannot be one of an upload of its length, before that is opened: one of no bytes would be
    /// complete at once.
    pub async fn may_open(&mut self) -> Result<(), Refused> {
        match (self.length, self.announced) {
            (Some(length), Some(announced)) if announced > length => Err(Refused::Longer),
            (Some(0), _) => self.ended().await,
            _ => Ok(()),
        }
    }

    /// Reads the end of a body that brings nothing.
    async fn ended(&mut self) -> Result<(), Refused> {
        while let Some(bytes) = self.body.next().await {
            if !bytes.map_err(Refused::Body)?.is_empty() {
                return Err(Refused::Longer);
            }
        }
        Ok(())
    }
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
    /// Opens the upload of a form. One that is open already, or complete, is answered as it stands; a length that was to
    /// come later may come thus.
    pub async fn open(&self, capability: &Capability, length: Option<u64>) -> Result<Progress, Refused> {
        if length.is_some_and(|length| length > capability.max_bytes) {
            return Err(Refused::TooLarge);
        }
        let upload = NewUpload {
            name: capability.key.name(),
            length,
            paid: capability.paid,
            budget: self.budget(capability),
            times: self.times(capability),
        };
        match self.store.open(&upload).await? {
            Opened::At(found) if found.length.is_none() && length.is_some() => {
                self.turn(capability, found.stored, length).await?;
                self.progress(capability).await
            }
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
        // Before another one has to leave for it.
        self.fits(capability, &mut part).await?;
        let place = self.places.take(capability.bucket).await;
        let place = place.map_err(|full| match full {
            Full::Own => Refused::OwnPlacesTaken,
            Full::All => Refused::PlacesTaken,
        })?;
        part.body = until_lost(part.body, place.lost.clone());
        let TurnTaken::Writing { turn, length } = self.turn(capability, part.at, part.length).await? else {
            part.ended().await?;
            return self.progress(capability).await;
        };
        let room = length.unwrap_or(capability.max_bytes).saturating_sub(part.at);
        let too_long = || {
            if length.is_some() || part.announced.is_some() {
                Refused::Longer
            } else {
                Refused::TooLarge
            }
        };
        if part.announced.is_some_and(|bytes| bytes > room) {
            return Err(too_long());
        }
        let room = part.announced.unwrap_or(room);
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
        let (mut came, mut sum) = (0_u64, part.checksum.map(Checksum::begin));
        loop {
            match part.body.next().await {
                Some(Ok(bytes)) => {
                    came = came.saturating_add(bytes.len() as u64);
                    if came > room {
                        writing.give_up().await;
                        return Err(too_long());
                    }
                    metrics::attachment_bytes("in", bytes.len());
                    if let Some(sum) = &mut sum {
                        sum.take(&bytes);
                    }
                    writing.gather(&bytes).await?;
                }
                Some(Err(end)) => return Err(writing.interrupted(end).await?),
                None if part.announced.is_some_and(|announced| came < announced) => {
                    return Err(writing.interrupted(BodyEnd::Cut).await?);
                }
                None => break,
            }
        }
        if sum.is_some_and(|sum| !sum.fits()) {
            writing.give_up().await;
            return Err(Refused::Checksum);
        }
        writing.finish().await
    }

    /// Refuses a part before it takes the upload over, if it is clear already that it does not fit. One by which the
    /// upload would be complete at once has to end first.
    async fn fits(&self, capability: &Capability, part: &mut Incoming) -> Result<(), Refused> {
        let found = self.progress(capability).await?.upload;
        let length = found.length.or(part.length);
        if part.length.is_some() && part.length != length || length.is_some_and(|length| length < found.stored) {
            return Err(Refused::OtherLength);
        }
        if part.at != found.stored {
            return Err(Refused::Elsewhere { stored: found.stored });
        }
        let Some(length) = length else {
            // The bytes would be written before anything is taken from the budget for them.
            return part.checksum.map_or(Ok(()), |_| Err(Refused::ChecksumWithoutLength));
        };
        if part
            .announced
            .is_some_and(|bytes| part.at.saturating_add(bytes) > length)
        {
            return Err(Refused::Longer);
        }
        if part.at == length {
            part.ended().await?;
        }
        Ok(())
    }

    /// Takes the upload over; it writes, or is complete.
    async fn turn(&self, capability: &Capability, at: u64, length: Option<u64>) -> Result<TurnTaken, Refused> {
        let turn = Turn {
            at,
            length,
            budget: self.budget(capability),
            times: self.times(capability),
        };
        match self.store.take_turn(&capability.key.name(), &turn).await? {
            taken @ (TurnTaken::Writing { .. } | TurnTaken::Complete) => Ok(taken),
            TurnTaken::Elsewhere(Upload { stored, .. }) => Err(Refused::Elsewhere { stored }),
            TurnTaken::OtherLength => Err(Refused::OtherLength),
            TurnTaken::Gone => Err(Refused::Gone),
            TurnTaken::OverBudget => Err(self.over_budget()),
        }
    }
}

/// A body until the upload has to leave its place.
fn until_lost(
    body: BoxStream<'static, Result<Bytes, BodyEnd>>,
    lost: CancellationToken,
) -> BoxStream<'static, Result<Bytes, BodyEnd>> {
    stream::unfold(Some((body, lost)), async |state| {
        let (mut body, lost) = state?;
        match lost.run_until_cancelled(body.next()).await {
            Some(next) => Some((next?, Some((body, lost)))),
            None => Some((Err(BodyEnd::Displaced), None)),
        }
    })
    .fuse()
    .boxed()
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
        if self.last.elapsed() > self.attachments.limits.incomplete / 2 {
            if self.staged.is_none() {
                self.store_gathered().await?;
            } else if let Err(refused) = self.append(&[]).await {
                self.give_up().await;
                return Err(refused);
            }
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

    /// Keeps what came, unless it has a checksum.
    async fn interrupted(&mut self, end: BodyEnd) -> Result<Refused, Refused> {
        if self.staged.is_some() {
            self.give_up().await;
        } else {
            self.store_gathered().await?;
        }
        Ok(Refused::Body(end))
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
