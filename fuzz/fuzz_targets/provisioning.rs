//! What a new device is sent by the one that vouches for it: the body of `PUT /v1/provisioning/{address}`, and the
//! envelope inside.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (
        blind_relay::http::wire::provisioning::parse_provisioning(bytes),
        <keys_schema::proto::ProvisionEnvelope as prost::Message>::decode(bytes),
    );
});
