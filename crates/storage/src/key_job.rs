//! Jobs that replace or check keys. A job is a row, and so is what is left of it: any server goes on with it.

use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::Timestamp;

use crate::{DataKeyRecord, Page, PageRequest, Result};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyJobKind {
    /// Makes another key-encryption key the active one, and wraps every data key by it.
    Rotate,
    /// Makes new data keys, and seals every field anew.
    RotateData,
    /// Opens every field.
    Verify,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyJobState {
    /// Servers work on it.
    Running,
    /// Everything is done but what it reports as skipped.
    Done,
    /// It ended early; its message says why.
    Failed,
}

/// Which part of a job is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyJobStep {
    /// Waits until every server can open what will be written.
    Spreading,
    /// Goes through the data keys.
    Working,
}

/// A job. Times are by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyJob {
    /// Its identifier.
    pub id: String,
    /// What it does.
    pub kind: KeyJobKind,
    /// How it stands.
    pub state: KeyJobState,
    /// Which part is under way.
    pub step: KeyJobStep,
    /// The key-encryption key that becomes the active one; empty but for a rotation.
    pub kek: String,
    /// The only tenant that it is about; empty for all and the installation.
    pub scope: String,
    /// Who began it.
    pub created_by: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last went on.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How many data keys it has to go through, as far as is known.
    pub total: u64,
    /// How many it is through with; where new data keys are made, those that have a successor.
    pub done: u64,
    /// How many of those it could not deal with; its findings say why.
    pub skipped: u64,
    /// What it waits for, or why it failed.
    pub message: String,
}

/// A job that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKeyJob {
    /// Its identifier.
    pub id: String,
    /// What it does.
    pub kind: KeyJobKind,
    /// The key-encryption key that becomes the active one; empty but for a rotation.
    pub kek: String,
    /// The only tenant that it is about, or nothing.
    pub scope: String,
    /// Who begins it.
    pub created_by: String,
}

/// Something that a job could not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFinding {
    /// The tenant, or `_installation`.
    pub scope: String,
    /// The field, such as `connection con_1 refresh_token`.
    pub place: String,
    /// What is wrong; never a secret.
    pub problem: String,
}

/// Data keys that were handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The data keys; none when the end was reached, and the next claim begins from the start again.
    pub keys: Vec<DataKeyRecord>,
    /// How many the job is not through with, these included; counted anew where a round begins or ends.
    pub remaining: u64,
}

/// Jobs.
#[async_trait]
pub trait KeyJobStore: Send + Sync {
    /// Begins a job, where none is running that it would get in the way of: verifications run beside others, but only one of
    /// each kind runs. Returns that job or the one that is in the way, and whether it is the new one. Of many at once one
    /// begins.
    async fn create_key_job(&self, job: &NewKeyJob) -> Result<(KeyJob, bool)>;

    /// One job.
    async fn get_key_job(&self, id: &str) -> Result<Option<KeyJob>>;

    /// One page of all jobs, in order of their identifiers.
    async fn list_key_jobs(&self, page: &PageRequest) -> Result<Page<KeyJob>>;

    /// Those that are running, in order of their identifiers.
    async fn running_key_jobs(&self) -> Result<Vec<KeyJob>>;

    /// Moves a running job from spreading to working; `false` when it is not spreading, and nothing changes.
    async fn start_working(&self, id: &str) -> Result<bool>;

    /// Replaces a running job's message; others stay as they are.
    async fn note_key_job(&self, id: &str, message: &str) -> Result<()>;

    /// Ends a running job, and adds to what it skipped; `false` when it is over, and nothing changes.
    async fn finish_key_job(&self, id: &str, state: KeyJobState, message: &str, skipped: u64)
    -> Result<bool>;

    /// Hands out the next data keys that a running job is not through with, each to one caller until all were handed out once.
    /// What was handed out and not settled, as by a server that stopped, is handed out again after that.
    async fn claim_data_keys(&self, id: &str, limit: u32) -> Result<Claim>;

    /// A job is through with these data keys, `skipped` of them without success. Each counts once.
    async fn settle_data_keys(&self, id: &str, keys: &[(String, i32)], skipped: bool) -> Result<()>;

    /// Adds to what a job reports; what it reported of a place before is kept.
    async fn add_key_findings(&self, id: &str, findings: &[KeyFinding]) -> Result<()>;

    /// What a job reported, in order of scope and place, at most `limit`.
    async fn list_key_findings(&self, id: &str, limit: u32) -> Result<Vec<KeyFinding>>;

    /// Deletes jobs that ended at least `ago` before by the database's clock, at most some hundred, with what they reported;
    /// returns how many. Those that are running stay.
    async fn forget_key_jobs(&self, ago: Duration) -> Result<u64>;
}
