//! Sends and historic fetches in JSON.

use axum::http::StatusCode;
use keys_schema::framing;
use keys_schema::proto::envelope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::DeviceId;
use crate::http::error::ApiError;
use crate::http::extract::parse_json;
use crate::relay::DeviceMismatch;

use super::base64_bytes::padded;
use super::content::Content;
use super::forms::{
    Base64Text, ContentText, DeviceIdNumber, MessageKindNumber, Millis, RegistrationIdNumber, ServiceIdText, UuidText,
};

/// The body of `PUT /v1/messages/{destination}`.
#[derive(Deserialize, JsonSchema)]
pub struct SendIn {
    #[schemars(length(min = 1, max = 127))]
    messages: Vec<MessageIn>,
    #[serde(default)]
    online: Option<bool>,
    #[serde(default)]
    urgent: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<Millis>")]
    timestamp: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MessageIn {
    #[serde(rename = "type")]
    #[schemars(with = "MessageKindNumber")]
    kind: i64,
    #[schemars(with = "DeviceIdNumber")]
    destination_device_id: u64,
    #[schemars(with = "RegistrationIdNumber")]
    destination_registration_id: i64,
    #[schemars(with = "ContentText")]
    content: Content,
}

/// A send, checked for form.
#[derive(Clone)]
pub struct SendBody {
    /// One per device.
    pub messages: Vec<DeviceMessage>,
    /// Only for devices that are connected now.
    pub online: bool,
    /// Worth waking the recipient for.
    pub urgent: bool,
    /// The client's time in milliseconds; `None` leaves it to the server.
    pub timestamp: Option<u64>,
}

/// The copy of one device.
#[derive(Clone)]
pub struct DeviceMessage {
    /// What the ciphertext is.
    pub kind: MessageKind,
    /// For which device.
    pub device_id: DeviceId,
    /// Which registration of it.
    pub registration_id: u32,
    /// The ciphertext.
    pub content: Content,
}

/// The types of ciphertext that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Not said.
    Unknown,
    /// A message of a running session.
    Ciphertext,
    /// A message that starts a session.
    PreKeyBundle,
    /// A message whose sender is sealed inside.
    UnidentifiedSender,
    /// A message without encryption of its own: it asks for a new session.
    PlaintextContent,
}

impl MessageKind {
    fn from_wire(kind: i64) -> Option<Self> {
        match kind {
            0 => Some(Self::Unknown),
            1 => Some(Self::Ciphertext),
            3 => Some(Self::PreKeyBundle),
            6 => Some(Self::UnidentifiedSender),
            8 => Some(Self::PlaintextContent),
            _ => None,
        }
    }

    /// Whether clients can make sense of it only with a source beside it.
    pub fn needs_source(self) -> bool {
        self != Self::UnidentifiedSender
    }
}

impl From<MessageKind> for envelope::Type {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Unknown => Self::Unknown,
            MessageKind::Ciphertext => Self::Ciphertext,
            MessageKind::PreKeyBundle => Self::PrekeyBundle,
            MessageKind::UnidentifiedSender => Self::UnidentifiedSender,
            MessageKind::PlaintextContent => Self::PlaintextContent,
        }
    }
}

/// Parses the body of a send. Every content has the framing of its type: what was never encrypted goes no further.
pub fn parse_send(body: &[u8]) -> Result<SendBody, ApiError> {
    let body: SendIn = parse_json(body)?;
    if body.messages.is_empty() || body.messages.len() > usize::from(DeviceId::MAX) {
        return Err(ApiError::unprocessable(
            "message_count",
            "a send has one message per device, and at least one",
        ));
    }
    let timestamp = client_millis(body.timestamp.unwrap_or(0)).ok_or(ApiError::unprocessable(
        "timestamp",
        "a timestamp is in milliseconds since 1970, at most 8.64e15",
    ))?;
    let messages = body
        .messages
        .into_iter()
        .map(DeviceMessage::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let mut devices: Vec<u8> = messages.iter().map(|message| message.device_id.get()).collect();
    devices.sort_unstable();
    if devices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ApiError::unprocessable(
            "duplicate_device",
            "two messages are for the same device",
        ));
    }
    let framed = |message: &DeviceMessage| framing::check(message.kind.into(), message.content.as_slice()).is_ok();
    if !messages.iter().all(framed) {
        return Err(NOT_CIPHERTEXT);
    }
    Ok(SendBody {
        messages,
        online: body.online.unwrap_or(false),
        urgent: body.urgent.unwrap_or(true),
        timestamp,
    })
}

/// The time a client gives a message; `Some(None)` for 0, which leaves it to the server; `None` if it is out of range.
pub fn client_millis(millis: i64) -> Option<Option<u64>> {
    let millis = u64::try_from(millis).ok().filter(|millis| *millis <= LATEST_MILLIS)?;
    Some((millis != 0).then_some(millis))
}

impl TryFrom<MessageIn> for DeviceMessage {
    type Error = ApiError;

    fn try_from(message: MessageIn) -> Result<Self, ApiError> {
        let kind = MessageKind::from_wire(message.kind).ok_or(ApiError::unprocessable(
            "message_type",
            "clients send the types 1, 3, 6 and 8",
        ))?;
        let device_id = DeviceId::new(message.destination_device_id)
            .map_err(|_| ApiError::unprocessable("device_id", "device ids run from 1 to 127"))?;
        let registration_id = u32::try_from(message.destination_registration_id)
            .map_err(|_| ApiError::unprocessable("registration_id", "registration ids run from 1 to 16383"))?;
        if message.content.is_empty() {
            return Err(ApiError::unprocessable("empty_content", "a message has content"));
        }
        Ok(Self {
            kind,
            device_id,
            registration_id,
            content: message.content,
        })
    }
}

/// The answer to a send.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendOut {
    /// The sender has other devices that should learn of what it sent.
    pub needs_sync: bool,
}

/// 409: other devices than the sender named.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MismatchedDevicesOut {
    /// Not named.
    #[schemars(with = "Vec<DeviceIdNumber>")]
    pub missing_devices: Vec<u8>,
    /// Named, but not there.
    #[schemars(with = "Vec<DeviceIdNumber>")]
    pub extra_devices: Vec<u8>,
}

/// 410: sessions with earlier registrations.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaleDevicesOut {
    /// These.
    #[schemars(with = "Vec<DeviceIdNumber>")]
    pub stale_devices: Vec<u8>,
}

impl From<&DeviceMismatch> for MismatchedDevicesOut {
    fn from(mismatch: &DeviceMismatch) -> Self {
        Self {
            missing_devices: numbers(&mismatch.missing),
            extra_devices: numbers(&mismatch.extra),
        }
    }
}

impl From<&DeviceMismatch> for StaleDevicesOut {
    fn from(mismatch: &DeviceMismatch) -> Self {
        Self {
            stale_devices: numbers(&mismatch.stale),
        }
    }
}

fn numbers(devices: &[DeviceId]) -> Vec<u8> {
    devices.iter().map(|device| device.get()).collect()
}

/// The answer to a multi-recipient send.
#[derive(Serialize, JsonSchema)]
pub struct MultiRecipientOut {
    /// Those whom the message did not reach.
    #[schemars(with = "Vec<ServiceIdText>")]
    pub uuids404: Vec<String>,
}

/// One recipient whose devices are not as the sender named them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Recipient{T}")]
pub struct RecipientMismatchOut<T> {
    /// Its service id.
    #[schemars(with = "ServiceIdText")]
    pub uuid: String,
    /// What to correct.
    pub devices: T,
}

/// The answer of `GET /v1/messages`.
#[derive(Serialize, JsonSchema)]
pub struct FetchOut {
    /// In order.
    pub messages: Vec<FetchedOut>,
    /// More wait behind these.
    pub more: bool,
}

/// One queued envelope.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedOut {
    /// By which it is deleted.
    #[schemars(with = "UuidText")]
    pub guid: String,
    /// As in the envelope.
    #[serde(rename = "type")]
    pub kind: i32,
    /// The sender's time.
    pub timestamp: u64,
    /// The server's time.
    pub server_timestamp: u64,
    /// The sender, unless it is sealed inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_uuid: Option<String>,
    /// The sender's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_device: Option<u32>,
    /// The id to which it was sent.
    #[schemars(with = "ServiceIdText")]
    pub destination_uuid: String,
    /// The ciphertext.
    #[serde(serialize_with = "padded")]
    #[schemars(with = "Base64Text")]
    pub content: Vec<u8>,
    /// Worth waking the recipient for.
    pub urgent: bool,
    /// Sent to a story.
    pub story: bool,
}

/// The same for one recipient and for many.
pub const NOT_CIPHERTEXT: ApiError = ApiError::new(
    StatusCode::UNPROCESSABLE_ENTITY,
    "not_ciphertext",
    "content is a message of the Signal protocol, of the type that it is declared as",
);
const LATEST_MILLIS: u64 = 8_640_000_000_000_000;
