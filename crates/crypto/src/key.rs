use std::fmt;

use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroize;

/// A plain AES-256 key. Wiped on drop, never copied, redacted in Debug.
pub struct DataKeyMaterial(SecretBox<[u8; 32]>);

impl DataKeyMaterial {
    /// A new key from the operating system's generator.
    ///
    /// # Panics
    /// When the generator fails: there is no safe way to go on.
    #[expect(clippy::expect_used, reason = "a key that can be guessed is worse than a stop")]
    pub fn generate() -> Self {
        Self(SecretBox::init_with_mut(|bytes: &mut [u8; 32]| {
            getrandom::fill(bytes).expect("the operating system's random generator failed");
        }))
    }

    /// The key with these bytes; the argument's copy is wiped.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let key = Self(SecretBox::init_with_mut(|own: &mut [u8; 32]| own.copy_from_slice(&bytes)));
        bytes.zeroize();
        key
    }

    /// The key's bytes, for the point of use.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for DataKeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeyMaterial([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_differ() {
        assert_ne!(DataKeyMaterial::generate().expose(), DataKeyMaterial::generate().expose());
        assert_ne!(DataKeyMaterial::generate().expose(), &[0; 32]);
    }

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        let key = DataKeyMaterial::from_bytes([0xa7; 32]);
        assert_eq!(key.expose(), &[0xa7; 32]);
        assert_eq!(format!("{key:?}"), "DataKeyMaterial([REDACTED])");
    }
}
