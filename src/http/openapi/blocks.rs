//! Whom an account does not want to hear from.

use super::build::Api;
use crate::http::wire::blocks::BlocksOut;
use crate::http::wire::forms::ServiceIdText;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/blocks", "How many ids the account has blocked")
        .answers::<BlocksOut>(200, "So many");

    api.route("put", "/v1/blocks/{id}", "Blocks an account")
        .path::<ServiceIdText>("id", "Its service id; nobody looks whether there is such an account")
        .done(204, "It is blocked")
        .refuses(422, &["own_account", "too_many_blocks"]);

    api.route("delete", "/v1/blocks/{id}", "Unblocks an account")
        .path::<ServiceIdText>("id", "The id under which it was blocked")
        .done(204, "It is not blocked under that id");

    api.route("delete", "/v1/blocks", "Unblocks everybody")
        .done(204, "Nobody is blocked");
}
