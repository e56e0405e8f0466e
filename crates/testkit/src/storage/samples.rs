//! Rows with a value in every field, so that one that is dropped shows.

use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{
    Attempt, BeginAttempt, ConnectAttempt, ConnectLink, Connection, ConnectionKind, Consent, ConsentBase,
    DataKeyRecord, OAuthClient, PendingGrant, RefreshCommit, Storage, Tenant, TenantState, TokenSet,
};
use tokenward_types::{
    AccountId, ConnectLinkId, ConnectionId, OAuthClientId, ProviderName, Scopes, Sealed, TenantId, Timestamp,
};

/// A time with microseconds, `seconds` after an arbitrary start.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_123_457 + seconds * 1_000_000)
}

pub(super) fn tenant_id(id: &str) -> TenantId {
    TenantId::parse(id).expect("a tenant's identifier")
}

pub(super) fn connection_id(id: &str) -> ConnectionId {
    ConnectionId::parse(id).expect("a connection's identifier")
}

pub(super) fn client_id(id: &str) -> OAuthClientId {
    OAuthClientId::parse(id).expect("a client's identifier")
}

pub(super) fn link_id(id: &str) -> ConnectLinkId {
    ConnectLinkId::parse(id).expect("a link's identifier")
}

pub(super) fn account(id: &str) -> AccountId {
    AccountId::parse(id).expect("an account's identifier")
}

pub(super) fn provider(name: &str) -> ProviderName {
    ProviderName::parse(name).expect("a provider's name")
}

pub(super) fn sealed(text: &str) -> Sealed {
    // Not UTF-8, with a NUL: ciphertext is any bytes.
    Sealed::from([b"\x00\xff\xfe".as_slice(), text.as_bytes()].concat())
}

pub(super) fn scopes(text: &str) -> Scopes {
    Scopes::parse(text).expect("scopes")
}

pub(super) fn tenant(id: &str) -> Tenant {
    Tenant {
        id: tenant_id(id),
        display_name: "Ärzte & Söhne “Ω” 🦀 'quoted' \\ %_".into(),
        labels: [("region", "eu"), ("schlüssel", "größe \"1\"")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        state: TenantState::Suspended,
        created_at: at(1),
        updated_at: at(2),
        version: 77,
    }
}

pub(super) fn client(id: &str) -> OAuthClient {
    OAuthClient {
        id: client_id(id),
        provider: provider("hubspot"),
        client_id: "0f1e-client-ü".into(),
        display_name: "Höhere Mächte 🦀".into(),
        scopes: scopes("crm.objects.contacts.read oauth"),
        optional_scopes: scopes("crm.objects.deals.read tickets"),
        help_url: Some("https://help.example/hilfe?a=1&b=ü".into()),
        created_at: at(3),
        updated_at: at(4),
        version: 77,
    }
}

pub(super) fn tokens(tag: &str) -> TokenSet {
    TokenSet {
        access_token: sealed(&format!("access {tag}")),
        refresh_token: Some(sealed(&format!("refresh {tag}"))),
        issued_at: at(10),
        expires_at: Some(at(1810)),
        scopes: scopes("crm.objects.contacts.read oauth"),
    }
}

/// The first consent to a connection; the account has the connection's name.
pub(super) fn consent(tenant: &str, connection: &str) -> Consent {
    Consent {
        tenant: tenant_id(tenant),
        connection: connection_id(connection),
        base: ConsentBase::New,
        provider: provider("hubspot"),
        kind: ConnectionKind::OAuth,
        oauth_client: Some(client_id("client")),
        account: account(connection),
        account_name: "Größe & Co 🦀".into(),
        tokens: tokens("first"),
        exclusive_account: false,
        link: None,
        pending: None,
        now: at(20),
    }
}

/// Another consent to a connection as it was read.
pub(super) fn consent_again(connection: &Connection) -> Consent {
    Consent {
        tenant: connection.tenant.clone(),
        connection: connection.id.clone(),
        base: ConsentBase::Existing {
            consent_epoch: connection.consent_epoch,
            lease_fence: connection.lease_fence,
        },
        provider: connection.provider.clone(),
        kind: connection.kind,
        oauth_client: connection.oauth_client.clone(),
        account: connection.account.clone(),
        account_name: "renamed".into(),
        tokens: tokens("again"),
        exclusive_account: false,
        link: None,
        pending: None,
        now: at(40),
    }
}

/// A connection by a first consent.
pub(super) async fn connected(storage: &Arc<dyn Storage>, tenant: &str, connection: &str) -> Connection {
    storage.save_consent(&consent(tenant, connection)).await.expect("the connection is new")
}

/// The connection as it stands.
pub(super) async fn current(storage: &Arc<dyn Storage>, connection: &Connection) -> Connection {
    let read = storage.get_connection(&connection.tenant, &connection.id).await;
    read.expect("the database answers").expect("the connection is there")
}

/// A refresh of a connection as it was read.
pub(super) fn begin(connection: &Connection) -> BeginAttempt {
    BeginAttempt {
        seen_lease_fence: connection.lease_fence,
        seen_consent_epoch: connection.consent_epoch,
        seen_grant_fence: connection.grant_fence,
        owner: "server-ä".into(),
        lease_for: Duration::from_mins(10),
        secret_version: Some(3),
        now: at(30),
    }
}

/// Begins a refresh of a connection as it stands, with a lease that lapses at once.
pub(super) async fn begun(storage: &Arc<dyn Storage>, connection: &Connection) -> Attempt {
    let begin = BeginAttempt { lease_for: Duration::ZERO, ..begin(&current(storage, connection).await) };
    started(storage, connection, &begin).await
}

/// Begins a refresh, and reads the attempt that it made.
pub(super) async fn started(
    storage: &Arc<dyn Storage>,
    connection: &Connection,
    begin: &BeginAttempt,
) -> Attempt {
    let fence = storage.begin_attempt(&connection.tenant, &connection.id, begin).await;
    let fence = fence.expect("the database answers").expect("nothing keeps the attempt from beginning");
    let attempts = storage.list_attempts(&connection.tenant, &connection.id).await;
    let mut attempts = attempts.expect("the database answers").into_iter();
    attempts.find(|attempt| attempt.fence == fence).expect("the attempt is a row")
}

/// What an attempt brought: tokens that bear its fence.
pub(super) fn commit(attempt: &Attempt) -> RefreshCommit {
    RefreshCommit {
        tenant: attempt.tenant.clone(),
        connection: attempt.connection.clone(),
        fence: attempt.fence,
        consent_epoch: attempt.consent_epoch,
        spent_token_fence: attempt.token_fence,
        tokens: tokens(&attempt.fence.to_string()),
        rotated: true,
        account_name: None,
        now: at(50),
    }
}

/// Leaves one spare: the second attempt commits ahead of the first, which comes too late. The spare's fence is the first's.
pub(super) async fn with_spare(storage: &Arc<dyn Storage>, connection: &Connection) -> i64 {
    let late = begun(storage, connection).await;
    let early = begun(storage, connection).await;
    storage.commit_refresh(&commit(&early)).await.expect("the database answers");
    storage.commit_refresh(&commit(&late)).await.expect("the database answers");
    late.fence
}

pub(super) fn data_key(scope: &str, id: i32) -> DataKeyRecord {
    DataKeyRecord {
        scope: scope.into(),
        id,
        kek: "local:ключ-7/3".into(),
        wrapped: b"\x00\xffwrapped".to_vec(),
        active: true,
        seals: 41,
        created_at: at(5),
    }
}

pub(super) fn link(tenant: &str, id: &str) -> ConnectLink {
    let mut secret_hash = [7; 32];
    secret_hash[..id.len()].copy_from_slice(id.as_bytes());
    ConnectLink {
        tenant: tenant_id(tenant),
        id: link_id(id),
        secret_hash,
        oauth_client: client_id("client"),
        account: Some(account("hub-42")),
        return_url: Some("https://app.example/zurück?x=1".into()),
        created_by: "builtin:operatör".into(),
        created_at: at(6),
        expires_at: at(86_406),
        used_at: None,
    }
}

pub(super) fn connect_attempt(tenant: &str, state: u8) -> ConnectAttempt {
    ConnectAttempt {
        state_hash: [state; 32],
        cookie_hash: [99; 32],
        tenant: tenant_id(tenant),
        link: link_id("link"),
        oauth_client: client_id("client"),
        pkce_verifier: Some(sealed("verifier")),
        created_at: at(7),
        expires_at: at(607),
    }
}

pub(super) fn pending(tenant: &str, id: &str) -> PendingGrant {
    PendingGrant {
        tenant: tenant_id(tenant),
        id: id.into(),
        link: Some(link_id("link")),
        oauth_client: client_id("client"),
        access_token: sealed("pending access"),
        refresh_token: Some(sealed("pending refresh")),
        details: format!("{{\"größe\":\"{}\"}}", "ä".repeat(32 * 1024)),
        issued_at: at(8),
        refused: None,
    }
}
