//! The PROXY protocol, versions 1 and 2: what a balancer says of a connection before its first byte.
//!
//! Of a header exactly its own bytes are read, and never more than it may have, so that TLS or HTTP begins where it ends.
//! The crate judges it; how it is read is ours.

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

/// For whom a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client at this address.
    Client(IpAddr),
    /// The balancer itself, as for its health checks, or somebody whose address it does not know.
    Balancer,
}

/// Reads the header that a connection must begin with.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Source> {
    let mut header = Zeroizing::new(Vec::with_capacity(V1_MOST));
    more(stream, &mut header, SHORTEST).await?;
    if header.starts_with(V2_SIGNATURE) {
        more(stream, &mut header, V2_FIXED - SHORTEST).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > V2_MOST {
            return Err(malformed());
        }
        more(stream, &mut header, rest).await?;
    } else if header.starts_with(V1_PREFIX) {
        // It ends where its line does, and only its bytes tell where that is.
        while header.last() != Some(&b'\n') {
            if header.len() == V1_MOST {
                return Err(malformed());
            }
            more(stream, &mut header, 1).await?;
        }
    } else {
        return Err(malformed());
    }
    source(&header).ok_or_else(malformed)
}

async fn more(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>, count: usize) -> io::Result<()> {
    let had = header.len();
    header.resize(had + count, 0);
    stream.read_exact(&mut header[had..]).await?;
    Ok(())
}

/// What a whole header says; `None` if it is not well formed. Also the one that fuzzing calls.
pub fn source(header: &[u8]) -> Option<Source> {
    // Of such a header nothing else may be looked at: some balancers leave there what is no address.
    let local = |rest: &[u8]| rest.first() == Some(&V2_LOCAL);
    if header.len() >= V2_FIXED && header.strip_prefix(V2_SIGNATURE).is_some_and(local) {
        return Some(Source::Balancer);
    }
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: header.starts_with(V1_PREFIX),
        allow_v2: true,
    };
    let (parsed, length) = ProxyHeader::parse(header, config).ok()?;
    if length != header.len() {
        return None;
    }
    match parsed.proxied_address() {
        None => Some(Source::Balancer),
        Some(address) if address.protocol == Protocol::Stream => Some(Source::Client(address.source.ip())),
        Some(_) => None,
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const V1_MOST: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// Version 2, command LOCAL.
const V2_LOCAL: u8 = 0x20;
/// What may follow the fixed part. Addresses have up to 216 bytes, and what balancers add to them some hundred.
const V2_MOST: usize = 2_048;
/// `PROXY UNKNOWN` and the end of the line.
const SHORTEST: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// From 203.0.113.7:4660 to 192.0.2.1:443.
    const IPV4: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 1, 187];

    /// What the header says, and what is left of the stream behind it.
    async fn read_from(bytes: &[u8]) -> (Option<Source>, Vec<u8>) {
        let mut stream = bytes;
        let found = read(&mut stream).await.ok();
        (found, stream.to_vec())
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    #[tokio::test]
    async fn headers_of_both_versions_say_for_whom_and_are_read_to_their_end() {
        let ipv6: Vec<u8> = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 1, 0, 2]].concat();
        let with_more = [&IPV4[..], &[3, 0, 4, 1, 2, 3, 4, 0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        let longest = [&IPV4[..], &[4, 7, 0xf1], &vec![0; V2_MOST - 15]].concat();
        for (header, wanted) in [
            (
                b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n".to_vec(),
                client("203.0.113.7"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 65535 443\r\n".to_vec(),
                client("2001:db8::1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Balancer),
            (
                b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
                Source::Balancer,
            ),
            (
                format!("PROXY UNKNOWN{}\r\n", format!(" {}", ["ffff"; 8].join(":")).repeat(2)).into(),
                Source::Balancer,
            ),
            (v2(0x21, 0x11, &IPV4), client("203.0.113.7")),
            (v2(0x21, 0x21, &ipv6), client("2001:db8::1")),
            (v2(0x21, 0x11, &with_more), client("203.0.113.7")),
            (v2(0x21, 0x11, &longest), client("203.0.113.7")),
            // An unspecified family, and a path of Unix.
            (v2(0x21, 0, &[]), Source::Balancer),
            (v2(0x21, 0x31, &[0; 216]), Source::Balancer),
            // LOCAL, whatever comes with it.
            (v2(0x20, 0, &[]), Source::Balancer),
            (v2(0x20, 0x11, &IPV4), Source::Balancer),
            (v2(0x20, 0x11, b"no address"), Source::Balancer),
            (v2(0x20, 0xff, b"?"), Source::Balancer),
        ] {
            let (found, rest) = read_from(&[&header[..], b"\x16\x03 what follows"].concat()).await;
            assert_eq!(found, Some(wanted), "{}", header.escape_ascii());
            assert_eq!(rest, b"\x16\x03 what follows", "{}", header.escape_ascii());
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let mut wrong_signature = v2(0x21, 0x11, &IPV4);
        wrong_signature[5] = b'x';
        for bytes in [
            b"GET /v1/keepalive HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00".to_vec(),
            b"PROXY\tTCP4 203.0.113.7 192.0.2.1 4660 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4660\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 99999\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 4660 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.007 192.0.2.1 4660 443\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 192.0.2.1 4660 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\n".to_vec(),
            b"PROXY \r\n\r\n\r\n\r\n\r\n\r\n".to_vec(),
            [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat(),
            [&b"PROXY UNKNOWN "[..], &[b'x'; 100], b"\r\n"].concat(),
            wrong_signature,
            // Version 1 in binary, version 3, no command.
            v2(0x11, 0x11, &IPV4),
            v2(0x31, 0x11, &IPV4),
            v2(0x22, 0x11, &IPV4),
            // Datagrams, families that are none, addresses that are cut.
            v2(0x21, 0x12, &IPV4),
            v2(0x21, 0x41, &IPV4),
            v2(0x21, 0x11, &IPV4[..11]),
            v2(0x21, 0x21, &IPV4),
            v2(0x21, 0x31, &[0; 215]),
            // Too large, also where nothing of it would be looked at.
            v2(0x21, 0x11, &[0; V2_MOST + 1]),
            v2(0x20, 0, &[0; V2_MOST + 1]),
        ] {
            let (found, _) = read_from(&bytes).await;
            assert_eq!(found, None, "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_header_that_is_cut_anywhere_is_refused() {
        for whole in [
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x21, 0x11, &IPV4),
            v2(0x20, 0, &[0; 3]),
        ] {
            for length in 0..whole.len() {
                assert_eq!(read_from(&whole[..length]).await.0, None, "{length}");
                assert_eq!(source(&whole[..length]).filter(|_| length < V2_FIXED), None, "{length}");
            }
        }
    }
}
