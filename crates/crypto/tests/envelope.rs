//! What an envelope refuses, over arbitrary plaintexts and contexts.

use proptest::prelude::*;
use tokenward_crypto::{CryptoErrorKind, DataKey, DataKeyMaterial, SealContext, data_key_id};
use tokenward_types::Sealed;

/// An owned context that proptest can generate and change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Context {
    texts: [String; 5],
    fence: Option<i64>,
}

impl Context {
    fn new(
        installation: &str,
        scope: &str,
        kind: &str,
        record: &str,
        field: &str,
        fence: Option<i64>,
    ) -> Self {
        Self { texts: [installation, scope, kind, record, field].map(str::to_owned), fence }
    }

    fn get(&self) -> SealContext<'_> {
        let [installation, scope, kind, record, field] = &self.texts;
        SealContext { installation, scope, kind, record, field, fence: self.fence }
    }
}

// Few letters and short texts, so that neighbouring contexts share bytes.
fn context() -> impl Strategy<Value = Context> {
    (prop::array::uniform5("[ab\\x00]{0,3}"), any::<Option<i64>>())
        .prop_map(|(texts, fence)| Context { texts, fence })
}

fn plaintext() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn key(id: i32) -> DataKey {
    DataKey::new(id, &DataKeyMaterial::from_bytes([7; 32]))
}

fn refusal(key: &DataKey, context: &Context, sealed: &Sealed) -> Option<CryptoErrorKind> {
    key.open(&context.get(), sealed).err().map(|error| error.kind())
}

proptest! {
    #[test]
    fn what_was_sealed_opens_to_the_same_bytes(context in context(), plaintext in plaintext(), id in any::<i32>()) {
        let sealed = key(id).seal(&context.get(), &plaintext);
        prop_assert_eq!(data_key_id(&sealed).unwrap(), id);
        prop_assert_eq!(sealed.as_bytes().len(), 1 + 4 + 12 + plaintext.len() + 16);
        prop_assert_eq!(&*key(id).open(&context.get(), &sealed).unwrap(), &plaintext);
    }

    #[test]
    fn a_change_of_any_context_is_refused(sealed_for in context(), opened_for in context(), plaintext in plaintext()) {
        let sealed = key(1).seal(&sealed_for.get(), &plaintext);
        let expected = (sealed_for != opened_for).then_some(CryptoErrorKind::Refused);
        prop_assert_eq!(refusal(&key(1), &opened_for, &sealed), expected);
    }

    #[test]
    fn a_change_of_a_single_field_is_refused(context in context(), changed in 0..5_usize, suffix in "[ab]{1,3}") {
        let sealed = key(1).seal(&context.get(), b"secret");
        let mut other = context.clone();
        other.texts[changed].push_str(&suffix);
        prop_assert_eq!(refusal(&key(1), &other, &sealed), Some(CryptoErrorKind::Refused));
    }

    #[test]
    fn another_fence_is_refused(context in context(), fence in any::<Option<i64>>()) {
        prop_assume!(fence != context.fence);
        let sealed = key(1).seal(&context.get(), b"secret");
        let other = Context { fence, ..context };
        prop_assert_eq!(refusal(&key(1), &other, &sealed), Some(CryptoErrorKind::Refused));
    }

    #[test]
    fn a_boundary_between_fields_cannot_be_shifted(text in "[ab]{2,6}", left in 0..4_usize, first in 0..7_usize, second in 0..7_usize) {
        let (first, second) = (first.min(text.len()), second.min(text.len()));
        prop_assume!(first != second);
        let split = |at: usize| {
            let mut texts = ["i", "s", "k", "r", "f"].map(str::to_owned);
            texts[left] = text[..at].to_owned();
            texts[left + 1] = text[at..].to_owned();
            Context { texts, fence: None }
        };
        let sealed = key(1).seal(&split(first).get(), b"secret");
        prop_assert_eq!(refusal(&key(1), &split(second), &sealed), Some(CryptoErrorKind::Refused));
    }

    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let sealed = Sealed::from(bytes);
        let _ = data_key_id(&sealed);
        prop_assert!(refusal(&key(1), &Context::new("i", "s", "k", "r", "f", None), &sealed).is_some());
    }
}

fn fixed() -> Context {
    Context::new("inst-1", "acme", "connection", "con_1", "refresh_token", Some(42))
}

#[test]
fn every_flipped_bit_is_refused() {
    for plaintext in [&b""[..], b"a refresh token"] {
        let sealed = key(1).seal(&fixed().get(), plaintext).into_vec();
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => CryptoErrorKind::Malformed,
                1..=4 => CryptoErrorKind::UnknownKey,
                _ => CryptoErrorKind::Refused,
            };
            assert_eq!(refusal(&key(1), &fixed(), &altered.into()), Some(expected), "bit {bit}");
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let sealed = key(1).seal(&fixed().get(), b"a refresh token").into_vec();
    for length in 0..sealed.len() {
        let kept = refusal(&key(1), &fixed(), &sealed[..length].to_vec().into());
        let expected =
            if length < 1 + 4 + 12 + 16 { CryptoErrorKind::Malformed } else { CryptoErrorKind::Refused };
        assert_eq!(kept, Some(expected), "{length} bytes");
    }
    let longer = [&sealed[..], &[0]].concat();
    assert_eq!(refusal(&key(1), &fixed(), &longer.into()), Some(CryptoErrorKind::Refused));
}

#[test]
fn sealing_twice_gives_different_ciphertexts() {
    let (first, second) = (key(1).seal(&fixed().get(), b"same"), key(1).seal(&fixed().get(), b"same"));
    assert_ne!(first, second);
    assert_ne!(first.as_bytes()[5..17], second.as_bytes()[5..17], "the nonces are the same");
}

#[test]
fn another_key_of_the_same_identifier_is_refused() {
    let sealed = key(1).seal(&fixed().get(), b"secret");
    let other = DataKey::new(1, &DataKeyMaterial::from_bytes([8; 32]));
    assert_eq!(refusal(&other, &fixed(), &sealed), Some(CryptoErrorKind::Refused));
}

#[test]
fn an_envelope_of_another_data_key_names_both_keys() {
    let sealed = key(2).seal(&fixed().get(), b"secret");
    let error = key(1).open(&fixed().get(), &sealed).unwrap_err();
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
    assert_eq!(error.to_string(), "sealed under data key 2, not under data key 1");
}

#[test]
fn an_unknown_format_is_named() {
    let mut bytes = key(1).seal(&fixed().get(), b"secret").into_vec();
    bytes[0] = 9;
    let error = data_key_id(&bytes.into()).unwrap_err();
    assert_eq!(error.kind(), CryptoErrorKind::Malformed);
    assert!(error.to_string().contains("format 9"), "{error}");
}
