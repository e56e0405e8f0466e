//! Key encryption by AWS KMS. The keys never leave it.
//!
//! AWS replaces the material of a key by itself and keeps the old; what Tokenward calls a version is therefore another key. Its
//! name is `aws-kms:` and the key's ARN.
//!
//! # A wrapped key, byte for byte
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, `01` |
//! | 1 | n | the `CiphertextBlob` of `Encrypt`, at most 6144 bytes |
//!
//! The encryption context is `tokenward:installation` (the installation's identifier), `tokenward:scope` (a tenant's identifier
//! or `_installation`) and `tokenward:data-key` (the data key's identifier in decimal digits). KMS authenticates it, and
//! CloudTrail shows it.

mod backend;
mod config;
mod errors;
mod keys;
#[cfg(test)]
mod tests;

pub use config::awskms;
