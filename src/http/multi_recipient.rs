//! `PUT /v1/messages/multi_recipient`: one sealed message to many accounts.
//!
//! The sender shows no account of its own, so nothing here looks at device credentials: whoever shows the combined access
//! key of all recipients may write to them. A story needs no proof.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use keys_schema::multi_recipient::{MultiRecipientMessage, Recipient, Undeliverable};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::auth::allows_unidentified_all;
use crate::domain::{Account, DeviceId, IdentityKind, ServiceId};
use crate::limits::Limit;
use crate::relay::{Addressee, DeviceMismatch, FanOutOutcome, NamedDevice, Sender};

use super::envelope::EnvelopeHead;
use super::error::ApiError;
use super::extract::{AnonymousAccess, QueryParams, RawBody};
use super::messages::{CONTENT_TOO_LARGE, FromNetwork, stranger};
use super::reach::TWO_AUTHORIZATIONS;
use super::state::{AppState, Node};
use super::wire::content::Content;
use super::wire::forms::Millis;
use super::wire::messages::{
    MessageKind, MismatchedDevicesOut, MultiRecipientOut, NOT_CIPHERTEXT, RecipientMismatchOut, StaleDevicesOut,
    client_millis,
};

/// `?ts=&online=&urgent=&story=`
#[derive(Deserialize, JsonSchema)]
pub(super) struct FanOutQuery {
    #[schemars(with = "Option<Millis>")]
    ts: Option<i64>,
    online: Option<bool>,
    urgent: Option<bool>,
    story: Option<bool>,
}

/// The success status is a promise to all recipients but those that the answer names.
pub(super) async fn send(
    State(node): State<AppState>,
    QueryParams(query): QueryParams<FanOutQuery>,
    headers: HeaderMap,
    FromNetwork(network): FromNetwork,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    if headers
        .get(CONTENT_TYPE)
        .is_none_or(|kind| kind != MULTI_RECIPIENT_TYPE)
    {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "the content type is application/vnd.signal-messenger.mrm",
        ));
    }
    let timestamp = client_millis(query.ts.unwrap_or(0)).ok_or(ApiError::bad_request(
        "timestamp",
        "a timestamp is in milliseconds since 1970, at most 8.64e15",
    ))?;
    let message = parse(body)?;
    node.pace
        .answer(deliver(
            &node,
            query,
            timestamp,
            stranger(network.as_ref()),
            headers,
            message,
        ))
        .await
}

/// All that knows the recipients: its answers leave on the tick, whatever they are.
async fn deliver(
    node: &Node,
    query: FanOutQuery,
    timestamp: Option<u64>,
    sender: Sender,
    headers: HeaderMap,
    message: MultiRecipientMessage,
) -> Result<Response, ApiError> {
    let story = query.story.unwrap_or(false);
    let online = query.online.unwrap_or(false);
    let recipients = message.recipients();
    let accounts = authorized(node, &headers, story, recipients).await?;
    let (known, addressees): (Vec<_>, Vec<_>) = recipients
        .iter()
        .filter_map(|recipient| {
            let account = accounts.get(&recipient.service_id)?;
            let addressee = addressee(account, recipient, message.content_length())?;
            // One who has been sent too many is left out, and the others are not: what is for connected devices only may be
            // lost, and the sender of a group has no list of those who are not to be reached.
            let unwanted = online && pinged_too_often(node, sender, &recipient.service_id);
            Some((recipient, Addressee { unwanted, ..addressee }))
        })
        .unzip();
    let accepted = node.clock.now();
    let head = |destination| EnvelopeHead {
        source: None,
        destination,
        client_millis: timestamp.unwrap_or_else(|| u64::try_from(accepted.0).unwrap_or(0)),
        accepted,
        urgent: query.urgent.unwrap_or(true),
        story,
    };
    let envelope = |index: usize| {
        let recipient: &Recipient = known[index];
        let content = Content::of(&[&recipient.content_head(), message.shared()]);
        head(recipient.service_id).with_content(MessageKind::UnidentifiedSender, content)
    };
    let outcome = node.relay.fan_out(addressees, envelope, sender, online).await?;
    match outcome {
        FanOutOutcome::Accepted { unreached } => {
            let uuids404 = unreached
                .into_iter()
                .map(|index| known[index].service_id.to_string())
                .collect();
            Ok(Json(MultiRecipientOut { uuids404 }).into_response())
        }
        FanOutOutcome::Mismatch(mismatches) => Ok(mismatch_response(&known, &mismatches)),
        FanOutOutcome::TooLarge => Err(CONTENT_TOO_LARGE),
        FanOutOutcome::TooMuch => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "fan_out_too_large",
            "the copies of all recipients have at most 80 MiB together",
        )),
    }
}

fn parse(body: bytes::Bytes) -> Result<MultiRecipientMessage, ApiError> {
    let message = MultiRecipientMessage::parse(body).map_err(|_| MALFORMED)?;
    message
        .check_for_delivery()
        .map_err(|undeliverable| match undeliverable {
            Undeliverable::Truncated => MALFORMED,
            Undeliverable::NotCiphertext => NOT_CIPHERTEXT,
            Undeliverable::NoRecipients => ApiError::bad_request("no_recipients", "the message names no recipient"),
            Undeliverable::DuplicateDevice => {
                ApiError::bad_request("duplicate_device", "the message names a device twice")
            }
        })?;
    if message.recipients().len() > MAX_RECIPIENTS {
        return Err(ApiError::unprocessable(
            "too_many_recipients",
            "a message goes to at most 5000 recipients",
        ));
    }
    Ok(message)
}

/// The recipients' accounts, if the sender may write to all of them. Of a story's recipients, those that exist.
async fn authorized(
    node: &Node,
    headers: &HeaderMap,
    story: bool,
    recipients: &[Recipient],
) -> Result<HashMap<ServiceId, Arc<Account>>, ApiError> {
    let shown = AnonymousAccess::from_headers(headers);
    if shown.group_token && (story || shown.has_key || headers.contains_key(AUTHORIZATION)) {
        return Err(TWO_AUTHORIZATIONS);
    }
    let ids: Vec<_> = recipients.iter().map(|recipient| recipient.service_id).collect();
    if story {
        return Ok(by_id(&ids, node.relay.accounts.find_all(&ids).await?));
    }
    // Group send tokens cannot be verified here (they need zkgroup); clients fall back when one is refused.
    let key = shown.key.ok_or(ApiError::unauthorized())?;
    let allowed = |accounts: &HashMap<ServiceId, Arc<Account>>| {
        accounts.len() == ids.len()
            && !ids.iter().any(ServiceId::is_pni)
            && allows_unidentified_all(&node.secrets, accounts.values().map(|account| &**account), &key)
    };
    let remembered = by_id(&ids, node.relay.accounts.find_all(&ids).await?);
    if allowed(&remembered) {
        return Ok(remembered);
    }
    // A key may have changed on another node a moment ago.
    let accounts = by_id(&ids, node.relay.accounts.find_all_fresh(&ids).await?);
    if accounts.len() < ids.len() {
        return Err(ApiError::not_found());
    }
    if !allowed(&accounts) {
        return Err(ApiError::unauthorized());
    }
    Ok(accounts)
}

fn by_id(ids: &[ServiceId], accounts: Vec<Arc<Account>>) -> HashMap<ServiceId, Arc<Account>> {
    let mut found = HashMap::with_capacity(accounts.len() * 2);
    for account in accounts {
        found.insert(ServiceId::Pni(account.pni), Arc::clone(&account));
        found.insert(ServiceId::Aci(account.aci), account);
    }
    ids.iter()
        .filter_map(|id| Some((*id, Arc::clone(found.get(id)?))))
        .collect()
}

fn addressee(account: &Arc<Account>, recipient: &Recipient, content_bytes: usize) -> Option<Addressee> {
    let devices = recipient.devices.iter().map(|device| {
        Some(NamedDevice {
            device_id: DeviceId::new(device.id.into()).ok()?,
            registration_id: device.registration_id.into(),
        })
    });
    Some(Addressee {
        account: Arc::clone(account),
        kind: IdentityKind::from(&recipient.service_id),
        devices: devices.collect::<Option<_>>()?,
        content_bytes,
        unwanted: false,
    })
}

fn pinged_too_often(node: &Node, sender: Sender, target: &ServiceId) -> bool {
    let subject = [sender.as_bytes(), &target.to_fixed_width()];
    node.limits.check_here(Limit::SilentPings, &subject).is_err()
}

/// Here a wrong set of devices is reported before old registrations, the other way round than for a single recipient.
fn mismatch_response(recipients: &[&Recipient], mismatches: &[(usize, DeviceMismatch)]) -> Response {
    if mismatches.iter().any(|(_, mismatch)| mismatch.is_other_set()) {
        let sets = mismatches.iter().filter(|(_, mismatch)| mismatch.is_other_set());
        let body: Vec<_> = sets
            .map(|(index, mismatch)| named(recipients[*index], MismatchedDevicesOut::from(mismatch)))
            .collect();
        (StatusCode::CONFLICT, Json(body)).into_response()
    } else {
        let body: Vec<_> = mismatches
            .iter()
            .map(|(index, mismatch)| named(recipients[*index], StaleDevicesOut::from(mismatch)))
            .collect();
        (StatusCode::GONE, Json(body)).into_response()
    }
}

fn named<T>(recipient: &Recipient, devices: T) -> RecipientMismatchOut<T> {
    RecipientMismatchOut {
        uuid: recipient.service_id.to_string(),
        devices,
    }
}

const MALFORMED: ApiError = ApiError::bad_request(
    "malformed_message",
    "the body is no whole multi-recipient message of version 0x22 or 0x23",
);
const MULTI_RECIPIENT_TYPE: &str = "application/vnd.signal-messenger.mrm";
const MAX_RECIPIENTS: usize = 5000;
