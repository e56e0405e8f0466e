use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use zeroize::Zeroizing;

use crate::Problems;
use crate::lenient::Lenient;

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
        f.debug_struct("Section")
            .field("at", &self.at)
            .field("keys", &self.values.keys())
            .finish_non_exhaustive()
    }
}

impl Section {
    /// The place of one of its options, such as `providers.hubspot.api_base_url`.
    pub fn option(&self, key: &str) -> String {
        format!("{}.{key}", self.at)
    }
}

/// The most problems that one section is searched for.
const MAX_PROBLEMS: usize = 100;

/// Reads a section into a backend's config struct (with `deny_unknown_fields`). A text stands for a number, a switch or a
/// list where one is expected, because environment variables are texts.
///
/// # Errors
/// Every unknown key and wrong type; a value is never repeated, because it may be a secret.
pub fn parse_section<T: DeserializeOwned>(section: &Section) -> Result<T, Problems> {
    let mut problems = Problems::new();
    match parse_rest(section, &mut problems) {
        Some(config) => problems.into_result(config),
        None => Err(problems),
    }
}

/// Like [`parse_section`], but goes on without the values that are wrong, so that whatever else is wrong is found too.
/// `None` when nothing can be made of the rest, because a value is required.
pub fn parse_rest<T: DeserializeOwned>(section: &Section, problems: &mut Problems) -> Option<T> {
    let mut values = Value::Object(section.values.clone());
    for _ in 0..MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize(Lenient(values.clone())) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path = error.path().clone();
        let message = without_values(&error.into_inner().to_string());
        let shown = path.to_string();
        let at = if shown == "." { section.at.clone() } else { section.option(&shown) };
        let at = at.strip_prefix('.').unwrap_or(&at);
        if !was_taken_out(at, &message, problems) {
            problems.add(at, message);
        }
        if !remove(&mut values, &path) {
            break;
        }
    }
    None
}

/// Whether "missing field `x`" only follows from taking out a wrong `x`, which has been reported.
fn was_taken_out(at: &str, message: &str, problems: &Problems) -> bool {
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    missing.is_some_and(|key| problems.iter().any(|problem| problem.at == format!("{at}.{key}")))
}

/// Takes out what stands at `path`; `false` when there is nothing to take out.
fn remove(values: &mut Value, path: &serde_path_to_error::Path) -> bool {
    let mut place = values;
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        place = match (segment, place) {
            (Segment::Map { key }, Value::Object(map)) if is_last => return map.remove(key).is_some(),
            (Segment::Seq { index }, Value::Array(items)) if is_last && *index < items.len() => {
                items.remove(*index);
                return true;
            }
            (Segment::Map { key }, Value::Object(map)) => match map.get_mut(key) {
                Some(next) => next,
                None => return false,
            },
            (Segment::Seq { index }, Value::Array(items)) => match items.get_mut(*index) {
                Some(next) => next,
                None => return false,
            },
            _ => return false,
        };
    }
    false
}

/// Takes quoted values out of serde's messages, such as `invalid type: string "hunter2", expected …`.
fn without_values(message: &str) -> String {
    let is_value_error =
        ["invalid type", "invalid value", "unknown variant"].iter().any(|start| message.starts_with(start));
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
        (None, Some(path)) => match read_text(path) {
            Ok(secret) => return Ok(secret),
            Err(message) => problems.add(format!("{at}_file"), message),
        },
        (Some(_), Some(_)) => problems.add(&at, format!("give {key} or {key}_file, not both")),
        (None, None) => problems.add(&at, format!("is missing: give {key} or {key}_file")),
    }
    Err(problems)
}

fn read_text(path: &Path) -> Result<SecretString, String> {
    // Wiped however this ends: what is no text may be a secret all the same.
    let bytes = Zeroizing::new(read_file(path)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
    match text.strip_suffix('\n').unwrap_or(text) {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(SecretString::from(secret)),
    }
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
    fn a_word_that_is_none_of_several_is_named_without_its_value() {
        #[derive(Deserialize, Debug)]
        #[serde(rename_all = "lowercase")]
        enum Format {
            Text,
            Json,
        }
        #[derive(Deserialize, Debug)]
        #[expect(dead_code, reason = "only its type matters here")]
        struct Log {
            format: Format,
        }
        let problems = parse_section::<Log>(&section(serde_json::json!({"format": "hunter2"}))).unwrap_err();
        let said = problems.to_string();
        assert_eq!(said, "crypto.format: wrong type or value, expected `text` or `json`");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let problems =
            parse_section::<Config>(&section(serde_json::json!({"count": 1, "cuont": 2}))).unwrap_err();
        assert!(problems.to_string().contains("unknown field `cuont`"), "{problems}");
    }

    #[test]
    fn every_unknown_key_and_wrong_type_is_found_at_once() {
        #[derive(Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only the types matter here")]
        struct Nested {
            count: u32,
            #[serde(default)]
            inner: Option<Config>,
            #[serde(default)]
            list: Vec<Config>,
        }
        let given = serde_json::json!({
            "count": "hunter2", "cuont": 1, "inner": {"count": "hunter3"}, "list": [{"count": 1, "more": "hunter4"}],
        });
        let text = parse_section::<Nested>(&section(given)).unwrap_err().to_string();
        for at in ["crypto.count: ", "crypto.cuont: ", "crypto.inner.count: ", "crypto.list[0].more: "] {
            assert!(text.contains(at), "{at:?} in\n{text}");
        }
        assert!(!text.contains("hunter"), "{text}");
        assert!(!text.contains("missing field"), "{text}");
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
