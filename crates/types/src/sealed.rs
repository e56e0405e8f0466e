//! Ciphertext as it is stored.

use std::fmt;

/// A sealed field: format version, data-key identifier, nonce and ciphertext. Opaque to everything but encryption.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sealed(Box<[u8]>);

impl Sealed {
    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The data key that the header names, in an envelope of the format that is written today. Nothing is authenticated.
    pub fn data_key(&self) -> Option<i32> {
        match self.0.split_first_chunk::<5>() {
            Some(([1, id @ ..], rest)) if rest.len() >= 28 => Some(i32::from_be_bytes(*id)),
            _ => None,
        }
    }

    /// The stored bytes, without a copy.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }
}

impl From<Vec<u8>> for Sealed {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}
