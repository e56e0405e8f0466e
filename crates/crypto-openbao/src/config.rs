use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::SecretString;
use serde::Deserialize;
use tokenward_crypto::{CallPolicy, KeyEncryption, RemoteCalls, service_address};
use tokenward_plugin::{
    BackendDef, BuildError, Prepared, Problems, Section, parse_section, read_secret, read_secret_bytes,
};
use tokenward_types::SystemRng;

use crate::auth::{Auth, Credentials, Source};
use crate::backend::{KIND, OpenBaoKeys};
use crate::http::{Http, HttpSettings};

/// What calls may take at the most.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// `[encryption]` with `kind = "openbao"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the server is.
    address: String,
    /// Where the Transit engine is mounted.
    #[serde(default = "default_mount")]
    mount: String,
    /// The key's name.
    #[serde(default = "default_key")]
    key: String,
    namespace: Option<String>,
    /// Certificate authorities to trust beside the system's, PEM.
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_plaintext: bool,
    /// How long connecting may take, TLS included.
    #[serde(default = "default_connect_timeout", with = "tokenward_plugin::duration")]
    connect_timeout: Duration,
    /// How long one attempt of a call may take.
    #[serde(default = "default_timeout", with = "tokenward_plugin::duration")]
    timeout: Duration,
    token: Option<SecretString>,
    token_file: Option<PathBuf>,
    role_id: Option<SecretString>,
    secret_id: Option<SecretString>,
    secret_id_file: Option<PathBuf>,
    #[serde(default = "default_approle_mount")]
    approle_mount: String,
    kubernetes_role: Option<String>,
    #[serde(default = "default_kubernetes_token_file")]
    kubernetes_token_file: PathBuf,
    #[serde(default = "default_kubernetes_mount")]
    kubernetes_mount: String,
}

fn default_mount() -> String {
    "transit".into()
}

fn default_key() -> String {
    "tokenward".into()
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn default_timeout() -> Duration {
    CallPolicy::default().timeout
}

fn default_approle_mount() -> String {
    "approle".into()
}

/// Where Kubernetes puts the token of a pod's service account.
fn default_kubernetes_token_file() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/token".into()
}

fn default_kubernetes_mount() -> String {
    "kubernetes".into()
}

/// The backend `openbao`: a key of a Transit engine.
pub fn openbao() -> BackendDef<Arc<dyn KeyEncryption>, ()> {
    BackendDef::new(KIND, "Transit engine of OpenBao or HashiCorp Vault", |section, ()| {
        let settings = read(section)?;
        Ok(Prepared::new(|| build(settings)))
    })
}

/// A configuration that was checked.
struct Settings {
    http: HttpSettings,
    policy: CallPolicy,
    credentials: Credentials,
    mount: String,
    key: String,
}

async fn build(settings: Settings) -> Result<Arc<dyn KeyEncryption>, BuildError> {
    let Settings { http, policy, credentials, mount, key } = settings;
    let service = format!("{KIND}: key {mount}/{key} at {}", http.address);
    let calls = Arc::new(RemoteCalls::new(service, policy, Arc::new(SystemRng)));
    let http = Http::new(&http, Arc::clone(&calls))
        .map_err(|error| BuildError::new(KIND, "TLS cannot be set up").source(error))?;
    let http = Arc::new(http);
    let auth = Arc::new(Auth::new(Arc::clone(&http), Arc::clone(&calls), credentials));
    let keys = OpenBaoKeys::new(http, Arc::clone(&auth), calls, mount, key);
    keys.check().await.map_err(|error| {
        let message = error.to_string();
        // The kind stands before every message of a BuildError.
        let message = message.strip_prefix(KIND).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&message);
        BuildError::new(KIND, message)
    })?;
    auth.look_after();
    Ok(Arc::new(keys))
}

fn read(section: &Section) -> Result<Settings, Problems> {
    let config: Config = parse_section(section)?;
    let mut problems = Problems::new();
    let address = service_address(&config.address, config.allow_plaintext)
        .map_err(|message| problems.add(section.option("address"), message))
        .ok();
    for (key, path) in [
        ("mount", Some(&config.mount)),
        ("approle_mount", Some(&config.approle_mount)),
        ("kubernetes_mount", Some(&config.kubernetes_mount)),
        ("namespace", config.namespace.as_ref()),
    ] {
        if path.is_some_and(|path| !path.split('/').all(is_segment)) {
            problems.add(
                section.option(key),
                "must be a path such as team/transit, without a slash at either end",
            );
        }
    }
    if !is_segment(&config.key) {
        problems.add(section.option("key"), "must be letters, digits, dots, underscores and hyphens");
    }
    for (key, value) in [("connect_timeout", config.connect_timeout), ("timeout", config.timeout)] {
        if value.is_zero() || value > MAX_TIMEOUT {
            problems.add(section.option(key), "must be more than 0s and at most 60s");
        }
    }
    let certificates = config.ca_file.as_deref().map(certificates).transpose();
    let certificates = certificates.map_err(|message| problems.add(section.option("ca_file"), message)).ok();
    let namespace = config.namespace.as_deref().map(HeaderValue::from_str).transpose().ok().flatten();
    let policy = CallPolicy { timeout: config.timeout, ..CallPolicy::default() };
    let (mount, key, connect_timeout) = (config.mount.clone(), config.key.clone(), config.connect_timeout);
    let credentials = problems.check(credentials(section, config));
    match (address, certificates, credentials) {
        (Some(address), Some(certificates), Some(credentials)) if problems.is_empty() => {
            let address = address.as_str().trim_end_matches('/').to_owned();
            let certificates = certificates.unwrap_or_default();
            let http = HttpSettings { address, namespace, connect_timeout, certificates };
            Ok(Settings { http, policy, credentials, mount, key })
        }
        _ => Err(problems),
    }
}

/// What may stand between two slashes of a path, without need of an escape.
fn is_segment(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && !matches!(text, "." | "..") && text.bytes().all(fits)
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = read_secret_bytes(path)?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() { Err(format!("{} holds no PEM certificate", path.display())) } else { Ok(found) }
}

/// The one way to authenticate that was given.
fn credentials(section: &Section, config: Config) -> Result<Credentials, Problems> {
    let mut problems = Problems::new();
    let token = config.token.is_some() || config.token_file.is_some();
    let approle = config.role_id.is_some() || config.secret_id.is_some() || config.secret_id_file.is_some();
    let kubernetes = config.kubernetes_role.is_some();
    match [token, approle, kubernetes].iter().filter(|given| **given).count() {
        1 => {}
        0 => {
            problems.add(
                section.option("token"),
                "is missing: give token or token_file; or role_id and secret_id or secret_id_file; or \
                 kubernetes_role",
            );
            return Err(problems);
        }
        _ => {
            problems.add(
                &section.at,
                "give one way to authenticate: token, or role_id with secret_id, or kubernetes_role",
            );
            return Err(problems);
        }
    }
    if token {
        return source(section, "token", config.token, config.token_file).map(Credentials::Token);
    }
    if let Some(role) = config.kubernetes_role {
        let token_file = config.kubernetes_token_file;
        if let Err(message) = read_secret_bytes(&token_file) {
            problems.add(section.option("kubernetes_token_file"), message);
        }
        if role.is_empty() {
            problems.add(section.option("kubernetes_role"), "must not be empty");
        }
        let mount = config.kubernetes_mount;
        return problems.into_result(Credentials::Kubernetes { mount, role, token_file });
    }
    let secret_id = problems.check(source(section, "secret_id", config.secret_id, config.secret_id_file));
    if config.role_id.is_none() {
        problems.add(section.option("role_id"), "is missing: AppRole needs it beside the secret_id");
    }
    match (config.role_id, secret_id) {
        (Some(role_id), Some(secret_id)) => {
            Ok(Credentials::AppRole { mount: config.approle_mount, role_id, secret_id })
        }
        _ => Err(problems),
    }
}

/// A secret that is there now; a file is read again later.
fn source(
    section: &Section,
    key: &str,
    value: Option<SecretString>,
    file: Option<PathBuf>,
) -> Result<Source, Problems> {
    let secret = read_secret(section, key, value, file.as_ref())?;
    Ok(file.map_or(Source::Value(secret), Source::File))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(values: serde_json::Value) -> String {
        let serde_json::Value::Object(values) = values else { panic!("a section is an object") };
        let section = Section { at: "encryption".into(), name: "encryption".into(), values };
        read(&section).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_address_and_one_way_to_authenticate_are_enough() {
        let address = "https://bao.example:8200";
        assert_eq!(problem(json!({"address": address, "token": "s.hunter2"})), "");
        assert_eq!(problem(json!({"address": address, "role_id": "r", "secret_id": "hunter2"})), "");
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        let path = file.path();
        assert_eq!(
            problem(json!({"address": address, "kubernetes_role": "r", "kubernetes_token_file": path})),
            ""
        );
    }

    #[test]
    fn no_way_to_authenticate_and_several_are_refused() {
        let address = "https://bao.example:8200";
        let none = problem(json!({ "address": address }));
        assert!(
            none.starts_with("encryption.token: is missing: give token or token_file; or role_id"),
            "{none}"
        );
        let two = problem(json!({"address": address, "token": "hunter2", "kubernetes_role": "r"}));
        assert!(two.starts_with("encryption: give one way to authenticate"), "{two}");
        let half = problem(json!({"address": address, "role_id": "hunter2"}));
        assert_eq!(half, "encryption.secret_id: is missing: give secret_id or secret_id_file");
        let other = problem(json!({"address": address, "secret_id": "hunter2"}));
        assert_eq!(other, "encryption.role_id: is missing: AppRole needs it beside the secret_id");
    }

    #[test]
    fn every_problem_is_reported_at_once_and_no_secret_shows() {
        let said = problem(json!({
            "address": "http://bao.example", "token": "s.hunter2", "token_file": "/no/such/token", "mount": "/transit",
            "key": "a b", "namespace": "team//x", "ca_file": "/no/such/ca", "timeout": "0s", "connect_timeout": "2m",
        }));
        for at in ["address", "mount", "key", "namespace", "ca_file", "timeout", "connect_timeout", "token"] {
            assert!(said.contains(&format!("encryption.{at}: ")), "{at} in\n{said}");
        }
        assert!(said.contains("allow_plaintext = true permits http"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn paths_cannot_leave_their_place() {
        for mount in ["../sys", "a/../b", "a?b", "a#b", "a%2fb", "", "ä"] {
            let said = problem(json!({"address": "https://b", "token": "t", "mount": mount}));
            assert!(said.contains("encryption.mount: must be a path"), "{mount}: {said}");
        }
        assert_eq!(problem(json!({"address": "https://b", "token": "t", "mount": "team/transit"})), "");
    }
}
