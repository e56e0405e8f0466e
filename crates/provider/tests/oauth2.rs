//! What is the kind `oauth2`'s own: its options.
#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokenward_plugin::{Problems, Registry, Section};
use tokenward_provider::{
    AuthorizeRequest, CallRate, ClientCredentials, Provider, ProviderContext, Rotation, oauth2,
};
use tokenward_testkit::provider::{ScriptedVendor, Step};
use tokenward_types::{Scopes, SecretString, SystemClock};

async fn build_now(values: Value) -> Result<Arc<dyn Provider>, Problems> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "providers.vendor".into(), name: "vendor".into(), values };
    let context = ProviderContext { clock: Arc::new(SystemClock) };
    let prepared = Registry::new("provider").with(oauth2()).prepare("oauth2", &section, &context)?;
    Ok(prepared.build().await.expect("the provider can be built"))
}

/// The options without which the kind does not build.
fn required(base: &str) -> Value {
    json!({
        "authorize_url": format!("{base}/authorize"),
        "token_url": format!("{base}/token"),
        "account_field": "account_id",
    })
}

fn with(mut values: Value, more: Value) -> Value {
    let (Value::Object(values_map), Value::Object(more)) = (&mut values, more) else { panic!("objects") };
    values_map.extend(more);
    values
}

fn local(url: &str) -> Value {
    with(required(url), json!({"allow_http": true, "allow_private_addresses": true}))
}

fn credentials() -> ClientCredentials {
    ClientCredentials { client_id: "a b".into(), client_secret: "c:d%".into() }
}

#[tokio::test]
async fn the_defaults_are_those_of_the_documentation() {
    let provider = build_now(required("https://vendor.example")).await.unwrap();
    let info = provider.info();
    assert_eq!((info.name.as_str(), info.kind, info.display_name.as_str()), ("vendor", "oauth2", "vendor"));
    assert!(info.pkce && !info.can_narrow && !info.introspection && !info.revocation && !info.static_tokens);
    assert_eq!((info.rotation, info.default_token_lifetime), (Rotation::None, Duration::from_secs(3600)));
    assert!(info.base_scopes.is_empty() && info.issuer.is_none());
    assert_eq!((info.call_rate, info.refresh_token_idle_lifetime), (None, None));
    assert_eq!(provider.call_timeout(), Duration::from_secs(10));
}

#[tokio::test]
async fn every_option_is_taken() {
    let values = with(
        required("https://vendor.example"),
        json!({
            "display_name": "Vendor", "introspect_url": "https://vendor.example/i", "revoke_url": "https://vendor.example/r",
            "account_name_field": "account_name", "token_auth_method": "client_secret_basic", "pkce": false,
            "base_scopes": ["openid"], "rotation": "grace", "grace_period": "30s", "default_token_lifetime": "10m",
            "issuer": "https://vendor.example", "static_tokens": true, "connect_timeout": "1s", "timeout": "5s",
            "calls_per_second": 20, "call_burst": 40, "refresh_token_idle_lifetime": "90days",
        }),
    );
    let provider = build_now(values).await.unwrap();
    let info = provider.info();
    assert_eq!(info.display_name, "Vendor");
    assert!(!info.pkce && info.introspection && info.revocation && info.static_tokens);
    assert_eq!(info.rotation, Rotation::Grace(Duration::from_secs(30)));
    assert_eq!(info.default_token_lifetime, Duration::from_secs(600));
    assert_eq!(info.base_scopes, Scopes::new(["openid"]).unwrap());
    assert_eq!(info.issuer.as_deref(), Some("https://vendor.example"));
    assert_eq!(provider.call_timeout(), Duration::from_secs(5));
    assert_eq!(info.call_rate, Some(CallRate { per_second: 20, burst: 40 }));
    assert_eq!(info.refresh_token_idle_lifetime, Some(Duration::from_secs(90 * 24 * 3600)));
    let rated = with(required("https://vendor.example"), json!({"calls_per_second": 5}));
    let rate = build_now(rated).await.unwrap().info().call_rate;
    assert_eq!(rate, Some(CallRate { per_second: 5, burst: 5 }), "a second's worth at once");
    let strict = with(required("https://vendor.example"), json!({"rotation": "strict"}));
    assert_eq!(build_now(strict).await.unwrap().info().rotation, Rotation::Strict);
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let values = json!({
        "authorize_url": "http://vendor.example/authorize", "token_url": "https://user:hunter2@vendor.example/token",
        "introspect_url": "https://10.0.0.1/introspect", "revoke_url": "not a url", "account_field": "",
        "rotation": "strict", "grace_period": "30s", "default_token_lifetime": "1s", "connect_timeout": "20s",
        "base_scopes": ["a b"], "ca_file": "/absent.pem", "call_burst": 5, "refresh_token_idle_lifetime": "1s",
    });
    let problems = build_now(values).await.err().expect("it cannot be built");
    let named: Vec<_> =
        problems.iter().map(|problem| problem.at.trim_start_matches("providers.vendor.")).collect();
    let mut sorted = named.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "account_field",
            "authorize_url",
            "base_scopes",
            "ca_file",
            "call_burst",
            "connect_timeout",
            "default_token_lifetime",
            "grace_period",
            "introspect_url",
            "refresh_token_idle_lifetime",
            "revoke_url",
            "token_url",
        ]
    );
    assert!(!problems.to_string().contains("hunter2"));
}

#[tokio::test]
async fn unknown_and_missing_options_are_refused() {
    let unknown = with(required("https://vendor.example"), json!({"tokn_url": "x"}));
    assert!(build_now(unknown).await.err().unwrap().to_string().contains("unknown field `tokn_url`"));
    let missing =
        json!({"authorize_url": "https://vendor.example/a", "token_url": "https://vendor.example/t"});
    assert!(build_now(missing).await.err().unwrap().to_string().contains("account_field"));
    let grace = with(required("https://vendor.example"), json!({"rotation": "grace"}));
    assert!(build_now(grace).await.err().unwrap().to_string().contains("grace_period: is missing"));
}

#[tokio::test]
async fn the_authorize_url_is_the_documented_one() {
    let provider = build_now(required("https://vendor.example")).await.unwrap();
    let url = provider.authorize_url(&AuthorizeRequest {
        client_id: "id",
        redirect_uri: "https://gateway.example/cb",
        scopes: &Scopes::new(["read", "write"]).unwrap(),
        optional_scopes: &Scopes::default(),
        state: &SecretString::from("st"),
        pkce_challenge: Some("ch"),
        account: None,
    });
    assert_eq!(
        url.as_str(),
        "https://vendor.example/authorize?response_type=code&client_id=id\
         &redirect_uri=https%3A%2F%2Fgateway.example%2Fcb&scope=read%20write&state=st\
         &code_challenge=ch&code_challenge_method=S256"
    );
}

#[tokio::test]
async fn basic_authentication_encodes_both_parts_before_joining_them() {
    let vendor = ScriptedVendor::start([Step::answer(200, r#"{"access_token":"t"}"#)]).await;
    let values = with(local(&vendor.url()), json!({"token_auth_method": "client_secret_basic"}));
    let provider = build_now(values).await.unwrap();
    provider.refresh(&credentials(), &SecretString::from("r")).await.unwrap();
    let received = vendor.received();
    // base64("a+b:c%3Ad%25"), RFC 6749 section 2.3.1
    assert_eq!(received[0].header("authorization"), Some("Basic YStiOmMlM0FkJTI1"));
    assert_eq!((received[0].field("client_id"), received[0].field("client_secret")), (None, None));
}

#[tokio::test]
async fn credentials_are_probed_by_introspecting_a_token_that_never_was() {
    for (step, expected) in [
        (Step::answer(200, r#"{"active":false}"#), Some(true)),
        (Step::answer(401, r#"{"error":"invalid_client"}"#), Some(false)),
        (Step::answer(200, "{}"), None),
        (Step::answer(403, r#"{"error":"access_denied"}"#), None),
    ] {
        let vendor = ScriptedVendor::start([step]).await;
        let introspect = json!({"introspect_url": format!("{}/introspect", vendor.url())});
        let provider = build_now(with(local(&vendor.url()), introspect)).await.unwrap();
        assert_eq!(provider.check_credentials(&credentials()).await, expected);
        assert_eq!(vendor.received()[0].target, "/introspect");
    }
    let vendor = ScriptedVendor::start([]).await;
    let without = build_now(local(&vendor.url())).await.unwrap();
    assert_eq!(without.check_credentials(&credentials()).await, None);
    assert_eq!(vendor.received().len(), 0);
}

#[tokio::test]
async fn an_account_that_is_no_identifier_is_left_out_and_the_tokens_are_kept() {
    let vendor = ScriptedVendor::start([
        Step::answer(200, r#"{"access_token":"t","account_id":"a b","scope":"\"","account_name":"Acme"}"#),
        Step::answer(200, r#"{"access_token":"t","account_id":"acme","scope":"x","account_name":"Acme"}"#),
    ])
    .await;
    let values = with(local(&vendor.url()), json!({"account_name_field": "account_name"}));
    let provider = build_now(values).await.unwrap();
    let odd = provider.refresh(&credentials(), &SecretString::from("r")).await.unwrap();
    assert_eq!((odd.account, odd.scopes, odd.account_name.as_deref()), (None, None, Some("Acme")));
    let good = provider.refresh(&credentials(), &SecretString::from("r")).await.unwrap();
    assert_eq!(good.account.unwrap().as_str(), "acme");
}
