//! The contract of key-encryption backends, on keyrings in a file.
#![expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]

use std::future::{Ready, ready};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokenward_crypto::KeyEncryption;
use tokenward_crypto_local::{generate_key, local};
use tokenward_plugin::{Registry, Section};
use tokenward_testkit::crypto::{KeyEncryptionFixture, Remedies};
use tokenward_types::{ExposeSecret, SecretString};

struct Keyrings {
    old: SecretString,
    new: SecretString,
    folder: tempfile::TempDir,
}

fn keyrings(_: &'static str) -> Ready<Option<Keyrings>> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    ready(Some(Keyrings { old: generate_key(1), new: generate_key(2), folder }))
}

impl Keyrings {
    async fn open(&self, lines: &[&SecretString]) -> Arc<dyn KeyEncryption> {
        let path = self.folder.path().join("key");
        let text = lines.iter().map(|line| line.expose_secret()).collect::<Vec<_>>().join("\n");
        std::fs::write(&path, text).expect("the folder takes files");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let mut values = serde_json::Map::new();
        values.insert("key_file".into(), path.to_str().expect("a path in UTF-8").into());
        let section = Section { at: "encryption".into(), name: "encryption".into(), values };
        let prepared = Registry::new("encryption")
            .with(local())
            .prepare("local", &section, &())
            .map_err(|p| p.to_string());
        prepared.expect("the keyring is well-formed").build().await.expect("nothing else can fail")
    }
}

#[async_trait::async_trait]
impl KeyEncryptionFixture for Keyrings {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.open(&[&self.old]).await
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        self.open(&[&self.old]).await
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        self.open(&[&self.old, &self.new]).await
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        self.open(&[&self.new]).await
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        self.open(&[&generate_key(1)]).await
    }

    fn remedies(&self) -> Remedies {
        Remedies { unknown: &["Put its line back into /"], wrong: "put its former line back into /" }
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        use base64::Engine;
        let (_, encoded) = self.old.expose_secret().split_once(':').expect("VERSION:BASE64");
        let key = base64::prelude::BASE64_STANDARD.decode(encoded).expect("it is base64");
        vec![encoded.as_bytes().to_vec(), key]
    }
}

tokenward_testkit::key_encryption_conformance!(local, keyrings);
