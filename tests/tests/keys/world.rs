//! A world with tenants, and what is done with its keys.

use std::path::Path;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokenward_api::admin::v1::import_connection_request::Token;
use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::{
    GetKeyJobRequest, ImportConnectionRequest, ImportedRefreshToken, KeyJob, VerifyStoredSecretsRequest,
};
use tokenward_hubspot_sim::GrantRequest;
use tokenward_tests::{Database, Finished, Tokenward, World};

/// The name of a tenant.
pub(crate) fn tenant(number: u64) -> String {
    format!("tenant-{number}")
}

/// A world with this many tenants, each with a connection.
pub(crate) async fn with_tenants(database: Database, count: u64) -> World {
    let world = World::start(database).await;
    let first = 5_000_000;
    let request = GrantRequest {
        client_id: World::app().client_id,
        count,
        first_hub_id: Some(first),
        ..GrantRequest::default()
    };
    let grants = world.sim.handle().create_grants(&request).unwrap();
    let imports = (0..count).zip(grants).map(|(number, grant)| {
        let world = &world;
        async move {
            world.set_up_tenant(&tenant(number)).await;
            let request = ImportConnectionRequest {
                tenant_id: tenant(number),
                account_id: grant.hub_id.to_string(),
                token: Some(Token::RefreshToken(ImportedRefreshToken {
                    oauth_client_id: World::OAUTH_CLIENT.to_owned(),
                    refresh_token: grant.refresh_token,
                })),
            };
            world.operator().connections().import_connection(request).await.unwrap();
        }
    });
    stream::iter(imports).buffer_unordered(16).collect::<()>().await;
    world
}

/// Appends a key to a keyring, as an operator does it.
pub(crate) async fn add_version(keyring: &Path, version: u32) {
    let line = Tokenward::new(&format!("key generate --version {version}")).run().await.ok();
    let text = std::fs::read_to_string(keyring).unwrap();
    std::fs::write(keyring, text + &line).unwrap();
}

/// Removes a key from a keyring.
pub(crate) fn remove_version(keyring: &Path, version: u32) {
    let text = std::fs::read_to_string(keyring).unwrap();
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with(&format!("{version}:"))).collect();
    std::fs::write(keyring, kept.join("\n") + "\n").unwrap();
}

/// `tokenward key …` as the admin.
pub(crate) async fn key(world: &World, arguments: &str) -> Finished {
    world.cli_admin(&format!("key {arguments} --output json")).run().await
}

/// The last event of a job that was waited for.
pub(crate) fn finished(call: Finished) -> Value {
    let text = call.ok();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["state"]), (&"finished".into(), &"done".into()), "{text}");
    last
}

/// What `key status` says of a key.
pub(crate) async fn status(world: &World, name: &str) -> Value {
    let all = key(world, "status").await.json();
    let keys = all["encryption_keys"].as_array().unwrap();
    keys.iter().find(|key| key["name"] == name).unwrap_or_else(|| panic!("no {name} in {all}")).clone()
}

/// Waits for the end of a job, however often the server was restarted meanwhile.
pub(crate) async fn end_of(world: &World, job: &str) -> KeyJob {
    let waiting = async {
        loop {
            let request = GetKeyJobRequest { key_job_id: job.to_owned() };
            let job = world.admin().keys().get_key_job(request).await.unwrap().into_inner();
            if !matches!(job.state(), State::Running | State::Spreading) {
                return job;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(tokenward_tests::PATIENCE, waiting).await.unwrap()
}

/// Opens everything that is stored: all of it must decrypt.
pub(crate) async fn assert_everything_opens(world: &World) {
    let request = VerifyStoredSecretsRequest::default();
    let job = world.admin().keys().verify_stored_secrets(request).await.unwrap().into_inner();
    let job = end_of(world, &job.key_job_id).await;
    assert_eq!((job.state(), job.skipped_count), (State::Done, 0), "{job:?}");
    assert!(job.done_count > 0);
}
