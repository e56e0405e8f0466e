//! The keys of one label in an HSM: finding, making and using them. Everything here blocks.

use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use tokenward_crypto::{CryptoError, CryptoErrorKind, does_not_open, no_data_key};
use zeroize::Zeroizing;

use crate::errors::{is_refusal, may_be_refusal};
use crate::hsm::Hsm;

/// The word that selects this backend, and the prefix of its keys' names.
pub(crate) const KIND: &str = "pkcs11";

const NONCE: usize = 12;
const KEY: usize = 32;
const TAG: usize = 16;
const TAG_BITS: u64 = 128;
/// Nonce, data key and tag.
pub(crate) const SEALED: usize = NONCE + KEY + TAG;

/// What each key is asked before it is used.
const ASKED: [AttributeType; 5] = [
    AttributeType::Id,
    AttributeType::Extractable,
    AttributeType::ValueLen,
    AttributeType::Encrypt,
    AttributeType::Decrypt,
];

/// A data key in the clear.
pub(crate) type Plain = Zeroizing<[u8; KEY]>;

/// All keys of one label.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) hsm: Arc<Hsm>,
    pub(crate) label: String,
}

impl Keys {
    pub(crate) fn name(&self, version: u64) -> String {
        format!("{KIND}:{}:{version}", self.label)
    }

    /// The version that a key's name ends with.
    pub(crate) fn version(&self, kek: &str) -> Result<u64, CryptoError> {
        let version = kek.rsplit_once(':').and_then(|(_, version)| version.parse().ok());
        version.filter(|version| *version > 0 && self.name(*version) == kek).ok_or_else(|| {
            let ours = format!("{KIND}:{}:VERSION", self.label);
            let message = format!(
                "encryption key {kek:?} is not of this backend, whose keys are {ours}. Set key_label to the label that \
                 it has; a key of another backend needs that one as [encryption.previous]"
            );
            self.hsm.say(CryptoErrorKind::UnknownKey, message)
        })
    }

    /// All versions in ascending order; there is at least one.
    pub(crate) fn versions(&self) -> Result<Vec<u64>, CryptoError> {
        self.hsm.with_session(|session| {
            let found = self.list(session)?;
            if found.is_empty() {
                Err(self.none())
            } else {
                Ok(found.iter().map(|(version, _)| *version).collect())
            }
        })
    }

    fn none(&self) -> CryptoError {
        let message = format!(
            "the token has no AES key with the label {:?}. Restore it from the HSM's backup; for a new installation \
             `pkcs11-tool --login --keygen --key-type AES:32 --sensitive --id 01 --label {}` makes one",
            self.label, self.label
        );
        self.hsm.say(CryptoErrorKind::Internal, message)
    }

    fn list(&self, session: &Session) -> Result<Vec<(u64, ObjectHandle)>, CryptoError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(self.label.clone().into_bytes()),
        ];
        let failed = |error| self.hsm.error(&error);
        let mut found: Vec<(u64, ObjectHandle)> = Vec::new();
        for handle in session.find_objects(&template).map_err(failed)? {
            let version = self.check(&session.get_attributes(handle, &ASKED).map_err(failed)?)?;
            if found.iter().any(|(other, _)| *other == version) {
                let message =
                    format!("two keys are {:?}: remove the one that wraps nothing", self.name(version));
                return Err(self.hsm.say(CryptoErrorKind::Internal, message));
            }
            found.push((version, handle));
        }
        found.sort_unstable_by_key(|(version, _)| *version);
        Ok(found)
    }

    /// The version of a key, by what it says of itself, if it serves.
    fn check(&self, attributes: &[Attribute]) -> Result<u64, CryptoError> {
        let label = &self.label;
        let refuse = |message: String| Err(self.hsm.say(CryptoErrorKind::Internal, message));
        if attributes.contains(&Attribute::Extractable(true)) {
            return refuse(format!(
                "a key with the label {label:?} can leave the HSM (CKA_EXTRACTABLE): remove it and make another"
            ));
        }
        let id = attributes.iter().find_map(|attribute| match attribute {
            Attribute::Id(id) => parse_id(id),
            _ => None,
        });
        let Some(version) = id else {
            return refuse(format!(
                "a key with the label {label:?} has a CKA_ID that is no version: it must be a number from 1, as one to \
                 eight bytes without a leading zero byte"
            ));
        };
        let remedy = format!(
            "remove it, or give it another label, and make one by `pkcs11-tool --login --keygen --key-type AES:32 \
             --sensitive --id {} --label {label}`",
            shown_id(version)
        );
        // HSMs encrypt with shorter keys as well, and say nothing.
        if !attributes.contains(&Attribute::ValueLen(32.into())) {
            let length = attributes.iter().find_map(|attribute| match attribute {
                Attribute::ValueLen(length) => Some(length.to_string()),
                _ => None,
            });
            return refuse(format!(
                "the key {:?} must have 32 bytes, but its CKA_VALUE_LEN is {}: {remedy}",
                self.name(version),
                length.unwrap_or_else(|| "not told".to_owned())
            ));
        }
        for (forbidden, what) in
            [(Attribute::Encrypt(false), "CKA_ENCRYPT"), (Attribute::Decrypt(false), "CKA_DECRYPT")]
        {
            if attributes.contains(&forbidden) {
                return refuse(format!("the key {:?} does not allow {what}: {remedy}", self.name(version)));
            }
        }
        Ok(version)
    }

    fn find(&self, session: &Session, version: u64) -> Result<ObjectHandle, CryptoError> {
        let found = self.list(session)?;
        found.iter().find(|(other, _)| *other == version).map(|(_, handle)| *handle).ok_or_else(|| {
            let there_are: Vec<_> = found.iter().map(|(version, _)| self.name(*version)).collect();
            let message = format!(
                "encryption key {:?} is not in the HSM; there are: {}. Restore it from the HSM's backup",
                self.name(version),
                if there_are.is_empty() { "none".to_owned() } else { there_are.join(", ") }
            );
            self.hsm.say(CryptoErrorKind::UnknownKey, message)
        })
    }

    /// Makes a key in the HSM with the next version.
    pub(crate) fn create(&self) -> Result<u64, CryptoError> {
        self.hsm.with_writing_session(|session| {
            let version = self.list(session)?.last().map_or(1, |(newest, _)| newest + 1);
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::AES),
                Attribute::ValueLen(32.into()),
                Attribute::Label(self.label.clone().into_bytes()),
                Attribute::Id(format_id(version)),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
                Attribute::Sign(false),
                Attribute::Verify(false),
                Attribute::Derive(false),
            ];
            let failed = |error| self.hsm.error(&error);
            let made = session.generate_key(&Mechanism::AesKeyGen, &template).map_err(failed)?;
            // Two servers that make one at once both take the same number; nothing has used either of them yet.
            if let Err(error) = self.list(session) {
                session.destroy_object(made).map_err(failed)?;
                return Err(error);
            }
            Ok(version)
        })
    }

    /// Nonce, ciphertext and tag.
    pub(crate) fn seal(&self, version: u64, aad: &[u8], key: &Plain) -> Result<Vec<u8>, CryptoError> {
        self.hsm.with_session(|session| {
            let handle = self.find(session, version)?;
            self.encrypt(session, handle, aad, &key[..])
        })
    }

    fn encrypt(
        &self,
        session: &Session,
        handle: ObjectHandle,
        aad: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| {
            self.hsm.say(CryptoErrorKind::Unavailable, "the operating system's random generator failed")
        })?;
        let failed = |error| self.hsm.error(&error);
        let params = GcmParams::new(&mut nonce, aad, tag_bits()).map_err(failed)?;
        let sealed = session.encrypt(&Mechanism::AesGcm(params), handle, plain).map_err(failed)?;
        if sealed.len() != plain.len() + TAG {
            let message = format!(
                "the HSM made {} bytes of {}: its tags are of another length",
                sealed.len(),
                plain.len()
            );
            return Err(self.hsm.say(CryptoErrorKind::Internal, message));
        }
        // An HSM that chooses nonces itself has put its own there.
        Ok([&nonce[..], &sealed[..]].concat())
    }

    /// The data key. `data_key` is its identifier, for messages.
    pub(crate) fn open(
        &self,
        version: u64,
        aad: &[u8],
        sealed: &[u8; SEALED],
        data_key: i32,
    ) -> Result<Plain, CryptoError> {
        self.hsm.with_session(|session| {
            let handle = self.find(session, version)?;
            let refused = || {
                let message =
                    does_not_open(data_key, &self.name(version), "restore it from the HSM's backup");
                self.hsm.say(CryptoErrorKind::Refused, message)
            };
            let plain = match self.decrypt(session, handle, aad, sealed) {
                Ok(plain) => plain,
                Err(error) if is_refusal(&error) => return Err(refused()),
                // Where the code does not tell, what the same key does with a block of ours tells.
                Err(error) if may_be_refusal(&error) => {
                    let control = self.encrypt(session, handle, b"control", &[0; KEY])?;
                    let control = control.try_into().map_err(|_| self.hsm.error(&error))?;
                    return match self.decrypt(session, handle, b"control", &control) {
                        Ok(_) => Err(refused()),
                        Err(error) => Err(self.hsm.error(&error)),
                    };
                }
                Err(error) => return Err(self.hsm.error(&error)),
            };
            let key: &[u8; KEY] = plain.as_slice().try_into().map_err(|_| {
                let message = no_data_key(data_key, &self.name(version), "it does not hold 32 bytes");
                self.hsm.say(CryptoErrorKind::Malformed, message)
            })?;
            Ok(Zeroizing::new(*key))
        })
    }

    #[expect(clippy::unused_self, reason = "the counterpart of encrypt")]
    fn decrypt(
        &self,
        session: &Session,
        handle: ObjectHandle,
        aad: &[u8],
        sealed: &[u8; SEALED],
    ) -> Result<Zeroizing<Vec<u8>>, cryptoki::error::Error> {
        let (nonce, ciphertext) = sealed.split_at(NONCE);
        let mut nonce = nonce.to_vec();
        let params = GcmParams::new(&mut nonce, aad, tag_bits())?;
        session.decrypt(&Mechanism::AesGcm(params), handle, ciphertext).map(Zeroizing::new)
    }
}

fn tag_bits() -> cryptoki::types::Ulong {
    TAG_BITS.into()
}

/// A version as `CKA_ID`: big-endian, without leading zero bytes.
fn format_id(version: u64) -> Vec<u8> {
    version.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// It as pkcs11-tool takes it.
fn shown_id(version: u64) -> String {
    format_id(version).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn parse_id(id: &[u8]) -> Option<u64> {
    let well_formed = (1..=8).contains(&id.len()) && id[0] != 0;
    well_formed.then(|| id.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_number_that_its_id_is() {
        for (id, version) in
            [(&[1][..], 1), (&[255], 255), (&[1, 0], 256), (&[1, 0, 0, 0, 0, 0, 0, 0], 1 << 56)]
        {
            assert_eq!(parse_id(id), Some(version));
            assert_eq!(format_id(version), id);
        }
        assert_eq!([shown_id(1), shown_id(255), shown_id(256)], ["01", "ff", "0100"]);
        for id in [&[][..], &[0], &[0, 1], &[1; 9]] {
            assert_eq!(parse_id(id), None, "{id:?}");
        }
    }
}
