//! Where the servers are.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::builder::BuildError;

/// How connections are made.
pub(crate) struct Transport {
    pub(crate) ca_pem: Option<Vec<u8>>,
    pub(crate) server_name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) allow_plaintext: bool,
}

/// The servers, and the one that is in use.
#[derive(Debug)]
pub(crate) struct Addresses {
    servers: Vec<(String, Channel)>,
    current: AtomicUsize,
}

impl Addresses {
    /// Makes channels, which connect when they are first used.
    pub(crate) fn new(addresses: &[String], transport: &Transport) -> Result<Self, BuildError> {
        if addresses.is_empty() {
            return Err(BuildError::NoAddress);
        }
        let servers = addresses
            .iter()
            .map(|address| Ok((address.clone(), channel(address, transport)?)))
            .collect::<Result<_, BuildError>>()?;
        Ok(Self { servers, current: AtomicUsize::new(0) })
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The server in use: its number, name and channel.
    pub(crate) fn current(&self) -> (usize, &str, Channel) {
        let index = self.current.load(Ordering::Relaxed) % self.servers.len();
        let (name, channel) = &self.servers[index];
        (index, name, channel.clone())
    }

    /// Goes on to the next server, unless another call did so already.
    pub(crate) fn leave(&self, index: usize) {
        let next = (index + 1) % self.servers.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn channel(address: &str, transport: &Transport) -> Result<Channel, BuildError> {
    let invalid =
        |problem: &str| BuildError::Address { address: address.to_owned(), problem: problem.to_owned() };
    // A bare host:port is read as its neighbours print it: plaintext on this machine, TLS elsewhere.
    let is_bare = !address.contains("://") && !address.starts_with("unix:");
    let plain = is_bare && format!("http://{address}").parse().is_ok_and(|uri| is_loopback(&uri));
    let scheme = match (is_bare, plain) {
        (false, _) => "",
        (true, true) => "http://",
        (true, false) => "https://",
    };
    let endpoint = Endpoint::from_shared(format!("{scheme}{address}")).map_err(|_| invalid("not a URI"))?;
    let uri = endpoint.uri().clone();
    let endpoint = endpoint
        .connect_timeout(transport.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .user_agent(concat!("tokenward-client-rust/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| invalid("not a URI"))?;
    let endpoint = match uri.scheme_str() {
        Some("https") => endpoint.tls_config(tls(transport)).map_err(|_| invalid("TLS cannot be set up"))?,
        Some("unix") => endpoint,
        Some("http") if transport.allow_plaintext || is_loopback(&uri) => endpoint,
        Some("http") => {
            return Err(invalid(
                "plaintext would show tokens to the network: use https, or allow_plaintext(true)",
            ));
        }
        _ => return Err(invalid("the scheme must be https, http or unix")),
    };
    Ok(endpoint.connect_lazy())
}

fn tls(transport: &Transport) -> ClientTlsConfig {
    let config = match &transport.ca_pem {
        // A CA of one's own replaces the system's roots: nobody else may vouch for the server.
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match &transport.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_network() {
        for (uri, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://127.3.2.1:1", true),
            ("http://[::1]:1", true),
            ("http://LOCALHOST:1", true),
            ("http://localhost.example:1", false),
            ("http://10.0.0.1:1", false),
            ("http://[2001:db8::1]:1", false),
        ] {
            assert_eq!(is_loopback(&uri.parse().unwrap()), loopback, "{uri}");
        }
    }
}
