//! The address of a request's client: the peer of its connection or, behind a trusted proxy, the one that the proxy names.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use tenantry_model::Network;

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies(pub Vec<Network>);

impl Proxies {
    /// Whether a proxy has this address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client's address: the peer of the connection or, if that is a trusted proxy, the last address in
    /// `X-Forwarded-For` that is not one. What stands before an entry that is no address is not believed.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let values =
            headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default());
        let mut named: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
        let mut client = peer.to_canonical();
        while self.contain(client)
            && let Some(address) = named.pop().and_then(address)
        {
            client = address;
        }
        client
    }
}

/// An entry of `X-Forwarded-For`: an address, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let with_port = || entry.parse().ok().map(|socket: SocketAddr| socket.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    entry.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = Proxies(vec!["10.0.0.0/30".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 9.9.9.9".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        assert_eq!(proxies.client(address("10.0.0.1"), &headers), address("9.9.9.9"));
        assert_eq!(proxies.client(address("::ffff:10.0.0.1"), &headers), address("9.9.9.9"));
        assert_eq!(proxies.client(address("8.8.8.8"), &headers), address("8.8.8.8"));
        for (forwarded, expected) in [
            ("6.6.6.6, x, 9.9.9.9", "9.9.9.9"),
            ("6.6.6.6, x", "10.0.0.1"),
            ("6.6.6.6, 9.9.9.9:1234, 10.0.0.2", "9.9.9.9"),
            ("6.6.6.6, [2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:9.9.9.9", "9.9.9.9"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("", "10.0.0.1"),
        ] {
            let headers =
                HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), forwarded.parse().unwrap())]);
            assert_eq!(proxies.client(address("10.0.0.1"), &headers), address(expected), "{forwarded}");
        }
        assert_eq!(proxies.client(address("10.0.0.1"), &HeaderMap::new()), address("10.0.0.1"));
    }
}
