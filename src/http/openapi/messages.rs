//! Sends, and the queue without a WebSocket.

use super::build::Api;
use crate::http::messages::SendQuery;
use crate::http::multi_recipient::FanOutQuery;
use crate::http::wire::forms::{ServiceIdText, UuidText};
use crate::http::wire::messages::{
    FetchOut, MismatchedDevicesOut, MultiRecipientOut, RecipientMismatchOut, SendIn, SendOut, StaleDevicesOut,
};

pub(super) fn describe(api: &mut Api) {
    api.route(
        "put",
        "/v1/messages/{destination}",
        "Sends to the devices of one account",
    )
    .path::<ServiceIdText>("destination", "Whose devices")
    .query::<SendQuery>()
    .takes::<SendIn>()
    .answers::<SendOut>(
        200,
        "Every copy is durable; of an online-only send, handed to whoever is connected",
    )
    .refuses(403, &["own_pni"])
    .answers::<MismatchedDevicesOut>(409, "Other devices than the account has")
    .answers::<StaleDevicesOut>(410, "Sessions with earlier registrations")
    .refuses(413, &["content_too_large"])
    .refuses(
        422,
        &[
            "device_id",
            "duplicate_device",
            "empty_content",
            "message_count",
            "message_type",
            "not_ciphertext",
            "registration_id",
            "timestamp",
            "type_needs_source",
        ],
    )
    .refuses(429, &["queue_full"]);

    api.route(
        "put",
        "/v1/messages/multi_recipient",
        "Sends one sealed message to many accounts",
    )
    .query::<FanOutQuery>()
    .takes_bytes(
        "application/vnd.signal-messenger.mrm",
        "A multi-recipient message of version 0x22 or 0x23",
    )
    .answers::<MultiRecipientOut>(
        200,
        "Every copy is durable; of an online-only send, handed to whoever is connected",
    )
    .refuses(
        400,
        &["duplicate_device", "malformed_message", "no_recipients", "timestamp"],
    )
    .refuses(404, &["not_found"])
    .answers::<Vec<RecipientMismatchOut<MismatchedDevicesOut>>>(409, "Other devices than the accounts have")
    .answers::<Vec<RecipientMismatchOut<StaleDevicesOut>>>(410, "Sessions with earlier registrations")
    .refuses(413, &["content_too_large", "fan_out_too_large"])
    .refuses(415, &["content_type"])
    .refuses(422, &["not_ciphertext", "too_many_recipients"]);

    api.route("get", "/v1/messages", "Shows the oldest queued envelopes")
        .answers::<FetchOut>(200, "They come again until they are deleted");

    api.route("delete", "/v1/messages/uuid/{guid}", "Acknowledges one envelope")
        .path::<UuidText>("guid", "The envelope's")
        .done(204, "It is gone, if it was there")
        .refuses(422, &["guid"]);
}
