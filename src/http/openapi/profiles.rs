//! Profiles.

use super::build::Api;
use crate::http::wire::attachments::UploadFormOut;
use crate::http::wire::forms::{AnyText, ServiceIdText};
use crate::http::wire::profiles::{IdentityCheckIn, IdentityCheckOut, ProfileIn, ProfileOut};

pub(super) fn describe(api: &mut Api) {
    api.route("put", "/v1/profile", "Publishes a version of the caller's profile")
        .takes::<ProfileIn>()
        .answers::<UploadFormOut>(200, "Published, and where to upload the new picture")
        .done(200, "Published")
        .refuses(400, &["host"])
        .refuses(429, &["attachment_quota"])
        .refuses(412, &["profiles_v2"])
        .refuses(422, &["commitment", "profile_field", "profile_version"]);

    api.route(
        "get",
        "/v1/profile/{target}",
        "Shows what does not depend on a profile key",
    )
    .path::<ServiceIdText>("target", WHOSE)
    .answers::<ProfileOut>(200, "The profile");

    api.route("get", "/v1/profile/{target}/{version}", "Shows a version of a profile")
        .path::<ServiceIdText>("target", WHOSE)
        .path::<AnyText>("version", VERSION)
        .answers::<ProfileOut>(200, "The profile; empty if there is no such version");

    api.route(
        "get",
        "/v1/profile/{target}/{version}/{request}",
        "Shows a version of a profile, without a credential",
    )
    .path::<ServiceIdText>("target", WHOSE)
    .path::<AnyText>("version", VERSION)
    .path::<AnyText>("request", "The request for a credential, which is not looked at")
    .answers::<ProfileOut>(200, "The profile; empty if there is no such version");

    api.route(
        "post",
        "/v1/profile/identity_check/batch",
        "Which of these identity keys are not the current ones?",
    )
    .takes::<IdentityCheckIn>()
    .answers::<IdentityCheckOut>(200, "These")
    .refuses(422, &["fingerprint", "service_id", "too_many_elements"]);
}

const WHOSE: &str = "Whose";
const VERSION: &str = "64 hexadecimal digits; any other is the version of no profile";
