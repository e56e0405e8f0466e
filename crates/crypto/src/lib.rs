//! Encryption of what is stored: the key-encryption trait, data keys and the envelope format. No I/O; for backends that
//! are services, [`RemoteCalls`] says how they are called.
//!
//! Every tenant has a data key that seals its fields; what belongs to no tenant is sealed under a data key of the scope
//! [`INSTALLATION_SCOPE`]. Data keys are stored wrapped by a [`KeyEncryption`] backend, which alone knows its keys.
//!
//! # The envelope, byte for byte
//!
//! A sealed field ([`tokenward_types::Sealed`]) is AES-256-GCM (NIST SP 800-38D) with a 96-bit nonce and a 128-bit tag:
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, `01` |
//! | 1 | 4 | identifier of the data key, big-endian (an `i32`; identifiers in use start at 1) |
//! | 5 | 12 | nonce, from the operating system's generator |
//! | 17 | n | ciphertext, as long as the plaintext |
//! | 17 + n | 16 | tag |
//!
//! The additional authenticated data is this sequence of fields, each preceded by its length in bytes as a big-endian
//! `u32`, so that no two different sequences have the same bytes:
//!
//! 1. the header: bytes 0 to 4 of the envelope
//! 2. the installation's identifier, UTF-8
//! 3. the scope: a tenant's identifier or `_installation`, UTF-8
//! 4. the kind of record, UTF-8
//! 5. the record's identifier, UTF-8
//! 6. the field's name, UTF-8
//! 7. the fence: a big-endian `i64` (8 bytes), or nothing (length 0) where a field has none
//!
//! A ciphertext that is moved to another row or field, or put back after a newer one with a higher fence, therefore does
//! not open.
//!
//! # The binding of wrapped keys
//!
//! [`KeyBinding::encode`] gives, in the same encoding: the installation's identifier, the scope, and the data key's
//! identifier as a big-endian `i32` (4 bytes). A backend authenticates it together with the wrapped key.

mod aad;
mod aead;
mod envelope;
mod error;
mod key;
mod key_encryption;
mod remote;
mod unwrapping;

pub use aad::Aad;
pub use aead::Aead;
pub use envelope::{DataKey, INSTALLATION_SCOPE, MAX_SEALS, SealContext, data_key_id};
pub use error::{CryptoError, CryptoErrorKind};
pub use key::DataKeyMaterial;
pub use key_encryption::{KekStatus, KeyBinding, KeyEncryption, WrappedKey};
pub use remote::{CallPolicy, RemoteCalls, service_address};
pub use unwrapping::{does_not_open, no_data_key};
