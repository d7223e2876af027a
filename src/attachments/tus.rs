//! The rules of tus 1.0.0, the protocol of resumable uploads, as far as they are about headers.

use super::checksum::Checksum;

/// The version that is spoken.
pub const VERSION: &str = "1.0.0";
/// What is spoken of it beyond the core.
pub const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination";
/// The content type of bytes.
pub const CONTENT_TYPE: &str = "application/offset+octet-stream";

/// What a request says about its upload. A header that is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadHeaders {
    /// Where the bytes of this request begin.
    pub offset: Option<u64>,
    /// How many bytes the upload will have.
    pub length: Option<u64>,
    /// The length comes later.
    pub length_comes_later: bool,
    /// What the bytes of this request are to have.
    pub checksum: Option<Checksum>,
    /// The request carries bytes of an upload.
    pub carries_bytes: bool,
}

/// Why headers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersRefused {
    /// Another version of the protocol, or none.
    Version,
    /// A header is not of its form, or there twice.
    Malformed,
    /// The checksum is of another kind.
    ChecksumKind,
}

/// Reads the headers of a request. Names are in lower case.
pub fn parse<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<UploadHeaders, HeadersRefused> {
    let mut found = UploadHeaders::default();
    let (mut version, mut seen) = (None, [false; 6]);
    for (name, value) in headers {
        let Some(index) = NAMES.iter().position(|known| *known == name) else {
            continue;
        };
        if std::mem::replace(&mut seen[index], true) {
            return Err(HeadersRefused::Malformed);
        }
        match index {
            0 => version = Some(value),
            1 => found.offset = Some(number(value)?),
            2 => found.length = Some(number(value)?),
            3 if value == b"1" => found.length_comes_later = true,
            4 => found.checksum = Some(Checksum::parse(value)?),
            5 => found.carries_bytes = is_content_type(value),
            _ => return Err(HeadersRefused::Malformed),
        }
    }
    if version != Some(VERSION.as_bytes()) {
        return Err(HeadersRefused::Version);
    }
    if found.length_comes_later && found.length.is_some() {
        return Err(HeadersRefused::Malformed);
    }
    Ok(found)
}

/// Reads headers as lines of text, for fuzzing.
pub fn parse_lines(text: &[u8]) -> Result<UploadHeaders, HeadersRefused> {
    let lines = text.split(|byte| *byte == b'\n');
    parse(lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    }))
}

fn number(value: &[u8]) -> Result<u64, HeadersRefused> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(HeadersRefused::Malformed)
}

fn is_content_type(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

const NAMES: [&str; 6] = [
    "tus-resumable",
    "upload-offset",
    "upload-length",
    "upload-defer-length",
    "upload-checksum",
    "content-type",
];

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::encoding::BASE64;

    #[test]
    fn reads_a_creation_and_a_part() {
        let created = parse_lines(b"tus-resumable: 1.0.0\nupload-defer-length: 1\nupload-metadata: filename eA==");
        assert!(created.unwrap().length_comes_later);
        let sum = BASE64.encode([7; 32]);
        let part = format!(
            "tus-resumable: 1.0.0\nupload-offset: 5\nupload-length: 10\ncontent-type: {CONTENT_TYPE}\n\
             upload-checksum: sha256 {sum}"
        );
        let part = parse_lines(part.as_bytes()).unwrap();
        assert_eq!(
            part,
            UploadHeaders {
                offset: Some(5),
                length: Some(10),
                length_comes_later: false,
                checksum: Some(Checksum::Sha256([7; 32])),
                carries_bytes: true,
            }
        );
    }

    #[test]
    fn another_version_is_told_apart_from_what_is_malformed() {
        for text in ["", "upload-offset: 0", "tus-resumable: 0.2.2", "tus-resumable: 1.0"] {
            assert_eq!(parse_lines(text.as_bytes()), Err(HeadersRefused::Version), "{text}");
        }
        for line in [
            "upload-offset: -1",
            "upload-offset: +1",
            "upload-offset:",
            "upload-offset: 1 2",
            "upload-offset: 99999999999999999999",
            "upload-offset: 1\nupload-offset: 1",
            "upload-length: ten",
            "upload-defer-length: 0",
            "upload-defer-length: 1\nupload-length: 1",
            "upload-checksum: sha256",
            "upload-checksum: sha256 AAAA",
            "upload-checksum: sha256 !",
            "tus-resumable: 1.0.0",
        ] {
            let text = format!("tus-resumable: 1.0.0\n{line}");
            assert_eq!(parse_lines(text.as_bytes()), Err(HeadersRefused::Malformed), "{line}");
        }
        let text = b"tus-resumable: 1.0.0\nupload-checksum: md5 AAAA";
        assert_eq!(parse_lines(text), Err(HeadersRefused::ChecksumKind));
    }

    #[test]
    fn another_content_type_carries_no_bytes() {
        let text = b"tus-resumable: 1.0.0\ncontent-type: application/octet-stream";
        assert!(!parse_lines(text).unwrap().carries_bytes);
    }
}
