//! Access tokens: JSON Web Tokens (RFC 7519), signed with Ed25519 (RFC 8037).
//!
//! One algorithm, one issuer, one audience; the token is asked for nothing but the key that it says it is signed with.

use base64::Engine;
use jsonwebtoken::{Algorithm, Header, Validation, decode, encode};
use keys_schema::{Aci, ServiceId};
use serde::{Deserialize, Serialize};

use crate::domain::{DeviceId, ProtocolAddress, Sealed, Timestamp, TokenSessionId};
use crate::encoding::BASE64_URL;

use super::bearer::BearerToken;
use super::keys::OpenedKey;

/// What an access token says. Times are in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The ACI, a dot, the device.
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    /// The session.
    sid: String,
    /// The keys that it carries.
    key: String,
}

/// What a token claims whose signature and times are right.
pub(super) struct Claimed {
    pub(super) address: ProtocolAddress,
    pub(super) session: TokenSessionId,
    /// Sealed.
    pub(super) carried: Vec<u8>,
}

/// Makes a token. `None` if the key cannot sign.
pub(super) fn sign(
    address: ProtocolAddress,
    session: TokenSessionId,
    carried: &Sealed,
    key: &OpenedKey,
    now: Timestamp,
    lifetime: i64,
) -> Option<String> {
    let iat = now.0.div_euclid(1000);
    let claims = Claims {
        iss: NAME.to_owned(),
        aud: NAME.to_owned(),
        sub: format!("{}.{}", address.aci, address.device_id.get()),
        iat,
        nbf: iat,
        exp: iat.saturating_add(lifetime),
        sid: BASE64_URL.encode(session.0),
        key: BASE64_URL.encode(&carried.0),
    };
    let header = Header {
        kid: Some(key.kid().to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    encode(&header, &claims, &key.signing).ok()
}

/// What the token claims, if it is signed with this key and this is its time.
pub(super) fn verify(token: &BearerToken, key: &OpenedKey, now: Timestamp) -> Option<Claimed> {
    if !key.is_good_at(now) {
        return None;
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[NAME]);
    validation.set_audience(&[NAME]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    // By the node's own clock, below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims: Claims = decode(token.as_str(), &key.verifying, &validation).ok()?.claims;
    let now = now.0.div_euclid(1000);
    let timely = claims.nbf.checked_sub(LEEWAY_SECS)? <= now && now < claims.exp.checked_add(LEEWAY_SECS)?;
    if !timely {
        return None;
    }
    Some(Claimed {
        address: address(&claims.sub)?,
        session: TokenSessionId(BASE64_URL.decode(&claims.sid).ok()?.try_into().ok()?),
        carried: BASE64_URL.decode(&claims.key).ok()?,
    })
}

fn address(sub: &str) -> Option<ProtocolAddress> {
    let (account, device) = sub.rsplit_once('.')?;
    let aci: Aci = match ServiceId::parse(account) {
        Ok(ServiceId::Aci(aci)) => aci,
        _ => return None,
    };
    Some(ProtocolAddress {
        aci,
        device_id: DeviceId::parse(device).ok()?,
    })
}

/// Who makes them, and for whom.
const NAME: &str = "blind-relay";
/// By so much may the clocks of two nodes differ.
pub(super) const LEEWAY_SECS: i64 = 30;
