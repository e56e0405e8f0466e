//! Commands that work on the configuration: read it, check it with the backends' rules, report every problem at once.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokenward_auth::{IssuerConfig, JwksSource, Role};
use tokenward_broker::LEASE_MARGIN;
use tokenward_config::{Config, Issuer, Sources};
use tokenward_crypto::KeyEncryption;
use tokenward_plugin::{Constraint, Prepared, Problems};
use tokenward_provider::{Provider, ProviderContext};
use tokenward_storage::{Storage, StorageContext};
use tokenward_types::{Clock, FollowingClock, SystemClock};
use url::Url;

use crate::failure::Failure;
use crate::{builtins, telemetry};

/// Where the configuration is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigSource {
    /// The configuration file, TOML. Without it there are the defaults and the environment.
    #[arg(long, env = "TOKENWARD_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Set one option, over file and environment; may be repeated. Not for backends' options, which may be secrets.
    #[arg(long = "set", value_name = "OPTION=VALUE", value_parser = option)]
    pub set: Vec<(String, String)>,
}

fn option(text: &str) -> Result<(String, String), String> {
    let (option, value) =
        text.split_once('=').ok_or_else(|| "must be OPTION=VALUE, such as log.format=json".to_owned())?;
    let section = option.split('.').next().unwrap_or_default();
    if matches!(section, "storage" | "encryption" | "providers") {
        return Err(format!(
            "options of [{section}] may be secrets, and arguments show in process lists: use the file or the environment"
        ));
    }
    Ok((option.to_owned(), value.to_owned()))
}

/// A configuration that everybody concerned has checked; only building is left.
pub(crate) struct Checked {
    /// The configuration.
    pub config: Config,
    /// The storage backend.
    pub storage: Prepared<Arc<dyn Storage>>,
    /// The encryption backend.
    pub encryption: Prepared<Arc<dyn KeyEncryption>>,
    /// Further encryption backends, while keys move from one to another.
    pub further_encryption: Vec<Prepared<Arc<dyn KeyEncryption>>>,
    /// The providers.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The issuers of caller tokens besides the built-in one.
    pub issuers: Vec<IssuerConfig>,
    /// Where browsers reach the connect flow.
    pub public_url: Url,
    /// The time, which providers have already: this machine's, until it is told the database's.
    pub clock: FollowingClock,
}

/// Whether the command wants the database for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It does: servers and migrations.
    Exclusive,
    /// It reads or adds a row beside a running server.
    Shared,
}

impl ConfigSource {
    /// Reads the configuration.
    fn load(&self) -> Result<(Config, Problems), Problems> {
        let sources = Sources { overrides: self.set.clone(), ..Sources::of_process(self.config.clone()) };
        tokenward_config::load(&sources)
    }

    /// Reads and checks everything, and turns logging on.
    pub(crate) async fn check(&self, access: Access) -> Result<Checked, Failure> {
        let (config, problems) = self.load()?;
        let checked = check(config, problems, access).await?;
        telemetry::install(&checked.config.log);
        Ok(checked)
    }

    /// Reads and checks what is needed to open the database.
    pub(crate) fn check_storage(&self, access: Access) -> Result<Prepared<Arc<dyn Storage>>, Failure> {
        let (config, mut problems) = self.load()?;
        let storage = storage(&config, access, &mut problems);
        telemetry::install(&config.log);
        Ok(take(storage, problems)?)
    }
}

/// Adds the backends' problems to those that were found, and reports all at once.
pub(crate) async fn check(
    config: Config,
    mut problems: Problems,
    access: Access,
) -> Result<Checked, Problems> {
    telemetry::check(&config.log, &mut problems);
    let storage = storage(&config, access, &mut problems);
    let (kind, section) = config.encryption();
    let encryption = problems.check(builtins::encryption().prepare(&kind, &section, &()));
    let mut further_encryption = Vec::new();
    for (kind, section) in config.further_encryption() {
        further_encryption.extend(problems.check(builtins::encryption().prepare(&kind, &section, &())));
    }
    let clock = FollowingClock::new(Arc::new(SystemClock));
    let providers = providers(&config, &clock, &mut problems).await;
    let issuers = issuers(&config, &mut problems);
    check_lease(&config, &providers, &mut problems);
    let parts = storage.zip(encryption).zip(config.public_url().ok());
    let ((storage, encryption), public_url) = take(parts, problems)?;
    Ok(Checked { config, storage, encryption, further_encryption, providers, issuers, public_url, clock })
}

fn take<T>(value: Option<T>, mut problems: Problems) -> Result<T, Problems> {
    if let Some(value) = value {
        return problems.into_result(value);
    }
    if problems.is_empty() {
        problems.add("config", "cannot be used");
    }
    Err(problems)
}

fn storage(config: &Config, access: Access, problems: &mut Problems) -> Option<Prepared<Arc<dyn Storage>>> {
    let (kind, section) = config.storage();
    let context = StorageContext { exclusive: access == Access::Exclusive };
    problems.check(builtins::storage().prepare(&kind, &section, &context))
}

async fn providers(
    config: &Config,
    clock: &FollowingClock,
    problems: &mut Problems,
) -> Vec<Arc<dyn Provider>> {
    let registry = builtins::providers();
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let sections = config.providers();
    Constraint::Any.check("providers", sections.len(), problems);
    let mut built = Vec::new();
    for (kind, section) in sections {
        let context = ProviderContext { clock: Arc::clone(&clock) };
        let Some(prepared) = problems.check(registry.prepare(&kind, &section, &context)) else { continue };
        match prepared.build().await {
            Ok(provider) => built.push(provider),
            Err(error) => problems.add(section.at, error.to_string()),
        }
    }
    built
}

fn check_lease(config: &Config, providers: &[Arc<dyn Provider>], problems: &mut Problems) {
    for provider in providers {
        let least = provider.call_timeout() + LEASE_MARGIN;
        if config.broker.lease < least {
            let (least, name) = (humantime::format_duration(least), &provider.info().name);
            problems
                .add("broker.lease", format!("must be at least {least}: calls to {name} may take that long"));
        }
    }
}

fn issuers(config: &Config, problems: &mut Problems) -> Vec<IssuerConfig> {
    let issuers = config.issuers.iter().enumerate();
    issuers
        .filter_map(|(index, issuer)| issuer_config(&format!("issuers[{index}]"), issuer, problems))
        .collect()
}

/// `None` where the configuration crate has found that the source of its keys is missing.
fn issuer_config(at: &str, issuer: &Issuer, problems: &mut Problems) -> Option<IssuerConfig> {
    let jwks = match (&issuer.jwks_file, &issuer.jwks_url) {
        (Some(file), None) => JwksSource::File(file.clone()),
        (None, Some(url)) => JwksSource::Url(Url::parse(url).ok()?),
        _ => return None,
    };
    let mut allowed_roles = Vec::new();
    for role in &issuer.allowed_roles {
        match role.parse::<Role>() {
            Ok(role) => allowed_roles.push(role),
            Err(error) => problems.add(format!("{at}.allowed_roles"), error.to_string()),
        }
    }
    let config = IssuerConfig {
        algorithms: issuer.algorithms.clone(),
        principal_claim: issuer.principal_claim.clone(),
        role_claim: Some(issuer.role_claim.clone()).filter(|claim| !claim.is_empty()),
        allowed_roles,
        allow_private_addresses: issuer.allow_private_addresses,
        ca_file: issuer.ca_file.clone(),
        ..IssuerConfig::new(&issuer.name, &issuer.iss, &issuer.audience, jwks)
    };
    for problem in config.validate() {
        problems.add(at, problem);
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_do_not_set_what_may_be_a_secret() {
        for text in ["encryption.key=x", "storage.url=x", "providers.hubspot.api_version=v3"] {
            assert!(option(text).unwrap_err().contains("process lists"), "{text}");
        }
        assert_eq!(option("log.format=json").unwrap(), ("log.format".into(), "json".into()));
        assert!(option("log.format").is_err());
    }

    #[tokio::test]
    async fn problems_of_all_parts_are_reported_at_once() {
        crate::runtime::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenward.toml");
        let text = "[storage]\nkind = \"oracle\"\n[encryption]\nkey_flie = \"x\"\n\
                    [providers.hubspot]\napi_version = \"latest\"\n[providers.other]\n\
                    [log]\nfilter = \"x=loud\"\n[broker]\nlease = \"3s\"\n\
                    [[issuers]]\nname = \"a b\"\niss = \"x\"\njwks_url = \"http://example.com/\"\nallowed_roles = [\"root\"]\n\
                    [providers.slow]\nkind = \"hubspot\"\ntimeout = \"20s\"";
        std::fs::write(&path, text).unwrap();
        let source = ConfigSource { config: Some(path), set: Vec::new() };
        let (config, problems) = source.load().unwrap();
        let found = check(config, problems, Access::Shared).await.err().expect("it is not valid").to_string();
        for expected in [
            "storage.kind: unknown storage backend \"oracle\"; there are: mysql, postgres, sqlite",
            "encryption.key_flie: unknown field",
            "providers.hubspot.api_version: ",
            "providers.other.kind: unknown provider backend \"other\"; there are: hubspot, oauth2",
            "log.filter: ",
            "broker.lease: must be at least 22s: calls to slow",
            "issuers[0]: issuer \"a b\": name must be",
            "issuers[0].allowed_roles: a role is one of",
        ] {
            assert!(found.contains(expected), "{expected:?} in:\n{found}");
        }
    }
}
