//! Whether the keys that are given are those of this database, and which of them wraps.

use tokenward_crypto::{CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, WrappedKey};
use tokenward_storage::{Kek, KekCheck, KekState};

use super::Sealer;
use crate::{Error, Reason};

/// The scope of check records: no tenant can have this name.
const CHECK_SCOPE: &str = "_check";

impl Sealer {
    pub(super) async fn check_keys(&self) -> Result<(), Error> {
        let status = self.backends.status().await?;
        for (kek, count) in self.storage.count_data_keys().await? {
            if !status.available.contains(&kek) {
                return Err(Error::new(
                    Reason::StoredDataDamaged,
                    format!(
                        "{count} data keys of this database are wrapped by the encryption key {kek}, which is not there; \
                         there are: {}; give that key, or open its backend as [encryption.previous], until a rotation has \
                         wrapped them by another",
                        status.available.join(", ")
                    ),
                ));
            }
        }
        let keks = self.storage.list_keks().await?;
        if let Some(active) = active(&keks) {
            require(&status, active)?;
            return self.open_checks(&status, &self.storage.list_kek_checks().await?).await;
        }
        self.ensure_check(&status.newest, &status).await?;
        for check in self.storage.list_kek_checks().await? {
            self.storage.note_kek(&check.kek).await?;
        }
        if self.storage.activate_kek(&status.newest, None).await? {
            return Ok(());
        }
        // Another server was faster: what it made the active one must be here too.
        self.check_active().await
    }

    /// Makes sure that the active key is here; a rotation may have come to its end while this server started.
    ///
    /// # Errors
    /// `StoredDataDamaged` when it is not.
    pub async fn check_active(&self) -> Result<(), Error> {
        let keks = self.storage.list_keks().await?;
        let status = self.backends.status().await?;
        active(&keks).map_or(Ok(()), |active| require(&status, active))
    }

    /// Has a check record of this key: proof that it opens what it wraps, for every server that starts later.
    pub(crate) async fn ensure_check(&self, kek: &str, status: &KekStatus) -> Result<(), Error> {
        loop {
            let checks = self.storage.list_kek_checks().await?;
            self.open_checks(status, &checks).await?;
            if checks.iter().any(|check| check.kek == kek) {
                return Ok(());
            }
            let wrapped =
                self.backends.wrap(kek, &self.check_binding(), &DataKeyMaterial::generate()).await?;
            self.backends.unwrap(&self.check_binding(), &wrapped).await?;
            let check = KekCheck { kek: wrapped.kek, wrapped: wrapped.bytes, created_at: self.clock.now() };
            if self.storage.create_kek_check(&check, checks.len()).await? {
                return Ok(());
            }
            // Another server was faster: its record must open here too.
        }
    }

    fn check_binding(&self) -> KeyBinding<'_> {
        KeyBinding { installation: &self.installation, scope: CHECK_SCOPE, data_key: 0 }
    }

    /// Opens the records of keys that are there. One must be, if there are records at all: a key that no other server of this
    /// database has would seal what they cannot open.
    async fn open_checks(&self, status: &KekStatus, checks: &[KekCheck]) -> Result<(), Error> {
        if !checks.is_empty() && !checks.iter().any(|check| status.available.contains(&check.kek)) {
            let used: Vec<&str> = checks.iter().map(|check| &*check.kek).collect();
            return Err(Error::new(
                Reason::StoredDataDamaged,
                format!(
                    "this database is encrypted with other keys than those that are given: it uses {}, and there are: {}; \
                     give the key that its other servers use",
                    used.join(", "),
                    status.available.join(", ")
                ),
            ));
        }
        for check in checks.iter().filter(|check| status.available.contains(&check.kek)) {
            let wrapped = WrappedKey { kek: check.kek.clone(), bytes: check.wrapped.clone() };
            let opened = self.backends.unwrap(&self.check_binding(), &wrapped).await;
            opened.map_err(|error| match error.kind() {
                CryptoErrorKind::Unavailable | CryptoErrorKind::Internal => Error::from(error),
                _ => Error::new(
                    Reason::StoredDataDamaged,
                    format!(
                        "the encryption key {} is not the one that this database was encrypted with: give the key that \
                         was used before",
                        check.kek
                    ),
                )
                .internal(error),
            })?;
        }
        Ok(())
    }
}

/// The key that wraps.
pub(crate) fn active(keks: &[Kek]) -> Option<&str> {
    keks.iter().find(|kek| kek.state == KekState::Active).map(|kek| &*kek.kek)
}

fn require(status: &KekStatus, active: &str) -> Result<(), Error> {
    if status.available.iter().any(|kek| kek == active) {
        return Ok(());
    }
    Err(Error::new(
        Reason::StoredDataDamaged,
        format!(
            "this database is encrypted with {active}, which is not among the keys that are given: {}; give the key that its \
             other servers use",
            status.available.join(", ")
        ),
    ))
}
