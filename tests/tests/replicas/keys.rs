//! Servers with different encryption keys do not share a database.

use tokenward_tests::{Database, Scratch, Serve, Settings, Tokenward};

/// The configuration of a server whose key has this number.
async fn settings(folder: &Scratch, database: &Database, version: u32) -> Settings {
    let mut settings = Settings::new(folder, database).await;
    let key = folder.file(&format!("key-{version}"));
    let made = Tokenward::new(&format!("key generate --version {version} --file")).arg(&key);
    made.run().await.ok();
    settings.set("encryption.key_file", key.display().to_string());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_with_different_keys_that_start_at_once_on_an_empty_database_one_is_refused() {
    let Some(database) = Database::postgres().await else { return };
    let folders = [Scratch::new(), Scratch::new()];
    let one = settings(&folders[0], &database, 1).await.call("serve").start();
    let two = settings(&folders[1], &database, 2).await.call("serve").start();
    let serves = |log: &str| log.contains("\"serving\"").then_some(true);
    // By the check record of the other one's key, by a data key that is wrapped by it, or because it is the active one.
    let refuses = |log: &str| {
        let said = ["encrypted with other keys", "which is not there", "which is not among the keys"];
        said.iter().any(|said| log.contains(said)).then_some(false)
    };
    let outcome = |log: &str| serves(log).or_else(|| refuses(log));
    let (first, second) = tokio::join!(one.stderr.wait_for(outcome), two.stderr.wait_for(outcome));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first != second, "one of them serves: {first}, {second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_key_is_refused_whatever_its_number() {
    let Some(database) = Database::postgres().await else { return };
    let folders = [Scratch::new(), Scratch::new(), Scratch::new()];
    let first = Serve::start(&settings(&folders[0], &database, 1).await).await;
    for (folder, version, said) in [
        (&folders[1], 1, "is not the one that this database was encrypted with"),
        (&folders[2], 2, "which is not there"),
    ] {
        let refused = Serve::call(&settings(folder, &database, version).await).run().await.fails(1);
        assert!(refused.contains(said), "{refused}");
    }
    first.stop().await;
}
