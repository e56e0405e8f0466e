//! Data keys, the key-encryption keys that wrap them, and check records.

use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::{Sealed, Timestamp};

use crate::{Page, PageRequest, Result};

/// A wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRecord {
    /// The tenant's identifier, or `_installation`.
    pub scope: String,
    /// The data key's identifier, unique within the scope, from 1.
    pub id: i32,
    /// The key-encryption key that wrapped it, as its backend names it, version included.
    pub kek: String,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// Whether it seals; others only open.
    pub active: bool,
    /// How many seals it is known to have made.
    pub seals: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A data key's scope and identifier, and a number of seals.
pub type SealCount = (String, i32, i64);

/// A record sealed under one version of the key-encryption key: proof of having the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekCheck {
    /// The key-encryption key.
    pub kek: String,
    /// The wrapped check value.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Data keys and check records.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Inserts a data key; if it is active, the scope's others are no longer.
    ///
    /// # Errors
    /// `AlreadyExists` when the scope has one with this identifier: another server was faster; read again. `Conflict`
    /// when the scope is a tenant that does not exist. `KeyReplaced` when another key-encryption key is the active one than
    /// that which wrapped it.
    async fn create_data_key(&self, key: &DataKeyRecord) -> Result<()>;

    /// All data keys of a scope, newest first.
    async fn list_data_keys(&self, scope: &str) -> Result<Vec<DataKeyRecord>>;

    /// All data keys of some scopes, in order of scope and identifier.
    async fn list_data_keys_of(&self, scopes: &[String]) -> Result<Vec<DataKeyRecord>>;

    /// The key-encryption keys that data keys are wrapped by, each with the number of those.
    async fn count_data_keys(&self) -> Result<Vec<(String, u64)>>;

    /// Adds to data keys' counts of seals, each named once, and returns the new counts in order of scope and identifier; those
    /// that are not there are left out.
    async fn add_seals(&self, made: &[SealCount]) -> Result<Vec<SealCount>>;

    /// Inserts a check record where there are as many as were `seen`, none of them for this key. `false` otherwise, and
    /// nothing changes: read them again and open one. Of many at once one gets through, also for different keys.
    async fn create_kek_check(&self, check: &KekCheck, seen: usize) -> Result<bool>;

    /// All check records, in order of their keys.
    async fn list_kek_checks(&self) -> Result<Vec<KekCheck>>;

    /// Makes a key-encryption key known as one that only opens. Repeating it changes nothing, and a retired one stays retired.
    async fn note_kek(&self, kek: &str) -> Result<()>;

    /// All key-encryption keys that were ever known, in order of their names.
    async fn list_keks(&self) -> Result<Vec<Kek>>;

    /// Makes a key-encryption key the active one, where `former` still is, or none is. `false` otherwise, and nothing changes;
    /// also where the key is not known or is retired. Of many at once one gets through.
    async fn activate_kek(&self, kek: &str, former: Option<&str>) -> Result<bool>;

    /// Retires a key-encryption key that nothing uses: not the active one, none that wraps a data key, none that a running job
    /// makes the active one. Otherwise nothing changes, and the answer says what uses it. Repeating it changes nothing.
    async fn retire_kek(&self, kek: &str) -> Result<RetireOutcome>;

    /// Notes for each key-encryption key since when it wraps nothing, and forgets that for those which wrap something again.
    async fn note_unused_keks(&self) -> Result<()>;

    /// Wraps data keys anew: each where it is still as it was read. Returns how many were, and counts them as done by the job.
    async fn rewrap_data_keys(&self, job: &str, rewraps: &[Rewrap]) -> Result<u64>;

    /// Inserts data keys that follow their scopes' newest ones and become the active ones, at most one for each scope; one
    /// whose active one is another by now, or that has none, is left out. Returns the scopes of those that were inserted, in
    /// their order. A job is through with those whose place was taken, and need not go through the new ones.
    ///
    /// In the same transaction, what `swaps` seals under those that were inserted replaces the ciphertexts of their scopes, as
    /// [`KeyStore::swap_sealed`] does.
    ///
    /// # Errors
    /// `KeyReplaced` when one is wrapped by another key-encryption key than the active one; `Conflict` when others kept
    /// replacing the same ones meanwhile, and nothing changes.
    async fn replace_data_keys(
        &self,
        job: Option<&str>,
        keys: &[DataKeyRecord],
        swaps: &[SealedSwap],
    ) -> Result<Vec<String>>;

    /// One page of all data keys, in order of scope and identifier, without their wrapped bytes.
    async fn list_data_key_states(&self, page: &PageRequest) -> Result<Page<DataKeyState>>;

    /// How many stored fields each data key has sealed, of these scopes, or of all. Data keys without any are left out.
    async fn count_sealed(&self, scopes: Option<&[String]>) -> Result<Vec<(String, i32, u64)>>;

    /// Data keys other than the active ones of their scopes that something stored is sealed under, in order of scope and
    /// identifier: of these scopes, or of all. Identifiers of data keys that are not there are among them.
    async fn former_data_keys_in_use(&self, scopes: Option<&[String]>) -> Result<Vec<(String, i32)>>;

    /// Every sealed field of these scopes.
    async fn read_sealed(&self, scopes: &[String]) -> Result<Vec<SealedField>>;

    /// Replaces ciphertexts: each where it is still as it was read. Returns how many were. Nothing else of a row changes.
    async fn swap_sealed(&self, swaps: &[SealedSwap]) -> Result<u64>;

    /// Data keys that were replaced at least `ago` before, those that were replaced first come first: at most `limit`, after as many
    /// as are to be skipped.
    async fn replaced_data_keys(&self, ago: Duration, skip: u32, limit: u32) -> Result<Vec<(String, i32)>>;

    /// Deletes data keys that were replaced and have sealed nothing that is stored; returns how many. What is being stored
    /// meanwhile under one of them is refused or counts.
    async fn remove_data_keys(&self, keys: &[(String, i32)]) -> Result<u64>;
}

/// What a key-encryption key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekState {
    /// It only opens.
    DecryptOnly,
    /// It wraps.
    Active,
    /// Nothing needs it any more.
    Retired,
}

/// A key-encryption key as the database knows it. Times are by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kek {
    /// Its name, as its backend gives it.
    pub kek: String,
    /// What it is used for.
    pub state: KekState,
    /// When the database learnt of it.
    pub created_at: Timestamp,
    /// When it first became the active one.
    pub activated_at: Option<Timestamp>,
    /// When another one became the active one.
    pub replaced_at: Option<Timestamp>,
    /// Since when it wraps no data key: younger backups do not need it.
    pub unused_since: Option<Timestamp>,
    /// When it was retired.
    pub retired_at: Option<Timestamp>,
}

/// What became of a retirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetireOutcome {
    /// It is retired.
    Retired,
    /// The database does not know it.
    Unknown,
    /// Something uses it.
    InUse {
        /// It is the active one.
        active: bool,
        /// How many data keys it wraps.
        data_keys: u64,
        /// The running job that makes it the active one.
        job: Option<String>,
    },
}

/// A data key without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyState {
    /// The tenant's identifier, or `_installation`.
    pub scope: String,
    /// The data key's identifier.
    pub id: i32,
    /// The key-encryption key that wrapped it.
    pub kek: String,
    /// Whether it seals.
    pub active: bool,
    /// How many seals it is known to have made.
    pub seals: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When another one took its place.
    pub replaced_at: Option<Timestamp>,
}

/// A data key that is wrapped by another key than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrap {
    /// The data key as it was read.
    pub former: DataKeyRecord,
    /// The key that wraps it now.
    pub kek: String,
    /// The bytes that it wrapped it to.
    pub wrapped: Vec<u8>,
}

/// Where ciphertexts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealedColumn {
    /// A connection's access token.
    ConnectionAccessToken,
    /// A connection's refresh token.
    ConnectionRefreshToken,
    /// The refresh token that an attempt spends.
    AttemptRefreshToken,
    /// A refresh token that was put aside.
    SpareRefreshToken,
    /// A refresh token that is to be revoked.
    RevocationRefreshToken,
    /// The access token of a grant that is not verified yet.
    PendingAccessToken,
    /// The refresh token of such a grant.
    PendingRefreshToken,
    /// The PKCE verifier of a customer's try to connect.
    PkceVerifier,
    /// An OAuth client's secret.
    ClientSecret,
    /// A private key of the built-in issuer.
    IssuerKey,
}

impl SealedColumn {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::ConnectionAccessToken,
        Self::ConnectionRefreshToken,
        Self::AttemptRefreshToken,
        Self::SpareRefreshToken,
        Self::RevocationRefreshToken,
        Self::PendingAccessToken,
        Self::PendingRefreshToken,
        Self::PkceVerifier,
        Self::ClientSecret,
        Self::IssuerKey,
    ];
}

/// A ciphertext, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedField {
    /// Table and column.
    pub column: SealedColumn,
    /// The tenant's identifier, or `_installation`.
    pub scope: String,
    /// The connection, pending grant, state (its hash in hexadecimal), OAuth client or issuer key.
    pub record: String,
    /// The rest of the row's key where there is more: a fence or a secret's version.
    pub number: i64,
    /// The fence that the ciphertext is bound to.
    pub fence: Option<i64>,
    /// The ciphertext.
    pub sealed: Sealed,
}

/// A ciphertext that takes another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSwap {
    /// What was read.
    pub former: SealedField,
    /// What stands there from now on.
    pub sealed: Sealed,
}
