use std::sync::Arc;

use tokenward_storage::ClientSecretState::{Active, Enabled, Retired};
use tokenward_storage::{ClientSecretRecord, ClientSecretState, Storage, StorageErrorKind};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, client, client_id, sealed};
use crate::storage::tools::{MANY, at_once, furnished, kind};

pub(super) fn secret(client: &str, secret_version: i32) -> ClientSecretRecord {
    ClientSecretRecord {
        oauth_client: client_id(client),
        secret_version,
        state: Retired,
        sealed: sealed(&format!("secret {secret_version}")),
        created_at: at(11),
        updated_at: at(12),
    }
}

async fn with_secrets(fixture: &dyn StorageFixture, count: i32) -> Arc<dyn Storage> {
    let storage = furnished(fixture).await;
    for version in 1..=count {
        storage.add_client_secret(&secret("client", version)).await.unwrap().unwrap();
    }
    storage
}

async fn states(storage: &Arc<dyn Storage>) -> Vec<(i32, ClientSecretState)> {
    let secrets = storage.list_client_secrets(&client_id("client")).await.unwrap();
    secrets.iter().map(|secret| (secret.secret_version, secret.state)).collect()
}

pub async fn a_secret_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let added = storage.add_client_secret(&secret("client", 7)).await.unwrap().unwrap();
    let expected = ClientSecretRecord { state: Active, ..secret("client", 7) };
    assert_eq!(added, expected);
    assert_eq!(storage.list_client_secrets(&client_id("client")).await.unwrap(), [expected]);
}

pub async fn the_first_secret_is_active_and_later_ones_are_enabled(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 3).await;
    assert_eq!(states(&storage).await, [(3, Enabled), (2, Enabled), (1, Active)]);
}

pub async fn a_taken_secret_version_is_refused(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 1).await;
    let other = ClientSecretRecord { sealed: sealed("other"), ..secret("client", 1) };
    assert_eq!(kind(storage.add_client_secret(&other).await), StorageErrorKind::AlreadyExists);
    let stored = storage.list_client_secrets(&client_id("client")).await.unwrap();
    assert_eq!(stored[0].sealed, secret("client", 1).sealed);
}

pub async fn a_secret_of_an_unknown_client_is_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.add_client_secret(&secret("unknown", 1)).await.unwrap(), None);
    assert_eq!(storage.list_client_secrets(&client_id("unknown")).await.unwrap(), []);
}

pub async fn secrets_are_listed_newest_first(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_oauth_client(&client("other")).await.unwrap();
    for version in [2, 10, 1] {
        storage.add_client_secret(&secret("client", version)).await.unwrap();
        storage.add_client_secret(&secret("other", version + 100)).await.unwrap();
    }
    let versions: Vec<_> = states(&storage).await.into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, [10, 2, 1]);
}

pub async fn activating_a_secret_enables_the_former_active_one(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 2).await;
    let activated = storage.activate_client_secret(&client_id("client"), 2, at(70)).await.unwrap().unwrap();
    let expected = ClientSecretRecord { state: Active, updated_at: at(70), ..secret("client", 2) };
    assert_eq!(activated, expected);
    let stored = storage.list_client_secrets(&client_id("client")).await.unwrap();
    let former = ClientSecretRecord { state: Enabled, updated_at: at(70), ..secret("client", 1) };
    assert_eq!(stored, [expected, former]);
}

pub async fn activating_twice_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 2).await;
    let first = storage.activate_client_secret(&client_id("client"), 2, at(70)).await.unwrap();
    let second = storage.activate_client_secret(&client_id("client"), 2, at(71)).await.unwrap();
    assert_eq!(first, second);
}

pub async fn a_retired_secret_cannot_be_activated(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 2).await;
    storage.retire_client_secret(&client_id("client"), 2, at(70)).await.unwrap();
    let result = storage.activate_client_secret(&client_id("client"), 2, at(71)).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
    assert_eq!(states(&storage).await, [(2, Retired), (1, Active)]);
}

pub async fn an_absent_secret_is_none(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 1).await;
    for (client, version) in [("client", 2), ("unknown", 1)] {
        let client = client_id(client);
        assert_eq!(storage.activate_client_secret(&client, version, at(70)).await.unwrap(), None);
        assert_eq!(storage.retire_client_secret(&client, version, at(70)).await.unwrap(), None);
    }
    assert_eq!(states(&storage).await, [(1, Active)]);
}

pub async fn a_retired_secret_loses_its_bytes(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 2).await;
    let retired = storage.retire_client_secret(&client_id("client"), 2, at(70)).await.unwrap().unwrap();
    let expected = ClientSecretRecord {
        state: Retired,
        sealed: Vec::new().into(),
        updated_at: at(70),
        ..secret("client", 2)
    };
    assert_eq!(retired, expected);
    let stored = storage.list_client_secrets(&client_id("client")).await.unwrap();
    assert_eq!(stored[0], expected);
    assert_eq!(stored[1].sealed, secret("client", 1).sealed, "the other one keeps its own");
}

pub async fn retiring_twice_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 2).await;
    let first = storage.retire_client_secret(&client_id("client"), 2, at(70)).await.unwrap();
    let second = storage.retire_client_secret(&client_id("client"), 2, at(71)).await.unwrap();
    assert_eq!(first, second);
}

pub async fn the_active_secret_cannot_be_retired(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 1).await;
    let result = storage.retire_client_secret(&client_id("client"), 1, at(70)).await;
    assert_eq!(kind(result), StorageErrorKind::InUse);
    let stored = storage.list_client_secrets(&client_id("client")).await.unwrap();
    assert_eq!(stored[0].sealed, secret("client", 1).sealed);
}

pub async fn of_many_first_secrets_at_once_one_is_active(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let added = at_once(MANY, &storage, |number, storage| async move {
        storage.add_client_secret(&secret("client", i32::try_from(number).unwrap() + 1)).await
    })
    .await;
    assert!(added.iter().all(|added| matches!(added, Ok(Some(_)))));
    let active = |(_, state): &(i32, ClientSecretState)| *state == Active;
    assert_eq!(states(&storage).await.into_iter().filter(active).count(), 1);
}

pub async fn of_many_activations_at_once_one_secret_is_active(fixture: &dyn StorageFixture) {
    let storage = with_secrets(fixture, 10).await;
    let activated = at_once(MANY, &storage, |number, storage| async move {
        let version = i32::try_from(number % 10).unwrap() + 1;
        storage.activate_client_secret(&client_id("client"), version, at(70)).await
    })
    .await;
    assert!(activated.iter().all(|activated| matches!(activated, Ok(Some(_)))));
    let active = |(_, state): &(i32, ClientSecretState)| *state == Active;
    assert_eq!(states(&storage).await.into_iter().filter(active).count(), 1);
}
