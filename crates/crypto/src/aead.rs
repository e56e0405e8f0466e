use std::fmt;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Tag};
use zeroize::Zeroizing;

use crate::{Aad, CryptoError, CryptoErrorKind, DataKeyMaterial};

/// Length of a nonce in bytes.
pub(crate) const NONCE: usize = 12;
/// Length of a tag in bytes.
pub(crate) const TAG: usize = 16;

/// AES-256-GCM with nonces from the operating system's generator. Envelopes and the local keyring share it, so that there
/// is one place that makes nonces.
pub struct Aead(Aes256Gcm);

impl Aead {
    /// A cipher with this key; its key schedule is wiped on drop.
    pub fn new(key: &DataKeyMaterial) -> Self {
        Self(Aes256Gcm::new(key.expose().into()))
    }

    /// `header`, nonce, ciphertext and tag, one after the other. The header is authenticated only if it is part of `aad`.
    ///
    /// # Panics
    /// When the operating system's generator fails, or `plaintext` is longer than the 64 GiB that GCM allows.
    #[expect(clippy::expect_used, reason = "a nonce that repeats reveals the key: stop instead")]
    pub fn seal(&self, header: &[u8], aad: &Aad, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).expect("the operating system's random generator failed");
        self.seal_with_nonce(nonce, header, aad, plaintext)
    }

    /// Private to the crate: a caller that chooses nonces can repeat one.
    #[expect(clippy::expect_used, reason = "GCM refuses nothing but inputs of 64 GiB and more")]
    pub(crate) fn seal_with_nonce(
        &self,
        nonce: [u8; NONCE],
        header: &[u8],
        aad: &Aad,
        plaintext: &[u8],
    ) -> Vec<u8> {
        // Reserved at once: growing would leave copies of the plaintext behind.
        let mut out = Vec::with_capacity(header.len() + NONCE + plaintext.len() + TAG);
        out.extend_from_slice(header);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .0
            .encrypt_inout_detached((&nonce).into(), aad.as_bytes(), (&mut out[start..]).into())
            .expect("fields are shorter than 64 GiB");
        out.extend_from_slice(&tag);
        out
    }

    /// The plaintext of `body`: nonce, ciphertext and tag, without the header.
    ///
    /// # Errors
    /// `Malformed` when `body` is too short to hold nonce and tag, `Refused` when authentication fails.
    pub fn open(&self, body: &[u8], aad: &Aad) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let too_short = || CryptoError::new(CryptoErrorKind::Malformed, "the ciphertext is cut off");
        let (nonce, rest) = body.split_first_chunk::<NONCE>().ok_or_else(too_short)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or_else(too_short)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let tag: &Tag = tag.into();
        self.0
            .decrypt_inout_detached(nonce.into(), aad.as_bytes(), buffer.as_mut_slice().into(), tag)
            .map_err(|_| {
                let message =
                    "authentication failed: another key, or a ciphertext that was altered, moved or replaced";
                CryptoError::new(CryptoErrorKind::Refused, message)
            })?;
        Ok(buffer)
    }
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aead([REDACTED])")
    }
}
