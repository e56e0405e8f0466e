//! What stands in the journal: a commit as data, sealed under the installation's data key for this installation and for the
//! entry's own name. Its tokens are sealed for their row besides.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokenward_journal::{Journal, JournalError, MAX_ENTRY};
use tokenward_storage::{CommitOutcome, RefreshCommit, TokenSet};
use tokenward_types::{Scopes, Sealed, Timestamp, generate_suffix};

use super::save::Kept;
use crate::broker::{Broker, state_name};
use crate::{Error, INSTALLATION_SCOPE, Place, Reason, audit};

/// The form of an entry's text; a form that this program does not know is refused and kept.
const FORM: u32 = 1;

/// An entry's text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    form: u32,
    tenant: String,
    connection: String,
    fence: i64,
    consent_epoch: i64,
    spent_token_fence: i64,
    access_token: String,
    refresh_token: Option<String>,
    issued_at: i64,
    expires_at: Option<i64>,
    scopes: String,
    rotated: bool,
    account_name: Option<String>,
    now: i64,
}

impl From<&RefreshCommit> for Entry {
    fn from(commit: &RefreshCommit) -> Self {
        let encode = |sealed: &Sealed| STANDARD.encode(sealed.as_bytes());
        Self {
            form: FORM,
            tenant: commit.tenant.to_string(),
            connection: commit.connection.to_string(),
            fence: commit.fence,
            consent_epoch: commit.consent_epoch,
            spent_token_fence: commit.spent_token_fence,
            access_token: encode(&commit.tokens.access_token),
            refresh_token: commit.tokens.refresh_token.as_ref().map(encode),
            issued_at: commit.tokens.issued_at.as_micros(),
            expires_at: commit.tokens.expires_at.map(Timestamp::as_micros),
            scopes: commit.tokens.scopes.to_string(),
            rotated: commit.rotated,
            account_name: commit.account_name.clone(),
            now: commit.now.as_micros(),
        }
    }
}

impl Entry {
    /// The commit, if every field is what it should be.
    fn read(text: &[u8]) -> Option<RefreshCommit> {
        let entry: Self = serde_json::from_slice(text).ok()?;
        let decode = |text: &str| STANDARD.decode(text).ok().map(Sealed::from);
        if entry.form != FORM {
            return None;
        }
        Some(RefreshCommit {
            tenant: entry.tenant.parse().ok()?,
            connection: entry.connection.parse().ok()?,
            fence: entry.fence,
            consent_epoch: entry.consent_epoch,
            spent_token_fence: entry.spent_token_fence,
            tokens: TokenSet {
                access_token: decode(&entry.access_token)?,
                refresh_token: match &entry.refresh_token {
                    Some(token) => Some(decode(token)?),
                    None => None,
                },
                issued_at: Timestamp::from_micros(entry.issued_at),
                expires_at: entry.expires_at.map(Timestamp::from_micros),
                scopes: Scopes::parse(&entry.scopes).ok()?,
            },
            rotated: entry.rotated,
            account_name: entry.account_name,
            now: Timestamp::from_micros(entry.now),
        })
    }
}

/// How many answers that nothing could bring back may come at once before the journal has to make files for them.
const READY: usize = 64;

/// Where an entry of this name is bound to.
fn place(name: &str) -> Place<'_> {
    Place { scope: INSTALLATION_SCOPE, kind: "journal", record: name, field: "commit", fence: None }
}

impl Broker {
    /// Makes a result durable without the database; gives the entry's name. `None` where that fails, which is reported, or
    /// there is no journal.
    pub(super) async fn journal_commit(&self, commit: &RefreshCommit) -> Option<String> {
        self.journal()?;
        match self.write_entry(commit).await {
            Ok(name) => Some(name),
            Err(error) => {
                self.metrics().alert("journal_write_failed", commit.connection.as_str());
                tracing::error!(
                    tenant = %commit.tenant,
                    connection = %commit.connection,
                    %error,
                    detail = error.log_detail(),
                    "a refreshed token cannot be written to the journal; it is in memory alone"
                );
                None
            }
        }
    }

    async fn write_entry(&self, commit: &RefreshCommit) -> Result<String, Error> {
        let name = generate_suffix(self.clock(), self.rng());
        let text = serde_json::to_vec(&Entry::from(commit))
            .map_err(|error| Error::new(Reason::Internal, "internal error").internal(error))?;
        let sealed = self.sealer().seal(place(&name), &text).await?;
        let file = name.clone();
        self.with_journal(move |journal| journal.write(&file, sealed.as_bytes())).await?;
        Ok(name)
    }

    /// Makes the journal ready, where answers go into it before they are stored.
    pub(crate) fn prepare_journal(&self) {
        let is_used = self.provider_names().iter().any(|name| self.answers_are_irreplaceable(name));
        if !is_used || self.journal().is_none() {
            return;
        }
        let broker = self.clone();
        self.spawn(async move {
            if let Err(error) = broker.with_journal(|journal| journal.prepare(READY)).await {
                tracing::warn!(%error, detail = error.log_detail(), "cannot make the journal ready");
            }
        });
    }

    /// Removes an entry whose result is stored.
    pub(super) async fn remove_entry(&self, name: &str) {
        let file = name.to_owned();
        if let Err(error) = self.with_journal(move |journal| journal.remove(&file)).await {
            // It is offered again after a restart, and changes nothing then.
            tracing::warn!(entry = name, %error, detail = error.log_detail(), "cannot remove a journal entry");
        }
    }

    /// Offers what a former process left in the journal to the database, under the same condition as ever. What cannot be
    /// read is put aside and reported.
    pub(crate) async fn replay_journal(&self) -> Result<(), Error> {
        if self.journal().is_none() {
            return Ok(());
        }
        self.sealer().hold_installation_key().await?;
        for name in self.with_journal(Journal::names).await? {
            match self.read_entry(&name).await? {
                Some(commit) => self.replay(name, commit).await,
                None => self.refuse_entry(&name).await?,
            }
        }
        Ok(())
    }

    /// `None` for an entry that is cut off, altered, renamed, of another key or installation, or too long.
    async fn read_entry(&self, name: &str) -> Result<Option<RefreshCommit>, Error> {
        let file = name.to_owned();
        let bytes = self.with_journal(move |journal| journal.read(&file)).await?;
        let Some(bytes) = bytes.filter(|bytes| bytes.len() <= MAX_ENTRY) else { return Ok(None) };
        match self.sealer().open(place(name), &Sealed::from(bytes)).await {
            Ok(text) => Ok(Entry::read(&text)),
            Err(error) if error.reason == Reason::StoredDataDamaged => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn refuse_entry(&self, name: &str) -> Result<(), Error> {
        let file = name.to_owned();
        let aside = self.with_journal(move |journal| journal.refuse(&file)).await?;
        self.metrics().journal_refused.inc();
        self.metrics().alert("journal_entry_refused", &aside.display().to_string());
        tracing::error!(
            entry = name,
            kept = %aside.display(),
            "a journal entry cannot be read: it is cut off, altered, or of another key or installation; it is kept aside"
        );
        Ok(())
    }

    /// Commits an entry now, or in the background when the database went away meanwhile.
    async fn replay(&self, name: String, commit: RefreshCommit) {
        let key = (commit.tenant.clone(), commit.connection.clone());
        let commit = Arc::new(commit);
        match self.commit_entry(&commit).await {
            Ok(outcome) => self.replayed(&name, &commit, &outcome).await,
            Err(mut error) => {
                self.unsaved().put(key.clone(), commit.fence, Kept::InJournal);
                self.metrics().unsaved.inc();
                let broker = self.clone();
                self.spawn(async move {
                    let outcome = loop {
                        broker.wait_to_save(&key, &error).await;
                        match broker.commit_entry(&commit).await {
                            Ok(outcome) => break outcome,
                            Err(failed) => error = failed,
                        }
                    };
                    broker.replayed(&name, &commit, &outcome).await;
                    broker.metrics().unsaved.dec();
                    broker.unsaved().remove(&key, commit.fence);
                });
            }
        }
    }

    async fn commit_entry(&self, commit: &RefreshCommit) -> Result<CommitOutcome, Error> {
        let before = self.storage().get_connection(&commit.tenant, &commit.connection).await?;
        let outcome = self.storage().commit_refresh(commit).await?;
        if let (Some(before), CommitOutcome::Committed(after)) = (before, &outcome)
            && before.state != after.state
        {
            let (from, to) = (state_name(before.state), state_name(after.state));
            audit::state_change(&commit.tenant, &commit.connection, from, to, "refreshed, by the journal");
        }
        Ok(outcome)
    }

    async fn replayed(&self, name: &str, commit: &RefreshCommit, outcome: &CommitOutcome) {
        self.metrics().journal_replays.inc();
        let became = match outcome {
            CommitOutcome::Committed(stored) => {
                self.show(stored, None);
                "stored"
            }
            CommitOutcome::Rejected(_) => {
                self.metrics().refresh_rejected_commits.inc();
                "overtaken"
            }
            CommitOutcome::Gone => "gone",
        };
        tracing::info!(tenant = %commit.tenant, connection = %commit.connection, entry = name, became, "journal entry replayed");
        self.remove_entry(name).await;
    }

    /// Works with the journal on a thread that may block.
    pub(super) async fn with_journal<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, Error> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Reason::Internal, "the journal does not work").internal(cause)
        };
        let Some(journal) = self.journal().cloned() else {
            return Err(Error::new(Reason::Internal, "there is no journal"));
        };
        if journal.is_in_memory() {
            return work(&journal).map_err(|error| failed(error.into()));
        }
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(result) => result.map_err(|error| failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }
}
