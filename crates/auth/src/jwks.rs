//! A JWK Set (RFC 7517): which of its keys are usable, and for what.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

/// The most keys of one issuer.
const MAX_KEYS: usize = 100;

/// The usable keys of one issuer at one time.
#[derive(Debug, PartialEq)]
pub(crate) struct KeySet(Vec<VerifyingKey>);

/// What a search for a token's key found.
pub(crate) enum Found<'a> {
    /// The keys to try; more than one only if the issuer gave several the same identifier.
    Keys(Vec<&'a VerifyingKey>),
    /// There is a key of that name, but it is for another algorithm.
    OtherAlgorithm,
    /// No such key.
    Nothing,
}

impl KeySet {
    /// The usable keys of the JWK Set in `json`. Keys of kinds that we do not know are left out, as RFC 7517, section 5
    /// asks; so are secret keys, those not for signatures, and weak ones.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|error| format!("not a JWK Set: {error}"))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!(
                "{} keys are more than the {MAX_KEYS} that are allowed",
                document.keys.len()
            ));
        }
        let parsed = document.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(Self::of(parsed))
    }

    /// The usable ones of `keys`.
    pub(crate) fn of(keys: impl IntoIterator<Item = Jwk>) -> Self {
        Self(keys.into_iter().filter_map(VerifyingKey::new).collect())
    }

    /// How many keys are usable.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key for a token's `kid` and `alg`. A token without `kid` is accepted only while there is no choice.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let named: Vec<&VerifyingKey> = match (kid, &*self.0) {
            (Some(kid), keys) => keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect(),
            (None, [only]) => vec![only],
            (None, _) => vec![],
        };
        if named.is_empty() {
            return Found::Nothing;
        }
        let fitting: Vec<_> = named.into_iter().filter(|key| key.fits(algorithm)).collect();
        if fitting.is_empty() { Found::OtherAlgorithm } else { Found::Keys(fitting) }
    }
}

/// A public key that may verify signatures.
#[derive(Debug)]
pub(crate) struct VerifyingKey {
    kid: Option<String>,
    declared: Option<KeyAlgorithm>,
    parameters: AlgorithmParameters,
    pub(crate) key: DecodingKey,
}

impl PartialEq for VerifyingKey {
    // The decoding key follows from the parameters.
    fn eq(&self, other: &Self) -> bool {
        (&self.kid, &self.declared, &self.parameters) == (&other.kid, &other.declared, &other.parameters)
    }
}

impl VerifyingKey {
    fn new(jwk: Jwk) -> Option<Self> {
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let may_verify =
            jwk.common.key_operations.as_ref().is_none_or(|allowed| allowed.contains(&KeyOperations::Verify));
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let usable = for_signatures && may_verify && is_strong(&jwk.algorithm, &key);
        usable.then(|| Self {
            kid: jwk.common.key_id,
            declared: jwk.common.key_algorithm,
            parameters: jwk.algorithm,
            key,
        })
    }

    /// Whether the key's kind, curve and declared `alg` suit `algorithm`.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let declared = self.declared.is_none_or(|declared| declared == KeyAlgorithm::from(algorithm));
        let kind = match (&self.parameters, algorithm) {
            (AlgorithmParameters::RSA(_), _) => algorithm.family() == AlgorithmFamily::Rsa,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
            (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        declared && kind
    }
}

/// Refuses what cannot verify anything: secret keys, curves that we do not know, RSA outside 2048 to 8192 bits.
fn is_strong(parameters: &AlgorithmParameters, key: &DecodingKey) -> bool {
    match parameters {
        AlgorithmParameters::RSA(_) => match key.kind() {
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => {
                let significant = n.iter().skip_while(|byte| **byte == 0).count();
                (256..=1024).contains(&significant)
            }
            jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => false,
        },
        AlgorithmParameters::EllipticCurve(key) => {
            matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384)
        }
        AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn rsa(kid: &str, bits: usize) -> Value {
        json!({"kty": "RSA", "kid": kid, "n": BASE64_URL_SAFE_NO_PAD.encode(vec![0xc5; bits / 8]), "e": "AQAB"})
    }

    fn ed(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": BASE64_URL_SAFE_NO_PAD.encode([7; 32])})
    }

    fn with(mut key: Value, name: &str, value: &Value) -> Value {
        key[name] = value.clone();
        key
    }

    fn parse(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn unusable_keys_are_left_out_and_spoil_nothing() {
        let set = parse(&[
            rsa("good", 2048),
            rsa("weak", 1024),
            rsa("huge", 16384),
            with(rsa("encryption", 2048), "use", &json!("enc")),
            with(rsa("odd use", 2048), "use", &json!(5)),
            with(rsa("signing only", 2048), "key_ops", &json!(["sign"])),
            with(ed("good too"), "key_ops", &json!(["verify"])),
            with(ed("x25519"), "crv", &json!("X25519")),
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA"}),
            json!({"kty": "new", "kid": "unknown"}),
            json!("no key at all"),
        ]);
        let kids: Vec<_> = set.0.iter().map(|key| key.kid.as_deref().unwrap()).collect();
        assert_eq!(kids, ["good", "good too"]);
    }

    #[test]
    fn a_key_serves_only_the_algorithms_that_suit_it() {
        let set = parse(&[rsa("any", 2048), with(rsa("ps", 2048), "alg", &json!("PS256")), ed("ed")]);
        let found = |kid, algorithm| matches!(set.find(Some(kid), algorithm), Found::Keys(_));
        assert!(found("any", Algorithm::RS256) && found("any", Algorithm::PS512));
        assert!(found("ps", Algorithm::PS256) && !found("ps", Algorithm::RS256));
        assert!(found("ed", Algorithm::EdDSA) && !found("ed", Algorithm::ES256));
        assert!(!found("any", Algorithm::HS256) && !found("ed", Algorithm::HS256));
        assert!(matches!(set.find(Some("any"), Algorithm::EdDSA), Found::OtherAlgorithm));
        assert!(matches!(set.find(Some("none"), Algorithm::RS256), Found::Nothing));
    }

    #[test]
    fn a_token_without_kid_needs_a_set_without_choice() {
        assert!(
            matches!(parse(&[ed("a")]).find(None, Algorithm::EdDSA), Found::Keys(keys) if keys.len() == 1)
        );
        assert!(matches!(parse(&[ed("a"), ed("b")]).find(None, Algorithm::EdDSA), Found::Nothing));
        assert!(matches!(parse(&[]).find(None, Algorithm::EdDSA), Found::Nothing));
    }

    #[test]
    fn sets_are_bounded() {
        let keys: Vec<_> = (0..101).map(|i| ed(&i.to_string())).collect();
        assert!(
            KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap_err().contains("101 keys")
        );
        assert_eq!(parse(&keys[..100]).len(), 100);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeySet::parse(&bytes);
        }
    }
}
