//! Key encryption by the Transit engine of OpenBao; HashiCorp Vault speaks the same API. The keys never leave the server.
//!
//! # A wrapped key, byte for byte
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, `01` |
//! | 1 | 12 | nonce, which the server chose |
//! | 13 | 32 | the data key, encrypted with AES-256-GCM |
//! | 45 | 16 | tag |
//!
//! Bytes 1 to 60 are what the server gives in base64 after `vault:vN:`; N is the version at the end of the key's name, such as
//! `openbao:transit/tokenward:3`. The additional authenticated data (`associated_data`) is the binding as
//! [`tokenward_crypto::KeyBinding::encode`] gives it.

mod auth;
mod backend;
mod config;
mod http;
mod session;
mod transit;

pub use config::openbao;
