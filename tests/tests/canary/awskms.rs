//! Keys in AWS KMS: its own libraries are given data keys and get them back in plain text, and print both where they may.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};
use tokenward_tests::{Database, World, parts};

use crate::evidence::{Evidence, Source};
use crate::search::Secrets;

const REGION: &str = "eu-central-1";
const SECRET_ACCESS_KEY: &str = "canary-secret-access-key-91d07c3f";
const SESSION_TOKEN: &str = "canary-session-token-40ee5a7d12";
const TENANT: &str = "marker-tenant-5e21";

/// The stand-in for AWS, asked without AWS's libraries.
struct Kms(String);

impl Kms {
    async fn call(&self, action: &str, request: Value) -> Value {
        // It finds region and service here, and checks no signature.
        let scope = format!("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/{REGION}/kms/aws4_request");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let call = client
            .post(&self.0)
            .header("X-Amz-Target", format!("TrentService.{action}"))
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("Authorization", format!("{scope}, SignedHeaders=host, Signature=0"))
            .body(request.to_string());
        let answer = call.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{action}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn new_key(&self) -> String {
        let made = self.call("CreateKey", json!({})).await;
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    /// Every data key of a database, in plain text, with its scope.
    async fn data_keys(&self, database: &mut SqliteConnection) -> Vec<(String, Vec<u8>)> {
        let installation = sqlx::query_scalar("SELECT installation_id FROM installation");
        let installation: String = installation.fetch_one(&mut *database).await.unwrap();
        let rows = sqlx::query("SELECT scope, id, wrapped FROM data_keys");
        let mut keys = Vec::new();
        for row in rows.fetch_all(database).await.unwrap() {
            let (scope, id): (String, i32) = (row.get("scope"), row.get("id"));
            let wrapped: Vec<u8> = row.get("wrapped");
            let request = json!({
                // The first byte is the format.
                "CiphertextBlob": BASE64_STANDARD.encode(&wrapped[1..]),
                "EncryptionContext": {
                    "tokenward:installation": installation,
                    "tokenward:scope": scope,
                    "tokenward:data-key": id.to_string(),
                },
            });
            let answer = self.call("Decrypt", request).await;
            keys.push((scope, BASE64_STANDARD.decode(answer["Plaintext"].as_str().unwrap()).unwrap()));
        }
        keys
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_key_leaves_by_the_libraries_of_aws() {
    let Some(url) = parts::moto_url() else { return };
    let kms = Kms(url);
    let key = kms.new_key().await;
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else { panic!("it is a file") };
    let file = folder.file("tokenward.db");
    let world = World::start_with(
        database,
        |settings| {
            settings
                .remove("encryption.key_file")
                .set("encryption.kind", "aws-kms")
                .set("encryption.key_ids", vec![key])
                .set("encryption.region", REGION)
                .set("encryption.endpoint_url", &*kms.0)
                .set("encryption.allow_plaintext", true)
                .set("log.filter", "trace")
                .env("RUST_LOG", "trace")
                .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
                .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
                .env("AWS_SESSION_TOKEN", SESSION_TOKEN);
        },
        |_| {},
    );
    let mut world = world.await;
    world.set_up_tenant(TENANT).await;
    world.connect(TENANT, World::HUB_ID).await;
    let token = world.get_token(TENANT).await.unwrap().access_token;
    let first = world.take_server().stop().await;
    // The first one made data keys and logged JSON; this one only opens them, and logs text.
    world.settings.set("log.format", "text");
    world.restart().await;
    world.get_token(TENANT).await.unwrap();
    let second = world.take_server().stop().await;

    let mut secrets = Secrets::default();
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let data_keys = kms.data_keys(&mut connection).await;
    let scopes: Vec<_> = data_keys.iter().map(|(scope, _)| &**scope).collect();
    assert!(scopes.contains(&TENANT) && scopes.contains(&"_installation"), "{scopes:?}");
    for (scope, data_key) in &data_keys {
        assert_eq!(data_key.len(), 32);
        secrets.add(&format!("data key of {scope}"), data_key);
    }
    secrets.add("secret access key", SECRET_ACCESS_KEY);
    secrets.add("session token", SESSION_TOKEN);
    secrets.add("access token", &token);
    let mut evidence = Evidence::default();
    for (what, ended) in [("a server that wraps", first), ("a server that unwraps", second)] {
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains(TENANT) && said.contains("TRACE"), "{what} is not at its most talkative");
        evidence.add(Source::ServerLog, what, said);
    }
    // As AWS's libraries print a body, and bytes.
    for shown in [
        format!("body={{\"Plaintext\":\"{}\"}}", BASE64_STANDARD.encode(&data_keys[0].1)),
        format!("{data_keys:?}"),
    ] {
        let mut planted = Evidence::default();
        planted.add(Source::ServerLog, "a planted line", shown);
        assert!(!planted.find_all(&secrets).is_empty(), "the search finds nothing where something is");
    }
    let leaks = evidence.find_all(&secrets);
    assert!(leaks.is_empty(), "secrets left:\n{}", leaks.join("\n"));
}
