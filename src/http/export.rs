//! `GET /v1/accounts/export`: everything that the server holds of the caller's account. An extension of ours.
//!
//! What is told is read from storage in small parts, each when the one before has been taken, so that an account with much
//! in it costs a node no more than one with little. It is no picture of one moment. An export that cannot be finished, as
//! when the caller is replaced in the middle of it, breaks off: its body ends in an error and is no JSON.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::attachments::AttachmentKey;
use crate::auth::{Authenticated, Number};
use crate::domain::{Account, Aci, AttachmentName, Avatar, DeviceId, ProtocolAddress};
use crate::storage::StorageError;
use crate::storage::export::{self, Cell, Part, Table};

use super::accounts::own_number;
use super::devices::own_account;
use super::error::ApiError;
use super::extract::PrimaryCaller;
use super::profiles;
use super::state::AppState;
use super::wire::export::{DeviceMemoryOut, MemoryOut, NOT_FINDABLE, RowOut, abridged};

/// The exports of this node, one of an account at a time.
#[derive(Clone, Default)]
pub struct Exports(Arc<Mutex<HashSet<Aci>>>);

/// An export that is under way, until dropped.
struct UnderWay {
    exports: Exports,
    account: Aci,
}

impl Exports {
    /// `None` if one of the account is under way, or too many others are.
    fn begin(&self, account: Aci) -> Option<UnderWay> {
        let mut going_on = self.lock();
        if going_on.len() >= MAX_EXPORTS || !going_on.insert(account) {
            return None;
        }
        Some(UnderWay {
            exports: self.clone(),
            account,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Aci>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.exports.lock().remove(&self.account);
    }
}

/// `GET /v1/accounts/export`
pub(super) async fn export(
    State(node): State<AppState>,
    PrimaryCaller(caller): PrimaryCaller,
) -> Result<Response, ApiError> {
    let account = own_account(&node, &caller).await?;
    let number = own_number(&account, &caller)?;
    let under_way = node.exports.begin(account.aci).ok_or(TOO_MANY)?;
    let (pieces, receiver) = mpsc::channel(1);
    let export = Export {
        node: Arc::clone(&node),
        caller,
        account,
        pieces,
        waiting: Vec::new(),
        first_table: true,
        first_row: true,
    };
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        let _under_way = under_way;
        let whole = tokio::time::timeout(WHOLE, export.tell(number));
        if let Some(Ok(Err(BrokenOff::Storage(error)))) = stop.run_until_cancelled(whole).await {
            tracing::error!(cause = error.log_safe_cause(), "an export could not be finished");
        }
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body(receiver)).into_response())
}

/// A piece of the answer, or its end.
enum Piece {
    Bytes(Bytes),
    End,
}

/// A body that ends well only with its end.
fn body(receiver: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(Unfinished), None)),
        }
    }))
}

#[derive(Debug, thiserror::Error)]
#[error("an export broke off")]
struct Unfinished;

/// Why an export is not finished.
enum BrokenOff {
    /// Nobody takes what is told, or not quickly enough.
    Untaken,
    /// The device that asks is gone.
    Gone,
    Storage(StorageError),
}

impl From<StorageError> for BrokenOff {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

struct Export {
    node: AppState,
    caller: Authenticated,
    account: Arc<Account>,
    pieces: mpsc::Sender<Piece>,
    /// What is not sent yet, less than a piece.
    waiting: Vec<u8>,
    /// No table was begun yet.
    first_table: bool,
    /// The table that was begun last has no row yet.
    first_row: bool,
}

impl Export {
    async fn tell(mut self, number: Number) -> Result<(), BrokenOff> {
        let aci = self.account.aci;
        let mut head = format!("{{\"account\":\"{aci}\",\"number\":\"");
        // A number is a plus and digits.
        let _ = write!(head, "{}\",\"tables\":{{", number.as_str());
        self.put(head.as_bytes()).await?;
        self.account_and_devices().await?;
        self.queues().await?;
        self.names_and_data().await?;
        self.uploads().await?;
        self.put(b"},\"abridged\":").await?;
        self.put_json(&abridged()).await?;
        self.put(b",\"memory\":").await?;
        self.put_json(&self.memory()).await?;
        self.put(b",\"notFindable\":").await?;
        self.put_json(&NOT_FINDABLE).await?;
        self.put(b"}").await?;
        self.end().await
    }

    async fn account_and_devices(&mut self) -> Result<(), BrokenOff> {
        self.table(Part::Account).await?;
        self.table(Part::Devices).await?;
        self.table(Part::LinkOffers).await?;
        self.table(Part::TokenSessions).await?;
        self.per_device(&export::SIGNED_KEYS, Part::SignedKeys).await?;
        self.per_device(&export::ONE_TIME_EC_KEYS, Part::OneTimeEcKeys).await?;
        self.per_device(&export::ONE_TIME_KYBER_KEYS, Part::OneTimeKyberKeys)
            .await?;
        self.numbered(&export::SPENT_KEYS, -1, Part::SpentKeys).await
    }

    async fn queues(&mut self) -> Result<(), BrokenOff> {
        self.table(Part::Mailboxes).await?;
        self.numbered(&export::ENVELOPES, 0, Part::Envelopes).await
    }

    async fn names_and_data(&mut self) -> Result<(), BrokenOff> {
        self.table(Part::Usernames).await?;
        self.table(Part::UsernameLinks).await?;
        self.table(Part::DataCounters).await?;
        self.pages(&export::DATA, |after| Part::Data(after)).await?;
        self.pages(&export::SESSIONS, |after| Part::Sessions(after)).await
    }

    /// Of attachments those that a profile names, and what is counted of all.
    async fn uploads(&mut self) -> Result<(), BrokenOff> {
        let profiles = self.rows(Part::Profiles).await?;
        self.open(&export::PROFILES).await?;
        self.put_rows(&export::PROFILES, &profiles).await?;
        let names = pictures(&profiles);
        self.open(&export::ATTACHMENTS).await?;
        for name in &names {
            self.all(Part::Attachment(name)).await?;
        }
        self.open(&export::SEGMENTS).await?;
        for name in &names {
            self.all(Part::Segments(name)).await?;
        }
        self.open(&export::BUDGETS).await?;
        for bucket in &self.node.attachments.budgets_of(self.account.aci) {
            self.all(Part::Budget(bucket)).await?;
        }
        self.put(b"]").await
    }

    fn memory(&self) -> MemoryOut {
        let aci = self.account.aci;
        let devices = self.account.devices.iter().map(|device| DeviceMemoryOut {
            device_id: device.id.get(),
            connected: self.node.relay.presence.is_here(device.mailbox),
            waits: self.node.waits.waits(&ProtocolAddress {
                aci,
                device_id: device.id,
            }),
        });
        MemoryOut {
            account_remembered: self.node.relay.accounts.remembers(aci),
            uploads: self.node.attachments.writing(aci),
            devices: devices.collect(),
        }
    }

    /// A table that is one part.
    async fn table(&mut self, part: Part<'_>) -> Result<(), BrokenOff> {
        self.open(part.table()).await?;
        self.all(part).await?;
        Ok(())
    }

    /// A table with a part for each device.
    async fn per_device(
        &mut self,
        table: &'static Table,
        part: impl Fn(DeviceId) -> Part<'static>,
    ) -> Result<(), BrokenOff> {
        self.open(table).await?;
        for device in &Arc::clone(&self.account).devices {
            self.all(part(device.id)).await?;
        }
        Ok(())
    }

    /// A table with pages by number for each device, of which the first is behind that one.
    async fn numbered(
        &mut self,
        table: &'static Table,
        first: i64,
        part: impl Fn(DeviceId, i64) -> Part<'static>,
    ) -> Result<(), BrokenOff> {
        self.open(table).await?;
        for device in &Arc::clone(&self.account).devices {
            let mut after = Some(first);
            while let Some(from) = after {
                after = match self.all(part(device.id, from)).await? {
                    Some(Cell::Number(place)) => Some(place),
                    _ => None,
                };
            }
        }
        Ok(())
    }

    /// A table that comes in pages by key.
    async fn pages(
        &mut self,
        table: &'static Table,
        part: impl for<'a> Fn(&'a [u8]) -> Part<'a>,
    ) -> Result<(), BrokenOff> {
        self.open(table).await?;
        let mut after = Some(Vec::new());
        while let Some(from) = after {
            after = match self.all(part(&from)).await? {
                Some(Cell::Bytes(key)) => Some(key),
                _ => None,
            };
        }
        Ok(())
    }

    /// Tells the rows of a part, and returns behind what the next page begins.
    async fn all(&mut self, part: Part<'_>) -> Result<Option<Cell>, BrokenOff> {
        let rows = self.rows(part).await?;
        self.put_rows(part.table(), &rows).await?;
        Ok(part.goes_on(&rows))
    }

    async fn rows(&self, part: Part<'_>) -> Result<Vec<Vec<Cell>>, BrokenOff> {
        Ok(self.node.storage.export.rows(&self.caller.actor(), &part).await?)
    }

    /// Ends the table before, if there is one, and begins another.
    async fn open(&mut self, table: &Table) -> Result<(), BrokenOff> {
        let before = if self.first_table { "" } else { "]," };
        (self.first_table, self.first_row) = (false, true);
        self.put(format!("{before}\"{}\":[", table.name).as_bytes()).await
    }

    async fn put_rows(&mut self, table: &'static Table, rows: &[Vec<Cell>]) -> Result<(), BrokenOff> {
        for cells in rows {
            if !std::mem::replace(&mut self.first_row, false) {
                self.put(b",").await?;
            }
            self.put_json(&RowOut { table, cells }).await?;
        }
        Ok(())
    }

    async fn put_json(&mut self, value: &impl Serialize) -> Result<(), BrokenOff> {
        serde_json::to_writer(&mut self.waiting, value).map_err(|_| BrokenOff::Untaken)?;
        self.put(b"").await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), BrokenOff> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() < PIECE {
            return Ok(());
        }
        let mut whole = Bytes::from(std::mem::take(&mut self.waiting));
        while whole.len() >= PIECE {
            let piece = whole.split_to(PIECE);
            self.send(Piece::Bytes(piece)).await?;
        }
        self.waiting.extend_from_slice(&whole);
        Ok(())
    }

    /// Nothing was told that belongs to who came after the caller: parts are empty then, and so the whole is not to be
    /// taken for the whole.
    async fn end(mut self) -> Result<(), BrokenOff> {
        if !self.node.authenticator.confirm(&self.caller).await? {
            return Err(BrokenOff::Gone);
        }
        let rest = Bytes::from(std::mem::take(&mut self.waiting));
        self.send(Piece::Bytes(rest)).await?;
        self.send(Piece::End).await
    }

    async fn send(&self, piece: Piece) -> Result<(), BrokenOff> {
        let taken = self.pieces.send_timeout(piece, self.node.attachment_idle).await;
        taken.map_err(|_| BrokenOff::Untaken)
    }
}

/// The attachments that versions of a profile name.
fn pictures(profiles: &[Vec<Cell>]) -> Vec<AttachmentName> {
    let at = export::PROFILES.place_of("avatar");
    let avatars = profiles.iter().filter_map(|row| match row.get(at?)? {
        Cell::Text(path) => Some(Avatar(path.clone())),
        _ => None,
    });
    let avatars: Vec<_> = avatars.collect();
    profiles::keys(&avatars)
        .filter_map(|key| AttachmentKey::name_in_path(key).ok())
        .collect()
}

/// Of the answer. The next one is made when this one was taken.
const PIECE: usize = 16 * 1024;
const TOO_MANY: ApiError = ApiError::too_many(
    "too_many_exports",
    "an export of the account is under way, or many of others are",
    60,
);
/// Each holds a few entries of account data, of 256 KiB at most.
const MAX_EXPORTS: usize = 8;
/// In which the 16 MiB that an account may have by default come at 8 KiB a second.
const WHOLE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::aci;

    #[test]
    fn an_account_has_one_export_at_a_time_and_a_node_few() {
        let exports = Exports::default();
        let going_on: Vec<_> = (1..=8).map(|n| exports.begin(aci(n)).unwrap()).collect();
        assert!(exports.begin(aci(9)).is_none());
        drop(going_on);
        let first = exports.begin(aci(1)).unwrap();
        assert!(exports.begin(aci(1)).is_none());
        drop(first);
        assert!(exports.begin(aci(1)).is_some());
        assert!(exports.lock().is_empty());
    }

    #[tokio::test]
    async fn a_body_without_its_end_is_an_error() {
        for (whole, well) in [(true, true), (false, false)] {
            let (pieces, receiver) = mpsc::channel(2);
            pieces.send(Piece::Bytes(Bytes::from_static(b"{}"))).await.ok().unwrap();
            if whole {
                pieces.send(Piece::End).await.ok().unwrap();
            }
            drop(pieces);
            let read = axum::body::to_bytes(body(receiver), 100).await;
            assert_eq!(read.is_ok(), well);
        }
    }
}
