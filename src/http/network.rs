//! Where a request comes from, no finer than limits need it.
//!
//! A network is the first 24 bits of an IPv4 address, or the first 64 of an IPv6 address: what one household, one company
//! or one rented machine has to itself at least, so that nobody gets a new budget by taking a neighbouring address. It is
//! all that the program keeps of an address, in memory, while the connection is open. It is never written down anywhere.

use std::fmt;
use std::net::IpAddr;

use axum::http::Extensions;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::extract::Tunnelled;

/// A kind of address, and the beginning of one.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub struct Network([u8; 9]);

impl Network {
    /// The network of an address. An IPv4 address in the form of an IPv6 one counts as what it is.
    pub fn of(address: IpAddr) -> Self {
        let mut network = [0; 9];
        match address.to_canonical() {
            IpAddr::V4(address) => {
                network[0] = 4;
                network[1..4].copy_from_slice(&address.octets()[..3]);
            }
            IpAddr::V6(address) => {
                network[0] = 6;
                network[1..].copy_from_slice(&address.octets()[..8]);
            }
        }
        Self(network)
    }

    /// What tells it from others, for keys of limits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Says nothing.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network(..)")
    }
}

/// The network that a request comes from, whether it came by itself or through a WebSocket; `None` if no listener let it
/// in.
pub fn of_request(extensions: &Extensions) -> Option<Network> {
    found(extensions).cloned()
}

/// What names that network for limits. Whatever comes from nowhere shares one name.
pub(super) fn name_of(extensions: &Extensions) -> &[u8] {
    found(extensions).map_or(&[], Network::as_bytes)
}

fn found(extensions: &Extensions) -> Option<&Network> {
    match extensions.get::<Tunnelled>() {
        Some(tunnelled) => tunnelled.socket.network.as_ref(),
        None => extensions.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv4_network_has_256_addresses() {
        assert_eq!(network("203.0.113.0"), network("203.0.113.255"));
        assert_ne!(network("203.0.113.255"), network("203.0.114.0"));
        assert_eq!(network("203.0.113.7").as_bytes(), [4, 203, 0, 113, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn t59_hopping_within_an_ipv6_64_does_not_leave_the_network() {
        let first = network("2001:db8:1:2::");
        for hop in [
            "2001:db8:1:2::1",
            "2001:db8:1:2:8000::",
            "2001:db8:1:2:a:b:c:d",
            "2001:db8:1:2:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(network(hop), first, "{hop}");
        }
        assert_ne!(network("2001:db8:1:3::1"), first);
        assert_eq!(first.as_bytes(), [6, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 2]);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_is() {
        assert_eq!(network("::ffff:203.0.113.7"), network("203.0.113.200"));
        // An IPv6 network that happens to have the same bytes is another.
        assert_ne!(network("cb00:7100::1"), network("203.0.113.0"));
        assert_ne!(network("::"), network("0.0.0.0"));
    }

    #[test]
    fn what_is_printed_of_a_network_is_the_same_for_all() {
        assert_eq!(format!("{:?}", network("203.0.113.7")), "Network(..)");
    }
}
