//! Settings of tokens, and of the sites whose pages may open sockets.

use std::sync::Arc;
use std::time::Duration;

use super::Tokens;
use super::read::Reader;

pub(super) fn read_tokens(r: &mut Reader<'_>) -> Tokens {
    Tokens {
        access: Duration::from_secs(60 * r.integer("tokens.access_minutes", 1..=60_u64)),
        refresh_days: r.integer("tokens.refresh_days", 1..=90),
    }
}

/// Scheme and host of sites, as browsers write them.
pub(super) fn read_origins(r: &mut Reader<'_>) -> Arc<[String]> {
    let origins = r.texts("allowed_origins");
    if origins.len() > MAX_ORIGINS || !origins.iter().all(|origin| is_origin(origin)) {
        r.refuse(
            "allowed_origins",
            "not a list of up to 64 origins",
            "write them as browsers do: https://chat.example.org, with a port if it is not the usual one, and no slash at \
             the end",
        );
    }
    origins.into()
}

fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(allowed))
}

const MAX_ORIGINS: usize = 64;
/// A name of 253 characters and a port.
const MAX_HOST: usize = 260;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for origin in [
            "https://chat.example.org",
            "http://localhost:3000",
            "https://[::1]:8443",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "https://",
            "chat.example.org",
            "https://chat.example.org/",
            "https://Chat.example.org",
            "https://a b",
            "wss://chat.example.org",
            "*",
            "null",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }
}
