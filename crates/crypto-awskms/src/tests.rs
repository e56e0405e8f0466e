//! What moto does not check, on a server that answers as AWS documents (the JSON protocol of `TrentService`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use axum::body::Bytes;
use axum::http::{HeaderMap, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokenward_crypto::{CryptoErrorKind, DataKeyMaterial, KeyBinding, KeyEncryption, WrappedKey};
use tokenward_plugin::Section;

use crate::config::{build, read};

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const BINDING: KeyBinding<'_> = KeyBinding { installation: "inst-1", scope: "acme", data_key: 7 };
const SECRET: &str = "hunter2hunter2hunter2";
/// 32 times 5a, as it shows in JSON.
const KEY: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";

/// What the server answers.
enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// Nothing, ever.
    Never,
}

struct Fake {
    address: String,
    /// Operations with their bodies, as they came.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn fake(script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Fake {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (script, record) = (Arc::new(script), Arc::clone(&seen));
    let answer = move |headers: HeaderMap, body: Bytes| {
        let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        record.lock().push((operation.clone(), body.clone()));
        let reply = script(&operation, &body);
        async move {
            let Reply::Answer(status, text) = reply else { return std::future::pending().await };
            let response =
                Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
            response.body(axum::body::Body::from(text)).expect("a response")
        }
    };
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Fake { address, seen }
}

fn described(state: &str) -> Reply {
    let key = json!({
        "KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab", "Arn": ARN, "KeyState": state, "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
    });
    Reply::Answer(200, json!({ "KeyMetadata": key }).to_string())
}

fn healthy(operation: &str) -> Reply {
    match operation {
        "DescribeKey" => described("Enabled"),
        "Encrypt" => Reply::Answer(200, json!({"KeyId": ARN, "CiphertextBlob": "c2VhbGVk"}).to_string()),
        "Decrypt" => Reply::Answer(200, json!({"KeyId": ARN, "Plaintext": KEY}).to_string()),
        _ => Reply::Never,
    }
}

/// As AWS documents errors: the kind in `__type`, and a message, which here repeats what no message may.
fn fault(kind: &str) -> Reply {
    Reply::Answer(400, json!({"__type": kind, "message": format!("{SECRET} {KEY}")}).to_string())
}

async fn open(address: &str) -> Result<Arc<dyn KeyEncryption>, String> {
    let values = json!({
        "key_ids": ["alias/tokenward"], "region": "eu-central-1", "endpoint_url": address, "timeout": "500ms",
    });
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "encryption".into(), name: "encryption".into(), values };
    let mut settings = read(&section).map_err(|problems| problems.to_string())?;
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test");
    settings.credentials = Some(SharedCredentialsProvider::new(credentials));
    build(settings).await.map_err(|error| error.to_string())
}

fn kek() -> String {
    format!("aws-kms:{ARN}")
}

/// A backend that came up, and whose server from then on answers transformations with `reply`.
async fn troubled(
    reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Fake, Arc<dyn KeyEncryption>, WrappedKey) {
    let trouble = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&trouble);
    let server = fake(
        move |operation, _| {
            if switch.load(Ordering::Relaxed) { reply(operation) } else { healthy(operation) }
        },
    )
    .await;
    let backend = open(&server.address).await.expect("it comes up");
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    let wrapped = backend.wrap(&kek(), &BINDING, &key).await.expect("it wraps");
    trouble.store(true, Ordering::Relaxed);
    (server, backend, wrapped)
}

async fn assert_fails(
    reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    kind: CryptoErrorKind,
    says: &str,
) {
    let (server, backend, wrapped) = troubled(reply).await;
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it must fail");
    let said = format!("{error} {error:?}");
    assert_eq!(error.kind(), kind, "{said}");
    assert!(said.starts_with(&format!("aws-kms: keys alias/tokenward in {}: ", server.address)), "{said}");
    assert!(said.contains(says), "{said}");
    assert!(!said.contains("hunter2") && !said.contains(KEY), "{said}");
}

#[tokio::test]
async fn a_key_that_cannot_be_used_now_is_unknown_and_named() {
    use CryptoErrorKind::UnknownKey;
    let named = format!("encryption key \"aws-kms:{ARN}\": ");
    for (kind, remedy) in [
        ("DisabledException", "`aws kms enable-key` brings it back"),
        ("KMSInvalidStateException", "`aws kms cancel-key-deletion`"),
        ("NotFoundException", "there is no such key in this account and region"),
        // Some answers carry the service's namespace.
        ("com.amazonaws.kms#DisabledException", "`aws kms enable-key` brings it back"),
    ] {
        assert_fails(move |_| fault(kind), UnknownKey, &named).await;
        assert_fails(move |_| fault(kind), UnknownKey, remedy).await;
    }
}

#[tokio::test]
async fn a_wrong_context_or_key_is_refused() {
    for kind in ["InvalidCiphertextException", "IncorrectKeyException"] {
        let says = "data key 7 does not open with aws-kms:arn:";
        assert_fails(move |_| fault(kind), CryptoErrorKind::Refused, says).await;
    }
}

#[tokio::test]
async fn access_denied_names_the_permission() {
    let says = format!("access denied: the policy must allow kms:Encrypt on key {ARN}");
    assert_fails(|_| fault("AccessDeniedException"), CryptoErrorKind::Internal, &says).await;
    let only_decrypt = |operation: &str| match operation {
        "Decrypt" => fault("AccessDeniedException"),
        _ => healthy(operation),
    };
    let says = format!("access denied: the policy must allow kms:Decrypt on key {ARN}");
    assert_fails(only_decrypt, CryptoErrorKind::Internal, &says).await;
}

#[tokio::test]
async fn throttling_and_trouble_pass() {
    use CryptoErrorKind::Unavailable;
    assert_fails(|_| fault("ThrottlingException"), Unavailable, "raise the account's request quota").await;
    assert_fails(|_| fault("KeyUnavailableException"), Unavailable, "see AWS's health page").await;
    assert_fails(|_| fault("DependencyTimeoutException"), Unavailable, "see AWS's health page").await;
    assert_fails(|_| Reply::Answer(500, String::new()), Unavailable, "").await;
    let (server, backend, wrapped) = troubled(|_| fault("ThrottlingException")).await;
    let before = server.seen.lock().len();
    backend.unwrap(&BINDING, &wrapped).await.expect_err("it throttles");
    assert_eq!(server.seen.lock().len() - before, 3, "three attempts, none of them the library's own");
}

#[tokio::test]
async fn credentials_that_are_refused_are_told_apart_from_a_policy() {
    use CryptoErrorKind::Internal;
    assert_fails(|_| fault("UnrecognizedClientException"), Internal, "the credentials are not known").await;
    assert_fails(|_| fault("ExpiredTokenException"), Internal, "the credentials have expired").await;
}

#[tokio::test]
async fn garbage_silence_and_absence_are_told() {
    use CryptoErrorKind::Unavailable;
    let remedy = "what answers there is not AWS KMS, or its answer was damaged: check endpoint_url";
    assert_fails(|_| Reply::Answer(200, "<html>hunter2</html>".into()), Unavailable, remedy).await;
    assert_fails(|_| Reply::Answer(403, "<html>hunter2</html>".into()), Unavailable, remedy).await;
    assert_fails(|_| Reply::Never, Unavailable, "no answer within 0.5 s").await;
    let nobody = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let said = open(&address).await.expect_err("nobody is there");
    assert!(said.contains("cannot connect: check region, endpoint_url"), "{said}");
}

#[tokio::test]
async fn a_key_of_the_wrong_length_is_malformed() {
    let short = |_: &str| Reply::Answer(200, json!({"KeyId": ARN, "Plaintext": "aHVudGVyMg=="}).to_string());
    assert_fails(short, CryptoErrorKind::Malformed, "it does not hold 32 bytes").await;
}

#[tokio::test]
async fn a_newest_key_that_cannot_be_used_is_found_at_the_start() {
    for (state, says) in [
        ("Disabled", "`aws kms enable-key` brings it back"),
        ("PendingDeletion", "`aws kms cancel-key-deletion`"),
        ("PendingImport", "its state is PendingImport"),
    ] {
        let server = fake(move |_, _| described(state)).await;
        let said = open(&server.address).await.expect_err("it cannot be used");
        assert!(said.contains("the last of key_ids, cannot be used") && said.contains(says), "{said}");
    }
    let signing = json!({"KeyId": "x", "Arn": ARN, "KeyState": "Enabled", "KeyUsage": "SIGN_VERIFY"});
    let server = fake(move |_, _| Reply::Answer(200, json!({ "KeyMetadata": signing }).to_string())).await;
    let said = open(&server.address).await.expect_err("it signs");
    assert!(said.contains("must be symmetric, for encryption and decryption"), "{said}");
}

#[tokio::test]
async fn the_encryption_context_is_the_binding_and_the_key_is_named() {
    let server = fake(|operation, _| healthy(operation)).await;
    let backend = open(&server.address).await.expect("it comes up");
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    let wrapped = backend.wrap(&kek(), &BINDING, &key).await.expect("it wraps");
    assert_eq!(wrapped.bytes, b"\x01sealed");
    backend.unwrap(&BINDING, &wrapped).await.expect("it unwraps");
    let context =
        json!({"tokenward:installation": "inst-1", "tokenward:scope": "acme", "tokenward:data-key": "7"});
    let seen = server.seen.lock().clone();
    let sent =
        |name: &str| seen.iter().find(|(operation, _)| operation == name).expect("it was called").1.clone();
    assert_eq!(sent("Encrypt"), json!({"KeyId": ARN, "Plaintext": KEY, "EncryptionContext": context}));
    assert_eq!(
        sent("Decrypt"),
        json!({"KeyId": ARN, "CiphertextBlob": "c2VhbGVk", "EncryptionContext": context})
    );
}

#[tokio::test]
async fn a_key_that_the_configuration_does_not_name_is_not_used() {
    let server = fake(|operation, _| healthy(operation)).await;
    let backend = open(&server.address).await.expect("it comes up");
    let kek = "aws-kms:arn:aws:kms:eu-central-1:999999999999:key/of-somebody-else";
    let wrapped = WrappedKey { kek: kek.into(), bytes: b"\x01sealed".to_vec() };
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is not ours");
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
    assert!(error.to_string().contains(kek) && error.to_string().contains("Add it to key_ids"), "{error}");
    assert!(server.seen.lock().iter().all(|(operation, _)| operation == "DescribeKey"));
}

#[tokio::test]
async fn no_secret_is_told() {
    let logs = tokenward_testkit::provider::LogCapture::global();
    tracing::info!("the capture works");
    let (_, backend, wrapped) = troubled(|_| fault("InvalidCiphertextException")).await;
    let mut told = format!("{backend:?} {backend:#?}");
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is refused");
    told.extend([format!("{error} {error:?}")]);
    let text = logs.text();
    // AWS's own libraries print bodies, for which reason the program lets them say nothing below INFO.
    let is_capped = |line: &&str| {
        [" DEBUG ", " TRACE "].iter().any(|level| line.contains(level)) && line.contains(" aws_")
    };
    let (capped, logged): (Vec<&str>, Vec<&str>) = text.lines().partition(is_capped);
    let logged = logged.join("\n");
    assert!(logged.contains("the capture works"), "nothing was captured");
    assert!(capped.iter().any(|line| line.contains(SECRET)), "what they print is found where they print it");
    for secret in [SECRET, KEY, "5a5a5a5a5a5a5a5a", "90, 90, 90, 90"] {
        assert!(!told.contains(secret), "{secret} is told in {told}");
        assert!(!logged.contains(secret), "{secret} is logged");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let values = json!({"key_ids": [], "endpoint_url": "http://kms.example", "region": "", "timeout": "0s"});
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "encryption".into(), name: "encryption".into(), values };
    let said = read(&section).err().map(|problems| problems.to_string()).unwrap_or_default();
    for at in ["key_ids", "endpoint_url", "region", "timeout"] {
        assert!(said.contains(&format!("encryption.{at}: ")), "{at} in\n{said}");
    }
}
