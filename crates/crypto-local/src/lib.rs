//! Key encryption with an AES-256-GCM keyring that an operator keeps in a file or in an environment variable.
//!
//! # A wrapped key, byte for byte
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, `01` |
//! | 1 | 12 | nonce, from the operating system's generator |
//! | 13 | 32 | the data key, encrypted |
//! | 45 | 16 | tag |
//!
//! The additional authenticated data is, each field preceded by its length as a big-endian `u32`: the binding as
//! [`tokenward_crypto::KeyBinding::encode`] gives it, the format version (1 byte), and the key's name, such as `local:1`.

mod backend;
mod config;
mod keyring;

pub use config::local;
pub use keyring::generate_key;
