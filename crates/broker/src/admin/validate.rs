//! Bounds of what operators and admins may write. Each refusal names the field and the rule.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use tokenward_types::{Principal, ProviderName, Scopes};
use url::Url;

use crate::{Broker, Error};

const MAX_DISPLAY_NAME: usize = 256;
const MAX_DESCRIPTION: usize = 1024;
const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 256;
const MAX_URL: usize = 2048;
const MAX_PATTERN: usize = 255;
const MAX_CLIENT_ID: usize = 255;
const MAX_SECRET: usize = 4096;
const NO_ISSUER: &str =
    "names no issuer, so that it stands for nobody: give <issuer>:<name>, such as builtin:billing";

fn text(field: &'static str, text: &str, max: usize) -> Result<(), Error> {
    if text.len() > max {
        return Err(Error::invalid(
            field,
            format_args!("{} bytes are more than the {max} that are allowed", text.len()),
        ));
    }
    // They would garble logs and tables, or hide what a name really is.
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "control characters are not allowed"));
    }
    Ok(())
}

/// A name for people.
pub(super) fn display_name(name: &str) -> Result<(), Error> {
    text("display_name", name, MAX_DISPLAY_NAME)
}

/// A reason or description for people.
pub(super) fn description(field: &'static str, description: &str) -> Result<(), Error> {
    text(field, description, MAX_DESCRIPTION)
}

/// Labels of a tenant, or those that a rule selects by.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > MAX_LABELS {
        return Err(Error::invalid(
            "labels",
            format_args!("{} labels are more than the {MAX_LABELS} that are allowed", labels.len()),
        ));
    }
    for (key, value) in labels {
        let body = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
        let well_formed = key.len() <= MAX_LABEL_KEY
            && key.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && key.bytes().all(body);
        if !well_formed {
            let shown: String = key.chars().take(MAX_LABEL_KEY).collect();
            return Err(Error::invalid(
                "labels",
                format_args!(
                    "key {shown:?} must be 1 to 63 letters, digits and \"._/-\", a letter or digit first"
                ),
            ));
        }
        text("labels", value, MAX_LABEL_VALUE)?;
    }
    Ok(())
}

/// The `client_id` of an OAuth client: visible ASCII (RFC 6749, appendix A.1).
pub(super) fn client_id(id: &str) -> Result<(), Error> {
    let well_formed =
        !id.is_empty() && id.len() <= MAX_CLIENT_ID && id.bytes().all(|b| (0x21..=0x7e).contains(&b));
    if well_formed {
        return Ok(());
    }
    Err(Error::invalid("client_id", "must be 1 to 255 printable ASCII characters without spaces"))
}

/// Where a customer is helped.
pub(super) fn help_url(url: &str) -> Result<(), Error> {
    if url.len() > MAX_URL {
        return Err(Error::invalid("help_url", format_args!("longer than {MAX_URL} bytes")));
    }
    let parsed = Url::parse(url).map_err(|error| Error::invalid("help_url", error))?;
    if parsed.scheme() != "https" || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Error::invalid("help_url", "must be an https URL without user name and password"));
    }
    Ok(())
}

/// Scopes that a connect attempt requests, and those among them that it can do without.
pub(super) fn client_scopes(required: &Scopes, optional: &Scopes) -> Result<(), Error> {
    if required.is_empty() && optional.is_empty() {
        return Err(Error::invalid("scopes", "at least one is needed"));
    }
    let both = required.intersection(optional);
    if both.is_empty() {
        return Ok(());
    }
    Err(Error::invalid("optional_scopes", format_args!("both required and optional: {both}")))
}

/// A principal, or a pattern of principals.
pub(super) fn principal_pattern(pattern: &str) -> Result<(), Error> {
    let body = |b: u8| b.is_ascii_alphanumeric() || b"._:@/+=|-*".contains(&b);
    let well_formed = pattern.len() <= MAX_PATTERN
        && pattern.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'*')
        && pattern.bytes().all(body);
    if well_formed && !pattern.contains([':', '*']) {
        return Err(Error::invalid("principal", NO_ISSUER));
    }
    if well_formed {
        return Ok(());
    }
    Err(Error::invalid(
        "principal",
        "must be 1 to 255 letters, digits and \"._:@/+=|-*\", such as builtin:billing or builtin:*",
    ))
}

/// A principal to block. One that cannot exist is a slip of the pen, and whoever was meant would go on.
pub(super) fn principal(principal: &Principal) -> Result<(), Error> {
    match principal.as_str().split_once(':') {
        Some((issuer, name)) if !issuer.is_empty() && !name.is_empty() => Ok(()),
        _ => Err(Error::invalid("principal", NO_ISSUER)),
    }
}

/// A client secret. The message never shows it.
pub(super) fn client_secret(secret: &SecretString) -> Result<(), Error> {
    let secret = secret.expose_secret();
    let problem = if secret.is_empty() {
        "must not be empty"
    } else if secret.len() > MAX_SECRET {
        "is longer than 4 KiB: is it a secret at all?"
    } else if secret.trim() != secret {
        "begins or ends with a space or line break: was it copied with too much around it?"
    } else if secret.chars().any(char::is_control) {
        "has a control character or line break in it: was it copied whole, and nothing else?"
    } else {
        return Ok(());
    };
    Err(Error::invalid("client_secret", problem))
}

impl Broker {
    /// Refuses a provider that the configuration does not have.
    pub(super) fn check_provider(&self, provider: &ProviderName) -> Result<(), Error> {
        if self.provider(provider).is_some() {
            return Ok(());
        }
        Err(Error::invalid("provider", format_args!("{provider} is not in this server's configuration")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_are_bounded_in_number_length_and_characters() {
        assert!(labels(&map(&[("tier", "gold"), ("eu.example/region-1_a", "")])).is_ok());
        assert!(labels(&map(&[("", "x")])).is_err());
        assert!(labels(&map(&[("-a", "x")])).is_err());
        assert!(labels(&map(&[(&"k".repeat(64), "x")])).is_err());
        assert!(labels(&map(&[("k", &"v".repeat(257))])).is_err());
        assert!(labels(&map(&[("k", "line\nbreak")])).is_err());
        let many: BTreeMap<_, _> = (0..65).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(labels(&many).is_err());
    }

    #[test]
    fn a_secret_with_something_around_it_is_refused_without_showing_it() {
        for bad in ["", " hunter2", "hunter2\n", "hun\tter2", &"x".repeat(4097)] {
            let error = client_secret(&SecretString::from(bad)).unwrap_err();
            assert!(!error.to_string().contains("hunter2") && error.to_string().contains("client_secret"));
        }
        assert!(client_secret(&SecretString::from("hunter2 with spaces")).is_ok());
    }

    #[test]
    fn patterns_hold_the_characters_of_principals_and_a_star() {
        for good in ["*", "builtin:*", "idp:team/*@example.com", "builtin:billing"] {
            assert!(principal_pattern(good).is_ok(), "{good}");
        }
        for bad in ["", ":x", "a b", "a?", "ä", &"x".repeat(256)] {
            assert!(principal_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn help_is_given_over_https_only() {
        assert!(help_url("https://help.example.com/hubspot?x=1").is_ok());
        for bad in ["http://example.com", "javascript:alert(1)", "https://u:p@example.com", "help", ""] {
            assert!(help_url(bad).is_err(), "{bad}");
        }
        assert!(help_url(&format!("https://example.com/{}", "x".repeat(2048))).is_err());
    }

    #[test]
    fn a_scope_is_required_or_optional_but_not_both() {
        let scopes = |text| Scopes::parse(text).unwrap();
        assert!(client_scopes(&scopes("a b"), &scopes("c")).is_ok());
        assert!(client_scopes(&scopes(""), &scopes("")).is_err());
        let error = client_scopes(&scopes("a b"), &scopes("b c")).unwrap_err();
        assert!(error.message.ends_with(": b"), "{error}");
    }
}
