//! The cases; each is named after what it shows.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a case fails by panicking")]

use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKeyMaterial, INSTALLATION_SCOPE, KeyBinding, KeyEncryption, WrappedKey,
};

use super::{KeyEncryptionFixture, Remedies};

const BINDING: KeyBinding<'_> = KeyBinding { installation: "inst-1", scope: "acme", data_key: 7 };

fn data_key() -> DataKeyMaterial {
    DataKeyMaterial::from_bytes([0x5a; 32])
}

async fn newest(backend: &dyn KeyEncryption) -> String {
    backend.status().await.expect("the backend tells its keys").newest
}

/// Wraps with the newest key.
async fn wrap(backend: &dyn KeyEncryption) -> WrappedKey {
    wrap_with(backend, &newest(backend).await).await
}

async fn wrap_with(backend: &dyn KeyEncryption, kek: &str) -> WrappedKey {
    backend.wrap(kek, &BINDING, &data_key()).await.expect("the backend wraps")
}

async fn assert_unwraps(backend: &dyn KeyEncryption, binding: &KeyBinding<'_>, wrapped: &WrappedKey) {
    let key = backend.unwrap(binding, wrapped).await.expect("the backend unwraps");
    assert_eq!(key.expose(), data_key().expose(), "another data key came back");
}

/// What is done about a damaged row, whatever the backend.
const RESTORE: &str = "the data key's row from a backup of the database";

/// The message names backend and key, and what the operator does.
fn assert_told(backend: &dyn KeyEncryption, kek: &str, error: &CryptoError, remedies: Remedies) {
    let said = error.to_string();
    let kind = backend.kind();
    assert!(said.starts_with(&format!("{kind}: ")), "the message must begin with {kind}: {said}");
    assert!(said.contains(kek), "the message must name {kek}: {said}");
    let helps = match error.kind() {
        CryptoErrorKind::UnknownKey => remedies.unknown.iter().any(|remedy| said.contains(remedy)),
        CryptoErrorKind::Refused => said.contains(remedies.wrong) && said.contains(RESTORE),
        _ => said.contains(RESTORE),
    };
    assert!(helps, "the message must tell the remedy: {said}");
}

async fn refusal(
    backend: &dyn KeyEncryption,
    binding: &KeyBinding<'_>,
    wrapped: &WrappedKey,
    remedies: Remedies,
) -> CryptoErrorKind {
    let error = backend.unwrap(binding, wrapped).await.expect_err("the backend must refuse this");
    assert!(!error.is_retryable(), "trying again cannot help: {error}");
    assert_told(backend, &wrapped.kek, &error, remedies);
    error.kind()
}

async fn assert_bytes_refused(
    backend: &dyn KeyEncryption,
    wrapped: &WrappedKey,
    bytes: Vec<u8>,
    what: &str,
    remedies: Remedies,
) {
    let altered = WrappedKey { kek: wrapped.kek.clone(), bytes };
    let kind = refusal(backend, &BINDING, &altered, remedies).await;
    // Which of these depends on the byte: a format byte, a key's version or the ciphertext.
    let refused = [CryptoErrorKind::Refused, CryptoErrorKind::Malformed, CryptoErrorKind::UnknownKey];
    assert!(refused.contains(&kind), "{what}: {kind:?}");
}

async fn assert_binding_refused(fixture: &dyn KeyEncryptionFixture, other: KeyBinding<'_>) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    assert_unwraps(&*backend, &BINDING, &wrapped).await;
    let kind = refusal(&*backend, &other, &wrapped, fixture.remedies()).await;
    assert_eq!(kind, CryptoErrorKind::Refused);
}

async fn assert_unknown(backend: &dyn KeyEncryption, wrapped: &WrappedKey, remedies: Remedies) {
    let error = backend.unwrap(&BINDING, wrapped).await.expect_err("the backend must not know this key");
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey, "{error}");
    assert_told(backend, &wrapped.kek, &error, remedies);
}

/// Wrapping and unwrapping gives the same bytes, for a tenant and for the installation.
pub async fn a_wrapped_key_unwraps_to_the_same_bytes(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    for binding in [BINDING, KeyBinding { scope: INSTALLATION_SCOPE, data_key: i32::MAX, ..BINDING }] {
        let kek = newest(&*backend).await;
        let wrapped = backend.wrap(&kek, &binding, &data_key()).await.expect("the backend wraps");
        assert_unwraps(&*backend, &binding, &wrapped).await;
    }
}

/// A restart loses nothing.
pub async fn another_instance_with_the_same_keys_unwraps(fixture: &dyn KeyEncryptionFixture) {
    let wrapped = wrap(&*fixture.backend().await).await;
    assert_unwraps(&*fixture.reopened().await, &BINDING, &wrapped).await;
}

/// Wrapping is randomised.
pub async fn the_same_key_wrapped_twice_differs(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    assert_ne!(wrap(&*backend).await.bytes, wrap(&*backend).await.bytes);
}

/// Nothing of the data key stands in the wrapped key.
pub async fn a_wrapped_key_does_not_show_the_data_key(fixture: &dyn KeyEncryptionFixture) {
    let wrapped = wrap(&*fixture.backend().await).await;
    let key = data_key();
    let part = &key.expose()[..8];
    assert!(!wrapped.bytes.windows(part.len()).any(|window| window == part));
}

/// A bit of each byte in turn.
pub async fn every_altered_byte_is_refused(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    for index in 0..wrapped.bytes.len() {
        let mut bytes = wrapped.bytes.clone();
        bytes[index] ^= 1 << (index % 8);
        assert_bytes_refused(
            &*backend,
            &wrapped,
            bytes,
            &format!("byte {index} altered"),
            fixture.remedies(),
        )
        .await;
    }
}

/// Every length from nothing to one byte too few.
pub async fn every_truncation_is_refused(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    for length in 0..wrapped.bytes.len() {
        let bytes = wrapped.bytes[..length].to_vec();
        assert_bytes_refused(
            &*backend,
            &wrapped,
            bytes,
            &format!("cut to {length} bytes"),
            fixture.remedies(),
        )
        .await;
    }
}

/// One byte more is not the same wrapped key.
pub async fn an_extension_is_refused(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    let bytes = [&wrapped.bytes[..], &[0]].concat();
    assert_bytes_refused(&*backend, &wrapped, bytes, "a byte more", fixture.remedies()).await;
}

/// A wrapped key of another installation is of no use.
pub async fn another_installation_is_refused(fixture: &dyn KeyEncryptionFixture) {
    assert_binding_refused(fixture, KeyBinding { installation: "inst-2", ..BINDING }).await;
}

/// A wrapped key that was moved to another tenant, or to the installation, is of no use.
pub async fn another_scope_is_refused(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    for scope in ["other", "Acme", "", INSTALLATION_SCOPE] {
        let kind = refusal(&*backend, &KeyBinding { scope, ..BINDING }, &wrapped, fixture.remedies()).await;
        assert_eq!(kind, CryptoErrorKind::Refused, "{scope:?}");
    }
}

/// A tenant's old data key cannot take the place of its new one.
pub async fn another_data_key_id_is_refused(fixture: &dyn KeyEncryptionFixture) {
    assert_binding_refused(fixture, KeyBinding { data_key: 8, ..BINDING }).await;
}

/// The same characters, divided otherwise, are another binding.
pub async fn a_boundary_between_installation_and_scope_cannot_be_shifted(fixture: &dyn KeyEncryptionFixture) {
    assert_binding_refused(fixture, KeyBinding { installation: "inst-1a", scope: "cme", ..BINDING }).await;
}

/// A rotation does not cut off what is there.
pub async fn an_old_key_still_unwraps_after_a_rotation(fixture: &dyn KeyEncryptionFixture) {
    let wrapped = wrap(&*fixture.backend().await).await;
    let rotated = fixture.rotated().await;
    assert_unwraps(&*rotated, &BINDING, &wrapped).await;
    let status = rotated.status().await.expect("the backend tells its keys");
    assert!(status.available.contains(&wrapped.kek), "{status:?} lacks {}", wrapped.kek);
}

/// A new key takes effect.
pub async fn the_newest_key_wraps_and_unwraps(fixture: &dyn KeyEncryptionFixture) {
    let old = wrap(&*fixture.backend().await).await;
    let rotated = fixture.rotated().await;
    let new = wrap(&*rotated).await;
    assert_ne!(new.kek, old.kek);
    assert_unwraps(&*rotated, &BINDING, &new).await;
}

/// Which key wraps is said by the caller: during a rotation, servers wrap with the old one until all have the new one.
pub async fn the_named_key_wraps_and_not_the_newest(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let old = newest(&*backend).await;
    let rotated = fixture.rotated().await;
    assert_ne!(newest(&*rotated).await, old);
    let wrapped = wrap_with(&*rotated, &old).await;
    assert_eq!(wrapped.kek, old);
    assert_unwraps(&*rotated, &BINDING, &wrapped).await;
    let retired = fixture.retired().await;
    assert_unknown(&*retired, &wrapped, fixture.remedies()).await;
}

/// A key that is not here does not wrap, and no other takes its place.
pub async fn a_key_that_is_not_here_does_not_wrap(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    for kek in [format!("{}:999999", backend.kind()), "no-such-kind:1".to_owned()] {
        let error = backend.wrap(&kek, &BINDING, &data_key()).await.expect_err("there is no such key");
        assert_eq!(error.kind(), CryptoErrorKind::UnknownKey, "{error}");
        assert_told(&*backend, &kek, &error, fixture.remedies());
    }
}

/// A key that was made elsewhere is seen without a restart.
pub async fn status_is_asked_anew_at_each_call(fixture: &dyn KeyEncryptionFixture) {
    let running = fixture.backend().await;
    let old = wrap(&*running).await;
    let new = newest(&*fixture.rotated().await).await;
    let status = running.status().await.expect("the backend tells its keys");
    assert_eq!(status.newest, new);
    assert!(status.available.contains(&old.kek), "{status:?} lacks {}", old.kek);
    assert_unwraps(&*running, &BINDING, &wrap_with(&*running, &new).await).await;
    assert_unwraps(&*running, &BINDING, &old).await;
}

/// A version is made, or the operator learns how to make one.
pub async fn a_created_version_is_the_newest_or_the_remedy_is_told(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let before = wrap(&*backend).await;
    match backend.create_version().await {
        Ok(created) => {
            assert_ne!(created, before.kek);
            let status = backend.status().await.expect("the backend tells its keys");
            assert_eq!(status.newest, created);
            assert!(status.available.contains(&before.kek), "{status:?} lacks {}", before.kek);
            assert_unwraps(&*backend, &BINDING, &before).await;
            assert_unwraps(&*backend, &BINDING, &wrap_with(&*backend, &created).await).await;
        }
        Err(error) => {
            assert_eq!(error.kind(), CryptoErrorKind::Unsupported, "{error}");
            assert!(!error.to_string().is_empty(), "an error must tell the remedy");
            assert_eq!(newest(&*backend).await, before.kek);
        }
    }
}

/// What was wrapped by a key that is gone fails as such, and what the new key wrapped is not affected.
pub async fn a_removed_key_is_an_unknown_key(fixture: &dyn KeyEncryptionFixture) {
    let old = wrap(&*fixture.backend().await).await;
    let new = wrap(&*fixture.rotated().await).await;
    let retired = fixture.retired().await;
    assert_unknown(&*retired, &old, fixture.remedies()).await;
    assert_unwraps(&*retired, &BINDING, &new).await;
    let status = retired.status().await.expect("the backend tells its keys");
    assert!(!status.available.contains(&old.kek), "{status:?} still has {}", old.kek);
}

/// A name with the right kind that no key ever had.
pub async fn a_key_that_never_was_is_an_unknown_key(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    let kek = format!("{}:999999", backend.kind());
    assert_unknown(&*backend, &WrappedKey { kek, ..wrapped }, fixture.remedies()).await;
}

/// A name of another kind, as after a change of backends, even if the part after the kind is known.
pub async fn another_backends_key_is_an_unknown_key(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    let name = wrapped.kek.split_once(':').map_or("", |(_, name)| name);
    let kek = format!("no-such-kind:{name}");
    assert_unknown(&*backend, &WrappedKey { kek, bytes: wrapped.bytes.clone() }, fixture.remedies()).await;
}

/// The wrong keyring is told apart from a keyring that lacks a key.
pub async fn another_key_of_the_same_name_is_refused(fixture: &dyn KeyEncryptionFixture) {
    let wrapped = wrap(&*fixture.backend().await).await;
    let foreign = fixture.foreign().await;
    let status = foreign.status().await.expect("the backend tells its keys");
    assert!(status.available.contains(&wrapped.kek), "the fixture must give a key of the same name");
    let kind = refusal(&*foreign, &BINDING, &wrapped, fixture.remedies()).await;
    assert_eq!(kind, CryptoErrorKind::Refused);
}

/// What status says is what wrapping does.
pub async fn status_names_the_newest_key_and_every_available_one(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let before = backend.status().await.expect("the backend tells its keys");
    assert_eq!(before.available, std::slice::from_ref(&before.newest));
    let after = fixture.rotated().await.status().await.expect("the backend tells its keys");
    let mut expected = vec![before.newest, after.newest];
    let mut available = after.available;
    expected.sort();
    available.sort();
    assert_eq!(available, expected);
}

/// Names of keys tell which backend they belong to.
pub async fn every_kek_starts_with_the_kind(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let prefix = format!("{}:", backend.kind());
    let status = backend.status().await.expect("the backend tells its keys");
    let wrapped = wrap(&*backend).await;
    for kek in status.available.iter().chain([&status.newest, &wrapped.kek]) {
        assert!(kek.starts_with(&prefix) && kek.len() > prefix.len(), "{kek} does not start with {prefix}");
    }
}

/// Neither the backend nor what it takes and gives prints a secret: as text, as hexadecimal or as numbers.
pub async fn debug_shows_no_secret(fixture: &dyn KeyEncryptionFixture) {
    let backend = fixture.backend().await;
    let wrapped = wrap(&*backend).await;
    let unwrapped = backend.unwrap(&BINDING, &wrapped).await.expect("the backend unwraps");
    let status = backend.status().await.expect("the backend tells its keys");
    let shown = format!("{backend:?} {backend:#?} {wrapped:?} {unwrapped:?} {status:?}");
    let mut secrets = fixture.secrets();
    assert!(!secrets.is_empty(), "the fixture must name a secret to look for");
    secrets.push(data_key().expose().to_vec());
    for secret in &secrets {
        for form in forms(secret) {
            assert!(!shown.contains(&form), "a secret shows in {shown}");
        }
    }
}

/// How Debug may print bytes.
fn forms(secret: &[u8]) -> Vec<String> {
    let join = |parts: Vec<String>, with: &str| parts.join(with);
    let map = |format: fn(&u8) -> String| secret.iter().map(format).collect::<Vec<_>>();
    let decimal = map(u8::to_string);
    vec![
        String::from_utf8_lossy(secret).into_owned(),
        join(map(|byte| format!("{byte:02x}")), ""),
        join(map(|byte| format!("{byte:02X}")), ""),
        join(decimal.clone(), ", "),
        join(decimal, ",\n    "),
    ]
}
