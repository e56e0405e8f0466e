use std::collections::BTreeMap;

use tokenward_provider::{AuthorizeRequest, Operation, Provider, pkce_challenge};
use tokenward_types::{ExposeSecret, Scopes};

use super::{
    ACCESS_TOKEN, CANARY, CLIENT_ID, CLIENT_SECRET, CODE, ProviderFixture, REDIRECT_URI, REFRESH_TOKEN,
    Setup, VERIFIER, build, call, operations, scripted, secret, success,
};

const STATE: &str = "state &=%+/ä";

fn authorize_query(
    provider: &dyn Provider,
    pkce_challenge: Option<&str>,
) -> (String, BTreeMap<String, Vec<String>>) {
    let url = provider.authorize_url(&AuthorizeRequest {
        client_id: CLIENT_ID,
        redirect_uri: REDIRECT_URI,
        scopes: &Scopes::new(["a.read", "b:write"]).expect("scopes"),
        optional_scopes: &Scopes::new(["c/extra"]).expect("scopes"),
        state: &secret(STATE),
        pkce_challenge,
        account: None,
    });
    let mut query = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in url.query_pairs() {
        query.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    (url.query().unwrap_or_default().to_owned(), query)
}

/// The authorize URL carries client id, redirect URI, scopes, state and challenge to the letter, each once, and spaces as
/// `%20`.
pub async fn the_authorize_url_carries_exactly_what_was_asked(fixture: &dyn ProviderFixture) {
    let provider = build(fixture, &Setup::new("http://127.0.0.1:9")).await;
    let challenge = pkce_challenge(&secret(VERIFIER));
    let (raw, query) = authorize_query(&*provider, Some(&challenge));
    for (name, expected) in [
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT_URI),
        ("state", STATE),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(query.get(name), Some(&vec![expected.to_owned()]), "{name} in {raw}");
    }
    let scope = query.get("scope").map(|values| values.join(" ")).unwrap_or_default();
    for required in ["a.read", "b:write"] {
        assert!(scope.split(' ').any(|scope| scope == required), "{required} in {raw}");
    }
    let everywhere = query.values().flatten().any(|value| value.split(' ').any(|scope| scope == "c/extra"));
    assert!(everywhere, "the optional scope is asked for: {raw}");
    assert!(raw.contains("%20") && !raw.contains('+'), "spaces are %20: {raw}");
    assert!(!raw.contains(CANARY), "{raw}");
}

/// Without a challenge the authorize URL does not speak of PKCE.
pub async fn without_pkce_the_authorize_url_has_no_challenge(fixture: &dyn ProviderFixture) {
    let provider = build(fixture, &Setup::new("http://127.0.0.1:9")).await;
    let (raw, _) = authorize_query(&*provider, None);
    assert!(!raw.contains("code_challenge"), "{raw}");
}

/// Every call is a POST of a form whose secrets are in the body or the Authorization header, never in the URL or elsewhere.
pub async fn secrets_travel_in_the_body_or_the_authorization_header_only(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    for operation in operations(&*provider) {
        vendor.push(success(fixture, operation));
        let result = call(&*provider, operation).await;
        assert!(result.is_ok(), "{operation:?}: {result:?}");
        let received = vendor.received();
        let request = &received[received.len() - 1];
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("tokenward/")));
        assert!(!request.target.contains(CANARY) && !request.target.contains('?'), "{}", request.target);
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "authorization") {
            assert!(!value.contains(CANARY), "header {name}");
        }
        let in_body = request.field("client_secret");
        let basic = request.header("authorization").is_some_and(|value| value.starts_with("Basic "));
        assert!(in_body.is_some() != basic, "the secret goes one way");
        assert!(in_body.is_none_or(|secret| secret == CLIENT_SECRET));
        let token = match operation {
            Operation::Exchange => ("code", CODE),
            Operation::Refresh => ("refresh_token", REFRESH_TOKEN),
            Operation::Introspect | Operation::Probe => ("token", ACCESS_TOKEN),
            Operation::Revoke => ("token", REFRESH_TOKEN),
        };
        assert_eq!(request.field(token.0).as_deref(), Some(token.1), "{operation:?}");
    }
}

/// An exchange sends grant type, code, redirect URI and, when given, the PKCE verifier.
pub async fn an_exchange_sends_code_redirect_uri_and_verifier(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, []).await;
    for verifier in [Some(secret(VERIFIER)), None] {
        vendor.push(success(fixture, Operation::Exchange));
        let answer = provider
            .exchange_code(&super::credentials(), &secret(CODE), REDIRECT_URI, verifier.as_ref())
            .await;
        assert!(answer.is_ok(), "{answer:?}");
        let received = vendor.received();
        let request = &received[received.len() - 1];
        assert_eq!(request.field("grant_type").as_deref(), Some("authorization_code"));
        assert_eq!(request.field("code").as_deref(), Some(CODE));
        assert_eq!(request.field("redirect_uri").as_deref(), Some(REDIRECT_URI));
        let expected = verifier.as_ref().map(|verifier| verifier.expose_secret().to_owned());
        assert_eq!(request.field("code_verifier"), expected);
    }
}

/// A refresh sends grant type and refresh token, in one request.
pub async fn a_refresh_sends_the_refresh_token_once(fixture: &dyn ProviderFixture) {
    let (vendor, provider) = scripted(fixture, [success(fixture, Operation::Refresh)]).await;
    let answer = super::refresh(&*provider).await;
    assert!(answer.is_ok(), "{answer:?}");
    let received = vendor.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].field("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(received[0].field("refresh_token").as_deref(), Some(REFRESH_TOKEN));
}
