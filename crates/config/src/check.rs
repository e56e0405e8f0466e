//! What does not fit together.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokenward_plugin::{Problems, read_secret_bytes};

use crate::urls::browser_url;
use crate::{Address, Config, Issuer, Transport};

impl Config {
    /// Adds every problem to `problems`.
    pub(crate) fn check(&self, problems: &mut Problems) {
        self.check_listeners(problems);
        self.check_public(problems);
        self.check_issuers(problems);
        self.check_broker(problems);
        self.check_server(problems);
    }

    fn check_listeners(&self, problems: &mut Problems) {
        let listen = &self.listen;
        let all = [
            ("service", listen.service.transport()),
            ("admin", listen.admin.transport()),
            ("public", listen.public.transport()),
            ("operations", listen.operations.transport()),
        ];
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for (name, transport) in all {
            let at = format!("listen.{name}");
            let Some(address) = check_transport(&at, &transport, problems) else { continue };
            if matches!(&address, Address::Tcp(tcp) if tcp.port() == 0) {
                continue;
            }
            if let Some(other) = taken.insert(address.to_string(), name) {
                problems.add(
                    format!("{at}.address"),
                    format!("is the same as listen.{other}.address: choose another"),
                );
            }
        }
    }

    fn check_public(&self, problems: &mut Problems) {
        if let Err(message) = self.public_url() {
            problems.add("public.url", message);
        }
        for (index, url) in self.public.return_urls.iter().enumerate() {
            if let Err(message) = browser_url(url) {
                problems.add(format!("public.return_urls[{index}]"), message);
            }
        }
    }

    fn check_issuers(&self, problems: &mut Problems) {
        let builtin = &self.builtin_issuer;
        if !builtin.enabled && self.issuers.is_empty() {
            problems.add(
                "builtin_issuer.enabled",
                "is off and there are no [[issuers]]: nobody could call; switch it on or configure an issuer",
            );
        }
        for (option, text) in [("iss", &builtin.iss), ("audience", &builtin.audience)] {
            if text.trim().is_empty() {
                problems.add(format!("builtin_issuer.{option}"), "must not be empty");
            }
        }
        let mut names = BTreeMap::new();
        let mut issuers = BTreeMap::new();
        if builtin.enabled {
            issuers.insert(builtin.iss.as_str(), "builtin_issuer".to_owned());
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            let at = format!("issuers[{index}]");
            check_source(&at, issuer, problems);
            if let Some(other) = names.insert(issuer.name.as_str(), at.clone()) {
                problems.add(format!("{at}.name"), format!("is the same as {other}.name: choose another"));
            }
            if let Some(other) = issuers.insert(issuer.iss.as_str(), at.clone()) {
                problems.add(
                    format!("{at}.iss"),
                    format!("is the same as {other}.iss: its tokens could be either's"),
                );
            }
        }
    }

    fn check_broker(&self, problems: &mut Problems) {
        let broker = &self.broker;
        let (second, minute, hour, day) = (
            Duration::from_secs(1),
            Duration::from_mins(1),
            Duration::from_hours(1),
            Duration::from_hours(24),
        );
        for (option, value, least, most) in [
            ("default_min_ttl", broker.default_min_ttl, Duration::ZERO, hour),
            ("min_refresh_age", broker.min_refresh_age, Duration::ZERO, hour),
            ("expired_below", broker.expired_below, second, minute),
            ("connect_link_ttl", broker.connect_link_ttl, minute, broker.connect_link_max_ttl),
            ("connect_link_max_ttl", broker.connect_link_max_ttl, minute, 30 * day),
            ("state_ttl", broker.state_ttl, minute, hour),
            ("lease", broker.lease, 2 * second, 5 * minute),
            ("max_stale", broker.max_stale, Duration::ZERO, day),
            ("suspect_confirm_after", broker.suspect_confirm_after, second, day),
            ("backoff_base", broker.backoff_base, Duration::from_millis(100), broker.backoff_max),
            ("backoff_max", broker.backoff_max, second, hour),
            ("report_interval", broker.report_interval, second, hour),
            ("data_key_ttl", broker.data_key_ttl, minute, 7 * day),
            ("keep_replaced_data_keys", broker.keep_replaced_data_keys, minute, 90 * day),
        ] {
            check_range(problems, &format!("broker.{option}"), value, least, most);
        }
        if !broker.idle_check_interval.is_zero() {
            let at = "broker.idle_check_interval";
            check_range(problems, at, broker.idle_check_interval, 10 * minute, 30 * day);
        }
        // Below, one transaction's rest would be longer than half a second, and a job look as if it stood still.
        if (1..1000).contains(&broker.max_key_job_rate) {
            problems.add("broker.max_key_job_rate", "must be 0, for no limit, or at least 1000");
        }
        if !(10..=95).contains(&broker.refresh_ahead_percent) {
            problems.add("broker.refresh_ahead_percent", "must be 10 to 95");
        }
        for (option, value) in [
            ("max_cached_connections", broker.max_cached_connections),
            ("max_cached_data_keys", broker.max_cached_data_keys),
        ] {
            if value == 0 {
                problems.add(format!("broker.{option}"), "must be at least 1");
            }
        }
    }

    fn check_server(&self, problems: &mut Problems) {
        let server = &self.server;
        if server.worker_threads > 1024 {
            problems.add("server.worker_threads", "must be 0 (one per processor) to 1024");
        }
        for (option, is_zero) in [
            ("max_connections", server.max_connections == 0),
            ("max_calls", server.max_calls == 0),
            ("max_calls_per_connection", server.max_calls_per_connection == 0),
            ("max_waiting_calls", server.max_waiting_calls == 0),
            ("max_verifications", server.max_verifications == 0),
            ("max_admin_calls", server.max_admin_calls == 0),
            ("max_pages", server.max_pages == 0),
            ("max_cached_callers", server.max_cached_callers == 0),
        ] {
            if is_zero {
                problems.add(format!("server.{option}"), "must be at least 1");
            }
        }
        let hour = Duration::from_hours(1);
        check_range(problems, "server.drain_delay", server.drain_delay, Duration::ZERO, hour);
        check_range(problems, "server.shutdown_grace", server.shutdown_grace, Duration::ZERO, hour);
        check_range(problems, "server.request_timeout", server.request_timeout, Duration::from_secs(1), hour);
    }
}

fn check_transport(at: &str, transport: &Transport<'_>, problems: &mut Problems) -> Option<Address> {
    let address: Option<Address> = match transport.address.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            problems.add(format!("{at}.address"), error.to_string());
            None
        }
    };
    for (option, file) in [("cert_file", transport.cert_file), ("key_file", transport.key_file)] {
        check_readable(&format!("{at}.{option}"), file, problems);
    }
    match (transport.cert_file, transport.key_file) {
        (Some(_), None) => problems.add(format!("{at}.key_file"), "is missing: TLS needs cert_file and key_file"),
        (None, Some(_)) => problems.add(format!("{at}.cert_file"), "is missing: TLS needs cert_file and key_file"),
        (Some(_), Some(_)) if matches!(address, Some(Address::Unix(_))) => {
            problems.add(format!("{at}.cert_file"), "is not for a unix socket: leave cert_file and key_file out");
        }
        (None, None) if !transport.allow_plaintext && address.as_ref().is_some_and(|a| !a.is_local()) => problems.add(
            at,
            "others can reach this address and it has no TLS: give cert_file and key_file, listen on 127.0.0.1, or set \
             allow_plaintext = true where something in front of it does TLS",
        ),
        _ => {}
    }
    address
}

fn check_readable(at: &str, file: Option<&Path>, problems: &mut Problems) {
    if let Some(Err(message)) = file.map(read_secret_bytes) {
        problems.add(at, message);
    }
}

fn check_source(at: &str, issuer: &Issuer, problems: &mut Problems) {
    check_readable(&format!("{at}.ca_file"), issuer.ca_file.as_deref(), problems);
    check_readable(&format!("{at}.jwks_file"), issuer.jwks_file.as_deref(), problems);
    match (&issuer.jwks_file, &issuer.jwks_url) {
        (Some(_), Some(_)) => problems.add(format!("{at}.jwks_url"), "give jwks_file or jwks_url, not both"),
        (None, None) => problems.add(format!("{at}.jwks_url"), "is missing: give jwks_file or jwks_url"),
        (None, Some(url)) if url::Url::parse(url).is_err() => {
            problems
                .add(format!("{at}.jwks_url"), "must be a URL such as \"https://id.example.com/jwks.json\"");
        }
        _ => {}
    }
}

fn check_range(problems: &mut Problems, at: &str, value: Duration, least: Duration, most: Duration) {
    if value < least || value > most {
        let show = humantime::format_duration;
        problems.add(at, format!("must be {} to {}", show(least), show(most)));
    }
}
