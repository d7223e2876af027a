//! The settings of proxies in front of the server.

use std::net::IpAddr;

use ipnet::IpNet;

use super::read::Reader;

/// Proxies in front of the server.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Where they are.
    pub trusted: Vec<IpNet>,
    /// Whether they begin connections with the PROXY protocol.
    pub protocol: bool,
}

pub(super) fn read_proxies(r: &mut Reader<'_>) -> Proxies {
    let texts = r.texts("proxies.trusted");
    let protocol = r.boolean("proxies.protocol");
    if texts.len() > MAX_RANGES {
        r.refuse(
            "proxies.trusted",
            "too many",
            format!("give up to {MAX_RANGES}, as ranges"),
        );
    }
    let trusted: Vec<IpNet> = texts
        .iter()
        .filter_map(|text| {
            let range = range(text);
            if let Err(what) = range {
                let remedy =
                    "write the proxy's address, such as 10.0.0.5, or the range of several, such as 10.0.0.0/24";
                r.refuse("proxies.trusted", what, remedy);
            }
            range.ok()
        })
        .collect();
    if protocol && texts.is_empty() {
        let remedy = "say where the balancer is: the protocol is read from no other address";
        r.refuse("proxies.protocol", "given without proxies.trusted", remedy);
    }
    Proxies { trusted, protocol }
}

fn range(text: &str) -> Result<IpNet, &'static str> {
    let range = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse().map_err(|_| "neither an address nor a range")?,
    };
    if range.prefix_len() == 0 {
        return Err("a range of all addresses, so that everybody could claim any");
    }
    match range {
        // Addresses are compared in their shorter form.
        IpNet::V6(range) if range.network().to_ipv4_mapped().is_some() => Err("an IPv4 range in the form of IPv6"),
        range => Ok(range.trunc()),
    }
}

/// More than any operator of a content network has.
const MAX_RANGES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_toml;

    fn read(text: &str) -> Result<Proxies, String> {
        let config = parse_toml(&format!("[proxies]\n{text}"));
        config.map(|config| config.proxies).map_err(|error| error.to_string())
    }

    #[test]
    fn proxies_are_addresses_and_ranges() {
        let none = read("").unwrap();
        assert!(none.trusted.is_empty() && !none.protocol);
        let some = read("trusted = ['10.0.0.5', '192.0.2.77/24', '::1', 'fd00::/8', '::ffff:10.0.0.6']").unwrap();
        let shown: Vec<String> = some.trusted.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["10.0.0.5/32", "192.0.2.0/24", "::1/128", "fd00::/8", "10.0.0.6/32"]
        );
        assert!(read("trusted = '10.0.0.5'\nprotocol = true").unwrap().protocol);
    }

    #[test]
    fn what_is_no_address_of_a_proxy_is_refused() {
        let many = format!("trusted = {:?}", vec!["10.0.0.1"; MAX_RANGES + 1]);
        for (text, wanted) in [
            ("trusted = ['proxy.example.org']", "write the proxy's address"),
            ("trusted = ['10.0.0.1:80']", "write the proxy's address"),
            ("trusted = ['10.0.0.0/33']", "write the proxy's address"),
            ("trusted = ['10.0.0.1', '']", "write the proxy's address"),
            ("trusted = ['0.0.0.0/0']", "a range of all addresses"),
            ("trusted = ['::/0']", "a range of all addresses"),
            ("trusted = ['::ffff:10.0.0.0/104']", "an IPv4 range in the form of IPv6"),
            (&many, "up to 512"),
            ("protocol = true", "given without proxies.trusted"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
}
