//! What a deletion reaches, and when a backup becomes unreadable.

use tokenward_tests::{Database, Serve, Sql};

use crate::world::{add_version, finished, key, remove_version, status, tenant, with_tenants};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_opens_while_the_key_that_wrapped_it_exists_and_not_after() {
    let mut world = with_tenants(Database::sqlite(), 2).await;
    let Database::Sqlite(folder) = &world.database else { panic!("it is a file") };
    let folder = folder.path().to_owned();
    let (file, backup) = (folder.join("tokenward.db"), folder.join("backup.db"));
    let keyring = world.folder.file("tokenward.key");
    let mut sql = Sql::open(&world.database).await;
    sql.run(&format!("VACUUM INTO '{}'", backup.display())).await;

    let told = world.cli("tenant delete tenant-0 --force").run().await.ok();
    for part in [
        "access tokens that were given out before",
        "backups from before now",
        "local:1",
        "key rotate",
        "key retire",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    assert_eq!(sql.count("data_keys WHERE scope = 'tenant-0'").await, 0);
    assert_eq!(sql.count("connections WHERE tenant_id = 'tenant-0'").await, 0);
    drop(sql);

    add_version(&keyring, 2).await;
    finished(key(&world, "rotate").await);
    key(&world, "retire local:1").await.ok();
    let backups = async |name| status(&world, name).await["backups"].as_str().unwrap().to_owned();
    assert!(backups("local:1").await.contains(" to "), "{}", backups("local:1").await);
    assert!(backups("local:2").await.starts_with("since "), "{}", backups("local:2").await);

    // While the former key exists, the backup gives the tenant's tokens.
    world.take_server().stop().await;
    let now = folder.join("now.db");
    std::fs::copy(&file, &now).unwrap();
    let put = |from: &std::path::Path| {
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.join(format!("tokenward.db{end}")));
        }
        std::fs::copy(from, &file).unwrap();
    };
    put(&backup);
    world.restart().await;
    world.get_token(&tenant(0)).await.unwrap();
    world.take_server().stop().await;

    // After it is destroyed, nothing opens the backup, and the installation itself goes on.
    remove_version(&keyring, 1);
    put(&backup);
    let told = Serve::call(&world.settings).run().await.fails(1);
    assert!(told.contains("local:1"), "{told}");
    put(&now);
    world.restart().await;
    world.get_token(&tenant(1)).await.unwrap();
    assert!(world.get_token(&tenant(0)).await.is_err());

    // A script is told the same as people.
    let told = world.cli("tenant delete tenant-1 --force --output json").run().await.json();
    assert_eq!(
        (&told["tenant_id"], &told["encryption_keys"][1]),
        (&"tenant-1".into(), &"local:2".into()),
        "{told}"
    );
    assert!(told["tokens_expire"].as_str().is_some_and(|time| time.ends_with('Z')), "{told}");
}
