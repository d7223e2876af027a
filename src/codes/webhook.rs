//! A program of the operator's own: codes are posted to it as JSON, signed, so that it takes them from nobody else.
//!
//! The signature is HMAC-SHA-256 over the time, a dot and the body, in hexadecimal. The time lets a receiver refuse what was
//! recorded and is sent again.

use std::sync::Arc;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::Clock;
use crate::encoding::hex;

use super::http::{HttpClient, deliver};
use super::{Carrier, Failed, Message};

/// Posts codes.
pub struct Webhook {
    client: HttpClient,
    url: String,
    secret: Zeroizing<String>,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// To that URL, signed with that secret.
    pub fn new(client: HttpClient, url: String, secret: Zeroizing<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            url,
            secret,
            clock,
        }
    }
}

#[async_trait]
impl Carrier for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    /// What it does with a wish to be called is its own business.
    fn speaks(&self) -> bool {
        true
    }

    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed> {
        let body = json!({
            "to": message.to,
            "text": message.text,
            "code": message.code,
            "transport": message.transport,
        });
        let body = body.to_string();
        let seconds = self.clock.now().0.div_euclid(1_000).to_string();
        let signature = sign(&self.secret, &seconds, &body);
        let request = self.client.post(&self.url);
        let request = request
            .header("content-type", "application/json")
            .header(TIMESTAMP, seconds)
            .header(SIGNATURE, signature);
        deliver(request.body(body)).await
    }
}

fn sign(secret: &str, seconds: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    for part in [seconds, ".", body] {
        mac.update(part.as_bytes());
    }
    hex(&mac.finalize().into_bytes())
}

const TIMESTAMP: &str = "x-relay-timestamp";
const SIGNATURE: &str = "x-relay-signature";

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn a_signature_is_what_other_programs_make_of_it() {
        assert_eq!(
            sign("secret", "1700000000", "{}"),
            "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }
}
