use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokenward_crypto::{CallPolicy, CryptoError, KeyEncryption, RemoteCalls};
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section, parse_section, read_secret};
use tokenward_types::SystemRng;

use crate::backend::Pkcs11Keys;
use crate::hsm::{Hsm, Pin};
use crate::keys::{KIND, Keys};

const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_SESSIONS: usize = 64;

/// `[encryption]` with `kind = "pkcs11"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The vendor's shared library.
    module: PathBuf,
    /// The label of the token that the keys are in.
    token_label: String,
    /// The label of the keys.
    #[serde(default = "default_key_label")]
    key_label: String,
    pin: Option<SecretString>,
    pin_file: Option<PathBuf>,
    /// How long one attempt of a call may take.
    #[serde(default = "default_timeout", with = "tokenward_plugin::duration")]
    timeout: Duration,
    /// How many calls the HSM works on at once.
    #[serde(default = "default_max_sessions")]
    max_sessions: usize,
}

fn default_key_label() -> String {
    "tokenward".into()
}

fn default_timeout() -> Duration {
    CallPolicy::default().timeout
}

fn default_max_sessions() -> usize {
    4
}

/// The backend `pkcs11`: AES keys of an HSM.
pub fn pkcs11() -> BackendDef<Arc<dyn KeyEncryption>, ()> {
    BackendDef::new(KIND, "AES key of an HSM, by PKCS #11", |section, ()| {
        let settings = read(section)?;
        Ok(Prepared::new(|| build(settings)))
    })
}

/// A configuration that was checked.
struct Settings {
    module: PathBuf,
    token_label: String,
    key_label: String,
    pin: Pin,
    policy: CallPolicy,
    max_sessions: usize,
}

async fn build(settings: Settings) -> Result<Arc<dyn KeyEncryption>, BuildError> {
    let Settings { module, token_label, key_label, pin, policy, max_sessions } = settings;
    let service = format!("{KIND}: key {key_label} on token {token_label}");
    let calls = Arc::new(RemoteCalls::new(service, policy, Arc::new(SystemRng)));
    let failed = |error: CryptoError| {
        let message = error.to_string();
        // The kind stands before every message of a BuildError.
        let message = message.strip_prefix(KIND).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&message);
        BuildError::new(KIND, message)
    };
    let hsm = Hsm::load(&module, token_label, pin, Arc::clone(&calls)).map_err(failed)?;
    let keys = Keys { hsm: Arc::new(hsm), label: key_label };
    let backend = Pkcs11Keys::new(keys, calls, max_sessions);
    // Logs in, and finds the keys.
    backend.status().await.map_err(failed)?;
    Ok(Arc::new(backend))
}

fn read(section: &Section) -> Result<Settings, Problems> {
    let Config { module, token_label, key_label, pin, pin_file, timeout, max_sessions } =
        parse_section(section)?;
    let mut problems = Problems::new();
    if !module.is_file() {
        let message = format!(
            "{} is not a file: give the shared library of the HSM, such as /usr/lib/softhsm/libsofthsm2.so",
            module.display()
        );
        problems.add(section.option("module"), message);
    }
    // Names of keys end with a colon and the version, and labels are padded with blanks.
    for (key, label) in [("token_label", &token_label), ("key_label", &key_label)] {
        if label.is_empty() || label.trim() != label || label.contains(':') || label.len() > 32 {
            let message = "must be 1 to 32 bytes, without a colon and without blanks at either end";
            problems.add(section.option(key), message);
        }
    }
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        problems.add(section.option("timeout"), "must be more than 0s and at most 60s");
    }
    if max_sessions == 0 || max_sessions > MAX_SESSIONS {
        problems.add(section.option("max_sessions"), format!("must be from 1 to {MAX_SESSIONS}"));
    }
    let given = problems.check(read_secret(section, "pin", pin, pin_file.as_ref()));
    match given {
        Some(pin) if problems.is_empty() => {
            let pin = pin_file.map_or(Pin::Value(pin), Pin::File);
            let policy = CallPolicy { timeout, ..CallPolicy::default() };
            Ok(Settings { module, token_label, key_label, pin, policy, max_sessions })
        }
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_problem_is_reported_at_once_and_no_pin_shows() {
        let values = json!({
            "module": "/no/such/module.so", "token_label": "", "key_label": "a:b", "pin": "hunter2",
            "pin_file": "/no/such/pin", "timeout": "0s", "max_sessions": 0,
        });
        let serde_json::Value::Object(values) = values else { panic!("a section is an object") };
        let section = Section { at: "encryption".into(), name: "encryption".into(), values };
        let said = read(&section).err().map(|problems| problems.to_string()).unwrap_or_default();
        for at in ["module", "token_label", "key_label", "pin", "timeout", "max_sessions"] {
            assert!(said.contains(&format!("encryption.{at}: ")), "{at} in\n{said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}
