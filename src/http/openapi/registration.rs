//! Verification sessions and registration.

use super::build::Api;
use crate::http::wire::account::AccountOut;
use crate::http::wire::devices::LockedOut;
use crate::http::wire::forms::SessionIdText;
use crate::http::wire::registration::{CodeIn, CodeRequestIn, RegistrationIn, SessionIn, SessionOut, SessionUpdateIn};

pub(super) fn describe(api: &mut Api) {
    api.route(
        "post",
        "/v1/verification/session",
        "Opens a verification session for a number",
    )
    .takes::<SessionIn>()
    .answers::<SessionOut>(200, "The session")
    .refuses(400, &["number", "registration_closed"]);

    api.route("get", "/v1/verification/session/{id}", "Shows a verification session")
        .path::<SessionIdText>("id", SESSION)
        .answers::<SessionOut>(200, "The session")
        .refuses(400, &["session_id"]);

    api.route(
        "patch",
        "/v1/verification/session/{id}",
        "Answers challenges, of which there are none",
    )
    .path::<SessionIdText>("id", SESSION)
    .takes::<SessionUpdateIn>()
    .answers::<SessionOut>(200, "The session")
    .refuses(400, &["session_id"]);

    api.route("post", "/v1/verification/session/{id}/code", "Asks for a code")
        .path::<SessionIdText>("id", SESSION)
        .takes::<CodeRequestIn>()
        .answers::<SessionOut>(200, "The session; a code is on its way")
        .answers::<SessionOut>(409, "The session is verified, or its tries are used up")
        .answers::<SessionOut>(418, "Codes are not sent this way")
        .refuses(400, &["session_id"])
        .refuses(422, &["transport"]);

    api.route("put", "/v1/verification/session/{id}/code", "Tries a code")
        .path::<SessionIdText>("id", SESSION)
        .takes::<CodeIn>()
        .answers::<SessionOut>(200, "The session, verified or not")
        .answers::<SessionOut>(409, "The session was verified before, or its tries are used up")
        .refuses(400, &["session_id"]);

    api.route("post", "/v1/registration", "Makes an account of a verified number")
        .takes::<RegistrationIn>()
        .answers::<AccountOut>(200, "The account")
        .refuses(400, &["other_number", "registration_closed"])
        .refuses(403, &["recovery_password"])
        .refuses(409, &["transfer_possible"])
        .answers::<LockedOut>(423, "The number's account has a registration lock")
        .refuses(
            422,
            &[
                "access_key",
                "bad_signature",
                "delivery_channel",
                "device_name_too_long",
                "malformed_key",
                "push_token",
                "recovery_password",
                "registration_id",
                "registration_lock",
                "registration_proof",
                "weak_key",
            ],
        );
}

const SESSION: &str = "The id that the session was given";
