//! Searches bytes for secrets in every form in which they could be there: as they are, in hexadecimal, in base64 at each of
//! its three places, as a UUID.

use base64::Engine;
use uuid::Uuid;

use crate::encoding::{self, BASE64_UNPADDED, BASE64_URL};

/// What is searched for. All forms at once, at about one look per byte.
pub(super) struct Needles {
    forms: Vec<(Vec<u8>, &'static str)>,
    /// One bit for each pair of bytes with which a form begins.
    pairs: Vec<u64>,
}

impl Needles {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            forms: Vec::new(),
            pairs: vec![0; 65_536 / 64],
        }
    }

    /// Searches for this too. `name` tells of it and is no part of it.
    pub(super) fn add(&mut self, name: &'static str, secret: &[u8]) {
        let hex = encoding::hex(secret);
        let mut forms = vec![secret.to_owned(), hex.to_uppercase().into(), hex.into()];
        // Base64 depends on what stands before; what it shares with its neighbours is left out.
        for shift in 0..secret.len().min(3) {
            let whole = (secret.len() - shift) / 3 * 3;
            let part = &secret[shift..shift + whole];
            forms.extend([BASE64_UNPADDED.encode(part).into(), BASE64_URL.encode(part).into()]);
        }
        if let Ok(bytes) = <[u8; 16]>::try_from(secret) {
            let text = Uuid::from_bytes(bytes).to_string();
            forms.extend([text.to_uppercase().into(), text.into()]);
        }
        for form in forms {
            // Shorter ones would be found by chance.
            if form.len() >= SHORTEST {
                let pair = pair(form[0], form[1]);
                self.pairs[pair / 64] |= 1 << (pair % 64);
                self.forms.push((form, name));
            }
        }
    }

    /// The name of a secret that is there.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        if self.forms.is_empty() {
            return None;
        }
        bytes.windows(2).enumerate().find_map(|(at, two)| {
            let pair = pair(two[0], two[1]);
            if self.pairs[pair / 64] >> (pair % 64) & 1 == 0 {
                return None;
            }
            let rest = &bytes[at..];
            let found = self.forms.iter().find(|(form, _)| rest.starts_with(form));
            found.map(|(_, name)| *name)
        })
    }

    /// Whether there is nothing to search for.
    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// The length of the longest form: what two pieces of a stream must share, so that nothing hides between them.
    pub(super) fn longest(&self) -> usize {
        self.forms.iter().map(|(form, _)| form.len()).max().unwrap_or(0)
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

const SHORTEST: usize = 8;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::audit::testing::Random;

    #[test]
    fn a_planted_secret_is_found_in_every_form() {
        let secret = *b"sixteen byte key";
        let mut needles = Needles::new();
        needles.add("canary", &secret);
        needles.add("other", b"+999 and a number");
        let mut random = Random::new(7);
        for planted in [
            secret.to_vec(),
            encoding::hex(&secret).into(),
            encoding::hex(&secret).to_uppercase().into(),
            STANDARD.encode(secret).into(),
            STANDARD.encode([b"1", &secret[..], b"22"].concat()).into(),
            BASE64_URL.encode([b"12", &secret[..], b"2"].concat()).into(),
            Uuid::from_bytes(secret).to_string().into(),
        ] {
            let value = [&random.bytes(300)[..], &planted, &random.bytes(300)].concat();
            assert_eq!(needles.find(&value), Some("canary"));
            assert_eq!(needles.find(&planted), Some("canary"));
            assert_eq!(needles.find(&value[..299 + planted.len() / 2]), None);
        }
        assert!(needles.longest() >= 36);
        assert_eq!(Needles::new().find(b"anything"), None);
    }
}
