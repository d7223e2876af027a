//! Proxies and balancers in front of this server: whose word on a client's address is taken.
//!
//! Only that of addresses which the operator named. They say it with the PROXY protocol ([`protocol`]), before a
//! connection's first byte, or with each request in a header ([`forwarded`]). From anybody else the header is ignored: it
//! is where whoever wants another budget would write another address. It reaches no handler in any case.
//!
//! A full address is looked at here and nowhere else, and what leaves is its [`Network`].

pub mod forwarded;
pub mod protocol;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use tokio::io::AsyncRead;

use super::network::Network;

/// The configured proxies.
#[derive(Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    protocol: bool,
    told: AtomicBool,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    network: Network,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A configured proxy, which says in a header for whom it asks.
    Proxy,
    /// A configured proxy that asks for itself, or does not know for whom. It does not look into requests, and so a header in
    /// them is not its own.
    Balancer,
    /// Not configured, but on this machine or in a private network: where proxies are.
    Near,
    /// Anybody.
    Stranger,
}

impl Peer {
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Whether its connections are all for one network, its own.
    pub(super) fn is_client(&self) -> bool {
        matches!(self.part, Part::Near | Part::Stranger)
    }
}

impl Proxies {
    /// With these ranges; `protocol` if they begin connections with the PROXY protocol.
    pub fn new(trusted: Vec<IpNet>, protocol: bool) -> Self {
        Self {
            trusted,
            protocol,
            told: AtomicBool::new(false),
        }
    }

    /// Who has this address.
    pub(super) fn peer(&self, address: IpAddr) -> Peer {
        let address = address.to_canonical();
        let part = if is_trusted(&self.trusted, address) {
            Part::Proxy
        } else if is_near(address) {
            Part::Near
        } else {
            Part::Stranger
        };
        Peer {
            network: Network::of(address),
            part,
        }
    }

    /// For whom a connection of `peer` is, once it has said so if it must. Of anybody else's connection nothing is read.
    pub(super) async fn client(&self, peer: Peer, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Peer> {
        if !self.protocol || peer.part != Part::Proxy {
            return Ok(peer);
        }
        Ok(match Box::pin(protocol::read(stream)).await? {
            protocol::Source::Client(address) => self.peer(address),
            protocol::Source::Balancer => Peer {
                part: Part::Balancer,
                ..peer
            },
        })
    }

    /// The network for which `peer` sends a request, if it is a proxy that says so. Takes the header out.
    pub(super) fn forwarded(&self, peer: &Peer, headers: &mut HeaderMap) -> Option<Network> {
        let client = match peer.part {
            Part::Proxy => {
                let lines = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
                forwarded::client(lines, &self.trusted)
            }
            Part::Near if headers.contains_key(X_FORWARDED_FOR) => {
                self.tell_once();
                None
            }
            Part::Near | Part::Balancer | Part::Stranger => None,
        };
        headers.remove(X_FORWARDED_FOR);
        client.map(Network::of)
    }

    /// Without the operator's help all clients of such a proxy would be one.
    fn tell_once(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a peer on loopback or in a private network sends X-Forwarded-For and is not configured as a proxy: the \
                 header is ignored, and all who come through that peer share the limits of one network; if it is your \
                 proxy, name its address in proxies.trusted"
            );
        }
    }
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|range| range.contains(&address))
}

fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // What carriers and overlay networks have between private and public.
            let shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
            address.is_loopback() || address.is_private() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(protocol: bool) -> Proxies {
        Proxies::new(
            vec!["192.0.2.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()],
            protocol,
        )
    }

    fn peer(proxies: &Proxies, address: &str) -> Peer {
        proxies.peer(address.parse().unwrap())
    }

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn t59_only_a_configured_proxy_is_believed_and_no_handler_sees_the_header() {
        let proxies = proxies(false);
        for (address, believed) in [
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("fd00::1", true),
            ("192.0.3.1", false),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("203.0.113.9", false),
            ("2001:db8::1", false),
        ] {
            let peer = peer(&proxies, address);
            let mut headers = headers(&["198.51.100.1", "203.0.113.7, 192.0.2.7"]);
            let found = proxies.forwarded(&peer, &mut headers);
            assert_eq!(found, believed.then(|| network("203.0.113.7")), "{address}");
            assert!(headers.is_empty(), "{address}");
            assert_eq!(peer.is_client(), !believed, "{address}");
            assert_eq!(peer.network(), &network(address));
        }
    }

    #[test]
    fn a_proxy_that_names_nobody_is_its_own_network() {
        let proxies = proxies(false);
        for lines in [&[][..], &[""], &["nonsense"], &["203.0.113.7, nonsense"]] {
            let found = proxies.forwarded(&peer(&proxies, "192.0.2.1"), &mut headers(lines));
            assert_eq!(found, None, "{lines:?}");
        }
    }

    #[test]
    fn only_a_near_peer_that_sends_the_header_is_told_of() {
        let told = |address: &str, lines: &[&'static str]| {
            let proxies = proxies(false);
            proxies.forwarded(&peer(&proxies, address), &mut headers(lines));
            proxies.told.load(Ordering::Relaxed)
        };
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(told(near, &["203.0.113.7"]), "{near}");
            assert!(!told(near, &[]), "{near}");
        }
        for other in ["192.0.2.1", "203.0.113.1", "100.128.0.1", "2001:db8::1"] {
            assert!(!told(other, &["203.0.113.7"]), "{other}");
        }
    }

    #[tokio::test]
    async fn the_protocol_is_read_from_configured_proxies_alone() {
        let proxies = proxies(true);
        let line = b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\nrest";
        let mut stream = &line[..];
        let client = proxies.client(peer(&proxies, "192.0.2.1"), &mut stream).await.unwrap();
        assert_eq!(
            (client.network(), client.is_client(), stream),
            (&network("203.0.113.7"), true, &b"rest"[..])
        );
        // The client's own header is not its proxy's.
        assert_eq!(proxies.forwarded(&client, &mut headers(&["198.51.100.1"])), None);

        let mut stream = &line[..];
        let stranger = proxies
            .client(peer(&proxies, "198.51.100.1"), &mut stream)
            .await
            .unwrap();
        assert_eq!((stranger.network(), stream), (&network("198.51.100.1"), &line[..]));

        // A proxy in front of the balancer, which is one of ours as well.
        let mut stream = &b"PROXY TCP4 192.0.2.99 192.0.2.1 4660 443\r\n"[..];
        let behind = proxies.client(peer(&proxies, "192.0.2.1"), &mut stream).await.unwrap();
        let found = proxies.forwarded(&behind, &mut headers(&["203.0.113.7"]));
        assert_eq!(found, Some(network("203.0.113.7")));
    }

    #[tokio::test]
    async fn a_balancer_that_asks_for_itself_is_neither_believed_nor_counted() {
        let proxies = proxies(true);
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let mut stream = line;
            let balancer = proxies.client(peer(&proxies, "192.0.2.1"), &mut stream).await.unwrap();
            assert_eq!(balancer.network(), &network("192.0.2.1"));
            assert!(!balancer.is_client());
            assert_eq!(proxies.forwarded(&balancer, &mut headers(&["203.0.113.7"])), None);
        }
    }
}
