//! A database that was put back to an earlier state, as from yesterday's backup: its refresh tokens may be spent. The
//! installation's mark grows in the database and is remembered beside the journal; a database that is behind of what is
//! remembered was put back.

use tokenward_provider::Rotation;
use tokenward_storage::Connection;

use crate::Error;
use crate::broker::Broker;

/// Why a connection is suspect although no provider said so.
pub(super) const RESTORED: &str = "database_restored";

/// Whether a connection's tokens are of an unknown age.
pub(super) fn is_restored(row: &Connection) -> bool {
    row.state == tokenward_storage::ConnectionState::Suspect && row.state_reason == RESTORED
}

impl Broker {
    /// Moves the mark ahead, and distrusts what is stored if the database is behind of what is remembered.
    pub(crate) async fn check_mark(&self) -> Result<(), Error> {
        if self.journal().is_none() {
            return Ok(());
        }
        let remembered = self.with_journal(tokenward_journal::Journal::mark).await?;
        let mark = self.storage().advance_mark(self.now()).await?;
        if remembered.is_some_and(|remembered| remembered > mark.before) {
            self.distrust().await?;
        }
        // Only now: a server that dies before will notice again.
        self.with_journal(move |journal| journal.set_mark(mark.after)).await
    }

    async fn distrust(&self) -> Result<(), Error> {
        self.metrics().alert("database_restored", "the database is older than this server remembers");
        for name in self.provider_names() {
            let rotates = self.provider(&name).is_some_and(|p| p.info().rotation != Rotation::None);
            if rotates {
                let suspects = self.storage().distrust_grants(&name, RESTORED, self.now()).await?;
                tracing::warn!(provider = %name, suspects, "connections are verified before they are trusted again");
            }
        }
        // What is in memory belongs to rows that do not exist any more.
        self.directory().forget_all();
        self.plan_suspects().await
    }
}
