//! The key-encryption backends that are open: one as a rule, two while everything moves from one to the other.

use std::sync::Arc;

use parking_lot::Mutex;
use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, WrappedKey,
};

/// Backends, the configured one first.
#[derive(Debug)]
pub(crate) struct Backends {
    all: Vec<Arc<dyn KeyEncryption>>,
    /// What could be opened when it was last asked, for the list of servers.
    available: Mutex<Vec<String>>,
}

/// What the backends say of their keys.
#[derive(Debug)]
pub(crate) struct Survey {
    /// What those say that answer.
    pub(crate) status: KekStatus,
    /// The kinds of those that do not, and why.
    pub(crate) silent: Vec<(&'static str, CryptoError)>,
}

impl Survey {
    /// Whether a key can be opened; `None` where the backend that knows does not answer.
    pub(crate) fn is_available(&self, kek: &str) -> Option<bool> {
        let is_there = self.status.available.iter().any(|available| available == kek);
        let is_told = self.silent.iter().all(|(silent, _)| *silent != kind(kek));
        (is_there || is_told).then_some(is_there)
    }
}

impl Backends {
    pub(crate) fn new(first: Arc<dyn KeyEncryption>, further: Vec<Arc<dyn KeyEncryption>>) -> Self {
        Self { all: std::iter::once(first).chain(further).collect(), available: Mutex::default() }
    }

    /// The kinds, the configured one first.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.all.iter().map(|backend| backend.kind()).collect()
    }

    /// All keys that can be opened, and the newest of the configured backend.
    ///
    /// # Errors
    /// A backend does not answer.
    pub(crate) async fn status(&self) -> Result<KekStatus, CryptoError> {
        let Survey { status, silent } = self.survey().await;
        match silent.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(status),
        }
    }

    /// The same as far as backends answer, each asked for itself, and those that do not.
    pub(crate) async fn survey(&self) -> Survey {
        let asked: Vec<_> = self.all.iter().map(|backend| backend.status()).collect();
        let answers = futures::future::join_all(asked).await;
        let mut newest = None;
        let (mut available, mut silent) = (Vec::new(), Vec::new());
        for (backend, answer) in self.all.iter().zip(answers) {
            match answer {
                Ok(status) => {
                    newest.get_or_insert(status.newest);
                    available.extend(status.available);
                }
                Err(error) => silent.push((backend.kind(), error)),
            }
        }
        available.sort();
        available.dedup();
        if silent.is_empty() {
            self.available.lock().clone_from(&available);
        }
        Survey { status: KekStatus { newest: newest.unwrap_or_default(), available }, silent }
    }

    /// As of the last [`Self::status`].
    pub(crate) fn available(&self) -> Vec<String> {
        self.available.lock().clone()
    }

    /// A backend of a kind.
    pub(crate) fn of_kind(&self, kind: &str) -> Option<&Arc<dyn KeyEncryption>> {
        self.all.iter().find(|backend| backend.kind() == kind)
    }

    /// The backend that a key belongs to.
    pub(crate) fn of_kek(&self, kek: &str) -> Option<&Arc<dyn KeyEncryption>> {
        self.of_kind(kind(kek))
    }

    fn candidates<'a>(&'a self, kek: &'a str) -> impl Iterator<Item = &'a Arc<dyn KeyEncryption>> {
        self.all.iter().filter(move |backend| backend.kind() == kind(kek))
    }

    fn nobodys(&self, kek: &str) -> CryptoError {
        let message = format!(
            "encryption key {kek:?} belongs to no backend that is configured; there are: {}; configure {} as \
             [encryption.previous] on every server, and restart them",
            self.kinds().join(", "),
            kind(kek)
        );
        CryptoError::new(CryptoErrorKind::UnknownKey, message)
    }

    pub(crate) async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let mut refused = None;
        for backend in self.candidates(kek) {
            match backend.wrap(kek, binding, key).await {
                Err(error) if is_anothers(&error) => refused = Some(error),
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or_else(|| self.nobodys(kek)))
    }

    pub(crate) async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let mut refused = None;
        for backend in self.candidates(&wrapped.kek) {
            match backend.unwrap(binding, wrapped).await {
                Err(error) if is_anothers(&error) => refused = Some(error),
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or_else(|| self.nobodys(&wrapped.kek)))
    }
}

/// Two backends of one kind may be open: what one does not know may be the other's.
fn is_anothers(error: &CryptoError) -> bool {
    matches!(error.kind(), CryptoErrorKind::UnknownKey | CryptoErrorKind::Refused)
}

/// A key's backend.
fn kind(kek: &str) -> &str {
    kek.split_once(':').map_or(kek, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokenward_crypto::Aead;

    use super::*;

    /// A backend with one key.
    #[derive(Debug)]
    struct One(&'static str, &'static str, u8);

    #[async_trait]
    impl KeyEncryption for One {
        fn kind(&self) -> &'static str {
            self.0
        }

        async fn status(&self) -> Result<KekStatus, CryptoError> {
            Ok(KekStatus { newest: self.1.to_owned(), available: vec![self.1.to_owned()] })
        }

        async fn create_version(&self) -> Result<String, CryptoError> {
            Err(CryptoError::new(CryptoErrorKind::Unsupported, "ask the operator"))
        }

        async fn wrap(
            &self,
            kek: &str,
            binding: &KeyBinding<'_>,
            key: &DataKeyMaterial,
        ) -> Result<WrappedKey, CryptoError> {
            if kek != self.1 {
                return Err(CryptoError::new(CryptoErrorKind::UnknownKey, kek.to_owned()));
            }
            let aead = Aead::new(&DataKeyMaterial::from_bytes([self.2; 32]));
            Ok(WrappedKey { kek: kek.to_owned(), bytes: aead.seal(&[], &binding.encode(), key.expose()) })
        }

        async fn unwrap(
            &self,
            binding: &KeyBinding<'_>,
            wrapped: &WrappedKey,
        ) -> Result<DataKeyMaterial, CryptoError> {
            let plain = Aead::new(&DataKeyMaterial::from_bytes([self.2; 32]))
                .open(&wrapped.bytes, &binding.encode())?;
            Ok(DataKeyMaterial::from_bytes(plain.as_slice().try_into().unwrap()))
        }
    }

    const BINDING: KeyBinding<'_> = KeyBinding { installation: "i", scope: "s", data_key: 1 };

    fn backends() -> Backends {
        let further: Vec<Arc<dyn KeyEncryption>> =
            vec![Arc::new(One("b", "b:9", 2)), Arc::new(One("a", "a:2", 3))];
        Backends::new(Arc::new(One("a", "a:1", 1)), further)
    }

    #[tokio::test]
    async fn the_configured_backend_tells_the_newest_key_and_all_are_available() {
        let status = backends().status().await.unwrap();
        assert_eq!(
            (&*status.newest, status.available),
            ("a:1", vec!["a:1".into(), "a:2".into(), "b:9".into()])
        );
    }

    #[tokio::test]
    async fn a_key_is_asked_of_the_backend_that_has_it() {
        let (backends, key) = (backends(), DataKeyMaterial::from_bytes([7; 32]));
        for kek in ["a:1", "a:2", "b:9"] {
            let wrapped = backends.wrap(kek, &BINDING, &key).await.unwrap();
            assert_eq!(backends.unwrap(&BINDING, &wrapped).await.unwrap().expose(), key.expose(), "{kek}");
        }
        let error = backends.wrap("c:1", &BINDING, &key).await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
        assert!(error.to_string().contains("there are: a, b, a"), "{error}");
        assert!(error.to_string().contains("configure c as [encryption.previous]"), "{error}");
    }
}
