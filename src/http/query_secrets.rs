//! Refuses what does not belong into a URL: tokens and passwords.
//!
//! Queries are written down where headers are not: by proxies, in histories of browsers, in logs of others. Whoever puts a
//! secret there is told so at once, whatever the route, so that no client gets used to it.

use super::error::ApiError;

/// Whether a parameter is called as a secret is, or its value looks like a token. Of names the letters count, whatever
/// their case, and how they are escaped.
pub(super) fn has_secret(query: &str) -> bool {
    query.split(['&', ';']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name: String = unescaped(name)
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect();
        NAMES.contains(&name.as_str()) || is_token(&unescaped(value).collect::<Vec<u8>>())
    })
}

/// The bytes that a text of a query stands for. What is no escape stands for itself.
fn unescaped(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if *first == b'%'
            && let Some(([high, low], after)) = after.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            rest = after;
            return u8::try_from(high * 16 + low).ok();
        }
        rest = after;
        Some(*first)
    })
}

/// A JSON Web Token begins with an object in base64 and has three parts.
fn is_token(value: &[u8]) -> bool {
    let scheme = value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ");
    let token = value.strip_prefix(b"Bearer+").unwrap_or(value);
    scheme || (token.starts_with(b"eyJ") && token.split(|byte| *byte == b'.').count() == 3)
}

/// As lower-case letters.
const NAMES: [&str; 12] = [
    "accesstoken",
    "apikey",
    "auth",
    "authorization",
    "authtoken",
    "bearer",
    "idtoken",
    "jwt",
    "login",
    "password",
    "refreshtoken",
    "token",
];
/// The answer to it, on every route.
pub(super) const SECRET: ApiError = ApiError::bad_request(
    "secret_in_query",
    "tokens and passwords are shown in the header Authorization, never in a URL",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t09_secrets_are_known_by_their_names_and_tokens_by_their_form() {
        for query in [
            "access_token=x",
            "a=b&Access-Token=x",
            "a;token",
            "%74oken=x",
            "refreshToken=x&a=b",
            "login=a&password=b",
            "authorization=Basic%20abc",
            "x=eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ.AAAA",
            "x=%65yJhbGciOiJFZERTQSJ9.eyJhIjoxfQ.AAAA",
            "x=Bearer%20abc",
            "x=bearer abcd",
        ] {
            assert!(has_secret(query), "{query}");
        }
    }

    #[test]
    fn what_clients_ask_is_no_secret() {
        for query in [
            "",
            "identity=ACI",
            "ts=1700000000123&online=false&urgent=true&story=false",
            "deviceId=2",
            "timeout=30",
            "includeE164=false",
            "since=eyJ",
            "uploadLength=1000",
            "credentialType=expiringProfileKey",
            "tokenish=a.b.c",
            "a=%zz%2",
        ] {
            assert!(!has_secret(query), "{query}");
        }
    }
}
