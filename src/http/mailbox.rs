//! `GET /v1/messages` and `DELETE /v1/messages/uuid/{guid}`: the queue without a WebSocket, for clients woken by push.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use keys_schema::proto::Envelope;
use prost::Message;
use uuid::Uuid;

use crate::domain::{Acknowledgement, MailboxId, PageLimit, Queued, Seq};
use crate::relay::bell::Bell;
use crate::relay::drain::Page;
use crate::relay::offers::OfferId;

use super::envelope::{guid, offer_of, seq_of};
use super::error::ApiError;
use super::extract::{Caller, PathParams, Reader};
use super::state::{AppState, Node};
use super::wire::messages::{FetchOut, FetchedOut};

/// The oldest queued envelopes. The same ones come again until they are deleted.
pub(super) async fn fetch(
    State(node): State<AppState>,
    Reader(caller, opener): Reader,
) -> Result<Json<FetchOut>, ApiError> {
    if node.relay.open_mailbox(&caller.actor(), &opener).await?.is_none() {
        return Err(ApiError::unauthorized());
    }
    let page = async |after, limit| match node.relay.pending(caller.mailbox, &opener, after, limit).await? {
        Page::Envelopes(page) => Ok(page),
        Page::OtherKey => Err(ApiError::unauthorized()),
    };
    let oldest = page(Seq::START, PAGE).await?;
    let more = match oldest.last() {
        Some(last) => !page(last.seq, ONE).await?.is_empty(),
        None => false,
    };
    let messages = oldest
        .into_iter()
        .filter_map(|queued| fetched(caller.mailbox, queued))
        .collect();
    Ok(Json(FetchOut { messages, more }))
}

/// Acknowledges one envelope of the caller's own queue. One that is not there is as good as deleted.
pub(super) async fn delete(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(guid): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let guid = Uuid::try_parse(&guid).map_err(|_| ApiError::unprocessable("guid", "a guid is a UUID"))?;
    let mailbox = caller.mailbox;
    let seq = match seq_of(mailbox, guid) {
        Some(seq) => Some(seq),
        None => match offer(&node, mailbox, guid) {
            Some((bell, id)) => bell.acknowledged(id),
            None => return Ok(StatusCode::NO_CONTENT),
        },
    };
    // Also without a number: it may be on its way into storage, and is deleted as soon as it has got there.
    let acknowledgements = seq.map(|seq| Acknowledgement { mailbox, seq }).into_iter().collect();
    node.relay
        .writer
        .acknowledge_durably(caller.address.aci, acknowledgements)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the device's connection to this node was offered under that guid.
fn offer(node: &Node, mailbox: MailboxId, guid: Uuid) -> Option<(Arc<Bell>, OfferId)> {
    let (connection, bell) = node.relay.presence.connection(mailbox)?;
    Some((bell, offer_of(connection, guid)?))
}

fn fetched(mailbox: MailboxId, queued: Queued) -> Option<FetchedOut> {
    let envelope = Envelope::decode(queued.content).ok()?;
    Some(FetchedOut {
        guid: guid(mailbox, queued.seq).to_string(),
        kind: envelope.r#type.unwrap_or_default(),
        timestamp: envelope.timestamp.unwrap_or_default(),
        server_timestamp: envelope.server_timestamp.unwrap_or_default(),
        source_uuid: envelope.source_service_id,
        source_device: envelope.source_device,
        destination_uuid: envelope.destination_service_id.unwrap_or_default(),
        content: envelope.content.unwrap_or_default().to_vec(),
        urgent: envelope.urgent.unwrap_or(true),
        story: envelope.story.unwrap_or(false),
    })
}

const PAGE: PageLimit = PageLimit {
    envelopes: 100,
    bytes: 256 * 1024,
};
const ONE: PageLimit = PageLimit { envelopes: 1, bytes: 1 };
