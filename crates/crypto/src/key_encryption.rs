use std::fmt;

use async_trait::async_trait;

use crate::{Aad, CryptoError, DataKeyMaterial};

/// What a wrapped data key is bound to: it unwraps only under exactly these values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBinding<'a> {
    /// The installation's identifier.
    pub installation: &'a str,
    /// A tenant's identifier or [`crate::INSTALLATION_SCOPE`].
    pub scope: &'a str,
    /// The data key's identifier, unique within the scope.
    pub data_key: i32,
}

impl KeyBinding<'_> {
    /// The binding's bytes, as the crate's documentation gives them; a backend may add fields of its own.
    #[must_use]
    pub fn encode(&self) -> Aad {
        Aad::new()
            .field(self.installation.as_bytes())
            .field(self.scope.as_bytes())
            .field(&self.data_key.to_be_bytes())
    }
}

/// A data key as it is stored: ciphertext of the backend.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The key-encryption key that wrapped it: the backend's kind, a colon, and the backend's name for key and version,
    /// such as `local:1`.
    pub kek: String,
    /// The wrapped key, opaque to everybody but the backend.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({:?}, {} bytes)", self.kek, self.bytes.len())
    }
}

/// Which key-encryption keys a backend has, asked anew at each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekStatus {
    /// What a rotation would make the active one.
    pub newest: String,
    /// All that wrap and unwrap, the newest included.
    pub available: Vec<String>,
}

/// Wraps data keys. A backend's keys never leave it, and its Debug shows none of them. Which of its keys wraps is no state of
/// the backend: the database says it, and every call names it.
///
/// Whatever is wrong with a wrapped key or with the key that it names, the message names the backend and that key, and tells what
/// the operator does ([`crate::does_not_open`], [`crate::no_data_key`]).
///
/// Each sentence of this contract is a case of `tokenward_testkit::key_encryption_conformance!`.
#[async_trait]
pub trait KeyEncryption: Send + Sync + fmt::Debug {
    /// The backend's kind, such as `local`: the prefix of every `kek` that it gives.
    fn kind(&self) -> &'static str;

    /// The keys that there are. Status names the newest key and every available one. It is asked anew at each call: a key
    /// that was made after this instance was opened is there, without a restart, and is the newest; the old one stays.
    ///
    /// # Errors
    /// `Unavailable` when the backend is away, `Internal` when it cannot tell; what this instance had before goes on
    /// wrapping and unwrapping.
    async fn status(&self) -> Result<KekStatus, CryptoError>;

    /// Makes a new version and gives its name: it is the newest from then on, and the former ones stay available.
    ///
    /// # Errors
    /// `Unsupported` where only the operator can make one; the message says how. `Unavailable` when the backend is away.
    async fn create_version(&self) -> Result<String, CryptoError>;

    /// Wraps a data key with the key that is named, be it the newest or not. The same data key wrapped twice gives different
    /// bytes.
    ///
    /// # Errors
    /// `UnknownKey` when `kek` is not available here; the message names it. `Unavailable` when the backend is away,
    /// `Internal` when it refuses to wrap.
    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError>;

    /// Gives back the data key that was wrapped under the same binding, from any instance that has the same keys. A key
    /// that was wrapped before a rotation still unwraps.
    ///
    /// # Errors
    /// `UnknownKey` when `wrapped.kek` is not available here, a removed key and another backend's key included; the
    /// message names it. `Refused` when the binding is another one, when the key of that name is not the one that
    /// wrapped, or when bytes were altered; every altered byte and every truncation is an error (`Malformed` where the
    /// format itself is broken). `Unavailable` when the backend is away.
    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError>;
}
