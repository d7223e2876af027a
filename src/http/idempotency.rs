//! `Idempotency-Key`: the client's own name for a request, by which a retry is known.

use axum::http::HeaderMap;

use super::error::ApiError;

/// The key of a request, if it has one. One that a client cannot have meant is refused, so that nobody believes in a
/// protection that is not there.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ApiError> {
    let mut shown = headers.get_all("idempotency-key").iter();
    let Some(key) = shown.next() else { return Ok(None) };
    let key = key.as_bytes();
    let fits = (MIN_BYTES..=MAX_BYTES).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if !fits || shown.next().is_some() {
        return Err(ApiError::bad_request(
            "idempotency_key",
            "an Idempotency-Key is one value of 16 to 64 visible ASCII characters",
        ));
    }
    Ok(Some(key.to_vec()))
}

/// Short ones are guessed, or used again by accident.
const MIN_BYTES: usize = 16;
const MAX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_has_16_to_64_visible_characters() {
        for good in [&[b'a'; 16][..], &[b'~'; 64]] {
            assert_eq!(idempotency_key(&headers(&[good])).unwrap().unwrap(), good);
        }
        assert!(idempotency_key(&headers(&[])).unwrap().is_none());
        for bad in [
            &[b'a'; 15][..],
            &[b'a'; 65],
            b"",
            b"sixteen and space",
            b"sixteen\xc3\xa4umlauts",
        ] {
            assert!(idempotency_key(&headers(&[bad])).is_err(), "{bad:?}");
        }
        assert!(idempotency_key(&headers(&[&[b'a'; 16], &[b'a'; 16]])).is_err());
    }
}
