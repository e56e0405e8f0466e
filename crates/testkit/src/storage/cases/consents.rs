use tokenward_storage::{
    Connection, ConnectionFilter, ConnectionKind, ConnectionState, Consent, ConsentBase, PageRequest,
    StateChange, StorageErrorKind, TokenSet,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, client, client_id, connected, connection_id, consent, consent_again, current, link, link_id,
    pending, provider, tenant_id, tokens, with_spare,
};
use crate::storage::tools::{MANY, at_once, furnished, kind};

fn static_consent(tenant: &str, connection: &str) -> Consent {
    Consent {
        kind: ConnectionKind::Static,
        oauth_client: None,
        tokens: TokenSet { refresh_token: None, expires_at: None, ..tokens("static") },
        ..consent(tenant, connection)
    }
}

pub async fn a_new_connection_is_active_with_epoch_and_fences_one(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let saved = storage.save_consent(&consent("a", "con_1")).await.unwrap();
    assert_eq!((saved.state, &*saved.state_reason), (ConnectionState::Active, ""));
    assert_eq!((saved.consent_epoch, saved.lease_fence, saved.grant_fence), (1, 1, 1));
    assert_eq!((saved.version, saved.lease), (1, None));
}

pub async fn a_connection_keeps_every_field_of_its_consent(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let given = consent("a", "con_1");
    let saved = storage.save_consent(&given).await.unwrap();
    let expected = Connection {
        tenant: given.tenant,
        id: given.connection,
        provider: given.provider,
        kind: given.kind,
        oauth_client: given.oauth_client,
        account: given.account,
        account_name: given.account_name,
        state: ConnectionState::Active,
        state_reason: String::new(),
        state_since: given.now,
        tokens: Some(given.tokens),
        lease_fence: 1,
        grant_fence: 1,
        consent_epoch: 1,
        lease: None,
        created_at: given.now,
        updated_at: given.now,
        version: 1,
    };
    assert_eq!(saved, expected);
    assert_eq!(current(&storage, &saved).await, expected);
    assert_eq!(storage.list_tenant_connections(&expected.tenant).await.unwrap(), [expected]);
}

pub async fn a_static_connection_has_no_client_and_no_refresh_token(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let saved = storage.save_consent(&static_consent("a", "con_1")).await.unwrap();
    assert_eq!((saved.kind, &saved.oauth_client), (ConnectionKind::Static, &None));
    assert_eq!(saved.tokens, Some(static_consent("a", "con_1").tokens));
    assert_eq!(current(&storage, &saved).await, saved);
}

pub async fn a_second_connection_to_the_same_grant_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = connected(&storage, "a", "con_1").await;
    let same_grant = Consent { connection: connection_id("con_2"), ..consent("a", "con_1") };
    assert_eq!(kind(storage.save_consent(&same_grant).await), StorageErrorKind::AlreadyExists);
    assert_eq!(storage.list_tenant_connections(&first.tenant).await.unwrap(), [first]);
}

pub async fn a_second_static_connection_to_the_same_account_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.save_consent(&static_consent("a", "con_1")).await.unwrap();
    let second = Consent { connection: connection_id("con_2"), ..static_consent("a", "con_1") };
    assert_eq!(kind(storage.save_consent(&second).await), StorageErrorKind::AlreadyExists);
}

pub async fn a_grant_to_another_client_or_of_another_kind_is_another_connection(
    fixture: &dyn StorageFixture,
) {
    let storage = furnished(fixture).await;
    storage.create_oauth_client(&client("other")).await.unwrap();
    let base = consent("a", "con_1");
    let others = [
        base.clone(),
        Consent {
            oauth_client: Some(client_id("other")),
            connection: connection_id("con_2"),
            ..base.clone()
        },
        Consent { provider: provider("other"), connection: connection_id("con_3"), ..base },
        Consent { connection: connection_id("con_4"), ..static_consent("a", "con_1") },
    ];
    for consent in &others {
        storage.save_consent(consent).await.unwrap();
    }
    assert_eq!(storage.list_tenant_connections(&tenant_id("a")).await.unwrap().len(), others.len());
}

pub async fn re_consent_replaces_tokens_and_moves_epoch_and_fences(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = connected(&storage, "a", "con_1").await;
    with_spare(&storage, &first).await;
    let seen = current(&storage, &first).await;
    assert_eq!((seen.lease_fence, seen.grant_fence), (3, 3), "two attempts came between");
    let again = storage.save_consent(&consent_again(&seen)).await.unwrap();
    let expected = Connection {
        account_name: "renamed".into(),
        tokens: Some(tokens("again")),
        lease_fence: 4,
        grant_fence: 4,
        consent_epoch: 2,
        updated_at: at(40),
        version: seen.version + 1,
        ..seen
    };
    assert_eq!(again, expected);
    assert_eq!(current(&storage, &first).await, expected);
}

pub async fn re_consent_heals_a_suspect_connection(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    let change = StateChange {
        seen: seen.version,
        state: ConnectionState::ReauthRequired,
        reason: "revoked by the customer".into(),
        now: at(35),
    };
    let dead = storage.change_state(&seen.tenant, &seen.id, &change).await.unwrap().unwrap();
    let healed = storage.save_consent(&consent_again(&dead)).await.unwrap();
    assert_eq!((healed.state, &*healed.state_reason), (ConnectionState::Active, ""));
    assert_eq!(healed.state_since, at(40));
}

pub async fn re_consent_revives_a_revoked_connection(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(35)).await.unwrap().unwrap();
    let again = storage.save_consent(&consent_again(&revoked)).await.unwrap();
    assert_eq!(again.state, ConnectionState::Active);
    assert_eq!((again.consent_epoch, again.tokens), (3, Some(tokens("again"))));
}

pub async fn re_consent_drops_lease_attempts_and_spares(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = connected(&storage, "a", "con_1").await;
    let other = connected(&storage, "a", "con_2").await;
    for connection in [&first, &other] {
        with_spare(&storage, connection).await;
        let now = current(&storage, connection).await;
        storage.begin_attempt(&now.tenant, &now.id, &begin(&now)).await.unwrap().unwrap();
    }
    let again = storage.save_consent(&consent_again(&current(&storage, &first).await)).await.unwrap();
    assert_eq!(again.lease, None);
    assert_eq!(storage.list_attempts(&first.tenant, &first.id).await.unwrap(), []);
    assert_eq!(storage.list_spares(&first.tenant, &first.id).await.unwrap(), []);
    assert!(current(&storage, &other).await.lease.is_some(), "another connection is left alone");
    assert_eq!(storage.list_attempts(&other.tenant, &other.id).await.unwrap().len(), 1);
    assert_eq!(storage.list_spares(&other.tenant, &other.id).await.unwrap().len(), 1);
}

pub async fn a_consent_on_a_stale_epoch_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    let winner = storage.save_consent(&consent_again(&seen)).await.unwrap();
    let stale = Consent {
        base: ConsentBase::Existing { consent_epoch: seen.consent_epoch, lease_fence: winner.lease_fence },
        ..consent_again(&seen)
    };
    assert_eq!(kind(storage.save_consent(&stale).await), StorageErrorKind::Conflict);
    assert_eq!(current(&storage, &seen).await, winner);
}

pub async fn a_consent_on_a_stale_fence_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    assert_eq!(kind(storage.save_consent(&consent_again(&seen)).await), StorageErrorKind::Conflict);
    let now = current(&storage, &seen).await;
    assert_eq!((now.consent_epoch, now.grant_fence), (1, 1));
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len(), 1);
}

pub async fn a_consent_on_a_connection_that_is_gone_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(35)).await.unwrap();
    storage.delete_connection(&seen.tenant, &seen.id).await.unwrap();
    assert_eq!(kind(storage.save_consent(&consent_again(&seen)).await), StorageErrorKind::Conflict);
    assert_eq!(storage.list_tenant_connections(&seen.tenant).await.unwrap(), []);
}

pub async fn a_consent_for_an_unknown_tenant_or_client_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let unknown_tenant = consent("unknown", "con_1");
    let unknown_client = Consent { oauth_client: Some(client_id("unknown")), ..consent("a", "con_1") };
    for consent in [unknown_tenant, unknown_client] {
        assert_eq!(kind(storage.save_consent(&consent).await), StorageErrorKind::Conflict);
    }
    let all = storage.list_connections(&ConnectionFilter::default(), &PageRequest::first()).await.unwrap();
    assert_eq!(all.items, []);
}

fn through_link(consent: Consent) -> Consent {
    Consent { link: Some(link_id("link")), pending: Some("p".into()), ..consent }
}

pub async fn a_consent_uses_up_its_link_and_settles_its_pending_grant(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for tenant in ["a", "b"] {
        storage.create_connect_link(&link(tenant, if tenant == "a" { "link" } else { "lnk" })).await.unwrap();
        storage.save_pending_grant(&pending(tenant, "p")).await.unwrap();
    }
    storage.save_consent(&through_link(consent("a", "con_1"))).await.unwrap();
    let used = storage.get_connect_link(&tenant_id("a"), &link_id("link")).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(at(20)));
    let other = storage.get_connect_link(&tenant_id("b"), &link_id("lnk")).await.unwrap().unwrap();
    assert_eq!(other.used_at, None);
    let left = storage.list_pending_grants(10).await.unwrap();
    assert!(left.len() == 1 && left[0].tenant == tenant_id("b"));
}

pub async fn a_link_is_used_up_once(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "link")).await.unwrap();
    let first = storage.save_consent(&through_link(consent("a", "con_1"))).await.unwrap();
    storage.save_pending_grant(&pending("a", "p")).await.unwrap();
    let to_another_account = through_link(consent("a", "con_2"));
    let other = connected(&storage, "b", "con_3").await;
    storage.disconnect(&other.tenant, &other.id, None, "", at(35)).await.unwrap();
    let revived = Consent { account: other.account, ..to_another_account.clone() };
    for consent in [through_link(consent_again(&first)), to_another_account, revived] {
        assert_eq!(kind(storage.save_consent(&consent).await), StorageErrorKind::LinkUsed);
    }
    let used = storage.get_connect_link(&tenant_id("a"), &link_id("link")).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(at(20)));
    assert_eq!(storage.list_tenant_connections(&first.tenant).await.unwrap(), [first]);
    assert_eq!(storage.list_pending_grants(10).await.unwrap(), [pending("a", "p")]);
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap().len(), 1);
}

pub async fn a_link_that_was_taken_back_brings_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "link")).await.unwrap();
    storage.delete_connect_link(&tenant_id("a"), &link_id("link")).await.unwrap();
    // Another tenant's link of that name is another one.
    storage.create_connect_link(&link("b", "link")).await.unwrap();
    let result = storage.save_consent(&through_link(consent("a", "con_1"))).await;
    assert_eq!(kind(result), StorageErrorKind::LinkUsed);
    assert_eq!(storage.list_tenant_connections(&tenant_id("a")).await.unwrap(), []);
}

pub async fn of_two_consents_by_one_link_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for round in 0..20 {
        let id = format!("lnk_{round}");
        storage.create_connect_link(&link("a", &id)).await.unwrap();
        let by_link = |connection: String| Consent { link: Some(link_id(&id)), ..consent("a", &connection) };
        let (one, two) = (by_link(format!("x_{round}")), by_link(format!("y_{round}")));
        let (first, second) = tokio::join!(storage.save_consent(&one), storage.save_consent(&two));
        let loser = match (first, second) {
            (Ok(_), Err(loser)) | (Err(loser), Ok(_)) => loser,
            both => panic!("exactly one wins: {both:?}"),
        };
        assert_eq!(loser.kind(), StorageErrorKind::LinkUsed);
        assert_eq!(storage.list_tenant_connections(&one.tenant).await.unwrap().len(), round + 1);
    }
}

pub async fn a_consent_takes_revocations_of_its_grant_off_the_queue(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_oauth_client(&client("other")).await.unwrap();
    let queued = async || {
        let queued = storage.list_revocations(at(100), 10).await.unwrap();
        queued.iter().map(|queued| format!("{}/{}", queued.tenant, queued.connection)).collect::<Vec<_>>()
    };
    let other_client = Consent {
        connection: connection_id("con_3"),
        oauth_client: Some(client_id("other")),
        ..consent("b", "con_1")
    };
    let mut revoked = Vec::new();
    // Each is the last one of its grant when it goes, so that each is queued.
    for consent in [other_client, consent("b", "con_2"), consent("b", "con_1"), consent("a", "con_1")] {
        let seen = storage.save_consent(&consent).await.unwrap();
        revoked.extend(storage.disconnect(&seen.tenant, &seen.id, None, "", at(35)).await.unwrap());
    }
    assert_eq!(queued().await, ["a/con_1", "b/con_2", "b/con_3"], "a consent of another tenant took b/con_1");
    storage.save_consent(&consent_again(&revoked[3])).await.unwrap();
    assert_eq!(queued().await, ["b/con_2", "b/con_3"], "another account and another client stay");
}

pub async fn a_refused_consent_leaves_link_and_pending_grant(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "link")).await.unwrap();
    storage.save_pending_grant(&pending("a", "p")).await.unwrap();
    connected(&storage, "a", "con_1").await;
    connected(&storage, "b", "con_2").await;
    let exists = Consent { connection: connection_id("con_9"), ..through_link(consent("a", "con_1")) };
    let taken = Consent { exclusive_account: true, ..through_link(consent("a", "con_2")) };
    assert_eq!(kind(storage.save_consent(&exists).await), StorageErrorKind::AlreadyExists);
    assert_eq!(kind(storage.save_consent(&taken).await), StorageErrorKind::AccountTaken);
    let unused = storage.get_connect_link(&tenant_id("a"), &link_id("link")).await.unwrap().unwrap();
    assert_eq!(unused.used_at, None);
    assert_eq!(storage.list_pending_grants(10).await.unwrap(), [pending("a", "p")]);
}

fn exclusive(consent: Consent) -> Consent {
    Consent { exclusive_account: true, ..consent }
}

pub async fn an_account_of_another_tenant_is_refused_where_it_is_exclusive(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = storage.save_consent(&exclusive(consent("a", "con_1"))).await.unwrap();
    let second = storage.save_consent(&exclusive(consent("b", "con_1"))).await;
    assert_eq!(kind(second), StorageErrorKind::AccountTaken);
    storage.save_consent(&exclusive(consent_again(&first))).await.expect("it is the tenant's own account");
    let elsewhere = Consent { provider: provider("other"), ..exclusive(consent("b", "con_1")) };
    storage.save_consent(&elsewhere).await.expect("another provider's account of that name is another one");
}

pub async fn an_account_is_shared_where_it_is_not_exclusive(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.save_consent(&exclusive(consent("a", "con_1"))).await.unwrap();
    storage.save_consent(&consent("b", "con_1")).await.unwrap();
}

pub async fn an_account_is_free_again_when_the_other_tenant_disconnected(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = storage.save_consent(&exclusive(consent("a", "con_1"))).await.unwrap();
    let first = storage.disconnect(&first.tenant, &first.id, None, "", at(35)).await.unwrap().unwrap();
    storage.save_consent(&exclusive(consent("b", "con_1"))).await.unwrap();
    let back = storage.save_consent(&exclusive(consent_again(&first))).await;
    assert_eq!(kind(back), StorageErrorKind::AccountTaken, "now it belongs to the second");
}

pub async fn of_many_tenants_at_once_one_gets_an_exclusive_account(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for number in 0..MANY {
        storage.create_tenant(&crate::storage::samples::tenant(&format!("t{number}"))).await.unwrap();
    }
    let results = at_once(MANY, &storage, |number, storage| async move {
        storage.save_consent(&exclusive(consent(&format!("t{number}"), "con_1"))).await
    })
    .await;
    let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(winners.len(), 1);
    assert!(losers.into_iter().all(|loser| kind(loser) == StorageErrorKind::AccountTaken));
}

pub async fn of_many_consents_on_one_epoch_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "con_1").await;
    let results = at_once(MANY, &storage, |number, storage| {
        let consent = Consent { account_name: number.to_string(), ..consent_again(&seen) };
        async move { storage.save_consent(&consent).await }
    })
    .await;
    let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(winners.len(), 1);
    assert!(losers.into_iter().all(|loser| kind(loser) == StorageErrorKind::Conflict));
    assert_eq!(&current(&storage, &seen).await, winners[0].as_ref().unwrap());
}
