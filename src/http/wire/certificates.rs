//! Sender certificates in JSON.

use schemars::JsonSchema;
use serde::Serialize;

use super::forms::Base64Text;

/// The answer of `GET /v1/certificate/delivery`.
#[derive(Serialize, JsonSchema)]
pub struct SenderCertificateOut {
    /// A serialised `SenderCertificate` in base64.
    #[schemars(with = "Base64Text")]
    pub certificate: String,
}
