//! What is HubSpot's own: addresses, versions, the credential probe.
#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokenward_plugin::{Problems, Registry, Section};
use tokenward_provider::{
    AuthorizeRequest, ClientCredentials, ErrorClass, Provider, ProviderContext, Rotation, TokenHint,
};
use tokenward_provider_hubspot::hubspot as kind;
use tokenward_testkit::provider::{ScriptedVendor, Step};
use tokenward_types::{AccountId, Scopes, SecretString, SystemClock};

async fn build(values: Value) -> Result<Arc<dyn Provider>, Problems> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "providers.hubspot".into(), name: "hubspot".into(), values };
    let context = ProviderContext { clock: Arc::new(SystemClock) };
    let prepared = Registry::new("provider").with(kind()).prepare("hubspot", &section, &context)?;
    Ok(prepared.build().await.expect("the provider can be built"))
}

/// Options that point the provider at a fake on loopback.
fn local(base: &str) -> Value {
    json!({
        "api_base_url": base,
        "authorize_url": format!("{base}/oauth/authorize"),
        "allow_http": true,
        "allow_private_addresses": true,
    })
}

async fn hubspot(values: Value) -> Arc<dyn Provider> {
    build(values).await.expect("the configuration is right")
}

fn credentials() -> ClientCredentials {
    ClientCredentials { client_id: "id".into(), client_secret: "secret".into() }
}

#[tokio::test]
async fn without_options_it_is_the_real_hubspot() {
    let provider = hubspot(json!({})).await;
    let info = provider.info();
    assert_eq!((info.kind, info.display_name.as_str()), ("hubspot", "HubSpot"));
    assert_eq!(info.base_scopes, Scopes::new(["oauth"]).unwrap());
    assert_eq!((info.rotation, info.default_token_lifetime), (Rotation::None, Duration::from_secs(1800)));
    assert!(info.introspection && info.revocation && info.static_tokens && !info.pkce && !info.can_narrow);
}

#[tokio::test]
async fn the_authorize_url_is_the_documented_one() {
    let provider = hubspot(json!({})).await;
    let account = AccountId::parse("1234567").unwrap();
    let scopes = Scopes::new(["oauth", "crm.objects.contacts.read"]).unwrap();
    let optional = Scopes::new(["crm.objects.contacts.write"]).unwrap();
    let state = SecretString::from("st");
    let request = AuthorizeRequest {
        client_id: "id",
        redirect_uri: "https://gateway.example/cb",
        scopes: &scopes,
        optional_scopes: &optional,
        state: &state,
        pkce_challenge: None,
        account: Some(&account),
    };
    assert_eq!(
        provider.authorize_url(&request).as_str(),
        "https://app.hubspot.com/oauth/1234567/authorize?client_id=id\
         &redirect_uri=https%3A%2F%2Fgateway.example%2Fcb&scope=crm.objects.contacts.read%20oauth\
         &optional_scope=crm.objects.contacts.write&state=st"
    );
    let plain = AuthorizeRequest { optional_scopes: &Scopes::default(), account: None, ..request };
    assert_eq!(
        provider.authorize_url(&plain).as_str(),
        "https://app.hubspot.com/oauth/authorize?client_id=id\
         &redirect_uri=https%3A%2F%2Fgateway.example%2Fcb&scope=crm.objects.contacts.read%20oauth&state=st"
    );
}

#[tokio::test]
async fn the_api_version_decides_the_paths_and_no_token_is_in_one() {
    for (version, token, others) in [
        ("2026-03", "2026-03", "2026-03"),
        ("2026-09", "2026-09", "2026-09"),
        ("v3", "v3", "v3"),
        ("v1", "v1", "v3"),
    ] {
        let steps = [
            Step::answer(200, r#"{"access_token":"a"}"#),
            Step::answer(200, r#"{"active":false}"#),
            Step::answer(200, ""),
        ];
        let vendor = ScriptedVendor::start(steps).await;
        let mut values = local(&vendor.url());
        values["api_version"] = version.into();
        let provider = hubspot(values).await;
        let refresh_token = SecretString::from("r");
        provider.refresh(&credentials(), &refresh_token).await.unwrap();
        provider.introspect(&credentials(), &refresh_token, TokenHint::RefreshToken).await.unwrap();
        provider.revoke(&credentials(), &refresh_token).await.unwrap();
        let targets: Vec<_> = vendor.received().into_iter().map(|request| request.target).collect();
        assert_eq!(
            targets,
            [
                format!("/oauth/{token}/token"),
                format!("/oauth/{others}/token/introspect"),
                format!("/oauth/{others}/token/revoke"),
            ]
        );
    }
}

#[tokio::test]
async fn credentials_are_probed_without_spending_a_grant() {
    let scopes = r#"{"status":"BAD_SCOPES","message":"missing or unknown scopes","error":"invalid_scope"}"#;
    let old_scopes = r#"{"status":"BAD_SCOPES","message":"missing or unknown scopes","correlationId":"x"}"#;
    let secret = r#"{"status":"BAD_CLIENT_SECRET","message":"wrong","error":"invalid_client"}"#;
    let client = r#"{"status":"BAD_CLIENT_ID","message":"wrong"}"#;
    let grant_type = r#"{"status":"BAD_GRANT_TYPE","message":"no","error":"unsupported_grant_type"}"#;
    for (answers, expected) in [
        (vec![(400, scopes)], Some(true)),
        (vec![(400, old_scopes)], Some(true)),
        (vec![(200, r#"{"access_token":"a"}"#)], Some(true)),
        (vec![(400, secret)], Some(false)),
        (vec![(401, secret)], Some(false)),
        (vec![(400, client)], Some(false)),
        (vec![(400, grant_type), (200, r#"{"active":false}"#)], Some(true)),
        (vec![(400, grant_type), (401, secret)], Some(false)),
        (vec![(404, ""), (404, "")], None),
        (vec![(500, scopes)], None),
        (vec![(429, "")], None),
    ] {
        let count = answers.len();
        let vendor =
            ScriptedVendor::start(answers.iter().map(|(status, body)| Step::answer(*status, *body))).await;
        let provider = hubspot(local(&vendor.url())).await;
        assert_eq!(provider.check_credentials(&credentials()).await, expected, "{answers:?}");
        let received = vendor.received();
        assert_eq!(received.len(), count, "{answers:?}");
        assert_eq!(received[0].field("grant_type").as_deref(), Some("client_credentials"));
        assert!(received.iter().all(|request| request.field("refresh_token").is_none()));
    }
}

#[tokio::test]
async fn a_migrating_account_says_how_long() {
    let vendor = ScriptedVendor::start([Step::answer(477, "").header("retry-after", "86400")]).await;
    let provider = hubspot(local(&vendor.url())).await;
    let error = provider.refresh(&credentials(), &SecretString::from("r")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::AccountUnavailable);
    assert_eq!(error.retry_after, Some(Duration::from_secs(86_400)));
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let values = json!({"api_base_url": "http://10.0.0.1", "authorize_url": "x", "api_version": "v2", "timeout": "0s"});
    let problems = build(values).await.err().expect("it cannot be built");
    let mut named: Vec<_> = problems.iter().map(|problem| problem.at.as_str()).collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "providers.hubspot.api_base_url",
            "providers.hubspot.api_version",
            "providers.hubspot.authorize_url",
            "providers.hubspot.connect_timeout",
            "providers.hubspot.timeout",
        ]
    );
}
