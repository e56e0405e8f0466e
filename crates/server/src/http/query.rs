//! What comes back from a provider (RFC 6749, section 4.1.2).

use tokenward_broker::{Callback, Error, Reason};
use url::form_urlencoded;

/// The longest parameter that is looked at, in bytes. Codes of some vendors are signed tokens.
const MAX_PARAMETER: usize = 4096;

/// The parameters of a callback. No Debug: they hold the code.
#[derive(Default)]
pub(super) struct CallbackQuery {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl CallbackQuery {
    /// Reads the parameters; others are ignored.
    pub(super) fn parse(query: &str) -> Result<Self, Error> {
        let malformed = |what| Error::new(Reason::InvalidRequest, what);
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*key {
                "code" => &mut parsed.code,
                "state" => &mut parsed.state,
                "error" => &mut parsed.error,
                "iss" => &mut parsed.iss,
                _ => continue,
            };
            if value.len() > MAX_PARAMETER {
                return Err(malformed("a parameter is too long"));
            }
            // RFC 6749, section 3.1: no parameter more than once. Which of two would count is what an attacker picks.
            if place.replace(value.into_owned()).is_some() {
                return Err(malformed("a parameter is there twice"));
            }
        }
        Ok(parsed)
    }

    pub(super) fn callback<'a>(
        &'a self,
        oauth_client: &'a str,
        cookies: &'a [(&'a str, &'a str)],
    ) -> Callback<'a> {
        Callback {
            oauth_client,
            code: self.code.as_deref(),
            state: self.state.as_deref(),
            error: self.error.as_deref(),
            iss: self.iss.as_deref(),
            cookies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_others_ignored() {
        let query = CallbackQuery::parse("code=a%2Bb+c&state=s&iss=https%3A%2F%2Fop&utm=x&utm=y&=").unwrap();
        let callback = query.callback("main", &[]);
        assert_eq!((callback.code, callback.state), (Some("a+b c"), Some("s")));
        assert_eq!((callback.iss, callback.error), (Some("https://op"), None));
    }

    #[test]
    fn a_parameter_that_is_there_twice_or_too_long_is_refused() {
        for query in ["code=a&code=b", "state=a&state=a", &format!("code={}", "a".repeat(4097))] {
            assert_eq!(CallbackQuery::parse(query).err().unwrap().reason, Reason::InvalidRequest);
        }
    }
}
