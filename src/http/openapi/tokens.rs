//! Sessions with tokens.

use super::build::Api;
use crate::http::wire::forms::{IdempotencyKeyText, TokenSessionText};
use crate::http::wire::tokens::{JwksOut, RefreshIn, TokenSessionsOut, TokensOut};

pub(super) fn describe(api: &mut Api) {
    api.route("post", "/v1/auth/token", "Opens a session of the calling device")
        .answers::<TokensOut>(200, "Its first tokens");

    api.route(
        "post",
        "/v1/auth/refresh",
        "Exchanges a refresh token for the next tokens of its session",
    )
    .header::<IdempotencyKeyText>(
        "Idempotency-Key",
        false,
        "A name for this attempt: who asks again under it is given the same refresh token again",
    )
    .takes::<RefreshIn>()
    .answers::<TokensOut>(200, "The next tokens; the one that was shown is used up")
    .refuses(400, &["idempotency_key"]);

    api.route("post", "/v1/auth/revoke", "Ends the session of a refresh token")
        .takes::<RefreshIn>()
        .done(204, "It is over, if it was not before");

    api.route(
        "get",
        "/v1/auth/sessions",
        "Lists the sessions of the calling device; for a primary those of the account",
    )
    .answers::<TokenSessionsOut>(200, "All of them");

    api.route("delete", "/v1/auth/sessions", "Ends all of those sessions")
        .done(204, "They are over");

    api.route("delete", "/v1/auth/sessions/{id}", "Ends one of those sessions")
        .path::<TokenSessionText>("id", "Which")
        .done(204, "It is over, if it was there")
        .refuses(422, &["session_id"]);

    api.route("get", "/.well-known/jwks.json", "The keys that verify access tokens")
        .answers::<JwksOut>(200, "Those that verify now, as RFC 7517 has them");
}
