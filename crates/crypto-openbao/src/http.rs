use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokenward_crypto::{CryptoError, CryptoErrorKind, RemoteCalls};
use zeroize::Zeroizing;

/// The most of an answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Room for every request that is made here, so that growing leaves no copy of a secret behind.
const REQUEST: usize = 16 * 1024;
/// Idle connections are closed before most servers close them.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// Where the server is and how it is spoken to.
pub(crate) struct HttpSettings {
    /// Without a slash at its end.
    pub(crate) address: String,
    pub(crate) namespace: Option<HeaderValue>,
    pub(crate) connect_timeout: Duration,
    pub(crate) certificates: Vec<reqwest::Certificate>,
}

/// Speaks HTTP to one server: follows no redirect, uses no proxy from the environment, and reads bounded answers. How long a
/// request may take is the caller's affair.
pub(crate) struct Http {
    client: reqwest::Client,
    address: String,
    calls: Arc<RemoteCalls>,
}

/// An answer of OpenBao's own: a success, or a refusal that is the request's fault. Whatever else comes is an error.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Zeroizing<Vec<u8>>,
}

impl Http {
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(settings: &HttpSettings, calls: Arc<RemoteCalls>) -> Result<Self, reqwest::Error> {
        let mut headers = HeaderMap::new();
        // Agents in front of a server may insist on it, so that a browser cannot be made to call them.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &settings.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("tokenward/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(settings.connect_timeout)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .referer(false)
            .no_proxy()
            .pool_idle_timeout(POOL_IDLE)
            .tls_certs_merge(settings.certificates.iter().cloned())
            .build()?;
        Ok(Self { client, address: settings.address.clone(), calls })
    }

    /// Sends one request; `path` is below `/v1/`.
    ///
    /// # Errors
    /// `Unavailable` when the server is away, sealed, overloaded, or not OpenBao; `Internal` for a token that cannot be sent.
    pub(crate) async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        token: Option<&SecretString>,
        body: Option<&B>,
    ) -> Result<Answer, CryptoError> {
        let mut request = self.client.request(method, format!("{}/v1/{path}", self.address));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose_secret()).map_err(|_| {
                let message =
                    "the token holds characters that no token has: write the token alone, on one line";
                self.calls.error(CryptoErrorKind::Internal, message)
            })?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        if let Some(body) = body {
            let mut json = Zeroizing::new(Vec::with_capacity(REQUEST));
            serde_json::to_writer(&mut *json, body)
                .map_err(|_| self.calls.error(CryptoErrorKind::Internal, "a request could not be written"))?;
            request = request.header("content-type", "application/json").body(Bytes::from_owner(json));
        }
        let response = request.send().await.map_err(|error| self.unavailable(&describe(&error)))?;
        let status = response.status().as_u16();
        let body = read(response).await.map_err(|reason| self.unavailable(reason))?;
        self.judge(Answer { status, body })
    }

    fn judge(&self, answer: Answer) -> Result<Answer, CryptoError> {
        let unavailable = match answer.status {
            200..=299 => return Ok(answer),
            300..=399 => {
                "it answered with a redirect, which is not followed: set address to the active server or to \
                 what stands before it"
            }
            503 if answer.errors().is_some_and(|errors| errors.iter().any(|e| e.contains("sealed"))) => {
                "it is sealed: unseal it with `bao operator unseal`"
            }
            412 | 429 => "it is overloaded or behind: it refuses requests for now",
            500.. => "it failed to answer: see its own log",
            _ if answer.errors().is_some() => return Ok(answer),
            _ => return Err(self.garbage()),
        };
        Err(self.unavailable(&format!("{unavailable} (HTTP {})", answer.status)))
    }

    /// Reads a successful answer.
    ///
    /// # Errors
    /// `Unavailable` when it is not what OpenBao answers.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&self, answer: &'a Answer) -> Result<T, CryptoError> {
        // The library's message could repeat what was sent.
        serde_json::from_slice(&answer.body).map_err(|_| self.garbage())
    }

    /// The error for an answer that is not OpenBao's.
    pub(crate) fn garbage(&self) -> CryptoError {
        self.unavailable("what answers there is not OpenBao, or its answer was damaged: check address")
    }

    fn unavailable(&self, message: &str) -> CryptoError {
        self.calls.error(CryptoErrorKind::Unavailable, message)
    }
}

impl Answer {
    /// What a refusal says; `None` when it is not OpenBao's.
    fn errors(&self) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct Refusal {
            errors: Vec<String>,
        }
        serde_json::from_slice::<Refusal>(&self.body).ok().map(|refusal| refusal.errors)
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..=299).contains(&self.status)
    }
}

async fn read(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    // All the room at once, so that growing leaves no copy of a key or token behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(chunk) = response.chunk().await.map_err(|_| "its answer was cut off")? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err("its answer is larger than 64 KiB: check address");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Our own words for a failed request: the library's could repeat what came.
fn describe(error: &reqwest::Error) -> String {
    let mut cause =
        std::iter::successors(Some(error as &(dyn StdError + 'static)), |error| (*error).source());
    if error.is_connect() {
        // Before the request is written there is nothing of the server's but its certificate to repeat.
        let cause = cause.last().map(ToString::to_string).unwrap_or_default();
        return format!("cannot connect: {cause}. Check that it runs, the address, and ca_file for TLS");
    }
    if error.is_timeout() {
        return "cannot connect in time".to_owned();
    }
    match cause.find_map(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(io) => format!("the connection broke: {}", io.kind()),
        None => "the connection broke, or what answers there does not speak HTTP: check address".to_owned(),
    }
}
