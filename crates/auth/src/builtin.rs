//! The built-in issuer, for teams without an identity provider: JWTs signed with Ed25519 (RFC 8037).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyAlgorithm, OctetKeyPairParameters,
    OctetKeyPairType, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tokenward_types::{Clock, InvalidId, Principal, Rng, SecretString, Timestamp, generate_suffix};
use zeroize::Zeroizing;

use crate::Role;
use crate::issuer::{BUILTIN_ISSUER_NAME, IssuerConfig, JwksSource};
use crate::jwks::KeySet;
use crate::source::Keys;
use crate::verify::{Issuer, MAX_LIFETIME};

/// How long a token lives when nobody says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(1);

const ROLE_CLAIM: &str = "tokenward_role";

/// What the tokens of the built-in issuer say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinSettings {
    /// Their `iss`; set it where several installations share networks.
    pub iss: String,
    /// Their `aud`.
    pub audience: String,
}

impl Default for BuiltinSettings {
    fn default() -> Self {
        Self { iss: "tokenward".to_owned(), audience: "tokenward".to_owned() }
    }
}

/// What is needed to verify tokens of the built-in issuer; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinIssuerKeys {
    /// What the tokens say.
    pub settings: BuiltinSettings,
    /// Key identifiers and public keys.
    pub keys: Vec<(String, [u8; 32])>,
}

impl BuiltinIssuerKeys {
    pub(crate) fn key_set(&self) -> KeySet {
        KeySet::of(self.keys.iter().map(|(kid, public)| jwk(Some(kid.clone()), public)))
    }

    /// The `iss` and the issuer to check it with.
    pub(crate) fn into_issuer(self, clock: Arc<dyn Clock>) -> (String, Issuer) {
        let name: Arc<str> = BUILTIN_ISSUER_NAME.into();
        let keys = Keys::fixed(Arc::clone(&name), self.key_set(), clock);
        let BuiltinSettings { iss, audience } = self.settings;
        let config = IssuerConfig {
            algorithms: vec!["EdDSA".to_owned()],
            role_claim: Some(ROLE_CLAIM.to_owned()),
            allowed_roles: Role::ALL.to_vec(),
            // Never read: the keys are at hand.
            ..IssuerConfig::new(BUILTIN_ISSUER_NAME, &iss, &audience, JwksSource::File("".into()))
        };
        (iss, Issuer::new(&config, name, keys))
    }
}

fn jwk(kid: Option<String>, public: &[u8; 32]) -> Jwk {
    Jwk {
        common: CommonParameters {
            key_id: kid,
            key_algorithm: Some(KeyAlgorithm::EdDSA),
            ..CommonParameters::default()
        },
        algorithm: AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve: EllipticCurve::Ed25519,
            x: BASE64_URL_SAFE_NO_PAD.encode(public),
        }),
    }
}

/// A stored key of the built-in issuer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuiltinKeyError {
    /// There is none.
    #[error("the built-in issuer has no key: one is needed to sign")]
    NoKey,
    /// The private key cannot be read.
    #[error("key {0:?} of the built-in issuer is not an Ed25519 key in PKCS #8")]
    NotEd25519(String),
    /// The two halves do not belong together.
    #[error("key {0:?} of the built-in issuer has a public key that is not its own")]
    Mismatch(String),
    /// Two keys have one name.
    #[error("key {0:?} of the built-in issuer is there twice")]
    Duplicate(String),
}

/// Why no token was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The subject cannot be a principal.
    #[error("the subject cannot be a principal: {0}")]
    InvalidSubject(#[from] InvalidId),
    /// Nothing, or a colon, which would make the principal look like one of another issuer.
    #[error("the subject must not be empty or contain ':'")]
    EmptyOrColon,
    /// The lifetime is out of bounds.
    #[error("a caller token lives from 1 second to 24 hours")]
    InvalidLifetime,
    /// The key could not sign.
    #[error("the token could not be signed")]
    Signing,
}

/// A new caller token.
#[derive(Debug)]
pub struct IssuedToken {
    /// The JWT; shown once, stored nowhere.
    pub token: SecretString,
    /// Whose it is.
    pub principal: Principal,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Its `jti`, for the audit log.
    pub token_id: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
    tokenward_role: &'static str,
}

/// Issues caller tokens, signed with the newest key.
pub struct BuiltinIssuer {
    verifying: BuiltinIssuerKeys,
    signing: EncodingKey,
    kid: String,
}

impl BuiltinIssuer {
    /// A new Ed25519 key from the operating system's generator: the private key in PKCS #8, the public key, and its
    /// identifier (the thumbprint of RFC 7638).
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[expect(clippy::expect_used, reason = "without randomness a key would be guessable: stop")]
    pub fn generate_key() -> (Zeroizing<Vec<u8>>, [u8; 32], String) {
        let pair = Ed25519KeyPair::generate().expect("the system's random generator works");
        let document = pair.to_pkcs8v1().expect("a key that was just made has a PKCS #8 form");
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        let kid =
            jwk(None, &public).thumbprint(ThumbprintHash::SHA256).expect("an Ed25519 key has a thumbprint");
        (pkcs8, public, kid)
    }

    /// An issuer from its stored keys (identifier, PKCS #8, public key), newest first: the first signs, all verify.
    ///
    /// # Errors
    /// [`BuiltinKeyError`] names the key that cannot be used.
    pub fn from_keys(
        keys: Vec<(String, Zeroizing<Vec<u8>>, [u8; 32])>,
        settings: BuiltinSettings,
    ) -> Result<Self, BuiltinKeyError> {
        let mut verifying = BuiltinIssuerKeys { settings, keys: Vec::new() };
        let mut signing = None;
        for (kid, pkcs8, public) in keys {
            let pair =
                Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| BuiltinKeyError::NotEd25519(kid.clone()))?;
            if pair.public_key().as_ref() != public {
                return Err(BuiltinKeyError::Mismatch(kid));
            }
            if verifying.keys.iter().any(|(known, _)| *known == kid) {
                return Err(BuiltinKeyError::Duplicate(kid));
            }
            signing.get_or_insert_with(|| (kid.clone(), EncodingKey::from_ed_der(&pkcs8)));
            verifying.keys.push((kid, public));
        }
        let (kid, signing) = signing.ok_or(BuiltinKeyError::NoKey)?;
        Ok(Self { verifying, signing, kid })
    }

    /// What [`Authenticator::new`](crate::Authenticator::new) needs to verify its tokens.
    pub fn verification_keys(&self) -> BuiltinIssuerKeys {
        self.verifying.clone()
    }

    /// A token for `subject`, which becomes the principal `builtin:<subject>`. Its life is cut to whole seconds.
    ///
    /// # Errors
    /// [`IssueError`] says what is wrong with the request.
    pub fn issue(
        &self,
        subject: &str,
        role: Role,
        ttl: Duration,
        rng: &dyn Rng,
        clock: &dyn Clock,
    ) -> Result<IssuedToken, IssueError> {
        if subject.is_empty() || subject.contains(':') {
            return Err(IssueError::EmptyOrColon);
        }
        if ttl < Duration::from_secs(1) || ttl > MAX_LIFETIME {
            return Err(IssueError::InvalidLifetime);
        }
        let principal = Principal::parse(&format!("{BUILTIN_ISSUER_NAME}:{subject}"))?;
        let now = clock.now().as_secs();
        let expires_at = Timestamp::from_secs((Timestamp::from_secs(now) + ttl).as_secs());
        let token_id = generate_suffix(clock, rng);
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = Claims {
            iss: &self.verifying.settings.iss,
            sub: subject,
            aud: &self.verifying.settings.audience,
            iat: now,
            nbf: now,
            exp: expires_at.as_secs(),
            jti: &token_id,
            tokenward_role: role.as_str(),
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|_| IssueError::Signing)?;
        Ok(IssuedToken { token: SecretString::from(token), principal, expires_at, token_id })
    }
}

impl fmt::Debug for BuiltinIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltinIssuer")
            .field("verifying", &self.verifying)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
