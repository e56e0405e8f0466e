//! Where the servers are.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::builder::BuildError;
use crate::connect::{Connector, Lookup};

/// A connection that is silent while calls wait is asked whether it lives,
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// and given up after this time, so that its calls have time left for another server.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How connections are made.
pub(crate) struct Transport {
    pub(crate) ca_pem: Option<Vec<u8>>,
    pub(crate) server_name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) allow_plaintext: bool,
    pub(crate) lookup: Lookup,
}

/// A server, or several behind one name.
struct Server {
    name: String,
    endpoint: Endpoint,
    /// `None` for a Unix socket.
    connector: Option<Connector>,
    /// The channel in use, and how many there were before it.
    channel: Mutex<(usize, Channel)>,
}

/// The servers, and the one that is in use.
pub(crate) struct Addresses {
    servers: Vec<Server>,
    current: AtomicUsize,
}

/// What a call goes to.
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) channel: Channel,
    index: usize,
    generation: usize,
}

impl Addresses {
    /// Makes channels, which connect when they are first used. `start`, from 0 up to 1, says with which server, and with which
    /// address behind each name, so that not all clients of a herd have the same one.
    pub(crate) fn new(addresses: &[String], transport: &Transport, start: f64) -> Result<Self, BuildError> {
        if addresses.is_empty() {
            return Err(BuildError::NoAddress);
        }
        let first = |count: u32| (1..count).filter(|n| start * f64::from(count) >= f64::from(*n)).count();
        // Divisible by every small number of addresses, so that each of them is as likely.
        let first_address = first(840);
        let servers = addresses
            .iter()
            .map(|address| server(address, transport, first_address))
            .collect::<Result<Vec<_>, BuildError>>()?;
        let current = first(u32::try_from(servers.len()).unwrap_or(u32::MAX));
        Ok(Self { servers, current: AtomicUsize::new(current) })
    }

    /// How many there are, with all that are behind names, as far as is known.
    pub(crate) fn len(&self) -> usize {
        self.servers.iter().map(Server::len).sum()
    }

    /// The server in use.
    pub(crate) fn current(&self) -> Target<'_> {
        let index = self.current.load(Ordering::Relaxed) % self.servers.len();
        let server = &self.servers[index];
        let (generation, channel) = server.channel.lock().clone();
        Target { name: &server.name, channel, index, generation }
    }

    /// Goes on to the next server, unless another call did so already. One that is `broken`, or behind whose name there are
    /// others, is connected to anew when it is used again: a connection that hangs would take the next call too.
    pub(crate) fn leave(&self, target: &Target<'_>, broken: bool) {
        let server = &self.servers[target.index];
        if broken || server.len() > 1 {
            let mut channel = server.channel.lock();
            if channel.0 == target.generation {
                *channel = (target.generation + 1, server.connect());
            }
        }
        let next = (target.index + 1) % self.servers.len();
        let _ = self.current.compare_exchange(target.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Server {
    fn len(&self) -> usize {
        self.connector.as_ref().map_or(1, Connector::known)
    }

    fn connect(&self) -> Channel {
        connect(&self.endpoint, self.connector.as_ref())
    }
}

fn connect(endpoint: &Endpoint, connector: Option<&Connector>) -> Channel {
    match connector {
        Some(connector) => connector.channel(endpoint),
        None => endpoint.connect_lazy(),
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| &server.name)).finish()
    }
}

fn server(address: &str, transport: &Transport, first: usize) -> Result<Server, BuildError> {
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
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
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
    let connector = (uri.scheme_str() != Some("unix"))
        .then(|| Connector::new(transport.lookup.clone(), transport.connect_timeout, first));
    let channel = Mutex::new((0, connect(&endpoint, connector.as_ref())));
    Ok(Server { name: address.to_owned(), endpoint, connector, channel })
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
