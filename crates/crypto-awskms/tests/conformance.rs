//! The contract of key-encryption backends, on moto.
#![expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::types::KeyUsageType;
use serde_json::json;
use tokenward_crypto::KeyEncryption;
use tokenward_plugin::{Registry, Section};
use tokenward_testkit::crypto::{KeyEncryptionFixture, Remedies};
use tokenward_testkit::parts;

const REGION: &str = "eu-central-1";

/// Two aliases, the newest last, as the documentation proposes.
struct Aliases {
    url: String,
    client: Client,
    previous: String,
    newest: String,
    /// What makes moto choose the identifier of the first key.
    seed: u32,
}

/// A number that no test of any process has had.
fn fresh_seed() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    assert!(count < 500, "the numbers of the next process begin here");
    std::process::id() * 500 + count
}

async fn aliases(test: &'static str) -> Option<Aliases> {
    let url = parts::moto_url(test)?;
    let http = aws_smithy_http_client::Builder::new().build_http();
    let shared =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(Region::new(REGION));
    let shared = shared.endpoint_url(&url).load().await;
    let seed = fresh_seed();
    let name = format!("tokenward-{seed}");
    let aliases = Aliases {
        url,
        client: Client::new(&shared),
        previous: format!("alias/{name}-previous"),
        newest: format!("alias/{name}"),
        seed,
    };
    let first = aliases.make_seeded().await;
    aliases.point(&aliases.newest, &first).await;
    Some(aliases)
}

impl Aliases {
    /// One key is made at a time, over all tests, so that a seed decides its identifier.
    fn lock(&self) -> File {
        let name = self.url.replace(['/', ':'], "-");
        let lock = File::create(std::env::temp_dir().join(format!("tokenward-{name}.lock"))).expect("a file");
        lock.lock().expect("a lock");
        lock
    }

    async fn seed(&self, seed: u32) {
        let address = self.url.strip_prefix("http://").expect("http");
        let request = format!(
            "POST /moto-api/seed?a={seed} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("moto listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .expect("it takes the request");
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.expect("it answers");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    /// A key whose identifier the seed decides, and whose material is always another.
    async fn make_seeded(&self) -> String {
        let _one = self.lock();
        self.seed(self.seed).await;
        let key = self.create().await;
        // What comes next must not take an identifier that came after a seed before.
        self.seed(fresh_seed()).await;
        key
    }

    async fn make(&self) -> String {
        let _one = self.lock();
        self.create().await
    }

    async fn create(&self) -> String {
        let made =
            self.client.create_key().key_usage(KeyUsageType::EncryptDecrypt).send().await.expect("a key");
        made.key_metadata.expect("it is described").key_id
    }

    async fn point(&self, alias: &str, key: &str) {
        let created = self.client.create_alias().alias_name(alias).target_key_id(key).send().await;
        if created.is_err() {
            self.client.update_alias().alias_name(alias).target_key_id(key).send().await.expect("it moves");
        }
    }

    async fn open(&self) -> Arc<dyn KeyEncryption> {
        let values =
            json!({"key_ids": [self.previous, self.newest], "region": REGION, "endpoint_url": self.url});
        let values = values.as_object().expect("an object").clone();
        let section = Section { at: "encryption".into(), name: "encryption".into(), values };
        let registry = Registry::new("encryption").with(tokenward_crypto_awskms::awskms());
        let prepared = registry.prepare("aws-kms", &section, &()).map_err(|problems| problems.to_string());
        prepared.expect("the section is well-formed").build().await.expect("the backend comes up")
    }

    async fn key_of(&self, alias: &str) -> String {
        let described = self.client.describe_key().key_id(alias).send().await.expect("it is there");
        described.key_metadata.expect("it is described").key_id
    }
}

#[async_trait::async_trait]
impl KeyEncryptionFixture for Aliases {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.open().await
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        self.open().await
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        let (former, new) = (self.key_of(&self.newest).await, self.make().await);
        self.point(&self.previous, &former).await;
        self.point(&self.newest, &new).await;
        self.open().await
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        self.client.delete_alias().alias_name(&self.previous).send().await.expect("it goes");
        self.open().await
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        let before = self.key_of(&self.newest).await;
        assert_eq!(self.make_seeded().await, before, "moto makes the same identifier after the same seed");
        self.point(&self.newest, &before).await;
        self.open().await
    }

    fn remedies(&self) -> Remedies {
        Remedies {
            unknown: &["Add it to key_ids, or enable it", "check region and the credentials' account"],
            wrong: "import its former material",
        }
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        // The secret access key of the file that AWS's own chain reads; moto checks no signature.
        let file = std::env::var("AWS_SHARED_CREDENTIALS_FILE").expect("it goes with moto");
        let text = std::fs::read_to_string(file).expect("it is there");
        let secret = text.lines().find_map(|line| line.strip_prefix("aws_secret_access_key = "));
        vec![secret.expect("it holds a secret").as_bytes().to_vec()]
    }
}

tokenward_testkit::key_encryption_conformance!(aws_kms, aliases);
