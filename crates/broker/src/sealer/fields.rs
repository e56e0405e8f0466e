//! Sealed fields as rows of the database: where each stands, and its data keys without the cache.

use std::collections::HashMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokenward_crypto::{
    CryptoErrorKind, DataKey, DataKeyMaterial, INSTALLATION_SCOPE, KeyBinding, WrappedKey, data_key_id,
};
use tokenward_storage::{DataKeyRecord, Rewrap, SealedColumn, SealedField, SealedSwap};

use super::{Place, Sealer};
use crate::Error;
use crate::background::offer;

/// How many calls of a backend are under way at once.
const CALLS: usize = 16;

/// Data keys of many scopes, opened for one batch; wiped with it.
#[derive(Default)]
pub(crate) struct OpenKeys(HashMap<String, OpenScope>);

#[derive(Default)]
struct OpenScope {
    active: Option<i32>,
    /// Each, or why it does not open.
    keys: HashMap<i32, Result<DataKey, String>>,
}

/// A data key that gets a successor, which is about to make so many seals.
pub(crate) struct Former {
    pub(crate) scope: String,
    pub(crate) id: i32,
    pub(crate) seals: i64,
}

/// A data key that is wrapped anew, or why it does not open.
type Rewrapped = Result<Rewrap, (DataKeyRecord, String)>;

/// What became of a field.
pub(crate) enum Reseal {
    /// It is sealed anew.
    Swap(SealedSwap),
    /// It is under the active data key already.
    Current,
    /// It does not open, and why.
    Damaged(SealedField, String),
}

/// How a field is called in reports.
pub(crate) fn name(field: &SealedField) -> String {
    let (kind, what) = words(field.column);
    match field.column {
        SealedColumn::ClientSecret => format!("{kind} {}:{}", field.record, field.number),
        SealedColumn::AttemptRefreshToken => {
            format!("{kind} {} {what} of attempt {}", field.record, field.number)
        }
        SealedColumn::SpareRefreshToken => format!("{kind} {} spare {what} {}", field.record, field.number),
        SealedColumn::RevocationRefreshToken => {
            format!("{kind} {} {what} to be revoked {}", field.record, field.number)
        }
        _ => format!("{kind} {} {what}", field.record),
    }
}

/// The kind of record and the field that a ciphertext is bound to.
fn words(column: SealedColumn) -> (&'static str, &'static str) {
    match column {
        SealedColumn::ConnectionAccessToken => ("connection", "access_token"),
        SealedColumn::ConnectionRefreshToken
        | SealedColumn::AttemptRefreshToken
        | SealedColumn::SpareRefreshToken
        | SealedColumn::RevocationRefreshToken => ("connection", "refresh_token"),
        SealedColumn::PendingAccessToken => ("pending_grant", "access_token"),
        SealedColumn::PendingRefreshToken => ("pending_grant", "refresh_token"),
        SealedColumn::PkceVerifier => ("connect_attempt", "pkce_verifier"),
        SealedColumn::ClientSecret => ("client_secret", "secret"),
        SealedColumn::IssuerKey => ("issuer_key", "private_key"),
    }
}

/// The record that a ciphertext is bound to.
fn record(field: &SealedField) -> String {
    match field.column {
        SealedColumn::ClientSecret => format!("{}:{}", field.record, field.number),
        _ => field.record.clone(),
    }
}

impl OpenKeys {
    /// The active data key of a scope.
    fn active(&self, scope: &str) -> Option<&DataKey> {
        let scope = self.0.get(scope)?;
        scope.keys.get(&scope.active?)?.as_ref().ok()
    }

    fn get(&self, scope: &str, id: i32) -> Option<&Result<DataKey, String>> {
        self.0.get(scope)?.keys.get(&id)
    }

    /// Has a new data key seal from now on.
    pub(crate) fn activate(&mut self, scope: String, key: DataKey) {
        let scope = self.0.entry(scope).or_default();
        scope.active = Some(key.id());
        scope.keys.insert(key.id(), Ok(key));
    }

    /// Data keys that do not open, and why.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = (&str, i32, &str)> {
        let all =
            self.0.iter().flat_map(|(scope, open)| open.keys.iter().map(move |(id, key)| (scope, id, key)));
        all.filter_map(|(scope, id, key)| Some((scope.as_str(), *id, key.as_ref().err()?.as_str())))
    }
}

impl Sealer {
    /// Opens data keys. One that does not open is kept as such.
    ///
    /// # Errors
    /// The backend does not answer.
    pub(crate) async fn open_keys(&self, records: &[DataKeyRecord]) -> Result<OpenKeys, Error> {
        let opened: Vec<_> = records.iter().map(|record| self.open_record(record)).collect();
        let opened: Vec<_> = stream::iter(opened).buffered(CALLS).try_collect().await?;
        let mut open = OpenKeys::default();
        for (record, key) in records.iter().zip(opened) {
            let scope = open.0.entry(record.scope.clone()).or_default();
            if record.active {
                scope.active = Some(record.id);
            }
            scope.keys.insert(record.id, key);
        }
        Ok(open)
    }

    /// A data key, or why it does not open.
    fn open_record<'a>(
        &'a self,
        record: &'a DataKeyRecord,
    ) -> BoxFuture<'a, Result<Result<DataKey, String>, Error>> {
        let open = async move {
            match self.unwrap_record(record).await {
                Ok(material) => Ok(Ok(DataKey::prepared(record.id, &material))),
                Err(error) if is_damage(error.kind()) => Ok(Err(error.to_string())),
                Err(error) => Err(Error::from(error)),
            }
        };
        open.boxed()
    }

    async fn unwrap_record(
        &self,
        record: &DataKeyRecord,
    ) -> Result<DataKeyMaterial, tokenward_crypto::CryptoError> {
        offer();
        let binding =
            KeyBinding { installation: &self.installation, scope: &record.scope, data_key: record.id };
        let wrapped = WrappedKey { kek: record.kek.clone(), bytes: record.wrapped.clone() };
        self.backends.unwrap(&binding, &wrapped).await
    }

    /// Opens a field; why not, where it is damaged.
    pub(crate) fn check_field(&self, keys: &OpenKeys, field: &SealedField) -> Result<(), String> {
        self.open_field(keys, field).map(drop)
    }

    fn open_field(
        &self,
        keys: &OpenKeys,
        field: &SealedField,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        offer();
        let id = data_key_id(&field.sealed).map_err(|error| error.to_string())?;
        let key = match keys.get(&field.scope, id) {
            Some(Ok(key)) => key,
            Some(Err(problem)) => return Err(problem.clone()),
            None => return Err(format!("the data key {id} that sealed it is not there")),
        };
        let record = record(field);
        key.open(&self.context(place(field, &record)), &field.sealed).map_err(|error| error.to_string())
    }

    /// Seals a field under its scope's active data key, unless it is already. The seal is the caller's to count.
    pub(crate) fn reseal(&self, keys: &OpenKeys, field: SealedField) -> Reseal {
        let Some(active) = keys.active(&field.scope) else {
            return Reseal::Damaged(field, "its scope has no data key that seals".to_owned());
        };
        if data_key_id(&field.sealed).is_ok_and(|id| id == active.id()) {
            return Reseal::Current;
        }
        match self.open_field(keys, &field) {
            Ok(plain) => {
                let record = record(&field);
                let sealed = active.seal(&self.context(place(&field, &record)), &plain);
                Reseal::Swap(SealedSwap { former: field, sealed })
            }
            Err(problem) => Reseal::Damaged(field, problem),
        }
    }

    /// Counts seals that were made by [`Sealer::reseal`].
    pub(crate) fn count_seals(&self, swaps: &[SealedSwap]) {
        for swap in swaps {
            if let Some(id) = swap.sealed.data_key() {
                self.count_seal(&swap.former.scope, id);
            }
        }
    }

    /// Wraps data keys by another key; those that do not open come back with the reason.
    ///
    /// # Errors
    /// The backend does not answer.
    pub(crate) async fn rewrap(
        &self,
        kek: &str,
        records: Vec<DataKeyRecord>,
    ) -> Result<(Vec<Rewrap>, Vec<(DataKeyRecord, String)>), Error> {
        let wrapped: Vec<_> = records.into_iter().map(|former| self.rewrap_record(kek, former)).collect();
        let all: Vec<_> = stream::iter(wrapped).buffered(CALLS).try_collect().await?;
        let (mut rewraps, mut damaged) = (Vec::new(), Vec::new());
        for one in all {
            match one {
                Ok(rewrap) => rewraps.push(rewrap),
                Err(problem) => damaged.push(problem),
            }
        }
        Ok((rewraps, damaged))
    }

    fn rewrap_record<'a>(
        &'a self,
        kek: &'a str,
        former: DataKeyRecord,
    ) -> BoxFuture<'a, Result<Rewrapped, Error>> {
        let rewrap = async move {
            let material = match self.unwrap_record(&former).await {
                Ok(material) => material,
                Err(error) if is_damage(error.kind()) => return Ok(Err((former, error.to_string()))),
                Err(error) => return Err(Error::from(error)),
            };
            let binding =
                KeyBinding { installation: &self.installation, scope: &former.scope, data_key: former.id };
            let wrapped = self.backends.wrap(kek, &binding, &material).await?;
            Ok(Ok(Rewrap { kek: wrapped.kek, wrapped: wrapped.bytes, former }))
        };
        rewrap.boxed()
    }

    /// New data keys that follow these, and how they are stored, wrapped by a key.
    ///
    /// # Errors
    /// The backend does not answer.
    pub(crate) async fn successors(
        &self,
        kek: &str,
        newest: Vec<Former>,
    ) -> Result<Vec<(DataKeyRecord, DataKey)>, Error> {
        let made: Vec<_> = newest.into_iter().map(|former| self.successor(kek, former)).collect();
        let made: Vec<Option<_>> = stream::iter(made).buffered(CALLS).try_collect().await?;
        Ok(made.into_iter().flatten().collect())
    }

    /// `None` where identifiers are used up.
    fn successor<'a>(
        &'a self,
        kek: &'a str,
        Former { scope, id: former, seals }: Former,
    ) -> BoxFuture<'a, Result<Option<(DataKeyRecord, DataKey)>, Error>> {
        let make = async move {
            let Some(id) = former.checked_add(1) else { return Ok(None) };
            offer();
            let binding = KeyBinding { installation: &self.installation, scope: &scope, data_key: id };
            let material = DataKeyMaterial::generate();
            let wrapped = self.backends.wrap(kek, &binding, &material).await?;
            let (kek, wrapped) = (wrapped.kek, wrapped.bytes);
            let created_at = self.clock.now();
            let record = DataKeyRecord { kek, wrapped, active: true, seals, created_at, scope, id };
            Ok(Some((record, DataKey::prepared(id, &material))))
        };
        make.boxed()
    }
}

fn place<'a>(field: &'a SealedField, record: &'a str) -> Place<'a> {
    let (kind, name) = words(field.column);
    let scope = match field.column {
        SealedColumn::ClientSecret | SealedColumn::IssuerKey => INSTALLATION_SCOPE,
        _ => &field.scope,
    };
    Place { scope, kind, record, field: name, fence: field.fence }
}

fn is_damage(kind: CryptoErrorKind) -> bool {
    matches!(kind, CryptoErrorKind::UnknownKey | CryptoErrorKind::Refused | CryptoErrorKind::Malformed)
}
