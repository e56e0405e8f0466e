//! Reading and checking one token (RFC 7519, with the advice of RFC 8725). The time comes from the caller's clock, so the
//! claims are checked here and only the signature by the JWT library.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenward_types::{Principal, Timestamp};

use crate::error::Foreign;
use crate::issuer::{BUILTIN_ISSUER_NAME, asymmetric};
use crate::jwks::{Found, KeySet};
use crate::source::{Keys, Refetched};
use crate::{AuthError, AuthErrorReason, Caller, IssuerConfig, Role};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How far the clocks of issuers may be off: `exp` and `nbf` are stretched by this much.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// The longest life of a caller token.
pub const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// The token in an `authorization` header (RFC 6750, section 2.1).
///
/// # Errors
/// [`AuthErrorReason::Missing`] without a header or with another scheme, [`AuthErrorReason::Malformed`] when it is not ASCII.
pub fn bearer_token(authorization: Option<&[u8]>) -> Result<&str, AuthError> {
    let header = authorization.ok_or_else(AuthError::missing)?;
    let (scheme, token) = header.split_at_checked(7).ok_or_else(AuthError::missing)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(AuthError::new(AuthErrorReason::Missing, "the authorization scheme is not Bearer"));
    }
    let token = std::str::from_utf8(token).map_err(|_| malformed("the token is not text"))?.trim_ascii();
    if token.is_empty() { Err(AuthError::missing()) } else { Ok(token) }
}

fn malformed(detail: impl Into<String>) -> AuthError {
    AuthError::new(AuthErrorReason::Malformed, detail)
}

/// The parts of a token, nothing of it verified.
pub(crate) struct Token<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
    signed: &'a [u8],
    signature: &'a str,
}

#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes a token apart (RFC 7515, section 7.1).
    pub(crate) fn parse(bearer: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = bearer.rsplit_once('.').ok_or_else(|| malformed("it has no parts"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("it has two parts"))?;
        let header: JoseHeader = part("header", header)?;
        if header.crit.is_some() {
            return Err(malformed("the header has critical extensions (crit), and none is supported"));
        }
        let algorithm = asymmetric(&header.alg).ok_or_else(|| {
            let detail = format!("alg {} is not an asymmetric signature", Foreign(&header.alg));
            let refused = AuthError::new(AuthErrorReason::UnsupportedAlgorithm, detail);
            if header.alg.eq_ignore_ascii_case("none") {
                refused.with_message("Unsigned caller tokens (alg none) are never accepted.".to_owned())
            } else {
                refused
            }
        })?;
        let claims = part("payload", payload)?;
        Ok(Self { algorithm, kid: header.kid, claims, signed: signed.as_bytes(), signature })
    }

    /// Who claims to have issued it.
    pub(crate) fn iss(&self) -> Result<&str, AuthError> {
        text(&self.claims, "iss")
    }
}

fn part<T: serde::de::DeserializeOwned>(name: &str, encoded: &str) -> Result<T, AuthError> {
    // The errors of the decoders quote what they read, so they are not shown.
    let json = BASE64_URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| malformed(format!("the {name} is not base64url without padding")))?;
    serde_json::from_slice(&json)
        .map_err(|_| malformed(format!("the {name} is not the JSON object of a JWT")))
}

fn missing_claim(name: &str, problem: &str) -> AuthError {
    AuthError::new(AuthErrorReason::MissingClaim, format!("claim {name:?} {problem}"))
        .with_message(format!("The caller token's claim {name:?} {problem}."))
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, AuthError> {
    match claims.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(missing_claim(name, "is missing or not a string")),
    }
}

/// A NumericDate, which may have a fraction (RFC 7519, section 2).
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, AuthError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_i64().map(Timestamp::from_secs);
    let fraction = || {
        let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
        Some(Timestamp::from_secs(0) + seconds)
    };
    match whole.or_else(fraction) {
        Some(time) => Ok(Some(time)),
        None => Err(malformed(format!("claim {name:?} is not a number of seconds"))),
    }
}

/// What a verified token is good for.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) caller: Arc<Caller>,
    pub(crate) keys: Arc<KeySet>,
    /// From when on it is refused: its expiry and the leeway.
    pub(crate) refused_from: Timestamp,
}

/// An issuer that is ready to check tokens.
#[derive(Debug)]
pub(crate) struct Issuer {
    name: Arc<str>,
    audience: String,
    algorithms: Vec<Algorithm>,
    principal_claim: String,
    role_claim: Option<String>,
    allowed_roles: Vec<Role>,
    pub(crate) keys: Arc<Keys>,
}

impl Issuer {
    /// The issuer of `config`, which was validated, with its `keys`.
    pub(crate) fn new(config: &IssuerConfig, name: Arc<str>, keys: Keys) -> Self {
        Self {
            name,
            audience: config.audience.clone(),
            algorithms: config.algorithms.iter().filter_map(|name| asymmetric(name)).collect(),
            principal_claim: config.principal_claim.clone(),
            role_claim: config.role_claim.clone(),
            allowed_roles: config.allowed_roles.clone(),
            keys: Arc::new(keys),
        }
    }

    /// Checks signature and claims of `token`, which names this issuer. `is_issuer` knows the names of all issuers.
    pub(crate) async fn verify(
        &self,
        token: &Token<'_>,
        now: Timestamp,
        is_issuer: impl Fn(&str) -> bool,
    ) -> Result<Verified, AuthError> {
        let keys = self.check_signature(token).await?;
        let expires_at = self.check_times_and_audience(&token.claims, now)?;
        let caller = Caller {
            principal: self.principal(&token.claims, is_issuer)?,
            role: self.role(&token.claims)?,
            issuer: Arc::clone(&self.name),
            expires_at,
        };
        Ok(Verified { caller: Arc::new(caller), keys, refused_from: expires_at + LEEWAY })
    }

    async fn check_signature(&self, token: &Token<'_>) -> Result<Arc<KeySet>, AuthError> {
        if !self.algorithms.contains(&token.algorithm) {
            let detail = format!("{:?} is not on the list of issuer {}", token.algorithm, self.name);
            return Err(AuthError::new(AuthErrorReason::UnsupportedAlgorithm, detail));
        }
        if let Some(keys) = self.keys.current()
            && let Some(verdict) = signature_verdict(token, &keys)
        {
            return verdict.map(|()| keys);
        }
        let refetched = self.keys.refetch_for_token().await;
        if let Some(keys) = self.keys.current()
            && let Some(verdict) = signature_verdict(token, &keys)
        {
            return verdict.map(|()| keys);
        }
        if refetched == Refetched::SourceAway {
            let detail =
                format!("the key of a token of issuer {} is unknown and its keys are away", self.name);
            return Err(AuthError::new(AuthErrorReason::KeysUnavailable, detail));
        }
        let detail = match &token.kid {
            Some(kid) => format!("issuer {} has no key {}", self.name, Foreign(kid)),
            None => format!("a token of issuer {} names no key, and there is not exactly one", self.name),
        };
        Err(AuthError::new(AuthErrorReason::UnknownKey, detail))
    }

    fn check_times_and_audience(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Timestamp, AuthError> {
        let for_us = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => return Err(missing_claim("aud", "is missing or not a string or list of strings")),
        };
        if !for_us {
            let detail = format!("a token of issuer {} is for another audience", self.name);
            return Err(AuthError::new(AuthErrorReason::WrongAudience, detail).with_message(format!(
                "The caller token is for another audience (aud): get one for {:?}.",
                self.audience
            )));
        }
        let expires_at = date(claims, "exp")?.ok_or_else(|| missing_claim("exp", "is missing"))?;
        let not_before = date(claims, "nbf")?;
        let issued_at = date(claims, "iat")?;
        if now >= expires_at + LEEWAY {
            return Err(AuthError::new(AuthErrorReason::Expired, format!("it expired at {expires_at}")));
        }
        if let Some(start) = not_before.filter(|start| *start > now + LEEWAY) {
            return Err(AuthError::new(AuthErrorReason::NotYetValid, format!("it is valid from {start}")));
        }
        // What is left counts too: an `iat` in the future must not stretch a life.
        let declared = issued_at.map_or(Duration::ZERO, |issued| expires_at.since(issued));
        if declared > MAX_LIFETIME || expires_at.until(now) > MAX_LIFETIME + LEEWAY {
            let detail = format!("it expires at {expires_at}, more than 24 h after it was issued");
            return Err(AuthError::new(AuthErrorReason::LifetimeTooLong, detail));
        }
        Ok(expires_at)
    }

    /// Whom `token` names, not verified.
    pub(crate) fn claimed_principal(&self, token: &Token<'_>) -> String {
        format!("{}:{}", self.name, text(&token.claims, &self.principal_claim).unwrap_or_default())
    }

    fn principal(
        &self,
        claims: &Map<String, Value>,
        is_issuer: impl Fn(&str) -> bool,
    ) -> Result<Principal, AuthError> {
        let claim = text(claims, &self.principal_claim)?;
        // `corp:builtin:admin` would be harmless, but it is never meant.
        if let Some((prefix, _)) = claim.split_once(':')
            && prefix != &*self.name
            && (prefix == BUILTIN_ISSUER_NAME || is_issuer(prefix))
        {
            return Err(missing_claim(&self.principal_claim, "names a principal of another issuer"));
        }
        Principal::parse(&format!("{}:{claim}", self.name))
            .map_err(|error| missing_claim(&self.principal_claim, &format!("cannot be a principal: {error}")))
    }

    fn role(&self, claims: &Map<String, Value>) -> Result<Role, AuthError> {
        let claimed = self.role_claim.as_ref().and_then(|name| claims.get(name));
        let role = match claimed {
            None => Some(Role::Service),
            Some(value) => value.as_str().and_then(|name| name.parse().ok()),
        };
        role.filter(|role| self.allowed_roles.contains(role)).ok_or_else(|| {
            let given = claimed.and_then(Value::as_str).unwrap_or("(none, or no string)");
            let detail = format!("issuer {} may not give the role {}", self.name, Foreign(given));
            AuthError::new(AuthErrorReason::RoleNotAllowed, detail)
        })
    }
}

/// Whether a key of `keys` signed `token`; `None` when the key is not among them.
fn signature_verdict(token: &Token<'_>, keys: &KeySet) -> Option<Result<(), AuthError>> {
    let keys = match keys.find(token.kid.as_deref(), token.algorithm) {
        Found::Keys(keys) => keys,
        Found::OtherAlgorithm => {
            let detail = format!("the key is not for {:?}", token.algorithm);
            return Some(Err(AuthError::new(AuthErrorReason::UnsupportedAlgorithm, detail)));
        }
        Found::Nothing => return None,
    };
    let signed = keys.iter().any(|key| {
        jsonwebtoken::crypto::verify(token.signature, token.signed, &key.key, token.algorithm)
            .unwrap_or(false)
    });
    Some(if signed {
        Ok(())
    } else {
        Err(AuthError::new(AuthErrorReason::BadSignature, "the signature does not verify"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_taken_from_the_authorization_header() {
        assert_eq!(bearer_token(Some(b"Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer_token(Some(b"bearer  abc ")).unwrap(), "abc");
        for none in
            [None, Some(&b""[..]), Some(b"Bearer"), Some(b"Bearer "), Some(b"Basic abc"), Some(b"Bearerabc")]
        {
            assert_eq!(bearer_token(none).unwrap_err().reason(), AuthErrorReason::Missing, "{none:?}");
        }
        assert_eq!(bearer_token(Some(b"Bearer \xff")).unwrap_err().reason(), AuthErrorReason::Malformed);
    }

    #[test]
    fn dates_may_have_fractions_and_never_overflow() {
        let read = |json: &str| {
            let claims = serde_json::from_str(&format!("{{\"exp\": {json}}}")).unwrap();
            date(&claims, "exp").map(|time| time.unwrap().as_micros())
        };
        assert_eq!(read("5"), Ok(5_000_000));
        assert_eq!(read("5.5"), Ok(5_500_000));
        assert_eq!(read("-5"), Ok(-5_000_000));
        assert_eq!(read("9300000000000000000"), Ok(i64::MAX));
        for wrong in ["\"5\"", "null", "true", "-0.5", "1e300", "18446744073709551615", "[]"] {
            assert_eq!(read(wrong).unwrap_err().reason(), AuthErrorReason::Malformed, "{wrong}");
        }
    }
}
