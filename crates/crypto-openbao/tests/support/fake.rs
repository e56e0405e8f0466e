//! A server on a real socket that answers as a test says, for what a real OpenBao cannot be made to do.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{Method, Response, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) body: Value,
}

pub(crate) enum Reply {
    Json(u16, Value),
    Text(u16, &'static str),
    /// Status, a header, and a body.
    With(u16, (&'static str, String), &'static str),
    /// Never.
    Hang,
    /// The connection breaks within the body.
    Cut,
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// The server; it ends with its test's runtime.
pub(crate) struct Fake {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    news: Arc<Notify>,
}

impl Fake {
    /// `script` is given each request and how many came before.
    pub(crate) async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, news) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let script: Arc<Script> = Arc::new(script);
        let state = (Arc::clone(&seen), Arc::clone(&news));
        let answer = move |_: Method, uri: Uri, headers: axum::http::HeaderMap, body: Bytes| {
            let (script, (seen, news)) = (Arc::clone(&script), state.clone());
            async move {
                let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let request = Seen {
                    path: uri.path().trim_start_matches("/v1/").to_owned(),
                    token: header("x-vault-token").to_owned(),
                    body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                };
                let before = seen.lock().len();
                seen.lock().push(request.clone());
                news.notify_waiters();
                render(script(&request, before)).await
            }
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, seen, news }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen.lock().iter().filter(|seen| seen.path == path).count()
    }

    /// Waits until this path was asked for so often.
    pub(crate) async fn wait_for(&self, path: &str, times: usize) {
        loop {
            let news = self.news.notified();
            if self.count(path) >= times {
                return;
            }
            news.await;
        }
    }

    pub(crate) fn section(&self, more: &Value) -> Value {
        let mut section = json!({"address": self.address});
        let values = section.as_object_mut().expect("an object");
        values.extend(more.as_object().expect("an object").clone());
        section
    }
}

async fn render(reply: Reply) -> Response<Body> {
    let build = |status: u16, body: Body| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(body).expect("a response")
    };
    match reply {
        Reply::Json(status, value) => build(status, Body::from(value.to_string())),
        Reply::Text(status, text) => build(status, Body::from(text)),
        Reply::With(status, (name, value), text) => {
            let response = Response::builder().status(status).header(name, value);
            response.body(Body::from(text)).expect("a response")
        }
        Reply::Hang => std::future::pending().await,
        Reply::Cut => {
            let start = stream::iter([Ok(Bytes::from_static(b"{\"data\":"))]);
            let end = stream::once(async {
                // What came before is sent meanwhile.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            build(200, Body::from_stream(start.chain(end)))
        }
    }
}

/// What a server in order answers, without any encryption.
pub(crate) fn healthy(seen: &Seen) -> Reply {
    let data = |data: Value| Reply::Json(200, json!({ "data": data }));
    match seen.path.as_str() {
        "auth/token/lookup-self" => data(json!({"ttl": 0, "renewable": false})),
        "transit/keys/tokenward" => data(json!({
            "type": "aes256-gcm96", "latest_version": 1, "min_decryption_version": 1, "keys": {"1": 1}
        })),
        "transit/encrypt/tokenward" => {
            let sealed = BASE64_STANDARD.encode([7; 60]);
            data(json!({"ciphertext": format!("vault:v1:{sealed}"), "key_version": 1}))
        }
        "transit/decrypt/tokenward" => data(json!({"plaintext": BASE64_STANDARD.encode([0x5a; 32])})),
        _ => Reply::Json(404, json!({"errors": []})),
    }
}

/// A login's or renewal's answer.
pub(crate) fn granted(token: &str, seconds: u64) -> Reply {
    let auth = json!({"client_token": token, "lease_duration": seconds, "renewable": true});
    Reply::Json(200, json!({ "auth": auth }))
}
