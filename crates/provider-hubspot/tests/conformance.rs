//! HubSpot keeps the contract of every provider.
#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokenward_plugin::{Problems, Registry, Section};
use tokenward_provider::{ClientCredentials, ErrorClass, Operation, Provider, ProviderContext};
use tokenward_provider_hubspot::hubspot;
use tokenward_testkit::provider::{ProviderFixture, Refusal, SampleToken, ScriptedVendor, Setup, Step};
use tokenward_types::{Clock, SecretString};

tokenward_testkit::provider_conformance!(hubspot_2026_03, HubSpot { api_version: "2026-03" });
tokenward_testkit::provider_conformance!(hubspot_v1, HubSpot { api_version: "v1" });

async fn build(values: Value, clock: Arc<dyn Clock>) -> Result<Arc<dyn Provider>, Problems> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "providers.hubspot".into(), name: "hubspot".into(), values };
    let registry = Registry::new("provider").with(hubspot());
    let prepared = registry.prepare("hubspot", &section, &ProviderContext { clock })?;
    Ok(prepared.build().await.expect("the provider can be built"))
}

struct HubSpot {
    api_version: &'static str,
}

#[async_trait]
impl ProviderFixture for HubSpot {
    async fn build(&self, setup: &Setup) -> Result<Arc<dyn Provider>, String> {
        let base = &setup.base_url;
        let mut values = json!({
            "api_base_url": base, "authorize_url": format!("{base}/oauth/authorize"), "allow_http": true,
        });
        values["api_version"] = self.api_version.into();
        values["allow_private_addresses"] = setup.allow_private_addresses.into();
        values["timeout"] = format!("{}ms", setup.timeout.as_millis()).into();
        values["connect_timeout"] = values["timeout"].clone();
        build(values, setup.clock.clone()).await.map_err(|problems| problems.to_string())
    }

    fn token_body(&self, sample: &SampleToken<'_>) -> String {
        let mut body = json!({
            "token_type": "bearer", "access_token": sample.access_token, "user_id": 42, "token_use": "access_token",
        });
        if let Some(token) = sample.refresh_token {
            body["refresh_token"] = token.into();
        }
        if let Some(expires_in) = sample.expires_in {
            body["expires_in"] = serde_json::from_str(expires_in).expect("JSON");
        }
        if let Some(scopes) = sample.scopes {
            body["scopes"] = scopes.into();
        }
        if let Some(account) = sample.account {
            body["hub_id"] = account.parse::<u64>().expect("a number").into();
        }
        body.to_string()
    }

    fn introspection_body(&self) -> String {
        json!({
            "active": true, "hub_id": 4711, "user_id": 42, "client_id": "id", "app_id": 7, "hub_domain": "acme.example",
            "scopes": ["a", "b"], "expires_in": 3600, "token_use": "access_token", "token_type": "Bearer",
            "token": "c4n4ry-echoed",
        })
        .to_string()
    }

    fn refusals(&self) -> Vec<Refusal> {
        golden()
    }
}

/// Every row of HubSpot's error table, in the form since January 2026 and in the one before.
fn golden() -> Vec<Refusal> {
    use ErrorClass::{AccountUnavailable, ClientConfig, ConnectAttempt, GrantDead, Unexpected};
    use Operation::{Exchange, Introspect, Refresh, Revoke};
    let mut rows = Vec::new();
    // (operation, HTTP status, HubSpot's code, RFC 6749's code in the new form, class)
    for (operation, http, status, error, class) in [
        (Refresh, 400, "BAD_REFRESH_TOKEN", "invalid_grant", GrantDead),
        (Refresh, 400, "BAD_HUB", "access_denied", GrantDead),
        (Refresh, 403, "BAD_HUB", "access_denied", GrantDead),
        (Exchange, 400, "BAD_AUTH_CODE", "invalid_grant", ConnectAttempt),
        (Exchange, 400, "BAD_CODE_VERIFIER", "invalid_grant", ConnectAttempt),
        (Exchange, 400, "BAD_REDIRECT_URI", "invalid_grant", ConnectAttempt),
        (Exchange, 400, "BAD_GRANT_TYPE", "unsupported_grant_type", ConnectAttempt),
        (Exchange, 400, "BAD_HUB", "access_denied", ConnectAttempt),
        (Exchange, 400, "BAD_REFRESH_TOKEN", "invalid_grant", ConnectAttempt),
        (Refresh, 400, "BAD_CLIENT_ID", "invalid_client", ClientConfig),
        (Exchange, 400, "BAD_CLIENT_ID", "invalid_client", ClientConfig),
        (Introspect, 400, "BAD_CLIENT_ID", "invalid_client", ClientConfig),
        (Refresh, 400, "BAD_CLIENT_SECRET", "invalid_client", ClientConfig),
        (Refresh, 401, "BAD_CLIENT_SECRET", "invalid_client", ClientConfig),
        (Exchange, 401, "BAD_CLIENT_SECRET", "invalid_client", ClientConfig),
        (Revoke, 400, "BAD_CLIENT_SECRET", "invalid_client", ClientConfig),
        // A wrong secret must never be taken for a dead grant, whatever stands beside it.
        (Refresh, 400, "BAD_CLIENT_SECRET", "invalid_grant", ClientConfig),
        (Refresh, 400, "BAD_REFRESH_TOKEN", "invalid_client", Unexpected),
        (Refresh, 400, "BAD_GRANT_TYPE", "unsupported_grant_type", Unexpected),
        (Refresh, 400, "BAD_AUTH_CODE", "invalid_grant", Unexpected),
        (Refresh, 400, "BAD_SOMETHING_NEW", "invalid_grant", Unexpected),
        (Introspect, 400, "BAD_REFRESH_TOKEN", "invalid_grant", Unexpected),
    ] {
        let message = "missing or invalid thing";
        let new = json!({"error": error, "error_description": message, "status": status, "message": message});
        rows.push(Refusal::new(operation, http, new.to_string(), class, Some(status)));
        // In the old form the two cannot disagree.
        if class != Unexpected || error != "invalid_client" {
            let old = json!({"status": status, "message": message, "correlationId": "0d6a"});
            rows.push(Refusal::new(operation, http, old.to_string(), class, Some(status)));
        }
    }
    for (operation, http, error, class) in [
        (Refresh, 400, "invalid_grant", GrantDead),
        (Exchange, 400, "invalid_grant", ConnectAttempt),
        (Refresh, 401, "invalid_client", ClientConfig),
        // Not among those that may stop a whole client.
        (Refresh, 400, "unauthorized_client", Unexpected),
        (Exchange, 400, "unauthorized_client", ConnectAttempt),
        (Refresh, 400, "access_denied", Unexpected),
        (Refresh, 400, "invalid_request", Unexpected),
    ] {
        let body = json!({"error": error, "error_description": "in other words"}).to_string();
        rows.push(Refusal::new(operation, http, body, class, Some(error)));
    }
    for operation in [Refresh, Introspect, Revoke] {
        for http in [423, 477] {
            for body in ["", "<html>Locked</html>", r#"{"status":"error","message":"locked"}"#] {
                rows.push(Refusal::new(operation, http, body, AccountUnavailable, None));
            }
        }
    }
    // HubSpot's general form of an error, and what proxies write, say nothing about the grant.
    let general = r#"{"status":"error","message":"no","correlationId":"0d6a","category":"VALIDATION_ERROR"}"#;
    for (http, body) in [(400, general), (401, ""), (403, "<html>Attention Required!</html>"), (404, general)]
    {
        rows.push(Refusal::new(Refresh, http, body, Unexpected, None));
    }
    rows
}

#[tokio::test]
async fn an_error_dressed_as_success_leaves_the_outcome_unknown() {
    for refusal in golden().into_iter().filter(|refusal| refusal.operation == Operation::Refresh) {
        let vendor = ScriptedVendor::start([Step::answer(200, refusal.body)]).await;
        let provider = HubSpot { api_version: "v3" }.build(&Setup::new(vendor.url())).await.unwrap();
        let credentials = ClientCredentials { client_id: "id".into(), client_secret: "secret".into() };
        let error = provider.refresh(&credentials, &SecretString::from("r")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::OutcomeUnknown);
    }
}
