//! The conformance suite of storage backends: the contract of `tokenward-storage`, a case for each of its sentences, in
//! three tiers: rows and isolation; transactions; a hundred callers at once.
//!
//! A backend's `tests/conformance.rs` gives a [`StorageFixture`] and is one line more:
//!
//! ```ignore
//! tokenward_testkit::storage_conformance!(sqlite, fixture);
//! ```

#[expect(missing_docs, reason = "a case's name is the sentence that it checks")]
#[expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a case panics when the backend breaks its contract"
)]
pub mod cases;
mod list;
#[expect(clippy::expect_used, reason = "samples are well-formed")]
mod samples;
#[expect(clippy::expect_used, reason = "a case panics when the backend breaks its contract")]
mod tools;

use std::sync::Arc;

use async_trait::async_trait;
use tokenward_storage::Storage;

/// A database of one's own for a single test. Dropping it removes the database.
#[async_trait]
pub trait StorageFixture: Send + Sync {
    /// Opens the database, empty the first time; more than one may be open at once.
    async fn open(&self) -> Arc<dyn Storage>;

    /// Records a migration of this name, as a newer version of the program would have left it.
    async fn record_migration(&self, name: &str);

    /// Logs a change of this tenant past the storage, in a transaction of its own, as a method that changes the tenant does,
    /// and leaves the transaction open.
    async fn hold_change(&self, tenant: &str) -> Box<dyn HeldChange>;

    /// How many of those can be open at once: one where a second one would wait for the first.
    fn held_at_once(&self) -> usize;
}

/// A transaction that logged a change and is still open.
#[async_trait]
pub trait HeldChange: Send {
    /// Commits it or rolls it back.
    async fn end(self: Box<Self>, commit: bool);
}
