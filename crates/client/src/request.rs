//! What is asked for.

use std::time::Duration;

use tokenward_api::v1;

/// Which token is wanted. Equal requests share a cache entry; the order of scopes does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    pub(crate) tenant: String,
    pub(crate) provider: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) min_ttl: Option<Duration>,
    pub(crate) connection: String,
    pub(crate) account: String,
}

impl TokenRequest {
    /// A token of `tenant`, with all scopes that the access rules and the connection share.
    pub fn new(tenant: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            provider: String::new(),
            scopes: Vec::new(),
            min_ttl: None,
            connection: String::new(),
            account: String::new(),
        }
    }

    /// Of this provider, such as `hubspot`. May be left out when only one is possible.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = provider.into();
        self
    }

    /// With at least these scopes.
    #[must_use]
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self.scopes.sort_unstable();
        self.scopes.dedup();
        self
    }

    /// Living for at least this long when it is got, from the cache too. Default: the server's 60 s.
    #[must_use]
    pub fn min_ttl(mut self, min_ttl: Duration) -> Self {
        self.min_ttl = Some(min_ttl);
        self
    }

    /// Of this connection, where the tenant has several.
    #[must_use]
    pub fn connection(mut self, connection_id: impl Into<String>) -> Self {
        self.connection = connection_id.into();
        self
    }

    /// Of this account at the provider (HubSpot: the hub_id), where the tenant has several.
    #[must_use]
    pub fn account(mut self, account_id: impl Into<String>) -> Self {
        self.account = account_id.into();
        self
    }

    pub(crate) fn to_message(&self) -> v1::GetTokenRequest {
        v1::GetTokenRequest {
            tenant_id: self.tenant.clone(),
            provider: self.provider.clone(),
            scopes: self.scopes.clone(),
            // A Duration too long for the message is too long for any token: the server says so.
            min_ttl: self.min_ttl.map(|wait| prost_types::Duration {
                seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
            }),
            connection_id: self.connection.clone(),
            account_id: self.account.clone(),
        }
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn the_order_of_scopes_does_not_make_another_request() {
        let request = |scopes: [&str; 3]| TokenRequest::new("acme").scopes(scopes);
        assert_eq!(request(["a", "b", "a"]), request(["b", "a", "b"]));
        assert_ne!(request(["a", "b", "a"]), request(["a", "b", "c"]));
        assert_ne!(TokenRequest::new("acme"), TokenRequest::new("Acme"));
    }
}
