use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, RemoteCalls,
    WrappedKey, no_data_key,
};

use crate::keys::{KIND, Keys};

const FORMAT: u8 = 1;
/// The longest ciphertext that `Decrypt` takes, in bytes.
const MAX_SEALED: usize = 6144;

/// Keys of AWS KMS.
pub(crate) struct AwsKmsKeys {
    keys: Keys,
    calls: Arc<RemoteCalls>,
}

impl AwsKmsKeys {
    pub(crate) fn new(keys: Keys, calls: Arc<RemoteCalls>) -> Self {
        Self { keys, calls }
    }
}

#[async_trait]
impl KeyEncryption for AwsKmsKeys {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        let arns = self.calls.repeatable(|| self.keys.look()).await?;
        let available: Vec<_> = arns.iter().map(|arn| format!("{KIND}:{arn}")).collect();
        let newest = available.last().cloned().unwrap_or_default();
        Ok(KekStatus { newest, available })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        let message = "AWS KMS replaces a key's material by itself and keeps the old. To have another key: make one \
                       with `aws kms create-key`, and put it last in key_ids, or point the alias that is last there at \
                       it and an earlier alias at the former key";
        Err(self.calls.error(CryptoErrorKind::Unsupported, message))
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let attempt = || async {
            let arn = self.keys.arn(kek).await?;
            self.keys.encrypt(arn, binding, key.expose()).await
        };
        let sealed = self.calls.repeatable(attempt).await?;
        Ok(WrappedKey { kek: kek.to_owned(), bytes: [&[FORMAT], &sealed[..]].concat() })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let malformed = |what: String| {
            let message = no_data_key(binding.data_key, &wrapped.kek, what);
            self.calls.error(CryptoErrorKind::Malformed, message)
        };
        let sealed = match wrapped.bytes.split_first() {
            Some((&FORMAT, sealed)) if (1..=MAX_SEALED).contains(&sealed.len()) => sealed,
            Some((&FORMAT, sealed)) => {
                return Err(malformed(format!("{} bytes are no ciphertext", sealed.len())));
            }
            Some((format, _)) => return Err(malformed(format!("unknown wrapped-key format {format}"))),
            None => return Err(malformed("it is empty".to_owned())),
        };
        let attempt = || async {
            let arn = self.keys.arn(&wrapped.kek).await?;
            self.keys.decrypt(arn, binding, sealed).await
        };
        let plain = self.calls.repeatable(attempt).await?;
        let key: &[u8; 32] =
            plain.as_slice().try_into().map_err(|_| malformed("it does not hold 32 bytes".to_owned()))?;
        Ok(DataKeyMaterial::from_bytes(*key))
    }
}

impl fmt::Debug for AwsKmsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKmsKeys").field("calls", &self.calls).finish_non_exhaustive()
    }
}
