//! The key directory.

use super::build::Api;
use crate::http::keys::IdentityQuery;
use crate::http::wire::forms::{DeviceSelectorText, IdempotencyKeyText, ServiceIdText};
use crate::http::wire::keys::{BundlesOut, KeyCheckIn, KeyCountOut, KeyUploadIn};

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v2/keys", "How many one-time prekeys are left?")
        .query::<IdentityQuery>()
        .answers::<KeyCountOut>(200, "So many")
        .refuses(422, &["identity"]);

    api.route("put", "/v2/keys", "Publishes prekeys of one namespace")
        .query::<IdentityQuery>()
        .takes::<KeyUploadIn>()
        .done(204, "Published")
        .refuses(409, &["key_id_spent"])
        .refuses(
            422,
            &[
                "bad_signature",
                "duplicate_key_id",
                "identity",
                "malformed_key",
                "too_many_keys",
                "weak_key",
            ],
        );

    api.route("post", "/v2/keys/check", "Are these the repeated-use keys?")
        .takes::<KeyCheckIn>()
        .done(200, "They are")
        .done(409, "They are not, or there are none")
        .refuses(422, &["digest", "identity"]);

    api.route(
        "get",
        "/v2/keys/{target}/{device}",
        "Takes prekey bundles; one-time keys in them are used up",
    )
    .path::<ServiceIdText>("target", "Whose")
    .path::<DeviceSelectorText>("device", "Of which device")
    .header::<IdempotencyKeyText>(
        "Idempotency-Key",
        false,
        "A name for this claim: who asks again under it is given the same bundles again",
    )
    .answers::<BundlesOut<'_>>(200, "One bundle per device")
    .refuses(400, &["idempotency_key"])
    .refuses(422, &["device_id"]);
}
