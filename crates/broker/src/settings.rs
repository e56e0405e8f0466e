//! What an operator can tune. All have defaults.

use std::time::Duration;

use url::Url;

/// Settings of the broker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where customers' browsers reach the connect flow; the Host header is never believed.
    pub public_url: Url,
    /// Where the result page may lead: same origin, and a path below.
    pub return_urls: Vec<Url>,
    /// Whether two tenants may be connected to one account.
    pub allow_shared_accounts: bool,
    /// How long a token must still live when a caller does not say.
    pub default_min_ttl: Duration,
    /// A token younger than this is not refreshed for `min_ttl`.
    pub min_refresh_age: Duration,
    /// A token with less than this left counts as expired.
    pub expired_below: Duration,
    /// The part of its life, in percent, after which a token in use is refreshed ahead of time.
    pub refresh_ahead_percent: u32,
    /// How long a connect link works when the operator does not say.
    pub connect_link_ttl: Duration,
    /// The longest life of a connect link.
    pub connect_link_max_ttl: Duration,
    /// How long a customer may take at the provider's page.
    pub state_ttl: Duration,
    /// How long a refresh lease holds: longer than any provider call takes.
    pub lease: Duration,
    /// How long after a first grant-dead answer a second one is believed.
    pub suspect_confirm_after: Duration,
    /// The first wait after a failed refresh; it doubles.
    pub backoff_base: Duration,
    /// The longest wait between failed refreshes.
    pub backoff_max: Duration,
    /// How many connections are kept in memory.
    pub max_cached_connections: u64,
    /// How many unwrapped data keys are kept in memory.
    pub max_cached_data_keys: u64,
    /// How long unwrapped data keys are kept in memory, and so served while the encryption backend is away.
    pub data_key_ttl: Duration,
    /// How long data keys that were replaced are kept for results that wait in a journal.
    pub keep_replaced_data_keys: Duration,
    /// How many stored ciphertexts key jobs seal anew or check a second, at the most; 0 for no limit.
    pub max_key_job_rate: u32,
    /// How often one connection's rejected token is looked into.
    pub report_interval: Duration,
    /// How long tokens in memory are given out while the database is away.
    pub max_stale: Duration,
    /// How often a connection that nobody asks for is looked at; zero for never.
    pub idle_check_interval: Duration,
    /// Names this process in leases: no other may ever have the same.
    pub server_id: String,
    /// Host and process, for people.
    pub server_description: String,
}

impl Settings {
    /// The defaults, for an installation that browsers reach at `public_url`.
    pub fn new(public_url: Url) -> Self {
        Self {
            public_url,
            return_urls: Vec::new(),
            allow_shared_accounts: false,
            default_min_ttl: Duration::from_secs(60),
            min_refresh_age: Duration::from_secs(60),
            expired_below: Duration::from_secs(5),
            refresh_ahead_percent: 75,
            connect_link_ttl: Duration::from_secs(24 * 3600),
            connect_link_max_ttl: Duration::from_secs(30 * 24 * 3600),
            state_ttl: Duration::from_secs(600),
            lease: Duration::from_secs(15),
            suspect_confirm_after: Duration::from_secs(60),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            max_cached_connections: 200_000,
            max_cached_data_keys: 10_000,
            data_key_ttl: Duration::from_secs(3600),
            keep_replaced_data_keys: Duration::from_secs(24 * 3600),
            max_key_job_rate: 10_000,
            report_interval: Duration::from_secs(10),
            max_stale: Duration::from_secs(600),
            idle_check_interval: Duration::from_secs(24 * 3600),
            server_id: "server".to_owned(),
            server_description: String::new(),
        }
    }
}
