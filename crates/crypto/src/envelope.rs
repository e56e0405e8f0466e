use std::fmt;

use tokenward_types::Sealed;
use zeroize::Zeroizing;

use crate::aead::{NONCE, TAG};
use crate::{Aad, Aead, CryptoError, CryptoErrorKind, DataKeyMaterial};

/// The scope of what belongs to no tenant, such as client secrets. No tenant identifier starts with an underscore.
pub const INSTALLATION_SCOPE: &str = "_installation";

/// How many seals one data key may make before it must be replaced. Random 96-bit nonces allow 2^32 (NIST SP 800-38D,
/// section 8.3); a quarter of that leaves room for seals that were made but not yet counted.
pub const MAX_SEALS: i64 = 1 << 30;

const FORMAT: u8 = 1;
const HEADER: usize = 5;

/// What a ciphertext is bound to: it opens only under exactly these values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// The installation's identifier.
    pub installation: &'a str,
    /// A tenant's identifier or [`INSTALLATION_SCOPE`].
    pub scope: &'a str,
    /// The kind of record, such as `connection`.
    pub kind: &'a str,
    /// The record's identifier within the scope.
    pub record: &'a str,
    /// The field's name, such as `refresh_token`.
    pub field: &'a str,
    /// For fields that are replaced in place: a number that grows with each replacement, stored beside the ciphertext.
    pub fence: Option<i64>,
}

impl SealContext<'_> {
    fn aad(&self, header: [u8; HEADER]) -> Aad {
        let fence = self.fence.map(i64::to_be_bytes);
        Aad::new()
            .field(&header)
            .field(self.installation.as_bytes())
            .field(self.scope.as_bytes())
            .field(self.kind.as_bytes())
            .field(self.record.as_bytes())
            .field(self.field.as_bytes())
            .field(fence.as_ref().map_or(&[], |bytes| &bytes[..]))
    }
}

/// A data key that is ready for use. Share it by `Arc`; it is wiped on drop.
pub struct DataKey {
    id: i32,
    key: Key,
}

enum Key {
    Plain(DataKeyMaterial),
    /// Takes fifty times the memory, and half a microsecond to make.
    Schedule(Box<Aead>),
}

impl DataKey {
    /// The data key with this identifier and these bytes, to be kept: of many such keys few are used often, and each is small.
    pub fn new(id: i32, material: &DataKeyMaterial) -> Self {
        Self { id, key: Key::Plain(DataKeyMaterial::from_bytes(*material.expose())) }
    }

    /// The same, to be used several times soon and not kept: what else each use begins with is done at once.
    pub fn prepared(id: i32, material: &DataKeyMaterial) -> Self {
        Self { id, key: Key::Schedule(Box::new(Aead::new(material))) }
    }

    /// Its identifier, unique within its scope.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Seals `plaintext`, which may be empty. No two results are the same. Callers count seals: see [`MAX_SEALS`].
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Sealed {
        let header = self.header();
        self.with_aead(|aead| aead.seal(&header, &context.aad(header), plaintext)).into()
    }

    /// Opens what [`DataKey::seal`] gave for the same context.
    ///
    /// # Errors
    /// `Malformed` for bytes that are no envelope, `UnknownKey` for one of another data key, `Refused` when the context,
    /// the key or the ciphertext is not the one that was sealed.
    pub fn open(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (id, body) = parse(sealed)?;
        if id != self.id {
            let message = format!("sealed under data key {id}, not under data key {}", self.id);
            return Err(CryptoError::new(CryptoErrorKind::UnknownKey, message));
        }
        self.with_aead(|aead| aead.open(body, &context.aad(self.header())))
    }

    fn with_aead<T>(&self, use_it: impl FnOnce(&Aead) -> T) -> T {
        match &self.key {
            Key::Plain(material) => use_it(&Aead::new(material)),
            Key::Schedule(aead) => use_it(aead),
        }
    }

    fn header(&self) -> [u8; HEADER] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [FORMAT, a, b, c, d]
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The identifier of the data key that sealed this, read from the header; nothing is authenticated yet.
///
/// # Errors
/// `Malformed` for bytes that are no envelope.
pub fn data_key_id(sealed: &Sealed) -> Result<i32, CryptoError> {
    parse(sealed).map(|(id, _)| id)
}

fn parse(sealed: &Sealed) -> Result<(i32, &[u8]), CryptoError> {
    let malformed = |message: String| CryptoError::new(CryptoErrorKind::Malformed, message);
    let bytes = sealed.as_bytes();
    match bytes.split_first_chunk::<HEADER>() {
        Some(([FORMAT, id @ ..], body)) if body.len() >= NONCE + TAG => Ok((i32::from_be_bytes(*id), body)),
        Some(([format, ..], _)) if *format != FORMAT => {
            Err(malformed(format!("unknown envelope format {format}; this version reads format {FORMAT}")))
        }
        _ => Err(malformed(format!("an envelope of {} bytes is cut off", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: SealContext<'_> = SealContext {
        installation: "inst-1",
        scope: "acme",
        kind: "connection",
        record: "con_1",
        field: "refresh_token",
        fence: Some(42),
    };

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes every write");
            text
        })
    }

    /// Key bytes 00 to 1f, data key 7, nonce a0 to ab.
    fn golden(context: &SealContext<'_>) -> (DataKey, Vec<u8>) {
        let material =
            DataKeyMaterial::from_bytes(std::array::from_fn(|i| u8::try_from(i).expect("below 32")));
        let key = DataKey::new(7, &material);
        let nonce = std::array::from_fn(|i| 0xa0 + u8::try_from(i).expect("below 12"));
        let header = key.header();
        let aad = context.aad(header);
        let sealed = key.with_aead(|aead| aead.seal_with_nonce(nonce, &header, &aad, b"a refresh token"));
        (key, sealed)
    }

    // Both vectors were computed by another implementation (OpenSSL through Python's `cryptography`).
    #[test]
    fn the_format_with_a_fence_is_the_documented_one() {
        let (key, sealed) = golden(&CONTEXT);
        assert_eq!(
            hex(&sealed),
            concat!(
                "01",
                "00000007",
                "a0a1a2a3a4a5a6a7a8a9aaab",
                "87380e4823b967cc0a45f3bc6c1fae",
                "e7faf285f94bdd18a9f76c658efbf87c"
            )
        );
        assert_eq!(
            hex(CONTEXT.aad(key.header()).as_bytes()),
            concat!(
                "000000050100000007",
                "00000006696e73742d31",
                "0000000461636d65",
                "0000000a636f6e6e656374696f6e",
                "00000005636f6e5f31",
                "0000000d726566726573685f746f6b656e",
                "00000008000000000000002a"
            )
        );
        assert_eq!(key.open(&CONTEXT, &sealed.into()).expect("it opens").as_slice(), b"a refresh token");
    }

    #[test]
    fn the_format_without_a_fence_is_the_documented_one() {
        let context = SealContext { fence: None, ..CONTEXT };
        let (key, sealed) = golden(&context);
        assert_eq!(
            hex(&sealed),
            concat!(
                "01",
                "00000007",
                "a0a1a2a3a4a5a6a7a8a9aaab",
                "87380e4823b967cc0a45f3bc6c1fae",
                "4f681b3e3a05a83b79b125ab0440faa0"
            )
        );
        assert_eq!(key.open(&context, &sealed.into()).expect("it opens").as_slice(), b"a refresh token");
    }

    #[test]
    fn a_prepared_key_opens_and_seals_as_the_one_that_is_kept() {
        let material = DataKeyMaterial::from_bytes([0xa7; 32]);
        let (kept, prepared) = (DataKey::new(7, &material), DataKey::prepared(7, &material));
        for (one, other) in [(&kept, &prepared), (&prepared, &kept)] {
            let sealed = one.seal(&CONTEXT, b"a refresh token");
            assert_eq!(other.open(&CONTEXT, &sealed).expect("it opens").as_slice(), b"a refresh token");
        }
    }

    #[test]
    fn debug_of_a_data_key_shows_its_identifier_alone() {
        let key = DataKey::new(7, &DataKeyMaterial::from_bytes([0xa7; 32]));
        assert_eq!(format!("{key:?}"), "DataKey { id: 7, .. }");
    }
}
