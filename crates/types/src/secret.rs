//! Secrets: no Display, no Serialize, a redacted Debug, wiped on drop.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use secrecy::{ExposeSecret, SecretString};

use crate::Rng;

/// Compares secrets in a time that depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// SHA-256 of `bytes`: how states, links and cookies are stored.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0x0f)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// A fresh 256-bit token in base64url, for links, states and cookies.
pub fn random_token(rng: &dyn Rng) -> SecretString {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    rng.fill(bytes.as_mut());
    SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_ref()))
}

/// Characters of a fingerprint.
const FINGERPRINT_LENGTH: usize = 16;

/// Names an access token without revealing it: the first 96 bits of its SHA-256, as base64url.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_LENGTH]);

impl Fingerprint {
    /// The fingerprint of `token`.
    pub fn of(token: &SecretString) -> Self {
        let hash = sha256(token.expose_secret().as_bytes());
        let text = BASE64_URL_SAFE_NO_PAD.encode(&hash[..FINGERPRINT_LENGTH / 4 * 3]);
        // Twelve bytes have sixteen characters.
        Self(text.as_bytes().try_into().unwrap_or_default())
    }

    /// A fingerprint as a caller sends it back; `None` when it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let characters = text.as_bytes().try_into().ok()?;
        BASE64_URL_SAFE_NO_PAD.decode(text).is_ok().then_some(Self(characters))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        // Both ways to make one give base64url.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRng;

    #[test]
    fn hexadecimal_digits_are_lower_case_and_keep_leading_zeros() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa5, 0xff]), "000fa5ff");
    }

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = SecretString::from("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn a_fingerprint_names_a_token_and_reads_back() {
        let one = Fingerprint::of(&SecretString::from("one"));
        assert_eq!(Fingerprint::parse(one.as_str()), Some(one.clone()));
        assert_ne!(one, Fingerprint::of(&SecretString::from("two")));
        assert_eq!(Fingerprint::parse("short"), None);
        assert_eq!(Fingerprint::parse("!!!!!!!!!!!!!!!!"), None);
    }

    #[test]
    fn random_tokens_carry_256_bits() {
        let rng = SeededRng::new(1);
        let (a, b) = (random_token(&rng), random_token(&rng));
        assert_eq!(a.expose_secret().len(), 43);
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"sane"));
    }
}
