//! Key encryption by AES-256 keys of an HSM, by PKCS #11 2.40 or newer. The keys are made in the HSM and never leave it.
//!
//! A version is a secret key object: all have the same label, and `CKA_ID` is the version, a big-endian number without leading
//! zero bytes. Its name is such as `pkcs11:tokenward:3`.
//!
//! # A wrapped key, byte for byte
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, `01` |
//! | 1 | 12 | nonce: from the operating system's generator, or the HSM's own where it insists |
//! | 13 | 32 | the data key, encrypted with `CKM_AES_GCM` |
//! | 45 | 16 | tag |
//!
//! The additional authenticated data is the binding as [`tokenward_crypto::KeyBinding::encode`] gives it.

mod backend;
mod config;
mod errors;
mod hsm;
mod keys;

pub use config::pkcs11;
