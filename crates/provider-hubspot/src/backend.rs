use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section, duration, parse_section};
use tokenward_provider::http::HttpClient;
use tokenward_provider::options::{
    Checker, HttpOptions, RotationMode, default_connect_timeout, default_timeout,
};
use tokenward_provider::{
    ClientAuthentication, Endpoints, OAuth2Flow, Provider, ProviderContext, ProviderInfo,
};
use url::Url;

use crate::dialect::HubSpotDialect;

const KIND: &str = "hubspot";

/// The provider kind `hubspot`.
pub fn hubspot() -> BackendDef<Arc<dyn Provider>, ProviderContext> {
    BackendDef::new(KIND, "HubSpot", prepare)
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    display_name: String,
    api_base_url: String,
    authorize_url: String,
    api_version: String,
    pkce: bool,
    rotation: RotationMode,
    #[serde(with = "duration::option")]
    grace_period: Option<Duration>,
    #[serde(with = "duration")]
    default_token_lifetime: Duration,
    calls_per_second: u32,
    call_burst: u32,
    #[serde(with = "duration::option")]
    refresh_token_idle_lifetime: Option<Duration>,
    #[serde(with = "duration")]
    connect_timeout: Duration,
    #[serde(with = "duration")]
    timeout: Duration,
    allow_http: bool,
    allow_private_addresses: bool,
    ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            display_name: "HubSpot".into(),
            api_base_url: "https://api.hubapi.com".into(),
            authorize_url: "https://app.hubspot.com/oauth/authorize".into(),
            api_version: "2026-03".into(),
            pkce: false,
            rotation: RotationMode::None,
            grace_period: None,
            default_token_lifetime: Duration::from_secs(1800),
            calls_per_second: 0,
            call_burst: 0,
            refresh_token_idle_lifetime: None,
            connect_timeout: default_connect_timeout(),
            timeout: default_timeout(),
            allow_http: false,
            allow_private_addresses: false,
            ca_file: None,
        }
    }
}

fn prepare(section: &Section, context: &ProviderContext) -> Result<Prepared<Arc<dyn Provider>>, Problems> {
    let config: Config = parse_section(section)?;
    let mut check = Checker::new(section);
    let name = check.name();
    let http = check.http(&HttpOptions {
        connect_timeout: config.connect_timeout,
        timeout: config.timeout,
        allow_http: config.allow_http,
        allow_private_addresses: config.allow_private_addresses,
        ca_file: config.ca_file.as_ref(),
    });
    let authorize = check.page("authorize_url", &config.authorize_url, &http);
    let base = check.endpoint("api_base_url", &config.api_base_url, &http);
    if !is_api_version(&config.api_version) {
        check.problem("api_version", "must be \"v1\", \"v3\" or a date such as \"2026-03\"");
    }
    let rotation = check.rotation(config.rotation, config.grace_period);
    let default_token_lifetime = check.token_lifetime(config.default_token_lifetime);
    let call_rate = check.call_rate(config.calls_per_second, config.call_burst);
    let refresh_token_idle_lifetime = check.idle_lifetime(config.refresh_token_idle_lifetime);
    let base_scopes = check.scopes("base_scopes", &["oauth".into()]);
    let (Some(name), Some(authorize), Some(base), true) = (name, authorize, base, check.is_clean()) else {
        return Err(check.into_problems());
    };

    let info = ProviderInfo {
        name,
        kind: KIND,
        display_name: config.display_name,
        base_scopes,
        can_narrow: false,
        pkce: config.pkce,
        introspection: true,
        revocation: true,
        rotation,
        default_token_lifetime,
        issuer: None,
        static_tokens: true,
        call_rate,
        refresh_token_idle_lifetime,
    };
    let endpoints = endpoints(authorize, &base, &config.api_version);
    let clock = context.clock.clone();
    Ok(Prepared::new(move || async move {
        let http = HttpClient::new(http)
            .map_err(|error| BuildError::new(KIND, "cannot set up TLS").source(error))?;
        let flow = OAuth2Flow::new(info, endpoints, ClientAuthentication::Body, http, clock, HubSpotDialect);
        Ok(Arc::new(flow) as Arc<dyn Provider>)
    }))
}

fn is_api_version(text: &str) -> bool {
    let is_date = text.len() == 7
        && text.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
    is_date || matches!(text, "v1" | "v3")
}

fn endpoints(authorize: Url, base: &Url, version: &str) -> Endpoints {
    // v1 asks about and revokes tokens with the token in the URL, where proxies log it: v3 has a POST form of both.
    let by_post = if version == "v1" { "v3" } else { version };
    Endpoints {
        authorize,
        token: below(base, &["oauth", version, "token"]),
        introspect: Some(below(base, &["oauth", by_post, "token", "introspect"])),
        revoke: Some(below(base, &["oauth", by_post, "token", "revoke"])),
    }
}

fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints_of(base: &str, version: &str) -> (String, String, String) {
        let authorize = Url::parse("https://app.hubspot.com/oauth/authorize").unwrap();
        let endpoints = endpoints(authorize, &Url::parse(base).unwrap(), version);
        let text = |url: Option<Url>| url.unwrap().to_string();
        (endpoints.token.to_string(), text(endpoints.introspect), text(endpoints.revoke))
    }

    #[test]
    fn endpoints_follow_the_api_version() {
        assert_eq!(
            endpoints_of("https://api.hubapi.com", "2026-03"),
            (
                "https://api.hubapi.com/oauth/2026-03/token".into(),
                "https://api.hubapi.com/oauth/2026-03/token/introspect".into(),
                "https://api.hubapi.com/oauth/2026-03/token/revoke".into(),
            )
        );
    }

    #[test]
    fn on_v1_no_token_goes_into_a_url() {
        let (token, introspect, revoke) = endpoints_of("https://proxy.example/hubspot/", "v1");
        assert_eq!(token, "https://proxy.example/hubspot/oauth/v1/token");
        assert_eq!(introspect, "https://proxy.example/hubspot/oauth/v3/token/introspect");
        assert_eq!(revoke, "https://proxy.example/hubspot/oauth/v3/token/revoke");
    }

    #[test]
    fn api_versions_are_known_words_or_dates() {
        for good in ["v1", "v3", "2026-03", "2026-09", "2027-03"] {
            assert!(is_api_version(good), "{good}");
        }
        for bad in ["", "v2", "2026", "2026/03", "2026-3x", "../v1"] {
            assert!(!is_api_version(bad), "{bad}");
        }
    }
}
