//! User names with proofs, as a client makes them but for the name: a hash from random numbers proves as well.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::Scalar;
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use keys_schema::username::{BASES, challenge};
use serde_json::{Value, json};

use super::{Answer, Person, Server, ask, random};

/// A name that only its maker knows.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) hash: [u8; 32],
    pub(crate) proof: [u8; 128],
}

impl Name {
    pub(crate) fn new() -> Self {
        let (numbers, nonces) = (scalars(), scalars());
        let hash = sum(&numbers).compress().to_bytes();
        let challenge = challenge(&hash, &sum(&nonces).compress().to_bytes());
        let mut proof = [0; 128];
        proof[..32].copy_from_slice(challenge.as_bytes());
        for index in 0..3 {
            let response = nonces[index] + challenge * numbers[index];
            proof[32 * (index + 1)..][..32].copy_from_slice(response.as_bytes());
        }
        Self { hash, proof }
    }

    /// The hash as it is written.
    pub(crate) fn text(&self) -> String {
        url_safe(&self.hash)
    }

    /// Where strangers look it up.
    pub(crate) fn path(&self) -> String {
        format!("/v1/accounts/username_hash/{}", self.text())
    }

    /// The body that takes it.
    pub(crate) fn confirmation(&self, encrypted: Option<&[u8]>) -> Value {
        json!({
            "usernameHash": self.text(),
            "zkProof": url_safe(&self.proof),
            "encryptedUsername": encrypted.map(url_safe),
        })
    }

    /// Asks for the name.
    pub(crate) async fn reserve(&self, server: &Server, person: &Person) -> Answer {
        reserve(server, person, &[self]).await
    }

    /// Takes the name that was reserved.
    pub(crate) async fn confirm(&self, server: &Server, person: &Person, encrypted: Option<&[u8]>) -> Answer {
        let request = person.request(server, "PUT", "/v1/accounts/username_hash/confirm");
        ask(request.json(&self.confirmation(encrypted))).await
    }

    /// A new name that the person has, with a link.
    pub(crate) async fn of(server: &Server, person: &Person) -> Self {
        let name = Self::new();
        name.reserve(server, person).await.expect(200);
        name.confirm(server, person, Some(&[7; 100])).await.expect(200);
        name
    }

    /// Looks the name up as a stranger.
    pub(crate) async fn find(&self, server: &Server) -> Answer {
        ask(server.request("GET", &self.path())).await
    }
}

/// Asks for one of the names.
pub(crate) async fn reserve(server: &Server, person: &Person, names: &[&Name]) -> Answer {
    let hashes: Vec<_> = names.iter().map(|name| name.text()).collect();
    let request = person.request(server, "PUT", "/v1/accounts/username_hash/reserve");
    ask(request.json(&json!({ "usernameHashes": hashes }))).await
}

/// URL-safe base64 without padding.
pub(crate) fn url_safe(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn scalars() -> [Scalar; 3] {
    [(); 3].map(|()| Scalar::from_bytes_mod_order_wide(&random()))
}

fn sum(scalars: &[Scalar; 3]) -> RistrettoPoint {
    let terms = scalars
        .iter()
        .zip(BASES)
        .map(|(scalar, base)| CompressedRistretto(base).decompress().unwrap() * scalar);
    terms.sum()
}
