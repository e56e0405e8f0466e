//! Where keys come from: rotation, withdrawal, sources that are away, and how often anybody is asked.

use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::AuthErrorReason::*;
use tokenward_auth::{AuthSettings, Authenticator, IssuerConfig, JwksSource};
use tokio::sync::Notify;

use crate::support::*;

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let corp = Corp::start().await;
    let old = corp.token(&claims("billing"));
    corp.auth.authenticate(&old).await.unwrap();
    let next = Signer::ed25519();
    corp.server.answer(Answer::Keys(jwks(&[corp.signer.jwk("k1"), next.jwk("k2")])));
    corp.clock.advance(30 * SECOND);
    let token = next.token("EdDSA", "k2", &claims("billing"));
    assert!(corp.auth.authenticate(&token).await.is_ok());
    assert!(corp.auth.authenticate(&old).await.is_ok(), "the old key stays as long as it is published");
    assert_eq!(corp.server.hits(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_verdicts_along() {
    let corp = Corp::start().await;
    let token = corp.token(&claims("billing"));
    corp.auth.authenticate(&token).await.unwrap();
    corp.server.answer(Answer::Keys(jwks(&[Signer::ed25519().jwk("k2")])));
    corp.clock.advance(30 * SECOND);
    assert_eq!(corp.auth.refresh_keys().await, 0);
    assert!(corp.auth.cached(&token).is_none());
    assert_eq!(corp.auth.authenticate(&token).await.unwrap_err().reason(), UnknownKey);
}

#[tokio::test]
async fn another_key_under_the_same_name_takes_its_verdicts_along() {
    let corp = Corp::start().await;
    let token = corp.token(&claims("billing"));
    corp.auth.authenticate(&token).await.unwrap();
    corp.server.answer(Answer::Keys(jwks(&[Signer::ed25519().jwk("k1")])));
    corp.clock.advance(30 * SECOND);
    corp.auth.refresh_keys().await;
    assert!(corp.auth.cached(&token).is_none());
    assert_eq!(corp.auth.authenticate(&token).await.unwrap_err().reason(), BadSignature);
}

#[tokio::test]
async fn the_same_keys_leave_verdicts_alone() {
    let corp = Corp::start().await;
    let token = corp.token(&claims("billing"));
    corp.auth.authenticate(&token).await.unwrap();
    corp.clock.advance(30 * SECOND);
    corp.auth.refresh_keys().await;
    assert_eq!(corp.server.hits(), 2);
    assert!(corp.auth.cached(&token).is_some());
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_in_thirty_seconds() {
    let corp = Corp::start().await;
    let unknown = |n: usize| corp.signer.token("EdDSA", &format!("unknown-{n}"), &claims("billing"));
    corp.clock.advance(30 * SECOND);
    for n in 0..20 {
        assert_eq!(corp.auth.authenticate(&unknown(n)).await.unwrap_err().reason(), UnknownKey);
    }
    assert_eq!(corp.server.hits(), 2, "one at start, one for all of them");
    corp.clock.advance(29 * SECOND);
    corp.auth.authenticate(&unknown(20)).await.unwrap_err();
    assert_eq!(corp.server.hits(), 2);
    corp.clock.advance(SECOND);
    corp.auth.authenticate(&unknown(21)).await.unwrap_err();
    assert_eq!(corp.server.hits(), 3);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_back_does_not_stop_refetching() {
    let corp = Corp::start().await;
    let next = Signer::ed25519();
    corp.server.answer(Answer::Keys(jwks(&[next.jwk("k2")])));
    corp.clock.advance(30 * SECOND);
    corp.clock.set_wall(tokenward_types::Timestamp::from_secs(NOW));
    assert!(corp.auth.authenticate(&next.token("EdDSA", "k2", &claims("billing"))).await.is_ok());
}

#[tokio::test]
async fn keys_stay_while_their_url_is_down() {
    let corp = Corp::start().await;
    corp.server.stop().await;
    for _ in 0..3 {
        corp.clock.advance(30 * SECOND);
        assert_eq!(corp.auth.refresh_keys().await, 1);
    }
    let known = corp.signer.token("EdDSA", "k1", &with(claims("billing"), "jti", "fresh".into()));
    assert!(corp.auth.authenticate(&known).await.is_ok());
    let unknown = corp.signer.token("EdDSA", "k2", &claims("billing"));
    let error = corp.auth.authenticate(&unknown).await.unwrap_err();
    assert_eq!(error.reason(), KeysUnavailable, "it may be a new key: worth a retry");
    assert!(error.reason().is_retryable());
}

#[tokio::test]
async fn answers_that_are_no_key_set_change_nothing() {
    let corp = Corp::start().await;
    let other = JwksServer::start(Answer::Keys(jwks(&[Signer::ed25519().jwk("k1")]))).await;
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300 * 1024));
    let many: Vec<_> = (0..101).map(|n| corp.signer.jwk(&n.to_string())).collect();
    for answer in [
        Answer::Status(500),
        Answer::Status(204),
        Answer::Keys("<html>".to_owned()),
        Answer::Keys(String::new()),
        Answer::Keys("{\"keys\": {}}".to_owned()),
        Answer::Keys(huge),
        Answer::Keys(jwks(&many)),
        Answer::Redirect(other.url()),
    ] {
        corp.server.answer(answer);
        corp.clock.advance(30 * SECOND);
        assert_eq!(corp.auth.refresh_keys().await, 1);
        let token = corp.token(&with(claims("billing"), "jti", corp.server.hits().into()));
        assert!(corp.auth.authenticate(&token).await.is_ok());
    }
    assert_eq!(other.hits(), 0, "redirects are not followed");
}

#[tokio::test]
async fn an_issuer_whose_url_is_away_at_start_is_found_later() {
    let signer = Signer::ed25519();
    let server = JwksServer::start(Answer::Status(503)).await;
    let clock = clock();
    let auth = authenticator(vec![corp(&server.url())], &clock);
    auth.preload().await;
    let token = signer.token("EdDSA", "k1", &claims("billing"));
    assert_eq!(auth.authenticate(&token).await.unwrap_err().reason(), KeysUnavailable);
    assert_eq!(server.hits(), 1, "the fetch at start was just now");
    server.answer(Answer::Keys(jwks(&[signer.jwk("k1")])));
    clock.advance(30 * SECOND);
    assert!(auth.authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn nobody_with_a_known_key_waits_for_a_slow_url() {
    let corp = Corp::start().await;
    let gate = Arc::new(Notify::new());
    corp.server.answer(Answer::Held(Arc::clone(&gate), jwks(&[corp.signer.jwk("k1")])));
    corp.clock.advance(30 * SECOND);
    let unknown = corp.signer.token("EdDSA", "k2", &claims("billing"));
    let known = async {
        corp.server.arrived.notified().await;
        corp.server.arrived.notified().await;
        let verdict = corp.auth.authenticate(&corp.token(&claims("billing"))).await;
        gate.notify_one();
        verdict
    };
    let (unknown, known) = tokio::join!(corp.auth.authenticate(&unknown), known);
    assert!(known.is_ok());
    assert_eq!(unknown.unwrap_err().reason(), UnknownKey);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_spend_the_fetch_for_everybody() {
    let corp = Corp::start().await;
    let next = Signer::ed25519();
    let gate = Arc::new(Notify::new());
    corp.server.answer(Answer::Held(Arc::clone(&gate), jwks(&[next.jwk("k2")])));
    corp.clock.advance(30 * SECOND);
    let token = next.token("EdDSA", "k2", &claims("billing"));
    let arrived = async {
        corp.server.arrived.notified().await;
        corp.server.arrived.notified().await;
    };
    tokio::select! {
        biased;
        () = arrived => {}
        verdict = corp.auth.authenticate(&token) => panic!("answered before the keys came: {verdict:?}"),
    }
    gate.notify_one();
    assert!(corp.auth.authenticate(&token).await.is_ok());
    assert_eq!(corp.server.hits(), 2);
}

#[tokio::test]
async fn a_key_file_is_read_again_when_a_token_names_an_unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let (first, second) = (Signer::ed25519(), Signer::p256());
    std::fs::write(&path, jwks(&[first.jwk("k1")])).unwrap();
    let clock = clock();
    let auth =
        authenticator(vec![IssuerConfig::new("corp", ISS, AUDIENCE, JwksSource::File(path.clone()))], &clock);
    let (old, new) =
        (first.token("EdDSA", "k1", &claims("billing")), second.token("ES256", "k2", &claims("billing")));
    assert!(auth.authenticate(&old).await.is_ok());
    assert_eq!(auth.authenticate(&new).await.unwrap_err().reason(), UnknownKey);

    std::fs::write(&path, jwks(&[second.jwk("k2")])).unwrap();
    clock.advance(SECOND);
    assert!(auth.authenticate(&new).await.is_ok());
    assert!(auth.cached(&old).is_none());
    assert_eq!(auth.authenticate(&old).await.unwrap_err().reason(), UnknownKey);

    std::fs::remove_file(&path).unwrap();
    clock.advance(SECOND);
    assert_eq!(auth.refresh_keys().await, 1);
    assert!(auth.cached(&new).is_some(), "keys stay while their file is away");
}

#[tokio::test]
async fn a_setup_that_cannot_work_names_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.json");
    std::fs::write(&empty, "{\"keys\": []}").unwrap();
    let of = |name: &str, iss: &str, path: &std::path::Path| {
        IssuerConfig::new(name, iss, AUDIENCE, JwksSource::File(path.to_owned()))
    };
    let no_ca =
        IssuerConfig { ca_file: Some(folder.path().join("ca.pem")), ..corp("https://id.example.com/jwks") };
    let issuers = vec![
        of("builtin", "a", &empty),
        of("one", "b", &folder.path().join("absent.json")),
        of("two", "c", &empty),
        IssuerConfig { iss: "d".to_owned(), ..corp("http://127.0.0.1:1/jwks") },
        corp("http://127.0.0.1:1/jwks"),
        IssuerConfig { name: "again".to_owned(), ..corp("http://127.0.0.1:1/jwks") },
        IssuerConfig { name: "ca".to_owned(), iss: "e".to_owned(), ..no_ca },
    ];
    let error = Authenticator::new(issuers, None, Arc::new(clock()), AuthSettings::default())
        .unwrap_err()
        .to_string();
    for expected in
        ["reserved", "absent.json", "no usable public key", "another of this name", "same iss", "ca.pem"]
    {
        assert!(error.contains(expected), "{expected:?} in: {error}");
    }
}

/// A JWKS URL over TLS, with a certificate that nobody but the test knows.
async fn tls_server(body: String) -> (std::net::SocketAddr, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn a_private_certificate_authority_is_trusted_only_when_it_is_configured() {
    let signer = Signer::ed25519();
    let (address, pem) = tls_server(jwks(&[signer.jwk("k1")])).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let token = signer.token("EdDSA", "k1", &claims("billing"));
    let url = format!("https://localhost:{}/jwks", address.port());

    let without = authenticator(vec![corp(&url)], &clock());
    assert_eq!(without.authenticate(&token).await.unwrap_err().reason(), KeysUnavailable);
    let with = authenticator(vec![IssuerConfig { ca_file: Some(ca), ..corp(&url) }], &clock());
    assert!(with.authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn issuers_are_fetched_side_by_side_at_start() {
    let gate = Arc::new(Notify::new());
    let slow = JwksServer::start(Answer::Held(Arc::clone(&gate), jwks(&[]))).await;
    let fast = JwksServer::start(Answer::Keys(jwks(&[]))).await;
    let second = IssuerConfig { name: "second".to_owned(), iss: "second".to_owned(), ..corp(&fast.url()) };
    let auth = authenticator(vec![corp(&slow.url()), second], &clock());
    let release = async {
        slow.arrived.notified().await;
        fast.arrived.notified().await;
        gate.notify_one();
    };
    let both = async { tokio::join!(auth.preload(), release) };
    assert!(tokio::time::timeout(Duration::from_secs(5), both).await.is_ok());
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let chunk = vec![b' '; 64 * 1024];
        let mut sent = 0;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
        while socket.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let auth = authenticator(vec![corp(&url)], &clock());
    assert_eq!(auth.refresh_keys().await, 1);
    // The limit is 256 KiB; the rest is what the kernel's buffers take.
    assert!(server.await.unwrap() < 32 * 1024 * 1024);
}

#[tokio::test]
async fn tokens_with_unknown_keys_wait_for_them_in_bounded_numbers_and_known_keys_never() {
    let corp = Corp::start().await;
    let (next, until) = (Signer::ed25519(), Arc::new(Notify::new()));
    corp.server.answer(Answer::Held(Arc::clone(&until), jwks(&[corp.signer.jwk("k1"), next.jwk("k2")])));
    corp.clock.advance(30 * SECOND);
    let auth = Arc::new(corp.auth);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..300 {
        let (auth, token) = (Arc::clone(&auth), next.token("EdDSA", "k2", &claims(&format!("caller-{n}"))));
        waiting.spawn(async move { auth.authenticate(&token).await.map_err(|error| error.reason()) });
    }
    for _ in 0..300 - 256 {
        assert_eq!(waiting.join_next().await.unwrap().unwrap().unwrap_err(), KeysUnavailable);
    }
    let known = corp.signer.token("EdDSA", "k1", &claims("billing"));
    assert!(auth.authenticate(&known).await.is_ok(), "whose key is known does not wait");
    until.notify_one();
    while let Some(verdict) = waiting.join_next().await {
        assert!(verdict.unwrap().is_ok(), "whoever waited gets in with the new key");
    }
    assert_eq!(corp.server.hits(), 2);
}

#[tokio::test]
async fn a_claimed_principal_is_read_without_a_key_and_only_of_an_issuer_that_is_known() {
    let corp = Corp::start().await;
    let stranger = Signer::ed25519();
    let forged = stranger.token("EdDSA", "k9", &claims("billing"));
    assert_eq!(corp.auth.claimed_principal(&forged).unwrap(), "corp:billing");
    let nameless = stranger.token("EdDSA", "k9", &with(claims("billing"), "sub", serde_json::Value::Null));
    assert_eq!(corp.auth.claimed_principal(&nameless).unwrap(), "corp:");
    let foreign = stranger.token("EdDSA", "k9", &with(claims("billing"), "iss", "https://else".into()));
    assert_eq!(corp.auth.claimed_principal(&foreign).unwrap_err().reason(), UnknownIssuer);
    assert_eq!(corp.auth.claimed_principal("a.b.c").unwrap_err().reason(), Malformed);
    assert_eq!(corp.auth.claimed_principal(&"x".repeat(9000)).unwrap_err().reason(), Malformed);
    assert_eq!(corp.auth.claimed_principal("").unwrap_err().reason(), Missing);
}
