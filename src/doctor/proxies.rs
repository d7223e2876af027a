//! Whether the server knows what stands in front of it.

use super::Check;
use crate::config::{Config, Tls};

/// What is configured, and whether it looks as if something is missing.
pub(super) fn proxies(config: &Config) -> Check {
    let proxies = &config.proxies;
    if !proxies.trusted.is_empty() {
        let how = if proxies.protocol {
            "the PROXY protocol is demanded of"
        } else {
            "X-Forwarded-For is believed from"
        };
        let count = match proxies.trusted.len() {
            1 => "1 address or range".to_owned(),
            count => format!("{count} addresses and ranges"),
        };
        return Check::ok("proxies", format!("{how} {count}"));
    }
    // Somebody speaks TLS for this server.
    let url = config.public_url.as_ref();
    if url.is_some_and(|url| url.starts_with("https://")) && config.tls == Tls::Off {
        let remedy = "all clients share the limits of one network if a proxy is in front: name its address in \
                      proxies.trusted";
        return Check::warn("proxies", "none, but public_url says https and TLS is off", remedy);
    }
    Check::ok("proxies", "none, connections are of whoever opens them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_toml;
    use crate::doctor::Verdict;

    fn check(text: &str) -> Check {
        proxies(&parse_toml(text).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn what_is_configured_is_told_and_what_seems_forgotten_is_warned_of() {
        assert_eq!(check("").verdict, Verdict::Ok);
        let url = "public_url = 'https://relay.example.org'";
        assert!(matches!(check(url).verdict, Verdict::Warn(_)));
        let tls = format!("{url}\ntls_self_signed = true");
        assert_eq!(check(&tls).verdict, Verdict::Ok, "it speaks TLS itself");
        let one = check(&format!("{url}\nproxies.trusted = ['10.0.0.5']"));
        assert_eq!(
            one.to_string(),
            "ok    proxies: X-Forwarded-For is believed from 1 address or range"
        );
        let two = check("proxies.trusted = ['10.0.0.5', 'fd00::/8']\nproxies.protocol = true");
        assert_eq!(two.what, "the PROXY protocol is demanded of 2 addresses and ranges");
    }
}
