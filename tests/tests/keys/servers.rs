//! Two servers: a key becomes the active one when both can open what it wraps.

use std::collections::BTreeMap;

use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::{GetKeyJobRequest, RotateDataKeysRequest, RotateEncryptionKeyRequest};
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
    let busy = "a rotation to the key local:2 of the backend local is running already";
    assert!(told.contains(busy) && told.contains(&job.key_job_id), "{told}");

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

/// A server works in batches of a hundred: it is killed with most of them still to come.
const MANY: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_two_servers_share_is_finished_by_the_one_that_is_left() {
    let Some(database) = Database::postgres().await else { return };
    let mut world = with_tenants(database, MANY).await;
    // Slow enough that the crash comes before the end on a busy machine as well.
    world.settings.set("broker.max_key_job_rate", 1000);
    world.restart().await;
    let folder = Scratch::new();
    let mut its_settings = settings(&folder, &world).await;
    its_settings.set("broker.max_key_job_rate", 1000);
    let second = Serve::start(&its_settings).await;
    let started = world.admin().keys().rotate_data_keys(RotateDataKeysRequest::default()).await;
    let job = started.unwrap().into_inner().key_job_id;
    let there = Clients::new(&second.admin(), &world.admin_token);
    let look = || async {
        let request = GetKeyJobRequest { key_job_id: job.clone() };
        there.keys().get_key_job(request).await.unwrap().into_inner()
    };
    let begun = async { while look().await.done_count == 0 {} };
    tokio::time::timeout(tokenward_tests::PATIENCE, begun).await.unwrap();
    world.take_server().crash().await;
    let left = look().await;
    assert_eq!(left.state(), State::Running, "the server was killed too late: {left:?}");
    second.process.stderr.wait_for_text("a key job is done").await;
    let done = look().await;
    let expected = i64::try_from(MANY).unwrap() + 1;
    assert_eq!((done.state(), done.skipped_count), (State::Done, 0), "{done:?}");
    assert_eq!(done.done_count, expected, "each data key counts once, whoever dealt with it");

    world.restart().await;
    let all = key(&world, "status --data-keys").await.json();
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in all["data_keys"].as_array().unwrap() {
        keys.entry(key["scope"].as_str().unwrap()).or_default().push(key["state"].as_str().unwrap());
    }
    for number in 0..MANY {
        let states = keys.get_mut(&*tenant(number)).unwrap();
        states.sort_unstable();
        assert_eq!(*states, ["active", "replaced"], "{}", tenant(number));
        world.get_token(&tenant(number)).await.unwrap();
    }
    assert_everything_opens(&world).await;
    second.stop().await;
}
