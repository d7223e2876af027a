//! Settings that reach clients: TURN servers, and values of the operator's own.

use std::collections::BTreeMap;

use super::Turn;
use super::read::Reader;

/// `None` if there are no TURN servers.
pub(super) fn read_turn(r: &mut Reader<'_>) -> Option<Turn> {
    let urls = r.texts("turn.urls");
    // Its file has been read into `turn.secret` by `load`.
    r.path("turn.secret_file");
    let secret = r.secret("turn.secret");
    let ttl = r.seconds("turn.ttl_secs", 60..=604_800);
    if urls.len() > MAX_URLS || urls.iter().any(|url| !is_turn_url(url)) {
        r.refuse(
            "turn.urls",
            "not a list of up to 32 TURN URLs",
            "write them as turn:HOST:PORT?transport=udp, turns:HOST:PORT or stun:HOST:PORT",
        );
    }
    match (urls.is_empty(), secret) {
        (false, Some(secret)) => Some(Turn { urls, secret, ttl }),
        (true, None) => None,
        (false, None) => {
            let remedy = "give turn.secret_file: a file with the static-auth-secret of the TURN server";
            r.refuse("turn.urls", "given without turn.secret", remedy);
            None
        }
        (true, Some(_)) => {
            r.refuse(
                "turn.secret",
                "given without turn.urls",
                "say where the TURN servers are",
            );
            None
        }
    }
}

/// Names and values go to clients as JSON without a single escape, since some cannot read any.
pub(super) fn read_remote_config(r: &mut Reader<'_>) -> BTreeMap<String, String> {
    let values = r.table("remote_config");
    let fits =
        |text: &str, most: usize| text.len() <= most && !text.contains(|c: char| c.is_control() || "\"\\".contains(c));
    let fitting = values
        .iter()
        .all(|(name, value)| !name.is_empty() && fits(name, MAX_NAME_BYTES) && fits(value, MAX_VALUE_BYTES));
    if values.len() > MAX_VALUES || !fitting {
        r.refuse(
            "remote_config",
            "too much, or not plain text",
            "give up to 256 names of up to 128 bytes with values of up to 1024 bytes, without quotes, backslashes and \
             line breaks",
        );
    }
    values
}

/// Visible ASCII behind a known scheme. Whether a server is there shows when someone calls.
fn is_turn_url(url: &str) -> bool {
    let rest = ["turn:", "turns:", "stun:", "stuns:"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && url.len() <= MAX_URL_BYTES
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
    })
}

const MAX_URLS: usize = 32;
const MAX_URL_BYTES: usize = 255;
const MAX_VALUES: usize = 256;
const MAX_NAME_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 1024;
