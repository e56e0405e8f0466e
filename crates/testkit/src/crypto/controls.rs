//! A backend that is careless in one way at a time: each carelessness must turn its case red, and none turns none red.

use std::sync::Arc;

use async_trait::async_trait;
use tokenward_crypto::{
    Aad, Aead, CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption,
    WrappedKey,
};

use super::{KeyEncryptionFixture, cases};

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
    /// Goes on wrapping with the old key.
    StillOld,
    /// Keeps a removed key.
    Removal,
    /// Calls every failure an unknown key.
    Kinds,
    /// Lists the active key alone.
    Status,
    /// Leaves its kind out of its keys' names.
    Prefix,
    /// Prints its keys.
    Debug,
    /// Has keys that are lost with the process.
    Restart,
}

struct Keys {
    careless: Careless,
    active: u32,
    ring: Vec<(u32, [u8; 32])>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.careless {
            Careless::Debug => write!(f, "Keys({:?})", self.ring),
            _ => f.write_str("Keys"),
        }
    }
}

const HEADER: &[u8] = &[1];

impl Keys {
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
        let found = self.ring.iter().find(|(version, _)| self.name(*version) == kek);
        found.map(|(_, bytes)| Aead::new(&DataKeyMaterial::from_bytes(*bytes))).ok_or_else(|| unknown(kek))
    }
}

fn unknown(kek: &str) -> CryptoError {
    CryptoError::new(CryptoErrorKind::UnknownKey, format!("unknown key {kek}"))
}

#[async_trait]
impl KeyEncryption for Keys {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        let active = self.name(self.active);
        let available = match self.careless {
            Careless::Status => vec![active.clone()],
            _ => self.ring.iter().map(|(version, _)| self.name(*version)).collect(),
        };
        Ok(KekStatus { active, available })
    }

    async fn wrap(&self, binding: &KeyBinding<'_>, key: &DataKeyMaterial) -> Result<WrappedKey, CryptoError> {
        let kek = self.name(self.active);
        let bytes = match self.careless {
            Careless::Plain => key.expose().to_vec(),
            _ => self.find(&kek)?.seal(HEADER, &self.aad(binding), key.expose()),
        };
        Ok(WrappedKey { kek, bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        let malformed = || CryptoError::new(CryptoErrorKind::Malformed, "malformed");
        let key = self.find(&wrapped.kek)?;
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
        let plain = key
            .open(body, &self.aad(binding))
            .map_err(|error| if self.careless == Careless::Kinds { unknown(&wrapped.kek) } else { error })?;
        Ok(DataKeyMaterial::from_bytes(plain.as_slice().try_into().map_err(|_| malformed())?))
    }
}

struct Fixture(Careless);

impl Fixture {
    fn keys(&self, active: u32, keys: &[(u32, u8)]) -> Arc<dyn KeyEncryption> {
        let ring = keys.iter().map(|(version, byte)| (*version, [*byte; 32])).collect();
        Arc::new(Keys { careless: self.0, active, ring })
    }
}

#[async_trait]
impl KeyEncryptionFixture for Fixture {
    async fn backend(&self) -> Arc<dyn KeyEncryption> {
        self.keys(1, &[(1, 0xa1)])
    }

    async fn reopened(&self) -> Arc<dyn KeyEncryption> {
        self.keys(1, &[(1, if self.0 == Careless::Restart { 0xaf } else { 0xa1 })])
    }

    async fn rotated(&self) -> Arc<dyn KeyEncryption> {
        match self.0 {
            Careless::Rotation => self.keys(2, &[(2, 0xa2)]),
            Careless::StillOld => self.keys(1, &[(1, 0xa1), (2, 0xa2)]),
            _ => self.keys(2, &[(1, 0xa1), (2, 0xa2)]),
        }
    }

    async fn retired(&self) -> Arc<dyn KeyEncryption> {
        match self.0 {
            Careless::Removal => self.keys(2, &[(1, 0xa1), (2, 0xa2)]),
            _ => self.keys(2, &[(2, 0xa2)]),
        }
    }

    async fn foreign(&self) -> Arc<dyn KeyEncryption> {
        self.keys(1, &[(1, 0xb1)])
    }

    fn secrets(&self) -> Vec<Vec<u8>> {
        vec![vec![0xa1; 32]]
    }
}

fn careful() -> Fixture {
    Fixture(Careless::Nowhere)
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
                            super::cases::$case(&super::Fixture(super::Careless::$careless)).await;
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
    every_altered_byte_is_refused: Plain;
    every_truncation_is_refused: Plain;
    an_extension_is_refused: Plain, Extension;
    another_installation_is_refused: Plain, Binding, Kinds;
    another_scope_is_refused: Plain, Binding, Kinds;
    another_data_key_id_is_refused: Plain, Binding, Kinds;
    a_boundary_between_installation_and_scope_cannot_be_shifted: Binding, Lengths;
    an_old_key_still_unwraps_after_a_rotation: Rotation;
    after_a_rotation_the_new_key_wraps: StillOld;
    a_removed_key_is_an_unknown_key: Removal;
    another_key_of_the_same_name_is_refused: Plain, Kinds;
    status_names_the_active_key_and_every_available_one: Status;
    every_kek_starts_with_the_kind: Prefix;
    debug_shows_no_secret: Debug;
}
