use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokenward_crypto::{
    Aad, Aead, CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption,
    WrappedKey,
};

use crate::config::KeyFile;
use crate::keyring::Keyring;

/// The word that selects this backend, and the prefix of its keys' names.
pub(crate) const KIND: &str = "local";

const FORMAT: u8 = 1;

/// A keyring in memory, and the file that it came from.
#[derive(Debug)]
pub(crate) struct LocalKeys {
    keyring: RwLock<Arc<Keyring>>,
    file: Option<KeyFile>,
}

impl LocalKeys {
    pub(crate) fn new(keyring: Keyring, file: Option<KeyFile>) -> Self {
        Self { keyring: RwLock::new(Arc::new(keyring)), file }
    }

    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    /// Takes what stands in the file now. What is wrong there leaves the keys as they were.
    fn reload(&self) -> Result<(), CryptoError> {
        let Some(file) = &self.file else { return Ok(()) };
        let internal = |message: String| CryptoError::new(CryptoErrorKind::Internal, message);
        let found = file.read().map_err(|problems| {
            internal(format!("the keyring cannot be read any more, and stays as it was: {problems}"))
        })?;
        let mut keyring = self.keyring.write();
        if let Some(version) = found.changed_since(&keyring) {
            let shown = file.path().display();
            return Err(internal(format!(
                "{shown} has another key as version {version} than before: put the former line back, and give a new key a \
                 new version; the keys stay as they were"
            )));
        }
        *keyring = Arc::new(found);
        Ok(())
    }
}

fn key<'a>(keyring: &'a Keyring, kek: &str) -> Result<&'a Aead, CryptoError> {
    version(kek).and_then(|version| keyring.get(version)).ok_or_else(|| {
        let there_are = names(keyring).join(", ");
        let message = format!("encryption key {kek:?} is not in the keyring; it has {there_are}");
        CryptoError::new(CryptoErrorKind::UnknownKey, message)
    })
}

fn names(keyring: &Keyring) -> Vec<String> {
    keyring.versions().map(name).collect()
}

fn name(version: u32) -> String {
    format!("{KIND}:{version}")
}

/// The version that [`name`] names so.
fn version(kek: &str) -> Option<u32> {
    let digits = kek.strip_prefix(KIND)?.strip_prefix(':')?;
    // Numbers can be read in other forms as well.
    let is_usual = digits.starts_with(|first| matches!(first, '1'..='9'));
    digits.parse().ok().filter(|_| is_usual)
}

fn aad(binding: &KeyBinding<'_>, kek: &str) -> Aad {
    binding.encode().field(&[FORMAT]).field(kek.as_bytes())
}

#[async_trait]
impl KeyEncryption for LocalKeys {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        self.reload()?;
        let keyring = self.keyring();
        Ok(KekStatus { newest: name(keyring.newest()), available: names(&keyring) })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        let next = self.keyring().versions().max().map_or(1, |version| version.saturating_add(1));
        let generate = format!("tokenward key generate --version {next}");
        let message = match &self.file {
            Some(file) => format!(
                "the keyring is the operator's: add a key on every host with `{generate} >> {}`, and rotate again",
                file.path().display()
            ),
            None => format!(
                "the keyring is the operator's: add the line that `{generate}` prints to the option `key` of every server, \
                 restart them, and rotate again"
            ),
        };
        Err(CryptoError::new(CryptoErrorKind::Unsupported, message))
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let keyring = self.keyring();
        let bytes = self::key(&keyring, kek)?.seal(&[FORMAT], &aad(binding, kek), key.expose());
        Ok(WrappedKey { kek: kek.to_owned(), bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let keyring = self.keyring();
        let key = key(&keyring, &wrapped.kek)?;
        let malformed = |message: &str| CryptoError::new(CryptoErrorKind::Malformed, message);
        let body = match wrapped.bytes.split_first() {
            Some((&FORMAT, body)) => body,
            Some((format, _)) => return Err(malformed(&format!("unknown wrapped-key format {format}"))),
            None => return Err(malformed("the wrapped key is empty")),
        };
        let plain = key.open(body, &aad(binding, &wrapped.kek)).map_err(|error| {
            let message =
                format!("data key {} does not open with {}: {error}", binding.data_key, wrapped.kek);
            CryptoError::new(error.kind(), message)
        })?;
        let bytes: [u8; 32] =
            plain.as_slice().try_into().map_err(|_| malformed("a wrapped key does not hold 32 bytes"))?;
        Ok(DataKeyMaterial::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: KeyBinding<'_> = KeyBinding { installation: "inst-1", scope: "acme", data_key: 7 };

    // Key bytes 00 to 1f as version 3.
    fn backend() -> LocalKeys {
        let line = "3:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        LocalKeys::new(crate::keyring::parse(line).expect("the line is well-formed"), None)
    }

    // Computed by another implementation (OpenSSL through Python's `cryptography`): nonce a0 to ab, data key 32 times 5a.
    const GOLDEN: &str = concat!(
        "01",
        "a0a1a2a3a4a5a6a7a8a9aaab",
        "bc4226771f9158e5383fdd895d209a842af6034ac8ed1836c6547cdc25f12f5b",
        "cfed69bf316716dedbbe8c723be27c43"
    );

    fn golden() -> WrappedKey {
        let byte = |pair: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")
        };
        WrappedKey { kek: "local:3".into(), bytes: GOLDEN.as_bytes().chunks(2).map(byte).collect() }
    }

    #[tokio::test]
    async fn the_format_of_a_wrapped_key_is_the_documented_one() {
        let key = backend().unwrap(&BINDING, &golden()).await.expect("it opens");
        assert_eq!(key.expose(), &[0x5a; 32]);
    }

    #[tokio::test]
    async fn an_unknown_format_is_malformed_and_named() {
        let mut wrapped = golden();
        wrapped.bytes[0] = 9;
        let error = backend().unwrap(&BINDING, &wrapped).await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::Malformed);
        assert!(error.to_string().contains("format 9"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_key_is_named_with_those_that_there_are() {
        for kek in ["local:4", "local:03", "local:+3", "openbao:3", "local", "3", ""] {
            let wrapped = WrappedKey { kek: kek.into(), ..golden() };
            let error = backend().unwrap(&BINDING, &wrapped).await.unwrap_err();
            assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
            assert_eq!(
                error.to_string(),
                format!("encryption key {kek:?} is not in the keyring; it has local:3")
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_names_data_key_and_encryption_key() {
        let other = KeyBinding { scope: "other", ..BINDING };
        let error = backend().unwrap(&other, &golden()).await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::Refused);
        assert!(error.to_string().starts_with("data key 7 does not open with local:3: "), "{error}");
    }

    #[tokio::test]
    async fn only_the_operator_makes_a_version_and_the_message_says_how() {
        let error = backend().create_version().await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::Unsupported);
        assert!(error.to_string().contains("`tokenward key generate --version 4`"), "{error}");
    }
}
