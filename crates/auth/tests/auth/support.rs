//! Signers that do not use the library under test, and a JWKS server on a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use axum::http::{StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenward_auth::{AuthSettings, Authenticator, IssuerConfig, JwksSource};
use tokenward_types::{ManualClock, Timestamp};
use tokio::sync::{Notify, watch};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISS: &str = "https://id.example.com";
pub(crate) const AUDIENCE: &str = "tokenward";

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key of an issuer.
pub(crate) enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match alg {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let curve = |name: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": name, "kid": kid, "x": base64url(x), "y": base64url(y)})
        };
        match self {
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(key.public_key())})
            }
            Self::P256(key) => curve("P-256", key.public_key().as_ref()),
            Self::P384(key) => curve("P-384", key.public_key().as_ref()),
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "kid": kid, "n": base64url(public.n), "e": base64url(public.e)})
            }
        }
    }

    /// A token whose header is `alg` and `kid`.
    pub(crate) fn token(&self, alg: &str, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": alg, "kid": kid, "typ": "JWT"}), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = self.sign(header["alg"].as_str().unwrap_or(""), signed.as_bytes());
        format!("{signed}.{}", base64url(signature))
    }
}

/// Claims of a good token that lives for an hour.
pub(crate) fn claims(sub: &str) -> Value {
    json!({"iss": ISS, "sub": sub, "aud": AUDIENCE, "iat": NOW, "exp": NOW + 3600})
}

/// `claims` with one more or another claim; `null` takes it away.
pub(crate) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What the JWKS server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    Keys(String),
    Status(u16),
    Redirect(String),
    /// Nothing, until the test says so.
    Held(Arc<Notify>, String),
}

/// A JWKS URL on a real socket.
pub(crate) struct JwksServer {
    pub(crate) address: SocketAddr,
    answer: watch::Sender<Answer>,
    hits: Arc<AtomicUsize>,
    /// Told at each request that arrives.
    pub(crate) arrived: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl JwksServer {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, current) = watch::channel(answer);
        let (hits, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, told) = (Arc::clone(&hits), Arc::clone(&arrived));
        let handler = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            told.notify_one();
            let answer = current.borrow().clone();
            async move {
                let json = |body| (StatusCode::OK, [(header::LOCATION, String::new())], body);
                match answer {
                    Answer::Keys(body) => json(body),
                    Answer::Status(status) => {
                        let status = StatusCode::from_u16(status).unwrap();
                        (status, [(header::LOCATION, String::new())], String::new())
                    }
                    Answer::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)], String::new()),
                    Answer::Held(until, body) => {
                        until.notified().await;
                        json(body)
                    }
                }
            }
        };
        let router = axum::Router::new().route("/jwks", axum::routing::get(handler));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, hits, arrived, task }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    /// Refuses connections from now on.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// The issuer `corp`, whose keys are at `url`, with every algorithm allowed.
pub(crate) fn corp(url: &str) -> IssuerConfig {
    let source = JwksSource::Url(url.parse().unwrap());
    let algorithms =
        ["EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(str::to_owned);
    IssuerConfig { algorithms: algorithms.to_vec(), ..IssuerConfig::new("corp", ISS, AUDIENCE, source) }
}

pub(crate) fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_secs(NOW))
}

pub(crate) fn authenticator(issuers: Vec<IssuerConfig>, clock: &ManualClock) -> Authenticator {
    Authenticator::new(issuers, None, Arc::new(clock.clone()), AuthSettings::default()).unwrap()
}

/// The issuer `corp` behind a server, with one Ed25519 key named `k1`.
pub(crate) struct Corp {
    pub(crate) signer: Signer,
    pub(crate) server: JwksServer,
    pub(crate) clock: ManualClock,
    pub(crate) auth: Authenticator,
}

impl Corp {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| ()).await
    }

    pub(crate) async fn configured(change: impl FnOnce(&mut IssuerConfig)) -> Self {
        let signer = Signer::ed25519();
        let server = JwksServer::start(Answer::Keys(jwks(&[signer.jwk("k1")]))).await;
        let mut config = corp(&server.url());
        change(&mut config);
        let clock = clock();
        let auth = authenticator(vec![config], &clock);
        auth.preload().await;
        Self { signer, server, clock, auth }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signer.token("EdDSA", "k1", claims)
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
