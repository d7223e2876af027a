//! `X-Forwarded-For`: whom a proxy says that it asks for.
//!
//! Each proxy adds to the right the address that it was asked from. So the list is read from there: addresses of
//! configured proxies are passed over, and the first other one is whom the last of ours saw. What stands further left is
//! that one's own word, and is not looked at.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::is_trusted;

/// The address that these lines of the header name, in the order in which they came; `None` if they name none that can be
/// believed. Where all are of configured proxies it is the farthest: one of them asks for itself.
pub fn client<'a>(lines: impl DoubleEndedIterator<Item = &'a [u8]>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut farthest = None;
    let hops = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for (passed, hop) in hops.enumerate() {
        if passed == MAX_HOPS {
            return None;
        }
        let address = address(hop)?;
        if !is_trusted(trusted, address) {
            return Some(address);
        }
        farthest = Some(address);
    }
    farthest
}

/// An address as proxies write it: some with the port, and IPv6 then in brackets.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => hop
            .parse()
            .or_else(|_| hop.parse().map(|address: SocketAddr| address.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// Proxies in a row. Whoever has more of them is not understood.
const MAX_HOPS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Option<String> {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8:f::/48", "192.0.2.1/32"]
            .iter()
            .map(|range| range.parse().unwrap())
            .collect();
        client(lines.iter().map(|line| line.as_bytes()), &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_first_stranger_from_the_right_is_the_client() {
        for (lines, client) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["203.0.113.7, 10.0.0.1"], "203.0.113.7"),
            (&["198.51.100.1, 203.0.113.7,10.0.0.1 , 192.0.2.1"], "203.0.113.7"),
            // Lines are one list, the last line nearest to us.
            (&["198.51.100.1", "203.0.113.7, 10.0.0.1", "10.0.0.2"], "203.0.113.7"),
            (&["2001:db8:1::1, 2001:db8:f::1"], "2001:db8:1::1"),
            (&["[2001:db8:1::1]:443"], "2001:db8:1::1"),
            (&["[2001:db8:1::1]"], "2001:db8:1::1"),
            (&["203.0.113.7:40000"], "203.0.113.7"),
            (&["::ffff:203.0.113.7, ::ffff:10.1.1.1"], "203.0.113.7"),
            // What a client made up stands to the left of its own address.
            (&["10.0.0.9, 127.0.0.1, nonsense, 203.0.113.7, 10.0.0.1"], "203.0.113.7"),
            // Nobody but ours: the farthest.
            (&["10.0.0.9, 10.0.0.1"], "10.0.0.9"),
        ] {
            assert_eq!(found(lines).as_deref(), Some(client), "{lines:?}");
        }
    }

    #[test]
    fn what_is_malformed_where_a_client_should_be_names_nobody() {
        for lines in [
            &[][..],
            &[""],
            &[" "],
            &["unknown"],
            &["203.0.113.7, "],
            &["203.0.113.7,,10.0.0.1"],
            &["203.0.113.7, nonsense, 10.0.0.1"],
            &["203.0.113.256"],
            &["203.0.113"],
            &["0x7f.1"],
            &["fe80::1%eth0"],
            &["[203.0.113.7]"],
            &["[2001:db8:1::1"],
            &["203.0.113.7:99999"],
            &["203.0.113.7 198.51.100.1"],
            &["203.0.113.7\0"],
            &["203.0.113.7", ""],
        ] {
            assert_eq!(found(lines), None, "{lines:?}");
        }
        assert_eq!(client([&b"\xff\xfe"[..]].into_iter(), &[]), None);
    }

    #[test]
    fn a_chain_that_is_too_long_names_nobody() {
        let chain = |hops: usize| format!("203.0.113.7{}", ", 10.0.0.1".repeat(hops));
        assert_eq!(found(&[&chain(MAX_HOPS - 1)]).as_deref(), Some("203.0.113.7"));
        assert_eq!(found(&[&chain(MAX_HOPS)]), None);
        assert_eq!(found(&[&chain(100_000)]), None);
        let lines = vec!["10.0.0.1"; 1_000];
        assert_eq!(found(&lines), None);
    }
}
