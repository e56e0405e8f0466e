use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde::Serialize;
use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, RemoteCalls,
    WrappedKey, does_not_open, no_data_key,
};
use zeroize::Zeroizing;

use crate::auth::Auth;
use crate::http::{Answer, Http};
use crate::transit::{Answered, Decrypt, Decrypted, Encrypt, Encrypted, KEY_TYPE, Key};

/// The word that selects this backend, and the prefix of its keys' names.
pub(crate) const KIND: &str = "openbao";

const FORMAT: u8 = 1;
/// Nonce, data key and tag.
const SEALED: usize = 12 + 32 + 16;
const KEY: usize = 32;

/// A key of a Transit engine.
pub(crate) struct OpenBaoKeys {
    http: Arc<Http>,
    auth: Arc<Auth>,
    calls: Arc<RemoteCalls>,
    mount: String,
    key: String,
}

/// What an operation needs and is called, for messages.
struct Operation<'a> {
    path: &'a str,
    /// `None` for one that concerns no version.
    version: Option<u64>,
    capability: &'a str,
}

impl OpenBaoKeys {
    pub(crate) fn new(
        http: Arc<Http>,
        auth: Arc<Auth>,
        calls: Arc<RemoteCalls>,
        mount: String,
        key: String,
    ) -> Self {
        Self { http, auth, calls, mount, key }
    }

    /// Logs in, and checks that the key is there and of a kind that serves.
    pub(crate) async fn check(&self) -> Result<(), CryptoError> {
        let key = self.calls.repeatable(|| self.read_key()).await?;
        let refuse = |message: String| Err(self.calls.error(CryptoErrorKind::Internal, message));
        let (mount, name) = (&self.mount, &self.key);
        if key.kind != KEY_TYPE {
            let kind = &key.kind;
            return refuse(format!(
                "the key is of type {kind:?}: make another with `bao write -f {mount}/keys/NAME type={KEY_TYPE}`"
            ));
        }
        if key.derived {
            return refuse(format!(
                "the key is a derived one: make another with `bao write -f {mount}/keys/NAME type={KEY_TYPE}`"
            ));
        }
        if key.exportable || key.allow_plaintext_backup {
            tracing::warn!(key = self.calls.service(), "the key may leave the server: it is exportable");
        }
        if key.deletion_allowed {
            tracing::warn!(
                key = self.calls.service(),
                "the key may be deleted: bao write {mount}/keys/{name}/config deletion_allowed=false"
            );
        }
        Ok(())
    }

    fn name(&self, version: u64) -> String {
        format!("{KIND}:{}/{}:{version}", self.mount, self.key)
    }

    fn version(&self, kek: &str) -> Result<u64, CryptoError> {
        let version = kek.rsplit_once(':').and_then(|(_, version)| version.parse().ok());
        version.filter(|version| *version > 0 && self.name(*version) == kek).ok_or_else(|| {
            let ours = format!("{KIND}:{}/{}:VERSION", self.mount, self.key);
            let message = format!(
                "encryption key {kek:?} is not of this backend, whose keys are {ours}. Set mount and key to those that it \
                 has; a key of another backend needs that one as [encryption.previous]"
            );
            self.calls.error(CryptoErrorKind::UnknownKey, message)
        })
    }

    /// Sends a request with a token that the server accepts.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, CryptoError> {
        let session = self.auth.session().await?;
        let answer = self.http.send(method.clone(), path, Some(&session.token), body).await?;
        // A dead token and a policy that does not allow it are refused in the same words.
        if answer.status != 403 || self.auth.is_alive(&session).await? {
            return Ok(answer);
        }
        let session = self.auth.replace(session.number).await?;
        self.http.send(method, path, Some(&session.token), body).await
    }

    async fn read_key(&self) -> Result<Key, CryptoError> {
        let path = format!("{}/keys/{}", self.mount, self.key);
        let answer = self.send(Method::GET, &path, None::<&()>).await?;
        match answer.status {
            200 => Ok(self.http.parse::<Answered<Key>>(&answer)?.data),
            404 => {
                let message = format!(
                    "there is no such key. Restore it from a backup of the server; for a new installation \
                     `bao write -f {path} type={KEY_TYPE}` makes it, after `bao secrets enable -path={} transit`",
                    self.mount
                );
                Err(self.calls.error(CryptoErrorKind::UnknownKey, message))
            }
            403 => Err(self.denied(&path, "read")),
            _ => Err(self.http.garbage()),
        }
    }

    fn denied(&self, path: &str, capability: &str) -> CryptoError {
        let message = format!(
            "permission denied: its policy must allow `path \"{path}\" {{ capabilities = [\"{capability}\"] }}`"
        );
        self.calls.error(CryptoErrorKind::Internal, message)
    }

    /// Why an operation was refused, as the key itself tells: the server's words differ from version to version. `otherwise`
    /// is the error where key and version are as they should be.
    async fn explain(
        &self,
        status: u16,
        operation: &Operation<'_>,
        otherwise: impl FnOnce(&Key) -> CryptoError,
    ) -> CryptoError {
        let denied = || self.denied(operation.path, operation.capability);
        let key = match self.read_key().await {
            Ok(key) => key,
            // Reading may be forbidden too; what was refused first is the better news.
            Err(error) if status == 403 && error.kind() == CryptoErrorKind::Internal => return denied(),
            Err(error) => return self.with_kek(operation.version, error),
        };
        let unknown = |message: String| self.calls.error(CryptoErrorKind::UnknownKey, message);
        let (mount, name) = (&self.mount, &self.key);
        if key.soft_deleted {
            let restore = format!("bao write -f {mount}/keys/{name}/soft-delete-restore");
            let error = unknown(format!("the key was deleted softly: `{restore}` brings it back"));
            return self.with_kek(operation.version, error);
        }
        if let Some(version) = operation.version
            && !key.versions().contains(&version)
        {
            let there_are: Vec<_> = key.versions().into_iter().map(|version| self.name(version)).collect();
            return unknown(format!(
                "encryption key {:?} is not available; there are: {}. If it was put aside and not destroyed, \
                 `bao write {mount}/keys/{name}/config min_decryption_version={version}` brings it back",
                self.name(version),
                there_are.join(", ")
            ));
        }
        if status == 403 { denied() } else { otherwise(&key) }
    }

    /// The error with the name of the key that it concerns.
    fn with_kek(&self, version: Option<u64>, error: CryptoError) -> CryptoError {
        match version {
            Some(version) if error.kind() == CryptoErrorKind::UnknownKey => {
                let said = error.to_string();
                // The backend stands before every message, and so before this one.
                let said = said.strip_prefix(self.calls.service()).unwrap_or(&said);
                let said = said.strip_prefix(": ").unwrap_or(said);
                self.calls.error(error.kind(), format!("encryption key {:?}: {said}", self.name(version)))
            }
            _ => error,
        }
    }

    async fn encrypt(
        &self,
        version: u64,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<Vec<u8>, CryptoError> {
        let path = format!("{}/encrypt/{}", self.mount, self.key);
        let plaintext = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
        let associated_data = BASE64_STANDARD.encode(binding.encode().as_bytes());
        let body = Encrypt { plaintext: &plaintext, associated_data: &associated_data, key_version: version };
        let answer = self.send(Method::POST, &path, Some(&body)).await?;
        if !answer.is_success() {
            let operation = Operation { path: &path, version: Some(version), capability: "update" };
            let otherwise = |key: &Key| {
                let why = if key.min_encryption_version > version {
                    let (mount, name) = (&self.mount, &self.key);
                    format!(
                        "`bao write {mount}/keys/{name}/config min_encryption_version={version}` allows it"
                    )
                } else {
                    format!("HTTP {}, see its own log", answer.status)
                };
                let message = format!("it refused to encrypt with {:?}: {why}", self.name(version));
                self.calls.error(CryptoErrorKind::Internal, message)
            };
            return Err(self.explain(answer.status, &operation, otherwise).await);
        }
        let Encrypted { ciphertext } = self.http.parse::<Answered<Encrypted>>(&answer)?.data;
        let encoded = ciphertext.strip_prefix(&format!("vault:v{version}:"));
        let sealed = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
        let sealed = sealed.filter(|sealed| sealed.len() == SEALED).ok_or_else(|| self.http.garbage())?;
        Ok([&[FORMAT], &sealed[..]].concat())
    }

    async fn decrypt(
        &self,
        version: u64,
        binding: &KeyBinding<'_>,
        sealed: &[u8],
    ) -> Result<DataKeyMaterial, CryptoError> {
        let path = format!("{}/decrypt/{}", self.mount, self.key);
        let ciphertext = format!("vault:v{version}:{}", BASE64_STANDARD.encode(sealed));
        let associated_data = BASE64_STANDARD.encode(binding.encode().as_bytes());
        let body = Decrypt { ciphertext: &ciphertext, associated_data: &associated_data };
        let answer = self.send(Method::POST, &path, Some(&body)).await?;
        if !answer.is_success() {
            let operation = Operation { path: &path, version: Some(version), capability: "update" };
            let otherwise = |_: &Key| {
                let remedy = "restore it from a backup of the server";
                let message = does_not_open(binding.data_key, &self.name(version), remedy);
                self.calls.error(CryptoErrorKind::Refused, message)
            };
            return Err(self.explain(answer.status, &operation, otherwise).await);
        }
        let Decrypted { plaintext } = self.http.parse::<Answered<Decrypted<'_>>>(&answer)?.data;
        // A byte more than is wanted, so that what is too long shows.
        let mut key = Zeroizing::new([0; KEY + 1]);
        if let Ok(KEY) = BASE64_STANDARD.decode_slice(plaintext.as_bytes(), &mut key[..]) {
            return Ok(DataKeyMaterial::from_bytes(std::array::from_fn(|index| key[index])));
        }
        let message = no_data_key(binding.data_key, &self.name(version), "it does not hold 32 bytes");
        Err(self.calls.error(CryptoErrorKind::Malformed, message))
    }

    async fn rotate(&self) -> Result<(), CryptoError> {
        let path = format!("{}/keys/{}/rotate", self.mount, self.key);
        let answer = self.send(Method::POST, &path, None::<&()>).await?;
        if answer.is_success() {
            return Ok(());
        }
        let operation = Operation { path: &path, version: None, capability: "update" };
        let otherwise = |_: &Key| {
            let message = format!("it refused to rotate the key (HTTP {})", answer.status);
            self.calls.error(CryptoErrorKind::Internal, message)
        };
        Err(self.explain(answer.status, &operation, otherwise).await)
    }
}

#[async_trait]
impl KeyEncryption for OpenBaoKeys {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        let key = self.calls.repeatable(|| self.read_key()).await.map_err(|error| match error.kind() {
            // Asked for no key in particular, so that this is a fault of the set-up.
            CryptoErrorKind::UnknownKey => CryptoError::new(CryptoErrorKind::Internal, error.to_string()),
            _ => error,
        })?;
        let available = key.versions().into_iter().map(|version| self.name(version)).collect();
        Ok(KekStatus { newest: self.name(key.latest_version), available })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        // Not repeated: an answer that was lost may have left a version behind.
        self.calls.once(|| self.rotate()).await?;
        self.status().await.map(|status| status.newest)
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let version = self.version(kek)?;
        let bytes = self.calls.repeatable(|| self.encrypt(version, binding, key)).await?;
        Ok(WrappedKey { kek: kek.to_owned(), bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let version = self.version(&wrapped.kek)?;
        let malformed = |what: String| {
            let message = no_data_key(binding.data_key, &wrapped.kek, what);
            Err(self.calls.error(CryptoErrorKind::Malformed, message))
        };
        let sealed = match wrapped.bytes.split_first() {
            Some((&FORMAT, sealed)) if sealed.len() == SEALED => sealed,
            Some((&FORMAT, sealed)) => return malformed(format!("{} bytes are not {SEALED}", sealed.len())),
            Some((format, _)) => return malformed(format!("unknown wrapped-key format {format}")),
            None => return malformed("it is empty".to_owned()),
        };
        self.calls.repeatable(|| self.decrypt(version, binding, sealed)).await
    }
}

impl fmt::Debug for OpenBaoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBaoKeys").field("calls", &self.calls).finish_non_exhaustive()
    }
}
