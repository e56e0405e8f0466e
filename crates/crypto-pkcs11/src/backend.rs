use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, RemoteCalls,
    WrappedKey, no_data_key,
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::keys::{KIND, Keys, SEALED};

const FORMAT: u8 = 1;

/// Keys of an HSM, used from threads that may block.
pub(crate) struct Pkcs11Keys {
    keys: Keys,
    calls: Arc<RemoteCalls>,
    /// One permit for each session, and so for each thread that the HSM may hold up.
    sessions: Arc<Semaphore>,
}

impl Pkcs11Keys {
    pub(crate) fn new(keys: Keys, calls: Arc<RemoteCalls>, max_sessions: usize) -> Self {
        Self { keys, calls, sessions: Arc::new(Semaphore::new(max_sessions)) }
    }

    /// Runs `job` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Keys) -> Result<T, CryptoError> + Send + 'static,
    ) -> Result<T, CryptoError> {
        let stopped = || self.calls.error(CryptoErrorKind::Unavailable, "the process is about to end");
        let permit = Arc::clone(&self.sessions).acquire_owned().await.map_err(|_| stopped())?;
        let keys = self.keys.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Kept by the thread: a caller who gives up does not free it.
            let _permit = permit;
            job(&keys)
        });
        task.await.map_err(|_| stopped())?
    }
}

#[async_trait]
impl KeyEncryption for Pkcs11Keys {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        let versions = self.calls.repeatable(|| self.run(Keys::versions)).await?;
        let newest = versions.last().copied().unwrap_or_default();
        let available = versions.into_iter().map(|version| self.keys.name(version)).collect();
        Ok(KekStatus { newest: self.keys.name(newest), available })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        // Not repeated: an attempt without an answer may have made one.
        let version = self.calls.once(|| self.run(Keys::create)).await?;
        Ok(self.keys.name(version))
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let version = self.keys.version(kek)?;
        let aad = binding.encode();
        let attempt = || {
            let (aad, key) = (aad.clone(), Zeroizing::new(*key.expose()));
            self.run(move |keys| keys.seal(version, aad.as_bytes(), &key))
        };
        let sealed = self.calls.repeatable(attempt).await?;
        Ok(WrappedKey { kek: kek.to_owned(), bytes: [&[FORMAT], &sealed[..]].concat() })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let version = self.keys.version(&wrapped.kek)?;
        let malformed = |what: String| {
            let message = no_data_key(binding.data_key, &wrapped.kek, what);
            Err(self.calls.error(CryptoErrorKind::Malformed, message))
        };
        let sealed: [u8; SEALED] = match wrapped.bytes.split_first() {
            Some((&FORMAT, sealed)) => match sealed.try_into() {
                Ok(sealed) => sealed,
                Err(_) => return malformed(format!("{} bytes are not {SEALED}", sealed.len())),
            },
            Some((format, _)) => return malformed(format!("unknown wrapped-key format {format}")),
            None => return malformed("it is empty".to_owned()),
        };
        let (aad, data_key) = (binding.encode(), binding.data_key);
        let attempt = || {
            let aad = aad.clone();
            self.run(move |keys| keys.open(version, aad.as_bytes(), &sealed, data_key))
        };
        let key = self.calls.repeatable(attempt).await?;
        Ok(DataKeyMaterial::from_bytes(*key))
    }
}

impl fmt::Debug for Pkcs11Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Keys").field("calls", &self.calls).finish_non_exhaustive()
    }
}
