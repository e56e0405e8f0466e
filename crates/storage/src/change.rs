use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::{ConnectionId, OAuthClientId, TenantId};

use crate::{ConnectionState, Page, PageRequest, Result};

/// The most changes that one reading brings; a reader that is further behind has to forget what it knows.
pub const MAX_CHANGES: usize = 1000;

/// What a change was about. Whoever follows the log reads the rows again: the log does not say what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A tenant was created, changed or deleted.
    Tenant(TenantId),
    /// A connection was consented to, disconnected or deleted, or came into another state.
    Connection(TenantId, ConnectionId),
    /// An OAuth client or one of its secrets was created, changed or deleted.
    OAuthClient(OAuthClientId),
    /// An access rule was created, changed or deleted.
    AccessRules,
    /// A principal was blocked or unblocked.
    Principals,
    /// A key of the built-in issuer was made.
    IssuerKeys,
    /// Another key-encryption key became the active one, or a job of keys began.
    Keys,
    /// Data keys were replaced: of scopes from the first to the last, by the order of their bytes.
    DataKeys(String, String),
}

/// How far a reader has read. Only the database that gave it knows what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeCursor(String);

impl ChangeCursor {
    /// A cursor as a backend writes it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text that the backend wrote.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One reading of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// What was committed since the reading before; `None` when that is not known any more, or is more than
    /// [`MAX_CHANGES`]: the reader has to forget whatever it knows.
    pub since: Option<Vec<Change>>,
    /// Where the next reading begins.
    pub next: ChangeCursor,
}

/// What a connection in memory is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionMark {
    /// The tenant.
    pub tenant: TenantId,
    /// The connection.
    pub connection: ConnectionId,
    /// What is known of its grant.
    pub state: ConnectionState,
    /// Bumped by re-consent and disconnect.
    pub consent_epoch: i64,
}

/// The change log: what servers that share a database tell each other.
///
/// Each method of the other traits that changes what [`Change`] names logs it in its own transaction, so that the log has it
/// exactly when it happened. A call that changes nothing logs nothing; so do leases, attempts, and refreshes of a connection
/// that was active and stays so.
#[async_trait]
pub trait ChangeStore: Send + Sync {
    /// The end of the log: readings from here bring whatever commits after this call began, and nothing that was committed
    /// before.
    async fn end_of_changes(&self) -> Result<ChangeCursor>;

    /// What was committed since the reading that gave the cursor. However long a transaction was open, and in whatever
    /// order transactions end, each committed change comes exactly once, and one that was rolled back never. Readings wait for
    /// no open transaction. They follow the order of commits: what was committed when one reading was made comes no later than
    /// with that one, and within one, a change whose transaction began after another's had committed comes after it.
    async fn read_changes(&self, after: &ChangeCursor) -> Result<Changes>;

    /// Removes changes that were logged longer than `keep` ago by the database's clock; returns how many. A reader that has
    /// not read them is told so by its next reading; one that has is not disturbed.
    async fn prune_changes(&self, keep: Duration) -> Result<u64>;

    /// Every connection of every tenant with its state and its epoch, in order of tenant and identifier.
    async fn list_connection_marks(&self, page: &PageRequest) -> Result<Page<ConnectionMark>>;
}
