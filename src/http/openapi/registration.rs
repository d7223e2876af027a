//! Verification sessions and registration.

use super::build::Api;
use crate::http::wire::account::AccountOut;
use crate::http::wire::devices::LockedOut;
use crate::http::wire::forms::SessionIdText;
use crate::http::wire::registration::{
    CodeIn, CodeRequestIn, NotDeliveredOut, RegistrationIn, SessionIn, SessionOut, SessionUpdateIn,
};

pub(super) fn describe(api: &mut Api) {
    api.route(
        "post",
        "/v1/verification/session",
        "Opens a verification session for a number or an e-mail address",
    )
    .takes::<SessionIn>()
    .answers::<SessionOut>(200, "The session")
    .refuses(400, &["email", "number"])
    .refuses(403, &["registration_closed"])
    .refuses(422, &["contact"]);

    api.route("get", "/v1/verification/session/{id}", "Shows a verification session")
        .path::<SessionIdText>("id", SESSION)
        .answers::<SessionOut>(200, "The session")
        .refuses(400, &["session_id"]);

    api.route(
        "patch",
        "/v1/verification/session/{id}",
        "Answers a challenge: proof of work",
    )
    .path::<SessionIdText>("id", SESSION)
    .takes::<SessionUpdateIn>()
    .answers::<SessionOut>(200, "The session")
    .answers::<SessionOut>(403, "The answer is wrong")
    .refuses(400, &["session_id"]);

    api.route("post", "/v1/verification/session/{id}/code", "Asks for a code")
        .path::<SessionIdText>("id", SESSION)
        .takes::<CodeRequestIn>()
        .answers::<SessionOut>(200, "The session; a code is on its way")
        .answers::<SessionOut>(
            409,
            "The session is verified, its tries are used up, or its challenge is not answered",
        )
        .answers::<SessionOut>(418, "Codes are not sent this way")
        .answers::<SessionOut>(429, "Too soon; the header Retry-After says when")
        .answers::<NotDeliveredOut>(440, "Whoever sends codes did not send this one")
        .refuses(400, &["session_id"])
        .refuses(422, &["transport"]);

    api.route("put", "/v1/verification/session/{id}/code", "Tries a code")
        .path::<SessionIdText>("id", SESSION)
        .takes::<CodeIn>()
        .answers::<SessionOut>(200, "The session, verified or not")
        .answers::<SessionOut>(
            409,
            "The session was verified before, no code was sent, or its challenge is not answered",
        )
        .answers::<SessionOut>(429, "The session's tries are used up; begin another one")
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
