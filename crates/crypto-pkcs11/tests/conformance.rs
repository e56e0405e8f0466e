//! The contract of key-encryption backends, on SoftHSM.

mod support;

use std::future::{Ready, ready};
use std::sync::Arc;

use support::{PIN, Token};
use tokenward_crypto::KeyEncryption;
use tokenward_testkit::crypto::{KeyEncryptionFixture, Remedies};
use tokenward_testkit::parts;

fn token(test: &'static str) -> Ready<Option<Token>> {
    ready(parts::pkcs11_module(test).map(Token::new))
}

#[async_trait::async_trait]
impl KeyEncryptionFixture for Token {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.open().await
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        self.open().await
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        self.make("02");
        self.open().await
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        self.delete("01");
        self.open().await
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        self.delete("01");
        self.make("01");
        self.open().await
    }

    fn remedies(&self) -> Remedies {
        Remedies {
            unknown: &["Restore it from the HSM's backup", "Set key_label to the label that it has"],
            wrong: "restore it from the HSM's backup",
        }
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        vec![PIN.as_bytes().to_vec()]
    }
}

tokenward_testkit::key_encryption_conformance!(pkcs11, token);
