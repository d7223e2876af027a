//! The devices of an account, and how there come to be more.

use super::build::Api;
use crate::http::devices::WaitQuery;
use crate::http::wire::devices::{
    CapabilitiesIn, DeviceLimitOut, DeviceOut, DevicesOut, LinkCodeOut, LinkIn, LinkOut, PasswordIn,
};
use crate::http::wire::forms::{DeviceIdText, LinkTokenIdText, ProvisioningAddressText};
use crate::http::wire::provisioning::ProvisioningIn;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/devices", "Lists the devices of the account")
        .answers::<DevicesOut>(200, "All of them, the caller included");

    api.route(
        "get",
        "/v1/devices/provisioning/code",
        "Offers a place to one more device",
    )
    .answers::<LinkCodeOut>(200, "A token, good for one device and ten minutes")
    .answers::<DeviceLimitOut>(411, "The account has as many devices as it may have");

    api.route("put", "/v1/devices/link", "Joins an account as a new device")
        .takes::<LinkIn>()
        .answers::<LinkOut>(200, "The device's place; the password of the request is its own now")
        .refuses(403, &["link_token"])
        .refuses(409, &["capability_downgrade"])
        .answers::<DeviceLimitOut>(411, "The account has as many devices as it may have")
        .refuses(
            422,
            &[
                "bad_signature",
                "capabilities",
                "delivery_channel",
                "device_name_too_long",
                "malformed_key",
                "push_token",
                "registration_id",
                "weak_key",
            ],
        );

    api.route("put", "/v1/devices/capabilities", "Says what the calling device can do")
        .takes::<CapabilitiesIn>()
        .done(204, "Kept");

    api.route(
        "put",
        "/v1/devices/password",
        "Gives the calling device another password",
    )
    .takes::<PasswordIn>()
    .done(
        204,
        "The old one is not accepted any more, and connections opened with it end",
    )
    .refuses(422, &["password"])
    .refuses(429, &["rate_limited"]);

    api.route("delete", "/v1/devices/{id}", "Removes a device, its keys and its queue")
        .path::<DeviceIdText>("id", "Which")
        .done(204, "It is gone, if it was there")
        .refuses(403, &["primary_device"])
        .refuses(422, &["device_id"]);

    api.route(
        "get",
        "/v1/devices/wait_for_linked_device/{token}",
        "Waits for the device that takes up an offer",
    )
    .path::<LinkTokenIdText>("token", "The `tokenIdentifier` of the offer")
    .query::<WaitQuery>()
    .answers::<DeviceOut>(200, "The device")
    .done(204, "None has come")
    .refuses(422, &["timeout", "token_identifier"]);

    api.route(
        "put",
        "/v1/provisioning/{address}",
        "Hands a message to a device that is about to be linked",
    )
    .path::<ProvisioningAddressText>("address", "Where it listens")
    .takes::<ProvisioningIn>()
    .done(204, "It has taken the message")
    .refuses(400, &["message_length"])
    .refuses(429, &["provisioning_busy"]);
}
