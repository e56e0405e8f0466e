//! Storage: one trait per aggregate. Each sentence of a method's documentation is a case of the conformance suite.
//!
//! Rules that hold for every method:
//! - A call is one transaction: it happens as a whole, or, on an error or when its future is dropped, not at all.
//! - State changes compare in the database (version, fence, epoch) and check the affected rows; nothing is read,
//!   judged in memory and written back by identifier alone.
//! - "Not found" is `None` or `false`, never an error.
//! - Identifiers compare byte by byte, so `Acme` and `acme` are two tenants.
//! - Methods that belong to a tenant take it first, and never touch another tenant's rows.
//! - Times keep microseconds.
//! - Texts keep every character but U+0000, which callers refuse before they come here: PostgreSQL cannot store it.

mod access;
mod budget;
mod change;
mod connect;
mod connection;
mod context;
mod error;
mod idle;
mod installation;
mod key_job;
mod keys;
mod oauth_client;
mod page;
mod refresh;
mod replica;
mod tenant;

pub use access::{
    AccessRule, AccessRuleStore, BlockedPrincipal, IssuerKey, PrincipalStore, ScopeGrant, TenantSelector,
};
pub use budget::{BeginPause, BudgetStore, CallPause, PauseCause, ReserveCalls, Reserved};
pub use change::{Change, ChangeCursor, ChangeStore, Changes, ConnectionMark, MAX_CHANGES};
pub use connect::{
    ConnectAttempt, ConnectLink, ConnectStore, ConsumeOutcome, MAX_OPEN_ATTEMPTS, PendingGrant,
};
pub use connection::{
    AccountRef, Connection, ConnectionFilter, ConnectionKind, ConnectionState, ConnectionStore, Consent,
    ConsentBase, Lease, Revocation, StateChange, TokenSet,
};
pub use context::StorageContext;
pub use error::{StorageError, StorageErrorKind};
pub use idle::{CheckClaim, CheckStore, DueCheck};
pub use installation::{InstallationStore, Mark, SchemaStatus};
pub use key_job::{Claim, KeyFinding, KeyJob, KeyJobKind, KeyJobState, KeyJobStep, KeyJobStore, NewKeyJob};
pub use keys::{
    DataKeyRecord, DataKeyState, Kek, KekCheck, KekState, KeyStore, RetireOutcome, Rewrap, SealCount,
    SealedColumn, SealedField, SealedSwap,
};
pub use oauth_client::{ClientSecretRecord, ClientSecretState, OAuthClient, OAuthClientStore};
pub use page::{MAX_PAGE_SIZE, Page, PageRequest};
pub use refresh::{Attempt, BeginAttempt, CommitOutcome, FENCE_JUMP, RefreshCommit, RefreshStore, Spare};
pub use replica::{LiveReplica, Replica, ReplicaStore};
pub use tenant::{Tenant, TenantState, TenantStore};

/// Counts the changes of a row, from 1; callers see it as an etag.
pub type Version = i64;

/// What the result of every storage method is.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// A whole storage backend.
pub trait Storage:
    InstallationStore
    + KeyStore
    + KeyJobStore
    + TenantStore
    + OAuthClientStore
    + ConnectionStore
    + RefreshStore
    + ConnectStore
    + AccessRuleStore
    + PrincipalStore
    + ChangeStore
    + ReplicaStore
    + BudgetStore
    + CheckStore
{
}

impl<T> Storage for T where
    T: InstallationStore
        + KeyStore
        + KeyJobStore
        + KeyJobStore
        + TenantStore
        + OAuthClientStore
        + ConnectionStore
        + RefreshStore
        + ConnectStore
        + AccessRuleStore
        + PrincipalStore
        + ChangeStore
        + ReplicaStore
        + BudgetStore
        + CheckStore
{
}
