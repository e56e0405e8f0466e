//! What goes wrong between here and the server: each error names backend, key and remedy.
#![expect(clippy::expect_used, reason = "what cannot be set up fails its test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::fake::{Fake, Reply, granted, healthy};
use support::{BINDING, open, wrap};
use tokenward_crypto::{CryptoErrorKind, DataKeyMaterial, KeyEncryption, WrappedKey};

const TOKEN: &str = "s.hunter2hunter2";

/// A server that comes up, and from then on answers each request for a transformation with `reply`.
async fn troubled(
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Fake, Arc<dyn KeyEncryption>, WrappedKey) {
    let trouble = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&trouble);
    let fake =
        Fake::start(move |seen, _| if switch.load(Ordering::Relaxed) { reply() } else { healthy(seen) })
            .await;
    let section = fake.section(&json!({"token": TOKEN, "timeout": "250ms"}));
    let backend = open(section).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    trouble.store(true, Ordering::Relaxed);
    (fake, backend, wrapped)
}

/// The kind and the message of an unwrapping that fails, with what every message must have.
async fn failure(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (CryptoErrorKind, String) {
    let (fake, backend, wrapped) = troubled(reply).await;
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it must fail");
    let message = error.to_string();
    let service = format!("openbao: key transit/tokenward at {}: ", fake.address);
    assert!(message.starts_with(&service), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    (error.kind(), message)
}

async fn assert_unavailable(reply: impl Fn() -> Reply + Send + Sync + 'static, remedy: &str) {
    let (kind, message) = failure(reply).await;
    assert_eq!(kind, CryptoErrorKind::Unavailable, "{message}");
    assert!(message.contains(remedy), "{message}");
}

#[tokio::test]
async fn a_slow_server_is_given_up_after_the_timeout_and_the_attempts() {
    let (fake, backend, wrapped) = troubled(|| Reply::Hang).await;
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is slow");
    assert_eq!(error.kind(), CryptoErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer within 0.2 s: check that it runs"), "{error}");
    assert_eq!(fake.count("transit/decrypt/tokenward"), 3);
}

#[tokio::test]
async fn garbage_is_not_taken_for_an_answer() {
    let remedy = "what answers there is not OpenBao, or its answer was damaged: check address";
    assert_unavailable(|| Reply::Text(200, "<html>hunter2</html>"), remedy).await;
    assert_unavailable(|| Reply::Text(200, ""), remedy).await;
    assert_unavailable(|| Reply::Json(200, json!({"data": {"plaintext": 7}})), remedy).await;
    // A refusal of something in between says nothing about the key.
    assert_unavailable(|| Reply::Text(403, "<html>blocked, hunter2</html>"), remedy).await;
    assert_unavailable(|| Reply::Text(404, "not found: hunter2"), remedy).await;
    assert_unavailable(|| Reply::Cut, "its answer was cut off").await;
    let large: &'static str = Box::leak("x".repeat(70_000).into_boxed_str());
    assert_unavailable(move || Reply::Text(200, large), "larger than 64 KiB: check address").await;
}

#[tokio::test]
async fn a_key_of_the_wrong_length_is_malformed() {
    let (kind, message) = failure(|| Reply::Json(200, json!({"data": {"plaintext": "aHVudGVyMg=="}}))).await;
    assert_eq!(kind, CryptoErrorKind::Malformed, "{message}");
    let says = "data key 7, wrapped by openbao:transit/tokenward:1, cannot be unwrapped: it does not hold 32 bytes. Restore the \
                data key's row from a backup of the database";
    assert!(message.starts_with("openbao: ") && message.contains(says), "{message}");
    let long = base64_of(33);
    let (kind, message) = failure(move || Reply::Json(200, json!({ "data": { "plaintext": long } }))).await;
    assert_eq!(kind, CryptoErrorKind::Malformed, "{message}");
}

fn base64_of(length: usize) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(vec![1; length])
}

#[tokio::test]
async fn a_server_in_trouble_is_told_from_one_that_refuses() {
    let errors = || json!({"errors": ["hunter2"]});
    assert_unavailable(move || Reply::Json(500, errors()), "see its own log (HTTP 500)").await;
    assert_unavailable(move || Reply::Json(429, errors()), "overloaded or behind").await;
    assert_unavailable(move || Reply::Json(412, errors()), "overloaded or behind").await;
    let sealed = || Reply::Json(503, json!({"errors": ["Vault is sealed"]}));
    assert_unavailable(sealed, "it is sealed: unseal it with `bao operator unseal`").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fake::start(|seen, _| healthy(seen)).await;
    let target = format!("{}/v1/transit/decrypt/tokenward", elsewhere.address);
    let reply = move || Reply::With(307, ("location", target.clone()), "");
    assert_unavailable(reply, "answered with a redirect, which is not followed: set address").await;
    assert_eq!(elsewhere.seen().len(), 0, "the token went nowhere else");
}

#[tokio::test]
async fn a_failure_that_passes_is_not_seen() {
    let fake = Fake::start(
        |seen, before| {
            if before % 2 == 0 { Reply::Text(502, "bad gateway") } else { healthy(seen) }
        },
    )
    .await;
    let backend = open(fake.section(&json!({"token": TOKEN}))).await.expect("the second attempt succeeds");
    let wrapped = wrap(&*backend).await;
    let key = backend.unwrap(&BINDING, &wrapped).await.expect("the second attempt succeeds");
    assert_eq!(key.expose(), &[0x5a; 32]);
}

#[tokio::test]
async fn after_several_failures_the_server_is_left_alone() {
    let (fake, backend, wrapped) = troubled(|| Reply::Text(502, "bad gateway")).await;
    for _ in 0..2 {
        backend.unwrap(&BINDING, &wrapped).await.expect_err("it fails");
    }
    let before = fake.seen().len();
    let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is left alone");
    assert_eq!(error.kind(), CryptoErrorKind::Unavailable);
    assert!(error.to_string().contains("not asked, because its last 6 calls failed"), "{error}");
    assert_eq!(fake.seen().len(), before);
}

#[tokio::test]
async fn a_rotation_is_not_asked_for_twice() {
    let (fake, backend, _) = troubled(|| Reply::Text(502, "bad gateway")).await;
    backend.create_version().await.expect_err("it fails");
    assert_eq!(fake.count("transit/keys/tokenward/rotate"), 1);
}

#[tokio::test]
async fn another_version_than_the_one_that_was_asked_for_is_not_taken() {
    let reply = Reply::Json(200, json!({"data": {"ciphertext": format!("vault:v2:{}", base64_of(60))}}));
    let reply = parking_lot::Mutex::new(Some(reply));
    let (_, backend, wrapped) = troubled(move || reply.lock().take().unwrap_or(Reply::Text(500, ""))).await;
    let key = DataKeyMaterial::from_bytes([1; 32]);
    backend.wrap(&wrapped.kek, &BINDING, &key).await.expect_err("version 2 was never asked for");
}

#[tokio::test]
async fn what_is_sent_is_what_is_documented() {
    let fake = Fake::start(|seen, _| healthy(seen)).await;
    let backend = open(fake.section(&json!({"token": TOKEN}))).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    assert_eq!(wrapped.kek, "openbao:transit/tokenward:1");
    assert_eq!(wrapped.bytes, [&[1][..], &[7; 60][..]].concat());
    backend.unwrap(&BINDING, &wrapped).await.expect("it unwraps");
    let seen = fake.seen();
    let sent = |path: &str| seen.iter().find(|seen| seen.path == path).expect("it was asked for").clone();
    let associated = "AAAABmluc3QtMQAAAARhY21lAAAABAAAAAc="; // 6 inst-1, 4 acme, 4 bytes of 7
    let encrypt = sent("transit/encrypt/tokenward");
    assert_eq!(encrypt.token, TOKEN);
    assert_eq!(
        encrypt.body,
        json!({"plaintext": base64_with(0x5a), "associated_data": associated, "key_version": 1})
    );
    let ciphertext = format!("vault:v1:{}", {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode([7; 60])
    });
    let decrypt = sent("transit/decrypt/tokenward");
    assert_eq!(decrypt.body, json!({"ciphertext": ciphertext, "associated_data": associated}));
}

fn base64_with(byte: u8) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode([byte; 32])
}

#[tokio::test]
async fn bytes_that_were_never_written_here_are_malformed_without_asking() {
    let fake = Fake::start(|seen, _| healthy(seen)).await;
    let backend = open(fake.section(&json!({"token": TOKEN}))).await.expect("it comes up");
    let before = fake.seen().len();
    for bytes in [vec![], vec![1], vec![1; 60], vec![1; 62], [&[2][..], &[7; 60][..]].concat()] {
        let wrapped = WrappedKey { kek: "openbao:transit/tokenward:1".into(), bytes };
        let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is malformed");
        assert_eq!(error.kind(), CryptoErrorKind::Malformed);
        assert!(error.to_string().contains("data key 7"), "{error}");
    }
    for kek in
        ["openbao:transit/tokenward:0", "openbao:transit/tokenward:01", "openbao:transit/other:1", "local:1"]
    {
        let wrapped = WrappedKey { kek: kek.into(), bytes: vec![1; 61] };
        let error = backend.unwrap(&BINDING, &wrapped).await.expect_err("it is unknown");
        assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
        assert!(error.to_string().contains(&format!("{kek:?}")), "{error}");
    }
    assert_eq!(fake.seen().len(), before);
}

const APPROLE: &str = "auth/approle/login";
const RENEW: &str = "auth/token/renew-self";

fn approle(fake: &Fake) -> serde_json::Value {
    fake.section(&json!({"role_id": "role", "secret_id": "hunter2"}))
}

#[tokio::test]
async fn a_token_is_renewed_in_time_though_nobody_asks() {
    let fake = Fake::start(|seen, _| match seen.path.as_str() {
        APPROLE => granted("first", 1),
        RENEW => granted(&seen.token, 1),
        _ => healthy(seen),
    })
    .await;
    let _backend = open(approle(&fake)).await.expect("it comes up");
    fake.wait_for(RENEW, 2).await;
    assert_eq!(fake.count(APPROLE), 1);
    assert!(fake.seen().iter().filter(|seen| seen.path == RENEW).all(|seen| seen.token == "first"));
}

#[tokio::test]
async fn a_token_whose_renewal_is_refused_is_replaced() {
    let fake = Fake::start(|seen, before| match seen.path.as_str() {
        APPROLE if before == 0 => granted("first", 1),
        APPROLE => granted("second", 3600),
        RENEW => Reply::Json(403, json!({"errors": ["permission denied"]})),
        _ => healthy(seen),
    })
    .await;
    let backend = open(approle(&fake)).await.expect("it comes up");
    fake.wait_for(APPROLE, 2).await;
    // The answer to the second login may still be on its way: the first token is as good until it is here.
    wrap(&*backend).await;
    assert_eq!(fake.count(RENEW), 1);
}

#[tokio::test]
async fn a_token_that_nears_the_end_that_no_renewal_moves_is_replaced() {
    let fake = Fake::start(|seen, before| match seen.path.as_str() {
        APPROLE if before == 0 => granted("first", 3),
        APPROLE => granted("second", 3600),
        RENEW => granted(&seen.token, 1),
        _ => healthy(seen),
    })
    .await;
    let _backend = open(approle(&fake)).await.expect("it comes up");
    fake.wait_for(APPROLE, 2).await;
    assert_eq!(fake.count(RENEW), 1);
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again() {
    let fake = Fake::start(|seen, _| match seen.path.as_str() {
        APPROLE => granted("first", 1),
        RENEW => Reply::Text(502, "bad gateway"),
        _ => healthy(seen),
    })
    .await;
    let _backend = open(approle(&fake)).await.expect("it comes up");
    // More than one call's three attempts.
    fake.wait_for(RENEW, 4).await;
}

#[tokio::test]
async fn nobody_looks_after_the_token_of_a_backend_that_is_gone() {
    let fake = Fake::start(|seen, _| match seen.path.as_str() {
        APPROLE => granted("first", 1),
        RENEW => granted(&seen.token, 1),
        _ => healthy(seen),
    })
    .await;
    let backend = open(approle(&fake)).await.expect("it comes up");
    fake.wait_for(RENEW, 1).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    drop(backend);
    // The task ends at once; those of the connection and of the server stay.
    let before = tasks();
    while tasks() >= before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn of_many_calls_with_a_dead_token_one_logs_in() {
    let fake = Fake::start(|seen, before| match seen.path.as_str() {
        APPROLE if before == 0 => granted("first", 3600),
        APPROLE => granted("second", 3600),
        _ if seen.token == "first" && before > 3 => {
            Reply::Json(403, json!({"errors": ["permission denied"]}))
        }
        _ => healthy(seen),
    })
    .await;
    let backend = open(approle(&fake)).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    let calls = (0..20).map(|_| backend.unwrap(&BINDING, &wrapped));
    for outcome in futures::future::join_all(calls).await {
        outcome.expect("the second token is good");
    }
    assert_eq!(fake.count(APPROLE), 2);
}
