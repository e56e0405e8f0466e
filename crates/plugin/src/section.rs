use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use crate::Problems;

/// The largest file that a secret is read from, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A backend's part of the configuration: opaque to everybody but the backend.
#[derive(Clone)]
pub struct Section {
    /// Where it stands, such as `providers.hubspot`: the prefix of its problems.
    pub at: String,
    /// The section's own name, such as `hubspot`.
    pub name: String,
    /// Its keys and values, without `kind`.
    pub values: serde_json::Map<String, serde_json::Value>,
}

impl std::fmt::Debug for Section {
    // Values may be secrets: only the keys are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Section").field("at", &self.at).field("keys", &self.values.keys()).finish()
    }
}

impl Section {
    /// The place of one of its options, such as `providers.hubspot.api_base_url`.
    pub fn option(&self, key: &str) -> String {
        format!("{}.{key}", self.at)
    }
}

/// Reads a section into a backend's config struct (with `deny_unknown_fields`).
///
/// # Errors
/// Unknown keys and wrong types; a value is never repeated, because it may be a secret.
pub fn parse_section<T: DeserializeOwned>(section: &Section) -> Result<T, Problems> {
    let value = serde_json::Value::Object(section.values.clone());
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { section.at.clone() } else { section.option(&path) };
        let mut problems = Problems::new();
        problems.add(at, without_values(&error.into_inner().to_string()));
        problems
    })
}

/// Takes quoted values out of serde's message `invalid type: string "hunter2", expected …`.
fn without_values(message: &str) -> String {
    let is_value_error = message.starts_with("invalid type") || message.starts_with("invalid value");
    match message.rfind(", expected ") {
        Some(end) if is_value_error => format!("wrong type or value{}", &message[end..]),
        _ => message.to_owned(),
    }
}

/// A secret that is given as a value or as a file, exactly one of the two. One trailing line break of a file is dropped.
///
/// # Errors
/// Both given, neither given, or a file that cannot be read, is empty or larger than 64 KiB.
pub fn read_secret(
    section: &Section,
    key: &str,
    value: Option<SecretString>,
    file: Option<&PathBuf>,
) -> Result<SecretString, Problems> {
    let mut problems = Problems::new();
    let at = section.option(key);
    match (value, file) {
        (Some(value), None) if value.expose_secret().is_empty() => problems.add(at, "must not be empty"),
        (Some(value), None) => return Ok(value),
        (None, Some(path)) => match read_file(path).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
        }) {
            Ok(text) => {
                let secret = SecretString::from(text.strip_suffix('\n').unwrap_or(&text));
                if !secret.expose_secret().is_empty() {
                    return Ok(secret);
                }
                problems.add(format!("{at}_file"), format!("{} is empty", path.display()));
            }
            Err(message) => problems.add(format!("{at}_file"), message),
        },
        (Some(_), Some(_)) => problems.add(&at, format!("give {key} or {key}_file, not both")),
        (None, None) => problems.add(&at, format!("is missing: give {key} or {key}_file")),
    }
    Err(problems)
}

/// A file's bytes, at most 64 KiB.
///
/// # Errors
/// What is wrong with the file, with its path.
pub fn read_secret_bytes(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(describe)?.len();
    if size > MAX_SECRET_FILE {
        return Err(format!("{} is larger than 64 KiB", path.display()));
    }
    std::fs::read(path).map_err(describe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[expect(dead_code, reason = "only its type matters here")]
        count: u32,
    }

    fn section(value: serde_json::Value) -> Section {
        let serde_json::Value::Object(values) = value else { panic!("a section is an object") };
        Section { at: "crypto".into(), name: "crypto".into(), values }
    }

    #[test]
    fn a_wrong_type_is_named_without_its_value() {
        let problems =
            parse_section::<Config>(&section(serde_json::json!({"count": "hunter2"}))).unwrap_err();
        assert_eq!(problems.to_string(), "crypto.count: wrong type or value, expected u32");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let problems =
            parse_section::<Config>(&section(serde_json::json!({"count": 1, "cuont": 2}))).unwrap_err();
        assert!(problems.to_string().contains("unknown field `cuont`"), "{problems}");
    }

    #[test]
    fn a_secret_is_given_as_value_or_file_but_not_both_and_not_neither() {
        let section = section(serde_json::json!({}));
        let path = PathBuf::from("absent");
        let both = read_secret(&section, "key", Some("s".into()), Some(&path)).unwrap_err();
        assert_eq!(both.to_string(), "crypto.key: give key or key_file, not both");
        let neither = read_secret(&section, "key", None, None).unwrap_err();
        assert!(neither.to_string().contains("is missing"));
        let absent = read_secret(&section, "key", None, Some(&path)).unwrap_err();
        assert!(absent.to_string().starts_with("crypto.key_file: cannot read absent"));
        let value = read_secret(&section, "key", Some("s".into()), None).unwrap();
        assert_eq!(value.expose_secret(), "s");
    }
}
