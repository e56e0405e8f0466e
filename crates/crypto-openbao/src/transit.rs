//! What is said to the Transit engine, and what it answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The type of key that this backend uses.
pub(crate) const KEY_TYPE: &str = "aes256-gcm96";

/// An answer's `data`.
#[derive(Deserialize)]
pub(crate) struct Answered<T> {
    pub(crate) data: T,
}

/// `GET MOUNT/keys/KEY`, as far as it matters here.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the server's own words")]
pub(crate) struct Key {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) latest_version: u64,
    pub(crate) min_decryption_version: u64,
    #[serde(default)]
    pub(crate) min_encryption_version: u64,
    /// By version; those that the operator has put aside are left out.
    pub(crate) keys: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub(crate) derived: bool,
    #[serde(default)]
    pub(crate) exportable: bool,
    #[serde(default)]
    pub(crate) allow_plaintext_backup: bool,
    #[serde(default)]
    pub(crate) deletion_allowed: bool,
    #[serde(default)]
    pub(crate) soft_deleted: bool,
}

impl Key {
    /// The versions that open what they sealed, in ascending order.
    pub(crate) fn versions(&self) -> Vec<u64> {
        let mut versions: Vec<u64> = self.keys.keys().filter_map(|version| version.parse().ok()).collect();
        versions.retain(|version| *version >= self.min_decryption_version);
        versions.sort_unstable();
        versions
    }
}

#[derive(Serialize)]
pub(crate) struct Encrypt<'a> {
    pub(crate) plaintext: &'a str,
    pub(crate) associated_data: &'a str,
    pub(crate) key_version: u64,
}

#[derive(Deserialize)]
pub(crate) struct Encrypted {
    pub(crate) ciphertext: String,
}

#[derive(Serialize)]
pub(crate) struct Decrypt<'a> {
    pub(crate) ciphertext: &'a str,
    pub(crate) associated_data: &'a str,
}

/// Borrowed, so that no copy of the key is made.
#[derive(Deserialize)]
pub(crate) struct Decrypted<'a> {
    #[serde(borrow)]
    pub(crate) plaintext: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_as_vault_describes_it_is_read_too() {
        // HashiCorp Vault gives more members and knows no soft deletion.
        let text = r#"{"data":{"name":"tokenward","type":"aes256-gcm96","latest_version":11,"min_decryption_version":2,
            "keys":{"10":1,"11":1,"2":1,"9":1,"1":1},"derived":false,"exportable":false,"auto_rotate_period":0}}"#;
        let key = serde_json::from_str::<Answered<Key>>(text).expect("it is a key").data;
        assert_eq!(key.versions(), [2, 9, 10, 11]);
        assert!(!key.soft_deleted);
    }
}
