//! TLS as a real vendor speaks it: a private certificate authority, HTTP/2 on offer, and what the HTTP library logs.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokenward_plugin::{Registry, Section};
use tokenward_provider::{ClientCredentials, ErrorClass, Provider, ProviderContext, oauth2};
use tokenward_testkit::provider::LogCapture;
use tokenward_types::{ExposeSecret, SecretString, SystemClock};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A vendor behind TLS that answers every form with a token, and tells which HTTP version it was asked in.
async fn vendor(name: &str) -> (u16, String) {
    let certificate = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, certificate.cert.pem())
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let version = format!("{:?}", request.version());
    let _ = request.into_body().collect().await;
    let body = json!({"access_token": "c4n4ry-new", "refresh_token": "c4n4ry-next", "account_id": "a", "scope": version});
    Ok(http::Response::new(Full::from(body.to_string())))
}

async fn provider(base: &str, ca_file: Option<&std::path::Path>, basic: bool) -> Arc<dyn Provider> {
    let serde_json::Value::Object(mut values) = json!({
        "authorize_url": format!("{base}/authorize"), "token_url": format!("{base}/token"), "account_field": "account_id",
        "allow_private_addresses": true,
        "token_auth_method": if basic { "client_secret_basic" } else { "client_secret_post" },
    }) else {
        panic!("a section is an object")
    };
    if let Some(path) = ca_file {
        values.insert("ca_file".into(), path.to_str().unwrap().into());
    }
    let section = Section { at: "providers.vendor".into(), name: "vendor".into(), values };
    let context = ProviderContext { clock: Arc::new(SystemClock) };
    Registry::new("provider")
        .with(oauth2())
        .prepare("oauth2", &section, &context)
        .unwrap()
        .build()
        .await
        .unwrap()
}

fn credentials() -> ClientCredentials {
    ClientCredentials { client_id: "id".into(), client_secret: "c4n4ry-secret".into() }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let (port, pem) = vendor("localhost").await;
    let base = format!("https://localhost:{port}");
    let refresh_token = SecretString::from("c4n4ry-refresh");
    let stranger = provider(&base, None, false).await;
    let error = stranger.refresh(&credentials(), &refresh_token).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotSent, "{error}");
    assert!(error.detail.contains("certificate"), "the operator can see why: {error}");
    let ca_file = file(&pem);
    let friend = provider(&base, Some(ca_file.path()), false).await;
    let answer = friend.refresh(&credentials(), &refresh_token).await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "c4n4ry-new");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (port, pem) = vendor("vendor.example").await;
    let ca_file = file(&pem);
    let provider = provider(&format!("https://localhost:{port}"), Some(ca_file.path()), false).await;
    let error = provider.refresh(&credentials(), &SecretString::from("r")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotSent, "{error}");
}

#[tokio::test]
async fn calls_share_no_connection_and_log_no_secret_at_any_level() {
    let logs = LogCapture::global();
    let (port, pem) = vendor("localhost").await;
    let ca_file = file(&pem);
    for basic in [false, true] {
        let provider = provider(&format!("https://localhost:{port}"), Some(ca_file.path()), basic).await;
        let refresh_token = SecretString::from("c4n4ry-refresh");
        let answer = provider.refresh(&credentials(), &refresh_token).await.unwrap();
        assert_eq!(answer.scopes.unwrap().to_string(), "HTTP/1.1", "the vendor offers HTTP/2 too");
    }
    let logged = logs.text();
    assert!(logged.contains("hyper_util::"), "the HTTP library does log");
    let basic_secret = "aWQ6YzRuNHJ5"; // base64 of "id:c4n4ry"
    let leak = logged.lines().find(|line| line.contains("c4n4ry") || line.contains(basic_secret));
    assert_eq!(leak, None);
}
