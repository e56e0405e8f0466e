use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokenward_crypto::{
    Aad, Aead, CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption,
    WrappedKey, does_not_open, no_data_key,
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

    fn key<'a>(&self, keyring: &'a Keyring, kek: &str) -> Result<&'a Aead, CryptoError> {
        version(kek).and_then(|version| keyring.get(version)).ok_or_else(|| {
            let there_are = names(keyring).join(", ");
            let message = format!(
                "encryption key {kek:?} is not in the keyring; it has {there_are}. Put its line back into {}; a key of \
                 another backend needs that one as [encryption.previous]",
                self.place()
            );
            error(CryptoErrorKind::UnknownKey, message)
        })
    }

    /// Where the operator keeps the keyring.
    fn place(&self) -> String {
        match &self.file {
            Some(file) => file.path().display().to_string(),
            None => "the option `key`".to_owned(),
        }
    }
}

fn error(kind: CryptoErrorKind, message: impl std::fmt::Display) -> CryptoError {
    CryptoError::new(kind, format!("{KIND}: {message}"))
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
        let bytes = self.key(&keyring, kek)?.seal(&[FORMAT], &aad(binding, kek), key.expose());
        Ok(WrappedKey { kek: kek.to_owned(), bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let keyring = self.keyring();
        let (data_key, kek) = (binding.data_key, wrapped.kek.as_str());
        let key = self.key(&keyring, kek)?;
        let malformed = |what: &str| error(CryptoErrorKind::Malformed, no_data_key(data_key, kek, what));
        let body = match wrapped.bytes.split_first() {
            Some((&FORMAT, body)) => body,
            Some((format, _)) => return Err(malformed(&format!("unknown wrapped-key format {format}"))),
            None => return Err(malformed("it is empty")),
        };
        let plain = key.open(body, &aad(binding, kek)).map_err(|failure| match failure.kind() {
            CryptoErrorKind::Refused => {
                let remedy = format!("put its former line back into {}", self.place());
                error(CryptoErrorKind::Refused, does_not_open(data_key, kek, remedy))
            }
            _ => malformed(&failure.to_string()),
        })?;
        let bytes: &[u8; 32] =
            plain.as_slice().try_into().map_err(|_| malformed("it does not hold 32 bytes"))?;
        Ok(DataKeyMaterial::from_bytes(*bytes))
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
                format!(
                    "local: encryption key {kek:?} is not in the keyring; it has local:3. Put its line back into the \
                     option `key`; a key of another backend needs that one as [encryption.previous]"
                )
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_names_data_key_and_encryption_key() {
        let other = KeyBinding { scope: "other", ..BINDING };
        let error = backend().unwrap(&other, &golden()).await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::Refused);
        assert!(error.to_string().starts_with("local: data key 7 does not open with local:3: "), "{error}");
    }

    #[tokio::test]
    async fn a_data_key_of_another_length_is_malformed_with_the_remedy() {
        let backend = backend();
        for length in [0, 16, 31, 33] {
            let aead = Arc::clone(&backend.keyring());
            let aead = aead.get(3).expect("it is there");
            let bytes = aead.seal(&[FORMAT], &aad(&BINDING, "local:3"), &vec![0x5a; length]);
            let wrapped = WrappedKey { kek: "local:3".into(), bytes };
            let error = backend.unwrap(&BINDING, &wrapped).await.unwrap_err();
            assert_eq!(error.kind(), CryptoErrorKind::Malformed);
            assert_eq!(
                error.to_string(),
                "local: data key 7, wrapped by local:3, cannot be unwrapped: it does not hold 32 bytes. Restore the data \
                 key's row from a backup of the database"
            );
        }
    }

    #[tokio::test]
    async fn only_the_operator_makes_a_version_and_the_message_says_how() {
        let error = backend().create_version().await.unwrap_err();
        assert_eq!(error.kind(), CryptoErrorKind::Unsupported);
        assert!(error.to_string().contains("`tokenward key generate --version 4`"), "{error}");
    }
}
