//! Another issuer of caller tokens: an RSA key, its JWKS, tokens that are signed well or badly.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenward_tests::Scratch;
use tokenward_types::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    SystemClock.now().as_secs()
}

/// An RSA key with a name.
pub(crate) struct Signer {
    kid: &'static str,
    key: RsaKeyPair,
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { kid, key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn public(&self) -> RsaPublicKeyComponents<Vec<u8>> {
        RsaPublicKeyComponents::<Vec<u8>>::from(self.key.public_key())
    }

    /// The public key as a key set.
    pub(crate) fn jwks(&self) -> String {
        let public = self.public();
        let key = json!({
            "kty": "RSA", "kid": self.kid, "alg": "RS256", "n": base64url(public.n), "e": base64url(public.e)
        });
        json!({ "keys": [key] }).to_string()
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "RS256", "kid": self.kid }), claims)
    }

    /// A token with another header, signed by RS256 all the same.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = signed_part(header, claims);
        let mut signature = vec![0; self.key.public_modulus_len()];
        let padding: &dyn signature::RsaEncoding = &RSA_PKCS1_SHA256;
        self.key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", base64url(signature))
    }

    /// Tokens that use what everybody knows, the public key in several spellings, as an HMAC secret.
    pub(crate) fn tokens_by_hmac_of_the_public_key(&self, claims: &Value) -> Vec<String> {
        let secrets = [self.key.public_key().as_ref().to_vec(), self.public().n, self.jwks().into_bytes()];
        let signed = signed_part(&json!({ "alg": "HS256", "kid": self.kid }), claims);
        let sign = |secret: Vec<u8>| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
            format!("{signed}.{}", base64url(tag))
        };
        secrets.into_iter().map(sign).collect()
    }
}

fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()))
}

/// A token that nobody signed.
pub(crate) fn unsigned(algorithm: &str, claims: &Value) -> String {
    format!("{}.", signed_part(&json!({ "alg": algorithm }), claims))
}

/// Claims of a good token that lives for an hour.
pub(crate) fn claims(iss: &str, sub: &str) -> Value {
    json!({ "iss": iss, "sub": sub, "aud": "tokenward", "iat": now(), "exp": now() + 3600 })
}

/// Seconds from now on, as claims count them.
pub(crate) fn in_secs(secs: i64) -> Value {
    json!(now() + secs)
}

/// The same claims but for one; `null` takes it away.
pub(crate) fn but(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    let object = changed.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    changed
}

/// A key set in a file.
pub(crate) fn jwks_file(folder: &Scratch, signer: &Signer) -> PathBuf {
    folder.write("jwks.json", &signer.jwks())
}

/// A key set at a URL.
pub(crate) struct JwksServer {
    pub(crate) url: String,
    body: watch::Sender<Option<String>>,
    hits: Arc<AtomicUsize>,
}

impl JwksServer {
    /// Answers with this body; without one, that it cannot.
    pub(crate) async fn start(body: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (body, current) = watch::channel(body);
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let body = current.borrow().clone();
                let (status, body) = body.map_or(("503 Away", String::new()), |body| ("200 OK", body));
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                // A request fits into one segment; whoever hangs up early gets no answer.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, body, hits }
    }

    pub(crate) fn answer(&self, body: Option<String>) {
        self.body.send_replace(body);
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}
