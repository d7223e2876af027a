//! User names and links to them.

use super::build::Api;
use crate::http::wire::forms::{UrlBase64Of32, UuidText};
use crate::http::wire::usernames::{
    ConfirmUsernameIn, LinkHandleOut, ReserveUsernameIn, ReservedUsernameOut, UsernameLinkIn, UsernameLinkOut,
    UsernameOut, UsernameOwnerOut,
};

pub(super) fn describe(api: &mut Api) {
    api.route(
        "put",
        "/v1/accounts/username_hash/reserve",
        "Reserves the first name that is free",
    )
    .takes::<ReserveUsernameIn>()
    .answers::<ReservedUsernameOut>(200, "The one that is reserved, for five minutes")
    .refuses(409, &["usernames_taken"])
    .refuses(422, &["username_hash", "username_hashes"])
    .refuses(429, &["username_changes"]);

    api.route("put", "/v1/accounts/username_hash/confirm", "Takes a reserved name")
        .takes::<ConfirmUsernameIn>()
        .answers::<UsernameOut>(200, "The caller's name")
        .refuses(409, &["username_not_reserved"])
        .refuses(410, &["username_taken"])
        .refuses(422, &["encrypted_username", "username_hash", "zk_proof"]);

    api.route(
        "delete",
        "/v1/accounts/username_hash",
        "Gives the name up, and its link",
    )
    .done(204, "There is none");

    api.route("get", "/v1/accounts/username_hash/{hash}", "Who has this name?")
        .path::<UrlBase64Of32>("hash", "Hash of the name")
        .answers::<UsernameOwnerOut>(200, "The owner")
        .refuses(422, &["username_hash"]);

    api.route("put", "/v1/accounts/username_link", "Makes a link to the name")
        .takes::<UsernameLinkIn>()
        .answers::<LinkHandleOut>(200, "Its handle")
        .refuses(409, &["no_username"])
        .refuses(422, &["encrypted_username"]);

    api.route("delete", "/v1/accounts/username_link", "Takes the link away")
        .done(204, "There is none");

    api.route(
        "get",
        "/v1/accounts/username_link/{handle}",
        "What does this link lead to?",
    )
    .path::<UuidText>("handle", "The link's handle")
    .answers::<UsernameLinkOut>(200, "The name, encrypted by its owner");
}
