//! Keys in AWS KMS: its own libraries are given data keys and get them back in plain text, and print both where they may.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};
use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_tests::{Database, Kms, REGION, World, parts};

use crate::evidence::{Evidence, Source};
use crate::search::Secrets;

const SECRET_ACCESS_KEY: &str = "canary-secret-access-key-91d07c3f";
const SESSION_TOKEN: &str = "canary-session-token-40ee5a7d12";
const TENANT: &str = "marker-tenant-5e21";

/// Every data key of a database, in plain text, with its scope.
async fn data_keys(kms: &Kms, database: &mut SqliteConnection) -> Vec<(String, Vec<u8>)> {
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
        let answer = kms.call("Decrypt", request).await;
        keys.push((scope, BASE64_STANDARD.decode(answer["Plaintext"].as_str().unwrap()).unwrap()));
    }
    keys
}

/// A new access token: storing it seals and opens, and is told at DEBUG.
async fn refreshed(world: &World) -> String {
    let connection_id = world.connection(TENANT, World::HUB_ID).await;
    let request = RefreshConnectionRequest { tenant_id: TENANT.to_owned(), connection_id };
    world.operator().connections().refresh_connection(request).await.unwrap();
    world.get_token(TENANT).await.unwrap().access_token
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
    let token = refreshed(&world).await;
    let first = world.take_server().stop().await;
    // The first one made data keys and logged JSON; this one only opens them, and logs text.
    world.settings.set("log.format", "text");
    world.restart().await;
    let other_token = refreshed(&world).await;
    let second = world.take_server().stop().await;

    let mut secrets = Secrets::default();
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let data_keys = data_keys(&kms, &mut connection).await;
    let scopes: Vec<_> = data_keys.iter().map(|(scope, _)| &**scope).collect();
    assert!(scopes.contains(&TENANT) && scopes.contains(&"_installation"), "{scopes:?}");
    for (scope, data_key) in &data_keys {
        assert_eq!(data_key.len(), 32);
        secrets.add(&format!("data key of {scope}"), data_key);
    }
    secrets.add("secret access key", SECRET_ACCESS_KEY);
    secrets.add("session token", SESSION_TOKEN);
    secrets.add("access token", &token);
    secrets.add("another access token", &other_token);
    let mut evidence = Evidence::default();
    for (what, ended) in [("a server that wraps", first), ("a server that unwraps", second)] {
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains(TENANT) && said.contains("DEBUG"), "{what} is not at its most talkative");
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
