//! A backend that is careless in one way at a time: each carelessness must turn its case red, and none turns none red.

use std::future::{Ready, ready};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokenward_crypto::{
    Aad, Aead, CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption,
    WrappedKey, does_not_open, no_data_key,
};

use super::{KeyEncryptionFixture, Remedies, cases};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Careless {
    Nowhere,
    /// Wraps without encryption.
    Plain,
    /// Binds nothing.
    Binding,
    /// Puts the fields of the binding together without their lengths.
    Lengths,
    /// Reads no further than it needs to.
    Extension,
    /// Forgets the old key in a rotation.
    Rotation,
    /// Calls the old key the newest one after a rotation.
    StillOld,
    /// Wraps with the newest key, whichever was named.
    Named,
    /// Knows only the keys that there were when it was opened.
    Stale,
    /// Says that it made a version, and made none.
    Created,
    /// Says of no version how to make one.
    Speechless,
    /// Keeps a removed key.
    Removal,
    /// Calls every failure an unknown key.
    Kinds,
    /// Says of no error which backend it is from.
    Nameless,
    /// Says of no error which key it concerns.
    Keyless,
    /// Says of no error what to do.
    Helpless,
    /// Lists the newest key alone.
    Status,
    /// Leaves its kind out of its keys' names.
    Prefix,
    /// Prints its keys.
    Debug,
    /// Has keys that are lost with the process.
    Restart,
}

/// Versions and their keys, the newest last.
type Ring = Vec<(u32, [u8; 32])>;

struct Keys {
    careless: Careless,
    ring: Arc<Mutex<Ring>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.careless {
            Careless::Debug => write!(f, "Keys({:?})", self.ring()),
            _ => f.write_str("Keys"),
        }
    }
}

const HEADER: &[u8] = &[1];

impl Keys {
    fn ring(&self) -> Ring {
        self.ring.lock().clone()
    }

    fn newest(&self) -> String {
        let ring = self.ring();
        let newest = if self.careless == Careless::StillOld { ring.first() } else { ring.last() };
        self.name(newest.map_or(0, |(version, _)| *version))
    }

    fn name(&self, version: u32) -> String {
        if self.careless == Careless::Prefix { version.to_string() } else { format!("fake:{version}") }
    }

    fn aad(&self, binding: &KeyBinding<'_>) -> Aad {
        match self.careless {
            Careless::Binding => Aad::new(),
            Careless::Lengths => Aad::new()
                .field(format!("{}{}{}", binding.installation, binding.scope, binding.data_key).as_bytes()),
            _ => binding.encode(),
        }
    }

    fn find(&self, kek: &str) -> Result<Aead, CryptoError> {
        let ring = self.ring();
        let found = ring.iter().find(|(version, _)| self.name(*version) == kek);
        found
            .map(|(_, bytes)| Aead::new(&DataKeyMaterial::from_bytes(*bytes)))
            .ok_or_else(|| self.unknown(kek))
    }

    fn unknown(&self, kek: &str) -> CryptoError {
        self.error(CryptoErrorKind::UnknownKey, kek, format!("no key {kek}. Find it"), "no key")
    }

    /// `brief` is what a backend that is of no help says of it.
    fn error(&self, kind: CryptoErrorKind, kek: &str, message: String, brief: &str) -> CryptoError {
        let message = match self.careless {
            Careless::Nameless => message,
            Careless::Keyless => format!("fake: {}", message.replace(kek, "it")),
            Careless::Helpless => format!("fake: {kek}: {brief}"),
            _ => format!("fake: {message}"),
        };
        CryptoError::new(kind, message)
    }
}

#[async_trait]
impl KeyEncryption for Keys {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        let newest = self.newest();
        let available = match self.careless {
            Careless::Status => vec![newest.clone()],
            _ => self.ring().iter().map(|(version, _)| self.name(*version)).collect(),
        };
        Ok(KekStatus { newest, available })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        let next = u32::try_from(self.ring().len()).map_or(1, |count| count + 1);
        match self.careless {
            Careless::Speechless => return Err(CryptoError::new(CryptoErrorKind::Internal, "no")),
            Careless::Created => {}
            _ => self.ring.lock().push((next, [0xc0; 32])),
        }
        Ok(self.name(next))
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        let kek = if self.careless == Careless::Named { self.newest() } else { kek.to_owned() };
        let aead = self.find(&kek)?;
        let bytes = match self.careless {
            Careless::Plain => key.expose().to_vec(),
            _ => aead.seal(HEADER, &self.aad(binding), key.expose()),
        };
        Ok(WrappedKey { kek, bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let (data_key, kek) = (binding.data_key, wrapped.kek.as_str());
        let malformed = || {
            let message = no_data_key(data_key, kek, "it is malformed");
            self.error(CryptoErrorKind::Malformed, kek, message, "malformed")
        };
        let key = self.find(kek)?;
        let mut bytes = &wrapped.bytes[..];
        if self.careless == Careless::Plain {
            let mut key = [0; 32];
            key.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            return Ok(DataKeyMaterial::from_bytes(key));
        }
        if self.careless == Careless::Extension {
            bytes = &bytes[..bytes.len().min(61)];
        }
        let body = bytes.strip_prefix(HEADER).ok_or_else(malformed)?;
        let plain = key.open(body, &self.aad(binding)).map_err(|error| match error.kind() {
            _ if self.careless == Careless::Kinds => self.unknown(kek),
            CryptoErrorKind::Refused => {
                let message = does_not_open(data_key, kek, "find the former");
                self.error(CryptoErrorKind::Refused, kek, message, "refused")
            }
            _ => malformed(),
        })?;
        Ok(DataKeyMaterial::from_bytes(plain.as_slice().try_into().map_err(|_| malformed())?))
    }
}

struct Fixture {
    careless: Careless,
    ring: Arc<Mutex<Ring>>,
}

impl Fixture {
    fn new(careless: Careless) -> Self {
        Self { careless, ring: Arc::default() }
    }

    /// What the backend itself holds becomes these keys.
    fn keys(&self, keys: &[(u32, u8)]) -> Arc<dyn KeyEncryption> {
        let keys: Ring = keys.iter().map(|(version, byte)| (*version, [*byte; 32])).collect();
        let ring = if self.careless == Careless::Stale {
            Arc::new(Mutex::new(keys))
        } else {
            *self.ring.lock() = keys;
            Arc::clone(&self.ring)
        };
        Arc::new(Keys { careless: self.careless, ring })
    }
}

#[async_trait]
impl KeyEncryptionFixture for Fixture {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.keys(&[(1, 0xa1)])
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        self.keys(&[(1, if self.careless == Careless::Restart { 0xaf } else { 0xa1 })])
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        match self.careless {
            Careless::Rotation => self.keys(&[(2, 0xa2)]),
            _ => self.keys(&[(1, 0xa1), (2, 0xa2)]),
        }
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        match self.careless {
            Careless::Removal => self.keys(&[(1, 0xa1), (2, 0xa2)]),
            _ => self.keys(&[(2, 0xa2)]),
        }
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        self.keys(&[(1, 0xb1)])
    }

    fn remedies(&self) -> Remedies {
        Remedies { unknown: &["Find it"], wrong: "find the former" }
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        vec![vec![0xa1; 32]]
    }
}

fn careful(_: &'static str) -> Ready<Option<Fixture>> {
    ready(Some(Fixture::new(Careless::Nowhere)))
}

crate::key_encryption_conformance!(a_careful_backend, careful);

macro_rules! must_fail {
    ($($case:ident: $($careless:ident),+;)+) => {
        mod a_careless_backend_fails {
            $(
                #[tokio::test]
                async fn $case() {
                    $({
                        // In a task of its own, because the case is meant to panic.
                        let outcome = tokio::spawn(async {
                            super::cases::$case(&super::Fixture::new(super::Careless::$careless)).await;
                        });
                        let careless = stringify!($careless);
                        assert!(outcome.await.is_err(), "{careless} goes unnoticed");
                    })+
                }
            )+
        }
    };
}

must_fail! {
    another_instance_with_the_same_keys_unwraps: Restart;
    the_same_key_wrapped_twice_differs: Plain;
    a_wrapped_key_does_not_show_the_data_key: Plain;
    every_altered_byte_is_refused: Plain, Nameless, Keyless, Helpless;
    every_truncation_is_refused: Plain, Nameless, Keyless, Helpless;
    an_extension_is_refused: Plain, Extension, Nameless, Keyless, Helpless;
    another_installation_is_refused: Plain, Binding, Kinds;
    another_scope_is_refused: Plain, Binding, Kinds;
    another_data_key_id_is_refused: Plain, Binding, Kinds;
    a_boundary_between_installation_and_scope_cannot_be_shifted: Binding, Lengths;
    an_old_key_still_unwraps_after_a_rotation: Rotation;
    the_newest_key_wraps_and_unwraps: StillOld;
    the_named_key_wraps_and_not_the_newest: Named;
    a_key_that_is_not_here_does_not_wrap: Named, Nameless, Keyless, Helpless;
    status_is_asked_anew_at_each_call: Stale;
    a_created_version_is_the_newest_or_the_remedy_is_told: Created, Speechless;
    a_removed_key_is_an_unknown_key: Removal, Nameless, Keyless, Helpless;
    a_key_that_never_was_is_an_unknown_key: Nameless, Keyless, Helpless;
    another_backends_key_is_an_unknown_key: Nameless, Keyless, Helpless;
    another_key_of_the_same_name_is_refused: Plain, Kinds, Nameless, Keyless, Helpless;
    status_names_the_newest_key_and_every_available_one: Status;
    every_kek_starts_with_the_kind: Prefix;
    debug_shows_no_secret: Debug;
}
