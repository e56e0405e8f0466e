//! Which addresses a key set may be fetched from: a URL in the configuration must not reach into the private network
//! unless the operator says so.

use std::io;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokenward_types::net::is_public_address;
use url::{Host, Url};

/// The addresses that may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressPolicy {
    /// Only this machine: the URL names it literally.
    Loopback,
    /// Only public addresses.
    Public,
    /// Any address, by the operator's choice.
    Any,
}

impl AddressPolicy {
    /// The policy for `url`.
    pub(crate) fn of(url: &Url, allow_private: bool) -> Self {
        if allow_private {
            Self::Any
        } else if names_loopback(url) {
            Self::Loopback
        } else {
            Self::Public
        }
    }

    /// Whether `ip` may be connected to.
    pub(crate) fn permits(self, ip: IpAddr) -> bool {
        match self {
            Self::Loopback => ip.is_loopback(),
            Self::Public => is_public_address(ip),
            Self::Any => true,
        }
    }
}

/// Whether the host of `url` is `localhost` or a loopback address.
pub(crate) fn names_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Resolves names by the operating system and drops the addresses that the policy forbids, so that a name cannot be
/// pointed elsewhere between a check and the connection.
#[derive(Debug)]
pub(crate) struct PolicyResolver(pub(crate) AddressPolicy);

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| policy.permits(address.ip())).collect();
            if permitted.is_empty() {
                let problem = "the name has no address that may be connected to; see allow_private_addresses";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_follows_the_host_and_the_switch() {
        let policy = |url: &str, allow| AddressPolicy::of(&Url::parse(url).unwrap(), allow);
        assert_eq!(policy("http://localhost:1/", false), AddressPolicy::Loopback);
        assert_eq!(policy("http://[::1]/", false), AddressPolicy::Loopback);
        assert_eq!(policy("http://127.9.9.9/", false), AddressPolicy::Loopback);
        assert_eq!(policy("https://localhost.example.com/", false), AddressPolicy::Public);
        assert_eq!(policy("https://10.0.0.1/", true), AddressPolicy::Any);
        let permits = |policy: AddressPolicy, ip: &str| policy.permits(ip.parse().unwrap());
        assert!(
            permits(AddressPolicy::Loopback, "127.0.0.1") && !permits(AddressPolicy::Loopback, "10.0.0.1")
        );
        assert!(permits(AddressPolicy::Public, "8.8.8.8") && !permits(AddressPolicy::Public, "10.0.0.1"));
        assert!(permits(AddressPolicy::Any, "10.0.0.1"));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_resolved() {
        let resolve = |policy| PolicyResolver(policy).resolve("localhost".parse().unwrap());
        assert!(resolve(AddressPolicy::Public).await.is_err());
        assert!(resolve(AddressPolicy::Loopback).await.unwrap().all(|a| a.ip().is_loopback()));
    }
}
