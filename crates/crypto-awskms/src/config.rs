use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::config::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde::Deserialize;
use tokenward_crypto::{CallPolicy, KeyEncryption, RemoteCalls, service_address};
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section, parse_section};
use tokenward_types::SystemRng;

use crate::backend::AwsKmsKeys;
use crate::keys::{KIND, Keys};

const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// `[encryption]` with `kind = "aws-kms"`. Credentials come from AWS's own chain, so that there is no secret here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Identifiers, ARNs or aliases of the keys, the newest last.
    key_ids: Vec<String>,
    region: Option<String>,
    endpoint_url: Option<String>,
    #[serde(default)]
    allow_plaintext: bool,
    #[serde(default = "default_connect_timeout", with = "tokenward_plugin::duration")]
    connect_timeout: Duration,
    /// How long one attempt of a call may take.
    #[serde(default = "default_timeout", with = "tokenward_plugin::duration")]
    timeout: Duration,
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn default_timeout() -> Duration {
    CallPolicy::default().timeout
}

/// The backend `aws-kms`: keys of AWS KMS.
pub fn awskms() -> BackendDef<Arc<dyn KeyEncryption>, ()> {
    BackendDef::new(KIND, "Keys of AWS KMS", |section, ()| {
        let settings = read(section)?;
        Ok(Prepared::new(|| build(settings)))
    })
}

/// A configuration that was checked.
pub(crate) struct Settings {
    key_ids: Vec<String>,
    region: Option<String>,
    endpoint_url: Option<String>,
    connect_timeout: Duration,
    policy: CallPolicy,
    /// In place of AWS's own chain.
    pub(crate) credentials: Option<SharedCredentialsProvider>,
}

pub(crate) async fn build(settings: Settings) -> Result<Arc<dyn KeyEncryption>, BuildError> {
    let Settings { key_ids, region, endpoint_url, connect_timeout, policy, credentials } = settings;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        // Attempts and their time are counted in one place for all backends.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connect_timeout).build());
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    let shared = loader.load().await;
    let Some(region) = shared.region() else {
        let message = "no region is known: set encryption.region or AWS_REGION";
        return Err(BuildError::new(KIND, message));
    };
    let place = endpoint_url.clone().unwrap_or_else(|| region.to_string());
    let service = format!("{KIND}: keys {} in {place}", key_ids.join(", "));
    let calls = Arc::new(RemoteCalls::new(service, policy, Arc::new(SystemRng)));
    let mut config = aws_sdk_kms::config::Builder::from(&shared);
    config.set_endpoint_url(endpoint_url);
    let keys = Keys::new(aws_sdk_kms::Client::from_conf(config.build()), Arc::clone(&calls), key_ids);
    let backend = AwsKmsKeys::new(keys, calls);
    backend.status().await.map_err(|error| {
        let message = error.to_string();
        // The kind stands before every message of a BuildError.
        let message = message.strip_prefix(KIND).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&message);
        BuildError::new(KIND, message)
    })?;
    Ok(Arc::new(backend))
}

pub(crate) fn read(section: &Section) -> Result<Settings, Problems> {
    let config: Config = parse_section(section)?;
    let mut problems = Problems::new();
    let is_id =
        |id: &String| !id.is_empty() && id.len() <= 2048 && id.bytes().all(|byte| byte.is_ascii_graphic());
    if config.key_ids.is_empty() || !config.key_ids.iter().all(is_id) {
        problems.add(
            section.option("key_ids"),
            "must name at least one key, by its identifier, ARN or alias (alias/NAME), the newest last",
        );
    }
    if let Some(url) = &config.endpoint_url
        && let Err(message) = service_address(url, config.allow_plaintext)
    {
        problems.add(section.option("endpoint_url"), message);
    }
    if config.region.as_ref().is_some_and(String::is_empty) {
        problems.add(section.option("region"), "must not be empty");
    }
    for (key, value) in [("connect_timeout", config.connect_timeout), ("timeout", config.timeout)] {
        if value.is_zero() || value > MAX_TIMEOUT {
            problems.add(section.option(key), "must be more than 0s and at most 60s");
        }
    }
    problems.into_result(Settings {
        key_ids: config.key_ids,
        region: config.region,
        endpoint_url: config.endpoint_url,
        connect_timeout: config.connect_timeout,
        policy: CallPolicy { timeout: config.timeout, ..CallPolicy::default() },
        credentials: None,
    })
}
