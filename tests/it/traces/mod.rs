//! The calls of stock clients, replayed to the byte, and their answers held against what those clients require.
//!
//! [`client`] writes requests as two client stacks write them, [`fields`] lists what their deserialisers ask for. Each
//! other file is one part of a conversation. What such clients are known to trip over, and what shows that they do not:
//!
//! | trap | shown by |
//! | --- | --- |
//! | a socket opened with a number's credentials; a registration reads them from the upgrade or from itself | [`registering`] |
//! | `needsSync`, `missingDevices` and `extraDevices` are always there | [`fields`], [`sending`] |
//! | no escapes in JSON strings | `Answer::json`, for every answer of every test |
//! | a bare UUID in fields named `pni`, `PNI:` elsewhere | [`registering`], [`receiving`] |
//! | ids of envelopes as text and as bytes; a source beside the types 1, 3 and 8 | [`receiving`]; `delivery.rs`; for anonymous sends `messages.rs` |
//! | `identity=ACI`; slashes at the end; raw `*`, `:` and `=` in paths | [`publishing`], [`sending`], [`linking`]; both kinds of slash in every trace |
//! | `pqLastResortKey` means `pqLastResortPreKey`; `identityKey` in an upload is ignored | [`publishing`] |
//! | bundles: 404 and not an empty list, no `preKey` without one, last resort for Kyber, each key once | [`sending`]; `keys.rs` |
//! | 410 before 409 for one recipient, after it for many | `messages.rs`; `multi_recipient.rs` |
//! | the first message to several devices meets one 409 | [`linking`] |
//! | an unknown destination: 404 to a device, 401 to a stranger, 200 for a story | [`sending`]; `messages.rs` |
//! | numbers of requests: any, 0 and those above 2^63 included | [`client`]: both stacks in every trace |
//! | a life sign is answered at once, on every socket; so is a ping | [`client`]; `sockets.rs` |
//! | the device is known before its queue is pushed; one `queue/empty` | [`receiving`]; `delivery.rs` |
//! | `createdAtCiphertext` is real for every device | [`linking`] |
//! | a profile has `capabilities` | [`linking`]; `profiles.rs` |
//! | the server certificate is inside the sender's; `expires` is fixed64 | `certificates.rs` of `keys-schema` |
//! | exactly `application/json`, and neither type nor body for nothing | [`client`], for every answer |
//! | the sign bit of signatures | `keys-schema/tests/it/vectors.rs` |
//! | 413 is for sizes alone | `messages.rs`, `limits.rs` |
//! | dead credentials: 403 at the upgrade, never 401, never a socket | [`registering`]; `sockets.rs` |
//! | HTTP/1.1 is there | every trace is HTTP/1.1; over TLS `tests/interop` |

mod client;
mod fields;
mod linking;
mod publishing;
mod receiving;
mod registering;
mod sending;
mod uploading;

use crate::support::on_each_backend;
use linking::{a_full_account_says_how_many_devices_it_may_have, a_second_device_joins_and_is_written_to};
use publishing::a_first_connection_publishes_prekeys_of_both_namespaces;
use receiving::what_was_acknowledged_is_gone_and_a_new_socket_displaces_the_old;
use registering::{
    a_newer_client_registers_on_one_anonymous_socket,
    a_number_is_verified_and_registered_on_a_socket_with_its_credentials,
    the_official_library_registers_on_one_anonymous_socket,
};
use sending::{
    a_first_message_takes_a_bundle_and_is_delivered, a_sealed_message_goes_by_an_anonymous_socket_and_falls_back,
    the_official_library_sends_to_many_at_once, the_official_library_takes_keys_with_the_access_key,
};
use uploading::an_attachment_is_uploaded_in_three_steps;

on_each_backend! {
    a_number_is_verified_and_registered_on_a_socket_with_its_credentials
    a_newer_client_registers_on_one_anonymous_socket
    the_official_library_registers_on_one_anonymous_socket
    a_first_connection_publishes_prekeys_of_both_namespaces
    a_second_device_joins_and_is_written_to
    a_full_account_says_how_many_devices_it_may_have
    a_first_message_takes_a_bundle_and_is_delivered
    a_sealed_message_goes_by_an_anonymous_socket_and_falls_back
    the_official_library_takes_keys_with_the_access_key
    the_official_library_sends_to_many_at_once
    an_attachment_is_uploaded_in_three_steps
    what_was_acknowledged_is_gone_and_a_new_socket_displaces_the_old
}
