//! The database as one broker sees it: each step of the protocol waits at the gate, and happens at once then.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use async_trait::async_trait;
use tokenward_broker::{Broker, Place};
use tokenward_storage::{
    AccessRule, AccessRuleStore, AccountRef, Attempt, BeginAttempt, BeginPause, BlockedPrincipal,
    BudgetStore, CallPause, ChangeCursor, ChangeStore, Changes, CheckClaim, CheckStore, Claim,
    ClientSecretRecord, CommitOutcome, ConnectAttempt, ConnectLink, ConnectStore, Connection,
    ConnectionFilter, ConnectionKind, ConnectionMark, ConnectionState, ConnectionStore, Consent,
    ConsumeOutcome, DataKeyRecord, DataKeyState, DueCheck, InstallationStore, IssuerKey, Kek, KekCheck,
    KeyFinding, KeyJob, KeyJobState, KeyJobStore, KeyStore, LiveReplica, Mark, NewKeyJob, OAuthClient,
    OAuthClientStore, Page, PageRequest, PendingGrant, PrincipalStore, RefreshCommit, RefreshStore, Replica,
    ReplicaStore, ReserveCalls, Reserved, Result, RetireOutcome, Revocation, Rewrap, SchemaStatus, SealCount,
    SealedField, SealedSwap, Spare, StateChange, Storage, StorageError, StorageErrorKind, Tenant,
    TenantStore, Version,
};
use tokenward_types::{
    AccessRuleId, AccountId, ConnectLinkId, ConnectionId, OAuthClientId, Principal, ProviderName, TenantId,
    Timestamp,
};
use tokio::runtime::Handle;

use crate::gate::{Gate, Pass};

/// What a broken storage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cheat {
    /// Nothing is broken.
    None,
    /// Forgets unresolved attempts.
    HideAttempts,
    /// Forgets spares.
    HideSpares,
    /// Stores what an attempt from before a consent brought.
    IgnoreEpoch,
}

/// One broker's way to the database.
#[derive(Clone)]
pub(crate) struct Gated {
    pub(crate) inner: Arc<dyn Storage>,
    /// Where the real database's tasks run.
    pub(crate) home: Handle,
    pub(crate) gate: Gate,
    pub(crate) actor: u64,
    pub(crate) cheat: Cheat,
    /// Seals anew what a cheat changes.
    pub(crate) forger: Arc<Mutex<Option<Broker>>>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a call of the real database to its end while everything else on this thread stands still.
pub(crate) fn at_once<F: Future>(home: &Handle, call: F) -> F::Output {
    let _home = home.enter();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // A task whose budget is used up waits for its scheduler, which stands still here.
    let mut call = pin!(tokio::task::unconstrained(call));
    loop {
        if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
            return result;
        }
        std::thread::park();
    }
}

impl Gated {
    fn away(step: &'static str) -> StorageError {
        StorageError::new(StorageErrorKind::Unavailable, step)
    }

    /// A step of the protocol.
    async fn step<T>(&self, step: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let pass = self.gate.pass(self.actor, step).await;
        if !self.gate.reaches_storage(self.actor) {
            return Err(Self::away(step));
        }
        match pass {
            Pass::Go => at_once(&self.home, call),
            // Only the vendor is late.
            Pass::Away | Pass::Late => Err(Self::away(step)),
            Pass::Lost => {
                at_once(&self.home, call).ok();
                Err(StorageError::new(StorageErrorKind::OutcomeUnknown, step))
            }
        }
    }

    /// Anything else.
    fn plain<T>(&self, name: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.gate.reaches_storage(self.actor) { at_once(&self.home, call) } else { Err(Self::away(name)) }
    }

    /// The commit as if no consent had come in between.
    async fn forged(&self, commit: &RefreshCommit) -> RefreshCommit {
        let forger = self.forger.lock().expect("nothing panics while it holds the lock").clone();
        let row = self.inner.get_connection(&commit.tenant, &commit.connection).await;
        let (Some(forger), Ok(Some(row))) = (forger, row) else { return commit.clone() };
        if row.consent_epoch == commit.consent_epoch {
            return commit.clone();
        }
        let fence = row.lease_fence + 1;
        let place = |field, fence| Place::token(&commit.tenant, commit.connection.as_str(), field, fence);
        let reseal = async |field, sealed: &tokenward_types::Sealed| {
            let plain = forger.sealer().open(place(field, commit.fence), sealed).await.unwrap();
            forger.sealer().seal(place(field, fence), &plain).await.unwrap()
        };
        let mut tokens = commit.tokens.clone();
        tokens.access_token = reseal("access_token", &tokens.access_token).await;
        if let Some(token) = &tokens.refresh_token {
            tokens.refresh_token = Some(reseal("refresh_token", token).await);
        }
        RefreshCommit { fence, consent_epoch: row.consent_epoch, tokens, ..commit.clone() }
    }
}

macro_rules! plain {
    ($($trait:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)+ })+) => {
        $(
            #[async_trait]
            impl $trait for Gated {
                $(
                    async fn $name(&self, $($arg: $type),*) -> Result<$out> {
                        self.plain(stringify!($name), self.inner.$name($($arg),*))
                    }
                )+
            }
        )+
    };
}

plain! {
    KeyStore {
        fn create_data_key(key: &DataKeyRecord) -> ();
        fn list_data_keys(scope: &str) -> Vec<DataKeyRecord>;
        fn count_data_keys() -> Vec<(String, u64)>;
        fn add_seals(made: &[SealCount]) -> Vec<SealCount>;
        fn create_kek_check(check: &KekCheck, seen: usize) -> bool;
        fn list_kek_checks() -> Vec<KekCheck>;
        fn list_data_keys_of(scopes: &[String]) -> Vec<DataKeyRecord>;
        fn note_kek(kek: &str) -> ();
        fn list_keks() -> Vec<Kek>;
        fn activate_kek(kek: &str, former: Option<&str>) -> bool;
        fn retire_kek(kek: &str) -> RetireOutcome;
        fn note_unused_keks() -> ();
        fn rewrap_data_keys(job: &str, rewraps: &[Rewrap]) -> u64;
        fn replace_data_keys(job: Option<&str>, keys: &[DataKeyRecord], swaps: &[SealedSwap]) -> Vec<String>;
        fn list_data_key_states(page: &PageRequest) -> Page<DataKeyState>;
        fn count_sealed(scopes: Option<&[String]>) -> Vec<(String, i32, u64)>;
        fn former_data_keys_in_use(scopes: Option<&[String]>) -> Vec<(String, i32)>;
        fn read_sealed(scopes: &[String]) -> Vec<SealedField>;
        fn swap_sealed(swaps: &[SealedSwap]) -> u64;
        fn replaced_data_keys(ago: Duration, skip: u32, limit: u32) -> Vec<(String, i32)>;
        fn remove_data_keys(keys: &[(String, i32)]) -> u64;
    }
    KeyJobStore {
        fn create_key_job(job: &NewKeyJob) -> (KeyJob, bool);
        fn get_key_job(id: &str) -> Option<KeyJob>;
        fn list_key_jobs(page: &PageRequest) -> Page<KeyJob>;
        fn running_key_jobs() -> Vec<KeyJob>;
        fn start_working(id: &str) -> bool;
        fn note_key_job(id: &str, message: &str) -> ();
        fn finish_key_job(id: &str, state: KeyJobState, message: &str, skipped: u64) -> bool;
        fn claim_data_keys(id: &str, limit: u32) -> Claim;
        fn settle_data_keys(id: &str, keys: &[(String, i32)], skipped: bool) -> ();
        fn add_key_findings(id: &str, findings: &[KeyFinding]) -> ();
        fn list_key_findings(id: &str, limit: u32) -> Vec<KeyFinding>;
        fn forget_key_jobs(ago: Duration) -> u64;
    }
    TenantStore {
        fn create_tenant(tenant: &Tenant) -> Tenant;
        fn get_tenant(tenant: &TenantId) -> Option<Tenant>;
        fn list_tenants(page: &PageRequest) -> Page<Tenant>;
        fn update_tenant(tenant: &Tenant) -> Option<Tenant>;
        fn delete_tenant(tenant: &TenantId, force: bool) -> bool;
    }
    OAuthClientStore {
        fn create_oauth_client(client: &OAuthClient) -> OAuthClient;
        fn get_oauth_client(client: &OAuthClientId) -> Option<OAuthClient>;
        fn list_oauth_clients(page: &PageRequest) -> Page<OAuthClient>;
        fn update_oauth_client(client: &OAuthClient) -> Option<OAuthClient>;
        fn delete_oauth_client(client: &OAuthClientId) -> bool;
        fn add_client_secret(secret: &ClientSecretRecord) -> Option<ClientSecretRecord>;
        fn list_client_secrets(client: &OAuthClientId) -> Vec<ClientSecretRecord>;
        fn activate_client_secret(client: &OAuthClientId, version: i32, now: Timestamp) -> Option<ClientSecretRecord>;
        fn retire_client_secret(client: &OAuthClientId, version: i32, now: Timestamp) -> Option<ClientSecretRecord>;
    }
    ConnectStore {
        fn create_connect_link(link: &ConnectLink) -> ();
        fn find_connect_link(hash: &[u8; 32]) -> Option<ConnectLink>;
        fn get_connect_link(tenant: &TenantId, link: &ConnectLinkId) -> Option<ConnectLink>;
        fn list_connect_links(tenant: &TenantId, page: &PageRequest) -> Page<ConnectLink>;
        fn delete_connect_link(tenant: &TenantId, link: &ConnectLinkId) -> bool;
        fn start_connect_attempt(attempt: &ConnectAttempt) -> ();
        fn consume_connect_attempt(state: &[u8; 32], cookie: &[u8; 32], now: Timestamp) -> ConsumeOutcome;
        fn save_pending_grant(grant: &PendingGrant) -> ();
        fn refuse_pending_grant(tenant: &TenantId, id: &str, reason: &str) -> bool;
        fn list_pending_grants(limit: u32) -> Vec<PendingGrant>;
        fn delete_expired(before: Timestamp) -> u64;
    }
    AccessRuleStore {
        fn create_access_rule(rule: &AccessRule) -> AccessRule;
        fn get_access_rule(rule: &AccessRuleId) -> Option<AccessRule>;
        fn list_access_rules(page: &PageRequest) -> Page<AccessRule>;
        fn update_access_rule(rule: &AccessRule) -> Option<AccessRule>;
        fn delete_access_rule(rule: &AccessRuleId) -> bool;
    }
    PrincipalStore {
        fn block_principal(blocked: &BlockedPrincipal) -> ();
        fn unblock_principal(principal: &Principal) -> bool;
        fn list_blocked_principals(page: &PageRequest) -> Page<BlockedPrincipal>;
        fn create_first_issuer_key(key: &IssuerKey) -> bool;
        fn add_issuer_key(key: &IssuerKey) -> ();
        fn list_issuer_keys() -> Vec<IssuerKey>;
    }
    ChangeStore {
        fn end_of_changes() -> ChangeCursor;
        fn read_changes(after: &ChangeCursor) -> Changes;
        fn prune_changes(keep: Duration) -> u64;
        fn list_connection_marks(page: &PageRequest) -> Page<ConnectionMark>;
    }
    BudgetStore {
        fn reserve_calls(client: &OAuthClientId, ask: &ReserveCalls) -> Reserved;
        fn pause_calls(client: &OAuthClientId, pause: &BeginPause) -> Option<CallPause>;
        fn claim_probe(client: &OAuthClientId, number: i64, hold: Duration) -> bool;
        fn release_probe(client: &OAuthClientId, number: i64) -> ();
        fn end_pause(client: &OAuthClientId, number: i64) -> ();
        fn list_pauses() -> Vec<CallPause>;
    }
    CheckStore {
        fn list_due_checks(limit: u32) -> Vec<DueCheck>;
        fn claim_checks(claims: &[CheckClaim]) -> Vec<bool>;
        fn plan_check(tenant: &TenantId, connection: &ConnectionId, next: Duration) -> ();
    }
    ReplicaStore {
        fn report_replica(replica: &Replica, within: Duration) -> u64;
        fn live_replicas(within: Duration) -> Vec<LiveReplica>;
        fn remove_replica(id: &str) -> ();
        fn forget_replicas(silence: Duration) -> u64;
    }
}

#[async_trait]
impl InstallationStore for Gated {
    async fn migrate(&self) -> Result<Vec<String>> {
        self.plain("migrate", self.inner.migrate())
    }

    async fn schema_status(&self) -> Result<SchemaStatus> {
        self.plain("schema_status", self.inner.schema_status())
    }

    async fn check_health(&self) -> Result<()> {
        self.plain("check_health", self.inner.check_health())
    }

    async fn installation_id(&self, candidate: &str) -> Result<String> {
        self.plain("installation_id", self.inner.installation_id(candidate))
    }

    async fn time(&self) -> Result<Timestamp> {
        self.plain("time", self.inner.time())
    }

    async fn advance_mark(&self, now: Timestamp) -> Result<Mark> {
        self.plain("advance_mark", self.inner.advance_mark(now))
    }

    async fn close(&self) {}
}

#[async_trait]
impl ConnectionStore for Gated {
    async fn save_consent(&self, consent: &Consent) -> Result<Connection> {
        self.plain("save_consent", self.inner.save_consent(consent))
    }

    async fn get_connection(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
    ) -> Result<Option<Connection>> {
        self.step("read", self.inner.get_connection(tenant, connection)).await
    }

    async fn find_connection(
        &self,
        tenant: &TenantId,
        provider: &ProviderName,
        kind: ConnectionKind,
        client: Option<&OAuthClientId>,
        account: &AccountId,
    ) -> Result<Option<Connection>> {
        self.plain("find_connection", self.inner.find_connection(tenant, provider, kind, client, account))
    }

    async fn list_tenant_connections(&self, tenant: &TenantId) -> Result<Vec<Connection>> {
        self.plain("list_tenant_connections", self.inner.list_tenant_connections(tenant))
    }

    async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        page: &PageRequest,
    ) -> Result<Page<Connection>> {
        self.plain("list_connections", self.inner.list_connections(filter, page))
    }

    async fn find_account(&self, provider: &ProviderName, account: &AccountId) -> Result<Vec<AccountRef>> {
        self.plain("find_account", self.inner.find_account(provider, account))
    }

    async fn count_connections(&self) -> Result<Vec<(ProviderName, ConnectionState, u64)>> {
        self.plain("count_connections", self.inner.count_connections())
    }

    async fn change_state(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        change: &StateChange,
    ) -> Result<Option<Connection>> {
        self.step("state", self.inner.change_state(tenant, connection, change)).await
    }

    async fn disconnect(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        seen: Option<Version>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Connection>> {
        self.plain("disconnect", self.inner.disconnect(tenant, connection, seen, reason, now))
    }

    async fn delete_connection(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<bool> {
        self.plain("delete_connection", self.inner.delete_connection(tenant, connection))
    }

    async fn list_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<Revocation>> {
        self.plain("list_revocations", self.inner.list_revocations(now, limit))
    }

    async fn postpone_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fence: i64,
        due_at: Timestamp,
    ) -> Result<()> {
        self.plain("postpone_revocation", self.inner.postpone_revocation(tenant, connection, fence, due_at))
    }

    async fn finish_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fence: i64,
    ) -> Result<()> {
        self.plain("finish_revocation", self.inner.finish_revocation(tenant, connection, fence))
    }
}

#[async_trait]
impl RefreshStore for Gated {
    async fn begin_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        begin: &BeginAttempt,
    ) -> Result<Option<i64>> {
        self.step("begin", self.inner.begin_attempt(tenant, connection, begin)).await
    }

    async fn commit_refresh(&self, commit: &RefreshCommit) -> Result<CommitOutcome> {
        let call = async {
            if self.cheat == Cheat::IgnoreEpoch {
                return self.inner.commit_refresh(&self.forged(commit).await).await;
            }
            self.inner.commit_refresh(commit).await
        };
        self.step("commit", call).await
    }

    async fn end_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fence: i64,
        resolved: bool,
    ) -> Result<bool> {
        self.step("end", self.inner.end_attempt(tenant, connection, fence, resolved)).await
    }

    async fn release_leases(&self, owner: &str) -> Result<u64> {
        self.plain("release_leases", self.inner.release_leases(owner))
    }

    async fn distrust_grants(&self, provider: &ProviderName, reason: &str, now: Timestamp) -> Result<u64> {
        self.plain("distrust_grants", self.inner.distrust_grants(provider, reason, now))
    }

    async fn list_attempts(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Attempt>> {
        let attempts = self.step("attempts", self.inner.list_attempts(tenant, connection)).await?;
        Ok(if self.cheat == Cheat::HideAttempts { Vec::new() } else { attempts })
    }

    async fn list_unresolved_attempts(&self, limit: u32) -> Result<Vec<Attempt>> {
        let attempts = self.plain("list_unresolved", self.inner.list_unresolved_attempts(limit))?;
        Ok(if self.cheat == Cheat::HideAttempts { Vec::new() } else { attempts })
    }

    async fn list_spares(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Spare>> {
        let spares = self.step("spares", self.inner.list_spares(tenant, connection)).await?;
        Ok(if self.cheat == Cheat::HideSpares { Vec::new() } else { spares })
    }

    async fn remove_spare(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        token_fence: i64,
    ) -> Result<()> {
        self.step("forget", self.inner.remove_spare(tenant, connection, token_fence)).await
    }
}
