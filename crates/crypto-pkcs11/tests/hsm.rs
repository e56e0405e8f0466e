//! What an operator can do to a token, and what is wrong with one: on SoftHSM.
#![expect(clippy::expect_used, reason = "what cannot be set up fails its test")]

mod support;

use cryptoki::object::Attribute;
use serde_json::{Value, json};
use support::{BINDING, PIN, Token, open, wrap};
use tokenward_crypto::{CryptoErrorKind, DataKeyMaterial};
use tokenward_testkit::parts;

fn token(test: &str) -> Option<Token> {
    parts::pkcs11_module(test).map(Token::new)
}

async fn refusal(section: Value) -> String {
    let said = open(section).await.expect_err("it must not come up");
    assert!(!said.contains("hunter2"), "{said}");
    said
}

#[tokio::test]
async fn a_wrong_pin_is_told() {
    let Some(token) = token("a_wrong_pin_is_told") else { return };
    let said = refusal(token.with(&json!({"pin": "hunter2wrong"}))).await;
    assert!(
        said.starts_with(&format!("pkcs11: key tokenward on token {}: the PIN is wrong", token.label)),
        "{said}"
    );
    // The right one still opens it.
    token.open().await;
}

#[tokio::test]
async fn a_pin_file_that_changes_under_way_does_not_end_the_login() {
    let test = "a_pin_file_that_changes_under_way_does_not_end_the_login";
    let Some(token) = token(test) else { return };
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(file.path(), format!("{PIN}\n")).expect("the file takes it");
    let backend = open(token.with(&json!({"pin_file": file.path()}))).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    std::fs::write(file.path(), "hunter2wrong").expect("the file takes it");
    backend.unwrap(&BINDING, &wrapped).await.expect("a session is logged in already");
    // A session of its own, in the same login.
    backend.create_version().await.expect("the login of the process still holds");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let Some(token) = token("what_is_missing_is_named") else { return };
    let said = refusal(json!({"module": "/no/such.so", "token_label": "x", "pin": PIN})).await;
    assert!(said.contains("encryption.module: /no/such.so is not a file"), "{said}");
    let said = refusal(json!({"module": "/etc/hostname", "token_label": "x", "pin": PIN})).await;
    assert!(said.contains("/etc/hostname cannot be loaded as a PKCS #11 module"), "{said}");
    let said = refusal(json!({"module": token.module, "token_label": "absent", "pin": PIN})).await;
    assert!(said.contains("no token has the label \"absent\"; there are: "), "{said}");
    assert!(said.contains(&token.label) && said.contains("Check token_label"), "{said}");
    let said = refusal(token.with(&json!({"pin": PIN, "key_label": "absent"}))).await;
    let remedy =
        "`pkcs11-tool --login --keygen --key-type AES:32 --sensitive --id 01 --label absent` makes one";
    assert!(said.contains(remedy), "{said}");
    let said = refusal(token.with(&json!({"pin_file": "/no/such/pin"}))).await;
    assert!(said.contains("encryption.pin_file: cannot read /no/such/pin"), "{said}");
}

#[tokio::test]
async fn a_key_that_was_deleted_is_unknown_and_named() {
    let Some(token) = token("a_key_that_was_deleted_is_unknown_and_named") else { return };
    let backend = token.open().await;
    let wrapped = wrap(&*backend).await;
    token.make("02");
    token.delete("01");
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("the key is gone");
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
    let said = error.to_string();
    assert!(
        said.contains("\"pkcs11:tokenward:1\" is not in the HSM; there are: pkcs11:tokenward:2"),
        "{said}"
    );
    token.delete("02");
    let error = backend.status().await.expect_err("there is none");
    assert_eq!(error.kind(), CryptoErrorKind::Internal);
    assert!(error.to_string().contains("Restore it from the HSM's backup"), "{error}");
}

#[tokio::test]
async fn a_new_version_is_a_key_that_was_made_in_the_hsm_and_never_leaves_it() {
    let Some(token) = token("a_new_version_is_a_key_that_was_made_in_the_hsm_and_never_leaves_it") else {
        return;
    };
    let backend = token.open().await;
    assert_eq!(backend.create_version().await.expect("it makes one"), "pkcs11:tokenward:2");
    let objects = token.list();
    let made = objects.split("Secret Key Object").find(|object| object.contains("ID:         02"));
    let made = made.expect("pkcs11-tool sees it");
    assert!(made.contains("AES length 32") && made.contains("label:      tokenward"), "{made}");
    assert!(made.contains("Usage:      encrypt, decrypt\n"), "{made}");
    assert!(made.contains("sensitive, always sensitive, never extractable, local"), "{made}");
}

#[tokio::test]
async fn a_key_that_can_leave_the_hsm_is_refused() {
    let Some(token) = token("a_key_that_can_leave_the_hsm_is_refused") else { return };
    let make = ["--keygen", "--key-type", "AES:32", "--extractable", "--id", "01", "--label", "loose"];
    token.tool(&make);
    let said = refusal(token.with(&json!({"pin": PIN, "key_label": "loose"}))).await;
    assert!(said.contains("can leave the HSM (CKA_EXTRACTABLE): remove it and make another"), "{said}");
}

#[tokio::test]
async fn a_key_of_another_length_is_refused_with_the_remedy() {
    let Some(token) = token("a_key_of_another_length_is_refused_with_the_remedy") else { return };
    for length in ["16", "24"] {
        let (kind, label) = (format!("AES:{length}"), format!("short-{length}"));
        token.tool(&["--keygen", "--key-type", &kind, "--sensitive", "--id", "0a", "--label", &label]);
        let said = refusal(token.with(&json!({"pin": PIN, "key_label": label}))).await;
        assert_eq!(
            said,
            format!(
                "pkcs11: key {label} on token {}: the key \"pkcs11:{label}:10\" must have 32 bytes, but its \
                 CKA_VALUE_LEN is {length}: remove it, or give it another label, and make one by `pkcs11-tool --login \
                 --keygen --key-type AES:32 --sensitive --id 0a --label {label}`",
                token.label
            )
        );
        // Done as it is said.
        token.tool(&["--delete-object", "--type", "secrkey", "--id", "0a", "--label", &label]);
        token.tool(&["--keygen", "--key-type", "AES:32", "--sensitive", "--id", "0a", "--label", &label]);
        open(token.with(&json!({"pin": PIN, "key_label": label}))).await.expect("32 bytes are right");
    }
}

#[tokio::test]
async fn a_key_that_may_not_encrypt_or_decrypt_is_refused() {
    let Some(token) = token("a_key_that_may_not_encrypt_or_decrypt_is_refused") else { return };
    for (forbidden, what) in
        [(Attribute::Encrypt(false), "CKA_ENCRYPT"), (Attribute::Decrypt(false), "CKA_DECRYPT")]
    {
        token.make_with("tied", forbidden);
        let said = refusal(token.with(&json!({"pin": PIN, "key_label": "tied"}))).await;
        assert!(
            said.contains(&format!("the key \"pkcs11:tied:1\" does not allow {what}: remove it")),
            "{said}"
        );
        assert!(said.contains("--key-type AES:32 --sensitive --id 01 --label tied"), "{said}");
        token.tool(&["--delete-object", "--type", "secrkey", "--id", "01", "--label", "tied"]);
    }
}

#[tokio::test]
async fn an_id_that_is_no_version_and_a_version_twice_are_refused() {
    let Some(token) = token("an_id_that_is_no_version_and_a_version_twice_are_refused") else { return };
    token.make("01");
    let said = refusal(token.with(&json!({"pin": PIN}))).await;
    assert!(said.contains("two keys are \"pkcs11:tokenward:1\""), "{said}");
    let make = ["--keygen", "--key-type", "AES:32", "--sensitive", "--id", "0001", "--label", "padded"];
    token.tool(&make);
    let said = refusal(token.with(&json!({"pin": PIN, "key_label": "padded"}))).await;
    assert!(said.contains("has a CKA_ID that is no version"), "{said}");
}

#[tokio::test]
async fn many_calls_share_few_sessions() {
    let Some(token) = token("many_calls_share_few_sessions") else { return };
    let backend = open(token.with(&json!({"pin": PIN, "max_sessions": 2}))).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    let calls = (0..100).map(|_| {
        let (backend, wrapped) = (backend.clone(), wrapped.clone());
        tokio::spawn(async move { backend.unwrap(&BINDING, &wrapped).await.map(|key| *key.expose()) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("no panic").expect("it unwraps"), [0x5a; 32]);
    }
}

#[tokio::test]
async fn no_secret_is_told() {
    let Some(token) = token("no_secret_is_told") else { return };
    let logs = tokenward_testkit::provider::LogCapture::global();
    tracing::info!("the capture works");
    let mut told = open(token.with(&json!({"pin": "hunter2wrong"}))).await.expect_err("the PIN is wrong");
    let backend = token.open().await;
    let wrapped = wrap(&*backend).await;
    told.extend([format!("{backend:?} {backend:#?}")]);
    token.delete("01");
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    for error in [
        backend.unwrap(&BINDING, &wrapped).await.err(),
        backend.wrap(&wrapped.kek, &BINDING, &key).await.err(),
        backend.status().await.err(),
    ] {
        let error = error.expect("the key is gone");
        told.extend([format!("{error} {error:?}")]);
    }
    let logged = logs.text();
    assert!(logged.contains("the capture works"), "nothing was captured");
    for secret in [PIN, "hunter2", "5a5a5a5a5a5a5a5a", "90, 90, 90, 90"] {
        assert!(!told.contains(secret), "{secret} is told in {told}");
        assert!(!logged.contains(secret), "{secret} is logged");
    }
}
