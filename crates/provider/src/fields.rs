use std::time::Duration;

use serde_json::{Map, Value};
use tokenward_types::{AccountId, Scopes, SecretString};

use crate::answer::{ExpiresIn, MAX_LIFETIME};

/// The longest account name that is kept, in characters.
const MAX_NAME: usize = 255;
/// The longest code of an error, in bytes.
const MAX_CODE: usize = 64;

/// The members of a vendor's JSON answer, read leniently: one that has the wrong type is as good as absent, because an
/// answer that carries tokens must not be lost over a detail. It has no `Debug`, since it may hold tokens.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The members of a JSON object; `None` when `body` is none.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().map(Self)
    }

    /// Takes out a secret; `None` when it is absent, empty or no string.
    pub fn take_secret(&mut self, name: &str) -> Option<SecretString> {
        match self.0.remove(name)? {
            Value::String(text) if !text.is_empty() => Some(text.into()),
            _ => None,
        }
    }

    /// Whether the answer has this member, `null` aside.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// A string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }

    /// A code that is safe to log: 1 to 64 letters, `_`, `-` or `.`; a token that a vendor echoes has digits.
    pub fn code(&self, name: &str) -> Option<&str> {
        let safe = |b: u8| b.is_ascii_alphabetic() || b"_-.".contains(&b);
        self.text(name).filter(|code| (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(safe))
    }

    /// An account: a string, or a whole number. `path` may lead into objects: `team.id`.
    pub fn account(&self, path: &str) -> Option<AccountId> {
        match self.at(path)? {
            Value::String(text) => AccountId::parse(text).ok(),
            Value::Number(number) => AccountId::parse(&number.as_u64()?.to_string()).ok(),
            _ => None,
        }
    }

    /// A name for people, cut at 255 characters; `None` when it has control characters. `path` as in [`Fields::account`].
    pub fn name(&self, path: &str) -> Option<String> {
        let name: String = self.at(path)?.as_str()?.chars().take(MAX_NAME).collect();
        (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
    }

    /// Scopes separated by spaces (RFC 6749, section 3.3); `None` when absent or malformed.
    pub fn scope_text(&self, name: &str) -> Option<Scopes> {
        Scopes::parse(self.text(name)?).ok()
    }

    /// Scopes as an array of strings; `None` when absent or malformed.
    pub fn scope_list(&self, name: &str) -> Option<Scopes> {
        let list = self.0.get(name)?.as_array()?;
        let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
        Scopes::new(texts?).ok()
    }

    /// A lifetime in seconds: a number, or a string of digits as some vendors write it.
    pub fn lifetime(&self, name: &str) -> ExpiresIn {
        if !self.has(name) {
            return ExpiresIn::Missing;
        }
        match self.seconds(name).map(Duration::from_secs) {
            Some(life) if !life.is_zero() && life <= MAX_LIFETIME => ExpiresIn::Given(life),
            _ => ExpiresIn::Invalid,
        }
    }

    /// A count of whole seconds that is not negative.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn at(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }
}

/// The whole seconds of `1800.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked, and a fraction of a second is to be dropped"
)]
fn whole(number: f64) -> Option<u64> {
    (0.0..=MAX_LIFETIME.as_secs_f64()).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenward_types::ExposeSecret;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).expect("an object")
    }

    #[test]
    fn only_objects_are_read() {
        for body in ["", "[]", "null", "<html>", "{\"a\":", "\"text\"", "{} trailing"] {
            assert!(Fields::parse(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn lifetimes_are_read_from_numbers_and_digits() {
        let given = |seconds| ExpiresIn::Given(Duration::from_secs(seconds));
        for (json, expected) in [
            ("1800", given(1800)),
            ("1800.9", given(1800)),
            ("\"1800\"", given(1800)),
            ("315360000", given(315_360_000)),
            ("null", ExpiresIn::Missing),
            ("0", ExpiresIn::Invalid),
            ("0.5", ExpiresIn::Invalid),
            ("-1", ExpiresIn::Invalid),
            ("315360001", ExpiresIn::Invalid),
            ("18446744073709551616", ExpiresIn::Invalid),
            ("1e400", ExpiresIn::Invalid),
            ("\"soon\"", ExpiresIn::Invalid),
            ("true", ExpiresIn::Invalid),
        ] {
            let json = format!("{{\"expires_in\":{json}}}");
            // serde_json refuses numbers beyond f64 altogether.
            let Some(fields) = Fields::parse(json.as_bytes()) else {
                assert!(json.contains("1e400"));
                continue;
            };
            assert_eq!(fields.lifetime("expires_in"), expected, "{json}");
        }
        assert_eq!(fields("{}").lifetime("expires_in"), ExpiresIn::Missing);
    }

    #[test]
    fn accounts_are_strings_or_whole_numbers_also_inside_objects() {
        let fields = fields(r#"{"hub_id":1234567,"team":{"id":"T1","x":-1},"bad":"ä"}"#);
        assert_eq!(fields.account("hub_id").unwrap().as_str(), "1234567");
        assert_eq!(fields.account("team.id").unwrap().as_str(), "T1");
        for path in ["team", "team.x", "team.none", "bad", "absent", "hub_id.x"] {
            assert_eq!(fields.account(path), None, "{path}");
        }
    }

    #[test]
    fn codes_with_other_characters_are_not_believed() {
        assert_eq!(fields(r#"{"error":"invalid_grant"}"#).code("error"), Some("invalid_grant"));
        for text in ["", "Not Found", "a\\n", "tok-1", &"x".repeat(65)] {
            assert_eq!(fields(&format!("{{\"error\":\"{text}\"}}")).code("error"), None, "{text}");
        }
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_absent() {
        let mut fields = fields(r#"{"a":"s","b":"","c":1,"d":null}"#);
        assert_eq!(fields.take_secret("a").unwrap().expose_secret(), "s");
        for name in ["b", "c", "d", "e"] {
            assert!(fields.take_secret(name).is_none());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(fields) = Fields::parse(&body) {
                let _ = (fields.lifetime("a"), fields.account("a.b"), fields.name("a"), fields.scope_list("a"));
            }
        }

        #[test]
        fn any_number_of_seconds_is_a_lifetime_or_not(number in any::<f64>()) {
            let life = fields(&serde_json::json!({"n": number}).to_string()).lifetime("n");
            if let ExpiresIn::Given(life) = life {
                prop_assert!(!life.is_zero() && life <= MAX_LIFETIME && number >= 1.0);
            }
        }
    }
}
