//! Every backend that this build has. The only file that names them: to add one, add its line here.

use std::sync::Arc;

use tokenward_crypto::KeyEncryption;
use tokenward_plugin::Registry;
use tokenward_provider::{Provider, ProviderContext};
use tokenward_storage::{Storage, StorageContext};

/// Where data is stored.
pub(crate) fn storage() -> Registry<Arc<dyn Storage>, StorageContext> {
    Registry::new("storage").with(tokenward_storage_sea::sqlite()).with(tokenward_storage_sea::postgres())
}

/// What encrypts the keys that encrypt.
pub(crate) fn encryption() -> Registry<Arc<dyn KeyEncryption>, ()> {
    Registry::new("encryption").with(tokenward_crypto_local::local())
}

/// The vendors.
pub(crate) fn providers() -> Registry<Arc<dyn Provider>, ProviderContext> {
    Registry::new("provider").with(tokenward_provider::oauth2()).with(tokenward_provider_hubspot::hubspot())
}

/// A new encryption key as a line for the keyring of the encryption backend that needs no service.
pub(crate) fn generate_key(version: u32) -> secrecy::SecretString {
    tokenward_crypto_local::generate_key(version)
}
