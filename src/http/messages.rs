//! `PUT /v1/messages/{destination}`: a send to the devices of one account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::auth::Authenticated;
use crate::domain::{Account, IdentityKind, ServiceId};
use crate::limits::Limit;
use crate::relay::{DeviceMismatch, NamedDevice, Origin, OutgoingCopy, SendOutcome, Sender};

use super::blocks::has_blocked;
use super::envelope::EnvelopeHead;
use super::error::ApiError;
use super::extract::{AnonymousAccess, OptionalCaller, PathParams, QueryParams, RawBody, service_id};
use super::network;
use super::reach::{TWO_AUTHORIZATIONS, reach};
use super::state::{AppState, Node};
use super::wire::messages::{MismatchedDevicesOut, SendBody, SendOut, StaleDevicesOut, parse_send};

/// `?story=`
#[derive(Deserialize, JsonSchema)]
pub(super) struct SendQuery {
    /// `true`: to a story, without proof and without a named sender.
    story: Option<String>,
}

/// The success status is a promise: every copy is durable, or, if online-only, was given to the connections there are.
pub(super) async fn send(
    State(node): State<AppState>,
    PathParams(destination): PathParams<String>,
    QueryParams(query): QueryParams<SendQuery>,
    OptionalCaller(caller): OptionalCaller,
    headers: HeaderMap,
    extensions: Extensions,
    RawBody(raw): RawBody,
) -> Result<Response, ApiError> {
    let story = query.story.is_some_and(|story| story.eq_ignore_ascii_case("true"));
    let destination = service_id(&destination)?;
    let body = parse_send(&raw)?;
    // The answer may wait; what it is an answer to must not.
    drop(raw);
    let sending = Sending {
        sender: sender(caller.as_ref(), &extensions),
        device: caller.clone(),
        named: caller.filter(|_| !story),
        story,
    };
    if let Some(caller) = &sending.named
        && !node.authenticator.still_valid(caller).await?
    {
        return Err(ApiError::unauthorized());
    }
    node.pace
        .answer(deliver(&node, destination, sending, headers, body))
        .await
}

/// Who sends.
struct Sending {
    /// Whose share of the recipient's queues it is.
    sender: Sender,
    /// The device, if it has shown who it is.
    device: Option<Authenticated>,
    /// The device that the envelope names: in a story none is named.
    named: Option<Authenticated>,
    story: bool,
}

/// Who counts as the sender: an account, or else a network.
pub(super) fn sender(caller: Option<&Authenticated>, extensions: &Extensions) -> Sender {
    match caller {
        Some(caller) => Sender::account(caller.address.aci),
        None => Sender::stranger(network::name_of(extensions)),
    }
}

/// All that knows the recipient: its answers leave on the tick, whatever they are.
async fn deliver(
    node: &Node,
    destination: ServiceId,
    sending: Sending,
    headers: HeaderMap,
    body: SendBody,
) -> Result<Response, ApiError> {
    let Sending {
        sender,
        device,
        named: caller,
        story,
    } = sending;
    if !is_own(device.as_ref(), &destination) {
        // Before anybody looks whether there is such an account, so that it tells nothing of that.
        let limit = if body.online {
            Limit::SilentPings
        } else {
            Limit::SendsToTarget
        };
        let target = destination.to_fixed_width();
        node.limits.check_here(limit, &[sender.as_bytes(), &target])?;
    }
    let Some(account) = recipient(node, &destination, story, caller.as_ref(), &headers).await? else {
        // As the wire has it: a story needs no proof, and to nobody it is sent successfully.
        return Ok(Json(SendOut { needs_sync: false }).into_response());
    };
    if caller.is_none() && body.messages.iter().any(|message| message.kind.needs_source()) {
        return Err(ApiError::unprocessable(
            "type_needs_source",
            "an anonymous send carries messages of type 6",
        ));
    }
    let own = caller.as_ref().filter(|caller| caller.address.aci == account.aci);
    if own.is_some() && destination.is_pni() {
        return Err(ApiError::forbidden("own_pni", "a message to oneself goes to the ACI"));
    }
    let needs_sync = match &caller {
        Some(caller) if own.is_none() => has_other_devices(node, caller).await?,
        _ => false,
    };
    let origin = Origin {
        own_device: own.map(|caller| caller.address.device_id),
        sender,
        unwanted: match &device {
            Some(device) => has_blocked(node, &account, device).await?,
            None => false,
        },
    };
    let online = body.online;
    let copies = copies(node, &destination, story, caller.as_ref(), body);
    match node
        .relay
        .send(account, IdentityKind::from(&destination), copies, origin, online)
        .await?
    {
        SendOutcome::Accepted => Ok(Json(SendOut { needs_sync }).into_response()),
        SendOutcome::Mismatch(mismatch) => Ok(mismatch_response(&mismatch)),
        SendOutcome::TooLarge => Err(CONTENT_TOO_LARGE),
        SendOutcome::QueueFull => Err(ApiError::too_many(
            "queue_full",
            "a device of the recipient has no room for more until it connects",
            QUEUE_FULL_RETRY_SECS,
        )),
        SendOutcome::UnknownAccount if caller.is_some() => Err(ApiError::not_found()),
        SendOutcome::UnknownAccount => Err(ApiError::unauthorized()),
    }
}

/// Whether a device writes to its own account.
fn is_own(device: Option<&Authenticated>, destination: &ServiceId) -> bool {
    device.is_some_and(|device| ServiceId::Aci(device.address.aci) == *destination)
}

/// The account that is written to; `None` for a story to an account that does not exist.
async fn recipient(
    node: &Node,
    destination: &ServiceId,
    story: bool,
    caller: Option<&Authenticated>,
    headers: &HeaderMap,
) -> Result<Option<Arc<Account>>, ApiError> {
    if story {
        if AnonymousAccess::from_headers(headers).group_token {
            return Err(TWO_AUTHORIZATIONS);
        }
        return Ok(node.relay.accounts.find(destination).await?);
    }
    reach(node, destination, caller, headers).await.map(Some)
}

async fn has_other_devices(node: &Node, caller: &Authenticated) -> Result<bool, ApiError> {
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    Ok(account.is_some_and(|account| account.devices.len() > 1))
}

fn copies(
    node: &Node,
    destination: &ServiceId,
    story: bool,
    caller: Option<&Authenticated>,
    body: SendBody,
) -> Vec<OutgoingCopy> {
    let accepted = node.clock.now();
    let head = EnvelopeHead {
        source: caller.map(|caller| caller.address),
        destination: *destination,
        client_millis: body.timestamp.unwrap_or_else(|| u64::try_from(accepted.0).unwrap_or(0)),
        accepted,
        urgent: body.urgent,
        story,
    };
    body.messages
        .into_iter()
        .map(|message| OutgoingCopy {
            device: NamedDevice {
                device_id: message.device_id,
                registration_id: message.registration_id,
            },
            content_bytes: message.content.len(),
            envelope: head.with_content(message.kind, message.content),
        })
        .collect()
}

/// Old registrations are reported before a wrong set of devices: a sender with both corrects its sessions first.
fn mismatch_response(mismatch: &DeviceMismatch) -> Response {
    if mismatch.stale.is_empty() {
        (StatusCode::CONFLICT, Json(MismatchedDevicesOut::from(mismatch))).into_response()
    } else {
        (StatusCode::GONE, Json(StaleDevicesOut::from(mismatch))).into_response()
    }
}

/// The same for one recipient and for many.
pub(super) const CONTENT_TOO_LARGE: ApiError = ApiError::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "content_too_large",
    "the content for one device has at most 96 KiB",
);
const QUEUE_FULL_RETRY_SECS: u64 = 600;
