//! What an account keeps for its own devices.

use serde_json::json;

use super::build::Api;
use crate::http::wire::account_data::{
    BatchConflictOut, BatchIn, BatchOut, ChangesOut, ChangesQuery, DataIn, DataOut, DataVersionOut, DeletionQuery,
};
use crate::http::wire::forms::DataKeyText;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/data", "Lists entries, or what has changed since")
        .query::<ChangesQuery>()
        .answers::<ChangesOut>(200, "A page")
        .refuses(422, &["after"]);

    api.route("post", "/v1/data/batch", "Writes several entries, all of them or none")
        .takes::<BatchIn>()
        .answers::<BatchOut>(200, "Written")
        .answers::<BatchConflictOut>(409, "Some have other versions than the batch expects")
        .refuses(413, &["quota", "value_too_large"])
        .refuses(
            422,
            &[
                "data_key",
                "data_version",
                "duplicate_data_key",
                "empty_value",
                "operation",
                "operation_count",
            ],
        );

    api.route("get", "/v1/data/{key}", "Shows an entry")
        .path::<DataKeyText>("key", KEY)
        .answers::<DataOut>(200, "The entry")
        .with_header(200, "etag", json!({ "type": "string" }))
        .done(304, "The one that `if-none-match` names")
        .refuses(422, &["data_key"]);

    api.route("put", "/v1/data/{key}", "Writes an entry")
        .path::<DataKeyText>("key", KEY)
        .takes::<DataIn>()
        .answers::<DataVersionOut>(200, "Its version now")
        .answers::<DataVersionOut>(409, "Another version is there")
        .refuses(413, &["quota", "value_too_large"])
        .refuses(422, &["data_key", "data_version", "empty_value"]);

    api.route("delete", "/v1/data/{key}", "Deletes an entry")
        .path::<DataKeyText>("key", KEY)
        .query::<DeletionQuery>()
        .answers::<DataVersionOut>(200, "Its version now")
        .answers::<DataVersionOut>(409, "Another version is there")
        .refuses(422, &["data_key", "data_version"]);
}

const KEY: &str = "The entry's key";
