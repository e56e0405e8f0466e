//! Two servers: a key becomes the active one when both can open what it wraps.

use tokenward_api::admin::v1::RotateEncryptionKeyRequest;
use tokenward_api::admin::v1::key_job::State;
use tokenward_tests::{Clients, Database, Scratch, Serve, Settings, get_token};

use crate::world::{add_version, assert_everything_opens, end_of, key, status, tenant, with_tenants};

/// A server beside that of the world with a keyring of its own: a copy as it was.
async fn settings(folder: &Scratch, world: &tokenward_tests::World) -> Settings {
    std::fs::copy(world.folder.file("tokenward.key"), folder.file("tokenward.key")).unwrap();
    let mut settings = Settings::new(folder, &world.database).await;
    settings.hubspot(&world.sim.base_url());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_a_server_that_lacks_the_key() {
    let Some(database) = Database::postgres().await else { return };
    let world = with_tenants(database, 3).await;
    let (folder, late) = (Scratch::new(), Scratch::new());
    let second = Serve::start(&settings(&folder, &world).await).await;
    let without = settings(&late, &world).await;
    add_version(&world.folder.file("tokenward.key"), 2).await;
    let started = world.admin().keys().rotate_encryption_key(RotateEncryptionKeyRequest::default()).await;
    let job = started.unwrap().into_inner();
    let waiting = async {
        loop {
            let jobs = world.admin().keys();
            let request = tokenward_api::admin::v1::GetKeyJobRequest { key_job_id: job.key_job_id.clone() };
            let now = { jobs }.get_key_job(request).await.unwrap().into_inner();
            assert_eq!(now.state(), State::Spreading, "{now:?}");
            if now.message.contains("local:2 cannot be opened yet by:") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(tokenward_tests::PATIENCE, waiting).await.unwrap();
    assert_eq!(status(&world, "local:2").await["state"], "decrypt_only");

    // Started twice it is one rotation, and one of data keys has to wait.
    let again = world.admin().keys().rotate_encryption_key(RotateEncryptionKeyRequest::default()).await;
    assert_eq!(again.unwrap().into_inner().key_job_id, job.key_job_id);
    let told = key(&world, "rotate-data").await.fails(3);
    assert!(told.contains("a rotation is running already") && told.contains(&job.key_job_id), "{told}");

    std::fs::copy(world.folder.file("tokenward.key"), folder.file("tokenward.key")).unwrap();
    let done = end_of(&world, &job.key_job_id).await;
    assert_eq!((done.state(), done.skipped_count), (State::Done, 0), "{done:?}");
    let there = Clients::new(&second.service(), &world.service_token);
    for number in 0..3 {
        get_token(&there, &tenant(number)).await.unwrap();
    }
    assert_everything_opens(&world).await;

    // Who starts now needs the key.
    let told = Serve::call(&without).run().await.fails(1);
    assert!(told.contains("local:2"), "{told}");
    second.stop().await;
}
