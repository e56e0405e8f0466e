//! Against the stand-in HubSpot, which shares no code with the provider.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokenward_hubspot_sim::{
    Fault, FaultKind, GrantRequest, HubspotSim, Overlap, RunningSim, SettingsPatch, SimConfig,
};
use tokenward_plugin::{Registry, Section};
use tokenward_provider::{
    AuthorizeRequest, ClientCredentials, ErrorClass, ExpiresIn, Provider, ProviderContext, TokenHint,
    pkce_challenge,
};
use tokenward_provider_hubspot::hubspot;
use tokenward_types::{AccountId, ExposeSecret, Scopes, SecretString, SystemClock};
use url::Url;

const REDIRECT_URI: &str = "http://localhost:8080/callback";
const HUB: u64 = 1_234_567;
const VERSIONS: [&str; 3] = ["2026-03", "v3", "v1"];

struct World {
    sim: RunningSim,
    provider: Arc<dyn Provider>,
    credentials: ClientCredentials,
}

async fn world(api_version: &str) -> World {
    let config = SimConfig::demo([REDIRECT_URI]);
    let app = config.apps[0].clone();
    let sim = HubspotSim::start(config).await.unwrap();
    let serde_json::Value::Object(values) = json!({
        "api_base_url": sim.base_url(), "authorize_url": sim.authorize_url(), "api_version": api_version,
        "allow_http": true, "allow_private_addresses": true, "timeout": "5s",
    }) else {
        panic!("a section is an object")
    };
    let section = Section { at: "providers.hubspot".into(), name: "hubspot".into(), values };
    let context = ProviderContext { clock: Arc::new(SystemClock) };
    let provider = Registry::new("provider")
        .with(hubspot())
        .prepare("hubspot", &section, &context)
        .unwrap()
        .build()
        .await
        .unwrap();
    let credentials = ClientCredentials { client_id: app.client_id, client_secret: app.client_secret.into() };
    World { sim, provider, credentials }
}

impl World {
    /// A consent that nobody has to click for.
    fn granted(&self) -> SecretString {
        let client_id = self.credentials.client_id.clone();
        let request = GrantRequest { client_id, hub_ids: vec![HUB], ..GrantRequest::default() };
        self.sim.handle().create_grants(&request).unwrap().remove(0).refresh_token.into()
    }

    async fn refresh_class(&self, refresh_token: &SecretString) -> Option<ErrorClass> {
        self.provider.refresh(&self.credentials, refresh_token).await.err().map(|error| error.class)
    }
}

/// Does what the customer's browser does: opens the page, grants, and is sent back with a code.
async fn consent(authorize: &Url) -> SecretString {
    let browser =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    assert!(browser.get(authorize.clone()).send().await.unwrap().status().is_success());
    let mut form: Vec<(String, String)> = authorize.query_pairs().into_owned().collect();
    form.extend([("hub_id".into(), HUB.to_string()), ("decision".into(), "grant".into())]);
    let answer =
        browser.post(authorize.join("/oauth/authorize/decision").unwrap()).form(&form).send().await.unwrap();
    let location = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    let of = |name: &str| location.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    assert_eq!(of("state"), "the state");
    of("code").into()
}

#[tokio::test]
async fn a_grant_lives_from_consent_to_revocation_in_every_api_version() {
    for version in VERSIONS {
        let World { sim, provider, credentials } = &world(version).await;
        let required = Scopes::new(["oauth", "crm.objects.contacts.read"]).unwrap();
        let optional = Scopes::new(["crm.objects.contacts.write"]).unwrap();
        let verifier = SecretString::from("v".repeat(43));
        let authorize = provider.authorize_url(&AuthorizeRequest {
            client_id: &credentials.client_id,
            redirect_uri: REDIRECT_URI,
            scopes: &required,
            optional_scopes: &optional,
            state: &SecretString::from("the state"),
            pkce_challenge: Some(&pkce_challenge(&verifier)),
            account: Some(&AccountId::parse(&HUB.to_string()).unwrap()),
        });
        let code = consent(&authorize).await;

        let answer = provider.exchange_code(credentials, &code, REDIRECT_URI, Some(&verifier)).await.unwrap();
        assert_eq!(answer.expires_in, ExpiresIn::Given(Duration::from_mins(30)));
        let refresh_token = answer.refresh_token.unwrap();
        assert!(sim.handle().is_access_token_live(answer.access_token.expose_secret()));

        let known =
            provider.introspect(credentials, &answer.access_token, TokenHint::AccessToken).await.unwrap();
        assert!(known.active);
        assert_eq!(known.account.unwrap().as_str(), HUB.to_string());
        assert_eq!(known.account_name.as_deref(), Some("acme.example"));
        assert_eq!(known.scopes.unwrap(), required.union(&optional));

        let again = provider.refresh(credentials, &refresh_token).await.unwrap();
        assert_ne!(again.access_token.expose_secret(), answer.access_token.expose_secret());

        provider.revoke(credentials, &refresh_token).await.unwrap();
        provider.revoke(credentials, &refresh_token).await.unwrap();
        let error = provider.refresh(credentials, &refresh_token).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (ErrorClass::GrantDead, Some("BAD_REFRESH_TOKEN")));
        let hint = TokenHint::RefreshToken;
        assert!(!provider.introspect(credentials, &refresh_token, hint).await.unwrap().active);
    }
}

#[tokio::test]
async fn a_code_or_verifier_that_is_wrong_ends_the_attempt_and_nothing_else() {
    for version in VERSIONS {
        let World { sim: _sim, provider, credentials } = &world(version).await;
        let verifier = SecretString::from("v".repeat(43));
        let scopes = Scopes::new(["oauth", "crm.objects.contacts.read"]).unwrap();
        let authorize = provider.authorize_url(&AuthorizeRequest {
            client_id: &credentials.client_id,
            redirect_uri: REDIRECT_URI,
            scopes: &scopes,
            optional_scopes: &Scopes::default(),
            state: &SecretString::from("the state"),
            pkce_challenge: Some(&pkce_challenge(&verifier)),
            account: None,
        });
        let never = SecretString::from("never-a-code");
        let other = SecretString::from("w".repeat(43));
        for (code, redirect_uri, verifier) in [
            (never, REDIRECT_URI, &verifier),
            (consent(&authorize).await, REDIRECT_URI, &other),
            (consent(&authorize).await, "http://localhost:8080/elsewhere", &verifier),
        ] {
            let error =
                provider.exchange_code(credentials, &code, redirect_uri, Some(verifier)).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::ConnectAttempt, "{version}: {error}");
        }
    }
}

#[tokio::test]
async fn an_uninstalled_app_and_a_deleted_account_are_dead_grants() {
    for version in VERSIONS {
        let world = world(version).await;
        let refresh_token = world.granted();
        world.sim.handle().uninstall(HUB, None).unwrap();
        assert_eq!(world.refresh_class(&refresh_token).await, Some(ErrorClass::GrantDead), "{version}");
        let refresh_token = world.granted();
        world.sim.handle().delete_portal(HUB).unwrap();
        assert_eq!(world.refresh_class(&refresh_token).await, Some(ErrorClass::GrantDead), "{version}");
    }
}

#[tokio::test]
async fn a_changed_client_secret_is_no_dead_grant_and_a_probe_finds_out() {
    for version in VERSIONS {
        for wrong_secret_status in [400, 401] {
            let mut world = world(version).await;
            let refresh_token = world.granted();
            let status =
                SettingsPatch { wrong_secret_status: Some(wrong_secret_status), ..SettingsPatch::default() };
            world.sim.handle().change_settings(status);
            assert_eq!(world.provider.check_credentials(&world.credentials).await, Some(true));
            let client_id = world.credentials.client_id.clone();
            world.sim.handle().set_client_secret(&client_id, "changed", Overlap::None).unwrap();
            assert_eq!(world.refresh_class(&refresh_token).await, Some(ErrorClass::ClientConfig));
            assert_eq!(world.provider.check_credentials(&world.credentials).await, Some(false));
            world.credentials.client_secret = "changed".into();
            assert_eq!(world.provider.check_credentials(&world.credentials).await, Some(true));
            assert_eq!(world.refresh_class(&refresh_token).await, None);
            world.credentials.client_id = "99999999-2222-4333-8444-555555555555".into();
            assert_eq!(world.refresh_class(&refresh_token).await, Some(ErrorClass::ClientConfig));
        }
    }
}

#[tokio::test]
async fn trouble_has_the_class_that_keeps_the_grant_safe() {
    let world = world("2026-03").await;
    let refresh_token = world.granted();
    let status =
        |status, retry_after| FaultKind::Status { status, body: None, content_type: None, retry_after };
    for (kind, expected) in [
        (status(500, None), ErrorClass::OutcomeUnknown),
        (status(423, Some(30)), ErrorClass::AccountUnavailable),
        (status(477, Some(86_400)), ErrorClass::AccountUnavailable),
        (status(403, None), ErrorClass::Unexpected),
        (FaultKind::Html { status: None }, ErrorClass::OutcomeUnknown),
        (FaultKind::Html { status: Some(200) }, ErrorClass::OutcomeUnknown),
        (FaultKind::Html { status: Some(401) }, ErrorClass::Unexpected),
        (FaultKind::EmptyBody, ErrorClass::OutcomeUnknown),
        (FaultKind::HugeBody { bytes: None }, ErrorClass::OutcomeUnknown),
        (FaultKind::TruncatedBody, ErrorClass::OutcomeUnknown),
        (FaultKind::DropReplyAfterIssue, ErrorClass::OutcomeUnknown),
        (FaultKind::HangUpBefore, ErrorClass::OutcomeUnknown),
        (FaultKind::RateLimited { retry_after: Some(7), policy_name: None }, ErrorClass::RateLimited),
        (FaultKind::BadHub, ErrorClass::GrantDead),
        (FaultKind::BadRefreshToken, ErrorClass::GrantDead),
        (FaultKind::BadClientSecret, ErrorClass::ClientConfig),
    ] {
        let name = kind.name();
        world.sim.handle().add_fault(Fault::new(kind).on_refresh().times(1));
        assert_eq!(world.refresh_class(&refresh_token).await, Some(expected), "{name}");
        assert_eq!(world.refresh_class(&refresh_token).await, None, "{name} is over");
    }
}

#[tokio::test]
async fn odd_answers_keep_their_tokens() {
    let World { sim, provider, credentials } = &world("2026-03").await;
    let request = GrantRequest {
        client_id: credentials.client_id.clone(),
        hub_ids: vec![HUB],
        ..GrantRequest::default()
    };
    let refresh_token = sim.handle().create_grants(&request).unwrap().remove(0).refresh_token.into();
    let one = |kind| sim.handle().add_fault(Fault::new(kind).on_refresh().times(1));
    one(FaultKind::NoExpiresIn);
    let answer = provider.refresh(credentials, &refresh_token).await.unwrap();
    assert_eq!(answer.expires_in, ExpiresIn::Missing);
    one(FaultKind::NegativeExpiresIn);
    let answer = provider.refresh(credentials, &refresh_token).await.unwrap();
    assert_eq!(answer.expires_in, ExpiresIn::Invalid);
    one(FaultKind::NoRefreshToken);
    assert!(provider.refresh(credentials, &refresh_token).await.unwrap().refresh_token.is_none());
    one(FaultKind::WrongHubId { answer_hub_id: 99 });
    let answer = provider.refresh(credentials, &refresh_token).await.unwrap();
    assert_eq!(answer.account.unwrap().as_str(), "99");
}
