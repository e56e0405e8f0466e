use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section, duration, parse_section};

use crate::http::HttpClient;
use crate::options::{Checker, HttpOptions, RotationMode, default_connect_timeout, default_timeout};
use crate::{
    ClientAuthentication, Endpoints, OAuth2Flow, Provider, ProviderContext, ProviderInfo, StandardDialect,
};

const KIND: &str = "oauth2";

/// The provider kind `oauth2`: any vendor that keeps to RFC 6749.
pub fn oauth2() -> BackendDef<Arc<dyn Provider>, ProviderContext> {
    BackendDef::new(KIND, "any vendor that keeps to the OAuth 2.0 standards", prepare)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct Config {
    display_name: Option<String>,
    authorize_url: String,
    token_url: String,
    introspect_url: Option<String>,
    revoke_url: Option<String>,
    account_field: String,
    account_name_field: Option<String>,
    #[serde(default)]
    token_auth_method: TokenAuthMethod,
    #[serde(default = "yes")]
    pkce: bool,
    #[serde(default)]
    base_scopes: Vec<String>,
    #[serde(default)]
    rotation: RotationMode,
    #[serde(default, with = "duration::option")]
    grace_period: Option<Duration>,
    #[serde(default = "one_hour", with = "duration")]
    default_token_lifetime: Duration,
    issuer: Option<String>,
    #[serde(default)]
    static_tokens: bool,
    #[serde(default)]
    calls_per_second: u32,
    #[serde(default)]
    call_burst: u32,
    #[serde(default, with = "duration::option")]
    refresh_token_idle_lifetime: Option<Duration>,
    #[serde(default = "default_connect_timeout", with = "duration")]
    connect_timeout: Duration,
    #[serde(default = "default_timeout", with = "duration")]
    timeout: Duration,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    allow_private_addresses: bool,
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TokenAuthMethod {
    #[default]
    ClientSecretPost,
    ClientSecretBasic,
}

fn yes() -> bool {
    true
}

fn one_hour() -> Duration {
    Duration::from_hours(1)
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
    let token = check.endpoint("token_url", &config.token_url, &http);
    let mut optional =
        |key, text: &Option<String>| text.as_deref().and_then(|text| check.endpoint(key, text, &http));
    let introspect = optional("introspect_url", &config.introspect_url);
    let revoke = optional("revoke_url", &config.revoke_url);
    let rotation = check.rotation(config.rotation, config.grace_period);
    let default_token_lifetime = check.token_lifetime(config.default_token_lifetime);
    let call_rate = check.call_rate(config.calls_per_second, config.call_burst);
    let refresh_token_idle_lifetime = check.idle_lifetime(config.refresh_token_idle_lifetime);
    let base_scopes = check.scopes("base_scopes", &config.base_scopes);
    if config.account_field.is_empty() {
        check.problem(
            "account_field",
            "must not be empty: it names the answer's member that tells accounts apart",
        );
    }
    let (Some(name), Some(authorize), Some(token), true) = (name, authorize, token, check.is_clean()) else {
        return Err(check.into_problems());
    };

    let info = ProviderInfo {
        display_name: config.display_name.unwrap_or_else(|| name.to_string()),
        name,
        kind: KIND,
        base_scopes,
        can_narrow: false,
        pkce: config.pkce,
        introspection: introspect.is_some(),
        revocation: revoke.is_some(),
        rotation,
        default_token_lifetime,
        issuer: config.issuer,
        static_tokens: config.static_tokens,
        call_rate,
        refresh_token_idle_lifetime,
    };
    let endpoints = Endpoints { authorize, token, introspect, revoke };
    let authentication = match config.token_auth_method {
        TokenAuthMethod::ClientSecretPost => ClientAuthentication::Body,
        TokenAuthMethod::ClientSecretBasic => ClientAuthentication::Basic,
    };
    let dialect = StandardDialect {
        account_field: config.account_field,
        account_name_field: config.account_name_field,
    };
    let clock = context.clock.clone();
    Ok(Prepared::new(move || async move {
        let http = HttpClient::new(http)
            .map_err(|error| BuildError::new(KIND, "cannot set up TLS").source(error))?;
        let flow = OAuth2Flow::new(info, endpoints, authentication, http, clock, dialect);
        Ok(Arc::new(flow) as Arc<dyn Provider>)
    }))
}
