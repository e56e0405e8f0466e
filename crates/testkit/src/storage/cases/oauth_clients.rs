use tokenward_storage::{ConsumeOutcome, OAuthClient, PageRequest, StorageErrorKind};

use super::client_secrets::secret;
use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, client, client_id, connect_attempt, connected, consent, link, link_id, scopes, tenant_id,
};
use crate::storage::tools::{furnished, kind, ready};

pub async fn a_client_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for written in [client("Portal.eu_1-x"), OAuthClient { help_url: None, ..client("plain") }] {
        let created = storage.create_oauth_client(&written).await.unwrap();
        assert_eq!(created, OAuthClient { version: 1, ..written });
        assert_eq!(storage.get_oauth_client(&created.id).await.unwrap(), Some(created));
    }
}

pub async fn a_taken_client_identifier_is_refused(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let first = storage.create_oauth_client(&client("one")).await.unwrap();
    let second = OAuthClient { client_id: "other".into(), ..client("one") };
    assert_eq!(kind(storage.create_oauth_client(&second).await), StorageErrorKind::AlreadyExists);
    assert_eq!(storage.get_oauth_client(&client_id("one")).await.unwrap(), Some(first));
}

pub async fn an_absent_client_is_none(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.get_oauth_client(&client_id("absent")).await.unwrap(), None);
    assert_eq!(storage.update_oauth_client(&client("absent")).await.unwrap(), None);
    assert!(!storage.delete_oauth_client(&client_id("absent")).await.unwrap());
}

pub async fn clients_are_listed_in_order_of_their_identifiers(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for id in ["b", "a-1", "A", "a"] {
        storage.create_oauth_client(&client(id)).await.unwrap();
    }
    let first = storage.list_oauth_clients(&PageRequest { size: 3, after: None }).await.unwrap();
    let rest = storage.list_oauth_clients(&PageRequest { size: 3, after: first.next.clone() }).await.unwrap();
    assert_eq!((first.next.is_some(), rest.next), (true, None));
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).map(|client| client.id).collect();
    assert_eq!(listed, ["A", "a", "a-1", "b"].map(client_id));
}

pub async fn an_update_of_a_client_writes_what_may_change(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_oauth_client(&client("one")).await.unwrap();
    let change = OAuthClient {
        provider: crate::storage::samples::provider("other"),
        client_id: "new-id".into(),
        display_name: "neu".into(),
        scopes: scopes("one two"),
        optional_scopes: scopes(""),
        help_url: None,
        created_at: at(999),
        updated_at: at(100),
        ..created.clone()
    };
    let expected = OAuthClient {
        provider: created.provider.clone(),
        created_at: created.created_at,
        version: 2,
        ..change.clone()
    };
    assert_eq!(storage.update_oauth_client(&change).await.unwrap(), Some(expected.clone()));
    assert_eq!(storage.get_oauth_client(&created.id).await.unwrap(), Some(expected));
}

pub async fn a_stale_version_of_a_client_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_oauth_client(&client("one")).await.unwrap();
    let updated = storage.update_oauth_client(&created).await.unwrap().unwrap();
    assert_eq!(kind(storage.update_oauth_client(&created).await), StorageErrorKind::Conflict);
    assert_eq!(storage.get_oauth_client(&created.id).await.unwrap(), Some(updated));
}

pub async fn client_id_changes_only_while_no_connection_exists(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = storage.get_oauth_client(&client_id("client")).await.unwrap().unwrap();
    let renamed = OAuthClient { client_id: "renamed".into(), ..seen };
    let renamed = storage.update_oauth_client(&renamed).await.unwrap().expect("no connection exists yet");
    connected(&storage, "a", "con_1").await;
    let again = OAuthClient { client_id: "again".into(), ..renamed.clone() };
    assert_eq!(kind(storage.update_oauth_client(&again).await), StorageErrorKind::InUse);
    assert_eq!(storage.get_oauth_client(&client_id("client")).await.unwrap(), Some(renamed.clone()));
    let other = OAuthClient { display_name: "other".into(), ..renamed };
    assert!(storage.update_oauth_client(&other).await.unwrap().is_some(), "the rest may change");
}

pub async fn a_client_with_a_connection_in_whatever_state_cannot_be_deleted(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let connection = connected(&storage, "a", "con_1").await;
    let client = client_id("client");
    assert_eq!(kind(storage.delete_oauth_client(&client).await), StorageErrorKind::InUse);
    storage.disconnect(&connection.tenant, &connection.id, None, "", at(60)).await.unwrap();
    assert_eq!(kind(storage.delete_oauth_client(&client).await), StorageErrorKind::InUse);
    storage.delete_connection(&connection.tenant, &connection.id).await.unwrap();
    assert!(storage.delete_oauth_client(&client).await.unwrap());
    assert!(!storage.delete_oauth_client(&client).await.unwrap());
}

pub async fn deleting_a_client_takes_its_secrets_links_and_attempts(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.add_client_secret(&secret("client", 1)).await.unwrap();
    storage.create_connect_link(&link("a", "link")).await.unwrap();
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    assert!(storage.delete_oauth_client(&client_id("client")).await.unwrap());
    assert_eq!(storage.list_client_secrets(&client_id("client")).await.unwrap(), []);
    assert_eq!(storage.get_connect_link(&tenant_id("a"), &link_id("link")).await.unwrap(), None);
    let consumed = storage.consume_connect_attempt(&[1; 32], &[99; 32], at(8)).await.unwrap();
    assert_eq!(consumed, ConsumeOutcome::Unknown);
}

pub async fn of_a_deletion_and_a_consent_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for round in 0..20 {
        let id = format!("client-{round}");
        storage.create_oauth_client(&client(&id)).await.unwrap();
        let mut consent = consent("a", &format!("con_{round}"));
        consent.oauth_client = Some(client_id(&id));
        let client = client_id(&id);
        let (deleted, saved) =
            tokio::join!(storage.delete_oauth_client(&client), storage.save_consent(&consent));
        match (deleted, saved) {
            (Ok(true), Err(error)) => assert_eq!(error.kind(), StorageErrorKind::Conflict),
            (Err(error), Ok(_)) => assert_eq!(error.kind(), StorageErrorKind::InUse),
            both => panic!("exactly one wins: {both:?}"),
        }
    }
}
