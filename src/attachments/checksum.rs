//! Checksums of parts. They find what a network has changed, so that SHA-1, which tus asks servers to know, is as good.

use base64::Engine;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::tus::HeadersRefused;
use crate::encoding::BASE64;

/// What the bytes of a part are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl Checksum {
    /// The kinds, as servers of tus name them.
    pub const KINDS: &str = "sha1,sha256";

    /// Reads the value of an `Upload-Checksum` header.
    pub(super) fn parse(value: &[u8]) -> Result<Self, HeadersRefused> {
        let text = std::str::from_utf8(value).map_err(|_| HeadersRefused::Malformed)?;
        let (kind, sum) = text.split_once(' ').ok_or(HeadersRefused::Malformed)?;
        if kind != "sha1" && kind != "sha256" {
            return Err(HeadersRefused::ChecksumKind);
        }
        let sum = BASE64.decode(sum).map_err(|_| HeadersRefused::Malformed)?;
        let found = if kind == "sha1" {
            sum.try_into().map(Self::Sha1)
        } else {
            sum.try_into().map(Self::Sha256)
        };
        found.map_err(|_| HeadersRefused::Malformed)
    }

    /// Begins to look at bytes.
    pub(super) fn begin(self) -> Summing {
        match self {
            Self::Sha1(wanted) => Summing::Sha1(Sha1::new(), wanted),
            Self::Sha256(wanted) => Summing::Sha256(Sha256::new(), wanted),
        }
    }
}

/// A checksum that is being made.
pub(super) enum Summing {
    Sha1(Sha1, [u8; 20]),
    Sha256(Sha256, [u8; 32]),
}

impl Summing {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(digest, _) => digest.update(bytes),
            Self::Sha256(digest, _) => digest.update(bytes),
        }
    }

    /// Whether the bytes had it.
    pub(super) fn fits(self) -> bool {
        match self {
            Self::Sha1(digest, wanted) => <[u8; 20]>::from(digest.finalize()) == wanted,
            Self::Sha256(digest, wanted) => <[u8; 32]>::from(digest.finalize()) == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_fit_the_bytes_they_were_made_of_and_no_others() {
        for value in [
            "sha1 qUqP5cyxm6YcTAhz05Hph5gvu9M=",
            "sha256 n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
        ] {
            for (bytes, fits) in [(&b"test"[..], true), (b"tests", false)] {
                let mut summing = Checksum::parse(value.as_bytes()).unwrap().begin();
                bytes.chunks(3).for_each(|chunk| summing.take(chunk));
                assert_eq!(summing.fits(), fits, "{value}");
            }
        }
        for value in [
            "sha1 n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
            "sha256 qUqP5cyxm6YcTAhz05Hph5gvu9M=",
        ] {
            assert_eq!(Checksum::parse(value.as_bytes()), Err(HeadersRefused::Malformed));
        }
    }
}
