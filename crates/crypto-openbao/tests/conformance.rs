//! The contract of key-encryption backends, on a real OpenBao and with the policy that the documentation shows.
#![expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]

mod support;

use std::sync::Arc;

use serde_json::json;
use support::{Transit, open};
use tokenward_crypto::KeyEncryption;
use tokenward_testkit::crypto::{KeyEncryptionFixture, Remedies};
use tokenward_testkit::parts;

async fn transit(test: &'static str) -> Option<Transit> {
    Some(Transit::new(parts::openbao_address(test)?).await)
}

#[async_trait::async_trait]
impl KeyEncryptionFixture for Transit {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.open().await
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        open(self.with(&json!({"token": self.token}))).await.expect("the backend comes up")
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        self.rotate().await;
        self.open().await
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        self.configure(json!({"min_decryption_version": 2})).await;
        self.open().await
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        self.delete_key().await;
        self.create_key().await;
        self.open().await
    }

    fn remedies(&self) -> Remedies {
        Remedies {
            unknown: &["min_decryption_version=1` brings it back", "Set mount and key to those that it has"],
            wrong: "restore it from a backup of the server",
        }
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        vec![self.token.clone().into_bytes()]
    }
}

tokenward_testkit::key_encryption_conformance!(openbao, transit);
