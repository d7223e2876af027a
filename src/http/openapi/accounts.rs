//! A device's own account, and what others may learn of it.

use super::build::Api;
use crate::http::accounts::DeviceQuery;
use crate::http::certificates::DeliveryQuery;
use crate::http::wire::account::{AccountOut, AttributesIn};
use crate::http::wire::certificates::SenderCertificateOut;
use crate::http::wire::devices::{ApnTokenIn, DiscoverableIn, GcmTokenIn, NameIn, RegistrationLockIn};
use crate::http::wire::export::ExportOut;
use crate::http::wire::forms::ServiceIdText;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/accounts/whoami", "Who is the caller?")
        .answers::<AccountOut>(200, "The caller's account");

    api.route(
        "get",
        "/v1/accounts/export",
        "Shows everything that the server holds of the account",
    )
    .answers::<ExportOut>(200, "All of it")
    .refuses(429, &["too_many_exports"]);

    api.route(
        "put",
        "/v1/accounts/attributes",
        "Replaces name, capabilities and access",
    )
    .takes::<AttributesIn>()
    .done(204, "Replaced")
    .refuses(
        422,
        &[
            "access_key",
            "device_name_too_long",
            "recovery_password",
            "registration_lock",
        ],
    );

    api.route(
        "delete",
        "/v1/accounts/me",
        "Deletes the account and everything that names it",
    )
    .done(204, "Deleted");

    api.route("put", "/v1/accounts/name", "Names a device of the account")
        .query::<DeviceQuery>()
        .takes::<NameIn>()
        .done(204, "Named")
        .refuses(403, &["other_device"])
        .refuses(404, &["not_found"])
        .refuses(422, &["device_id", "device_name_too_long"]);

    api.route("put", "/v1/accounts/registration_lock", "Sets the registration lock")
        .takes::<RegistrationLockIn>()
        .done(204, "Set")
        .refuses(422, &["registration_lock"]);

    api.route(
        "delete",
        "/v1/accounts/registration_lock",
        "Takes the registration lock off",
    )
    .done(204, "There is none");

    api.route(
        "put",
        "/v1/accounts/gcm",
        "Says how the device is woken; nothing is kept of it",
    )
    .takes::<GcmTokenIn>()
    .done(204, "Understood")
    .refuses(422, &["push_token"]);

    api.route("delete", "/v1/accounts/gcm", "Takes that back")
        .done(204, "There is none");

    api.route(
        "put",
        "/v1/accounts/apn",
        "Says how the device is woken; nothing is kept of it",
    )
    .takes::<ApnTokenIn>()
    .done(204, "Understood")
    .refuses(422, &["push_token"]);

    api.route("delete", "/v1/accounts/apn", "Takes that back")
        .done(204, "There is none");

    // An answer to HEAD has no body, so that of its refusals only the status arrives.
    api.route("head", "/v1/accounts/account/{id}", "Is there such an account?")
        .path::<ServiceIdText>("id", "Its service id")
        .done(200, "There is")
        .done(404, "There is none");

    api.route(
        "put",
        "/v2/accounts/phone_number_discoverability",
        "Says whether the number may be found",
    )
    .takes::<DiscoverableIn>()
    .done(204, "Kept");

    api.route(
        "get",
        "/v1/certificate/delivery",
        "Vouches for the calling device to whom it writes",
    )
    .query::<DeliveryQuery>()
    .answers::<SenderCertificateOut>(200, "A sender certificate");
}
