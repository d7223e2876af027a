//! `PUT /v1/messages/{destination}`: a send to the devices of one account.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
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
use super::extract::{AnonymousAccess, OptionalSender, PathParams, QueryParams, RawBody, service_id};
use super::network::{self, Network};
use super::reach::{TWO_AUTHORIZATIONS, reach_showing};
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
    OptionalSender(caller): OptionalSender,
    shown: AnonymousAccess,
    FromNetwork(network): FromNetwork,
    RawBody(raw): RawBody,
) -> Result<Response, ApiError> {
    let story = query.story.is_some_and(|story| story.eq_ignore_ascii_case("true"));
    let destination = service_id(&destination)?;
    let body = parse_send(&raw)?;
    // The answer may wait; what it is an answer to must not.
    drop(raw);
    let (device, mut account) = caller.unzip();
    if let Some(caller) = device.as_ref().filter(|_| !story)
        // Looked at a moment ago, if the body did not have to be waited for.
        && !matches!(account, Some(Some(_)))
    {
        let standing = node.authenticator.standing(caller).await?;
        account = Some(Some(standing.ok_or(ApiError::unauthorized())?));
    }
    let sending = Sending {
        sender: match &device {
            Some(device) => Sender::account(device.address.aci),
            None => stranger(network.as_ref()),
        },
        device,
        account: account.flatten(),
        story,
    };
    node.pace
        .answer(deliver(&node, destination, sending, shown, body))
        .await
}

/// Who counts as the sender: an account, or else a network.
pub(super) fn sender(caller: Option<&Authenticated>, extensions: &Extensions) -> Sender {
    match caller {
        Some(caller) => Sender::account(caller.address.aci),
        None => stranger(network::of_request(extensions).as_ref()),
    }
}

/// Whoever sends without an account.
pub(super) fn stranger(network: Option<&Network>) -> Sender {
    Sender::stranger(network.map_or(&[], Network::as_bytes))
}

/// From which network a request comes.
pub(super) struct FromNetwork(pub(super) Option<Network>);

impl FromRequestParts<AppState> for FromNetwork {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self(network::of_request(&parts.extensions)))
    }
}

/// Who sends.
struct Sending {
    /// Whose share of the recipient's queues it is.
    sender: Sender,
    /// The device, if it has shown who it is.
    device: Option<Authenticated>,
    /// Its account, as it was when its request was here as a whole. Known of every sender that is named.
    account: Option<Arc<Account>>,
    story: bool,
}

impl Sending {
    /// The device that the envelope names: in a story none is named.
    fn named(&self) -> Option<&Authenticated> {
        self.device.as_ref().filter(|_| !self.story)
    }
}

/// All that knows the recipient: its answers leave on the tick, whatever they are.
async fn deliver(
    node: &Node,
    destination: ServiceId,
    sending: Sending,
    shown: AnonymousAccess,
    body: SendBody,
) -> Result<Response, ApiError> {
    let Sending {
        sender, device, story, ..
    } = &sending;
    let (sender, story, caller) = (*sender, *story, sending.named());
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
    let Some(account) = recipient(node, &destination, story, caller, shown).await? else {
        // As the wire has it: a story needs no proof, and to nobody it is sent successfully.
        return Ok(Json(SendOut { needs_sync: false }).into_response());
    };
    if caller.is_none() && body.messages.iter().any(|message| message.kind.needs_source()) {
        return Err(ApiError::unprocessable(
            "type_needs_source",
            "an anonymous send carries messages of type 6",
        ));
    }
    let own = caller.filter(|caller| caller.address.aci == account.aci);
    if own.is_some() && destination.is_pni() {
        return Err(ApiError::forbidden("own_pni", "a message to oneself goes to the ACI"));
    }
    let needs_sync = caller.is_some() && own.is_none() && has_other_devices(sending.account.as_deref());
    let origin = Origin {
        own_device: own.map(|caller| caller.address.device_id),
        sender,
        unwanted: match device {
            Some(device) => has_blocked(node, &account, device).await?,
            None => false,
        },
    };
    let online = body.online;
    let copies = copies(node, &destination, story, caller, body);
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
    shown: AnonymousAccess,
) -> Result<Option<Arc<Account>>, ApiError> {
    if story {
        if shown.group_token {
            return Err(TWO_AUTHORIZATIONS);
        }
        return Ok(node.relay.accounts.find(destination).await?);
    }
    reach_showing(node, destination, caller, shown).await.map(Some)
}

fn has_other_devices(account: Option<&Account>) -> bool {
    account.is_some_and(|account| account.devices.len() > 1)
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
