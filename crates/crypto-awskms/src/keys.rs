use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyState, KeyUsageType};
use parking_lot::RwLock;
use tokenward_crypto::{CryptoError, CryptoErrorKind, KeyBinding, RemoteCalls, does_not_open};
use zeroize::Zeroizing;

use crate::errors::{Failure, explain};

/// The word that selects this backend, and the prefix of its keys' names.
pub(crate) const KIND: &str = "aws-kms";

/// The keys that the configuration names, as AWS has them.
pub(crate) struct Keys {
    client: Client,
    calls: Arc<RemoteCalls>,
    /// In the order of the configuration, the newest last; aliases may come to lead to other keys.
    ids: Vec<String>,
    /// ARNs of the keys that can be used, as of the last look.
    known: RwLock<Vec<String>>,
}

/// What a call was about, for messages.
struct Subject<'a> {
    action: &'static str,
    key: &'a str,
}

impl Keys {
    pub(crate) fn new(client: Client, calls: Arc<RemoteCalls>, ids: Vec<String>) -> Self {
        Self { client, calls, ids, known: RwLock::default() }
    }

    /// The ARNs of the keys that can be used, the newest last, as AWS says now.
    pub(crate) async fn look(&self) -> Result<Vec<String>, CryptoError> {
        let mut found: Vec<String> = Vec::new();
        for (index, id) in self.ids.iter().enumerate() {
            let is_newest = index + 1 == self.ids.len();
            match self.describe(id).await? {
                Ok(arn) => {
                    found.retain(|other| *other != arn);
                    found.push(arn);
                }
                // An older one may be gone for good; what it wrapped is reported where it is needed.
                Err(_) if !is_newest => {}
                Err(why) => {
                    let message = format!("key {id:?}, the last of key_ids, cannot be used: {why}");
                    return Err(self.calls.error(CryptoErrorKind::Internal, message));
                }
            }
        }
        self.known.write().clone_from(&found);
        Ok(found)
    }

    /// The key's ARN, or why it cannot be used.
    async fn describe(&self, id: &str) -> Result<Result<String, String>, CryptoError> {
        let described = match self.client.describe_key().key_id(id).send().await {
            Ok(described) => described,
            Err(error) => {
                return match explain(&error) {
                    Failure::NoKey(why) => Ok(Err(why.to_owned())),
                    failure => Err(self.error(failure, &Subject { action: "kms:DescribeKey", key: id })),
                };
            }
        };
        let Some(key) = described.key_metadata else {
            return Err(self
                .calls
                .error(CryptoErrorKind::Unavailable, "it described no key: check endpoint_url"));
        };
        let usable = key.key_usage.as_ref().is_none_or(|usage| *usage == KeyUsageType::EncryptDecrypt)
            && key.key_spec.as_ref().is_none_or(|spec| *spec == KeySpec::SymmetricDefault);
        if !usable {
            let message = format!("key {id:?} must be symmetric, for encryption and decryption");
            return Err(self.calls.error(CryptoErrorKind::Internal, message));
        }
        let Some(arn) = key.arn else {
            return Err(self.calls.error(CryptoErrorKind::Unavailable, "it gave no ARN: check endpoint_url"));
        };
        Ok(match key.key_state {
            Some(KeyState::Enabled) | None => Ok(arn),
            Some(KeyState::Disabled) => Err("it is disabled: `aws kms enable-key` brings it back".to_owned()),
            Some(KeyState::PendingDeletion) => {
                Err("it is about to be deleted: `aws kms cancel-key-deletion` and then `aws kms enable-key` bring it \
                     back"
                    .to_owned())
            }
            Some(state) => Err(format!("its state is {}", state.as_str())),
        })
    }

    /// The ARN in a key's name. Only keys that the configuration names are used: whoever can write to the database could
    /// otherwise name a key of his own.
    pub(crate) async fn arn<'a>(&self, kek: &'a str) -> Result<&'a str, CryptoError> {
        let arn = kek.strip_prefix(KIND).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
        let is_known = |known: &[String]| known.iter().any(|other| other == arn);
        if is_known(&self.known.read()) {
            return Ok(arn);
        }
        let known = self.look().await?;
        if is_known(&known) {
            return Ok(arn);
        }
        let there_are: Vec<_> = known.iter().map(|arn| format!("{KIND}:{arn}")).collect();
        let message = format!(
            "encryption key {kek:?} is not among those that can be used: {}. Add it to key_ids, or enable it; a key \
             of another backend needs that one as [encryption.previous]",
            there_are.join(", ")
        );
        Err(self.calls.error(CryptoErrorKind::UnknownKey, message))
    }

    pub(crate) async fn encrypt(
        &self,
        arn: &str,
        binding: &KeyBinding<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let mut call = self.client.encrypt().key_id(arn).plaintext(Blob::new(plain));
        for (name, value) in context(binding) {
            call = call.encryption_context(name, value);
        }
        let subject = Subject { action: "kms:Encrypt", key: arn };
        let encrypted = call.send().await.map_err(|error| self.error(explain(&error), &subject))?;
        let blob = encrypted.ciphertext_blob.map(Blob::into_inner).filter(|blob| !blob.is_empty());
        blob.ok_or_else(|| {
            self.calls.error(CryptoErrorKind::Unavailable, "it gave no ciphertext: check endpoint_url")
        })
    }

    pub(crate) async fn decrypt(
        &self,
        arn: &str,
        binding: &KeyBinding<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let subject = Subject { action: "kms:Decrypt", key: arn };
        let failure = match self.try_decrypt(arn, binding, sealed).await {
            Ok(plain) => return Ok(plain),
            Err(failure) => failure,
        };
        let refused = || {
            // Under one ARN, only material that was imported can be another.
            let message =
                does_not_open(binding.data_key, &format!("{KIND}:{arn}"), "import its former material");
            self.calls.error(CryptoErrorKind::Refused, message)
        };
        match failure {
            Failure::Refused => Err(refused()),
            // Said too of a ciphertext that names another key; what becomes of a block of ours tells.
            Failure::Denied => {
                let control = self.encrypt(arn, binding, &[0; 32]).await?;
                match self.try_decrypt(arn, binding, &control).await {
                    Ok(_) => Err(refused()),
                    Err(failure) => Err(self.error(failure, &subject)),
                }
            }
            failure => Err(self.error(failure, &subject)),
        }
    }

    async fn try_decrypt(
        &self,
        arn: &str,
        binding: &KeyBinding<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut call = self.client.decrypt().key_id(arn).ciphertext_blob(Blob::new(sealed));
        for (name, value) in context(binding) {
            call = call.encryption_context(name, value);
        }
        let decrypted = call.send().await.map_err(|error| explain(&error))?;
        Ok(Zeroizing::new(decrypted.plaintext.map(Blob::into_inner).unwrap_or_default()))
    }

    fn error(&self, failure: Failure, subject: &Subject<'_>) -> CryptoError {
        let Subject { action, key } = subject;
        let (kind, message) = match failure {
            Failure::NoKey(why) => {
                (CryptoErrorKind::UnknownKey, format!("encryption key {:?}: {why}", format!("{KIND}:{key}")))
            }
            Failure::Refused => (CryptoErrorKind::Refused, format!("key {key} refused the ciphertext")),
            Failure::Denied => (
                CryptoErrorKind::Internal,
                format!(
                    "access denied: the policy must allow {action} on key {key}, for the credentials in use"
                ),
            ),
            Failure::Other(kind, message) => (kind, message),
        };
        self.calls.error(kind, message)
    }
}

fn context(binding: &KeyBinding<'_>) -> [(&'static str, String); 3] {
    [
        ("tokenward:installation", binding.installation.to_owned()),
        ("tokenward:scope", binding.scope.to_owned()),
        ("tokenward:data-key", binding.data_key.to_string()),
    ]
}
