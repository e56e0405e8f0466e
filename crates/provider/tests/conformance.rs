//! The kind `oauth2` keeps the contract of every provider.
#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokenward_plugin::{Problems, Registry, Section};
use tokenward_provider::{ErrorClass, Operation, Provider, ProviderContext, oauth2};
use tokenward_testkit::provider::{ProviderFixture, Refusal, SampleToken, Setup};
use tokenward_types::Clock;

tokenward_testkit::provider_conformance!(secret_in_the_body, Standard { basic: false });
tokenward_testkit::provider_conformance!(secret_by_basic_authentication, Standard { basic: true });

async fn build(values: Value, clock: Arc<dyn Clock>) -> Result<Arc<dyn Provider>, Problems> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "providers.vendor".into(), name: "vendor".into(), values };
    let registry = Registry::new("provider").with(oauth2());
    let prepared = registry.prepare("oauth2", &section, &ProviderContext { clock })?;
    Ok(prepared.build().await.expect("the provider can be built"))
}

struct Standard {
    basic: bool,
}

#[async_trait]
impl ProviderFixture for Standard {
    async fn build(&self, setup: &Setup) -> Result<Arc<dyn Provider>, String> {
        let base = &setup.base_url;
        let values = json!({
            "authorize_url": format!("{base}/authorize?vendor=own"),
            "token_url": format!("{base}/token"),
            "introspect_url": format!("{base}/introspect"),
            "revoke_url": format!("{base}/revoke"),
            "account_field": "team.id",
            "token_auth_method": if self.basic { "client_secret_basic" } else { "client_secret_post" },
            "timeout": humantime(setup.timeout),
            "connect_timeout": humantime(setup.timeout),
            "allow_http": true,
            "allow_private_addresses": setup.allow_private_addresses,
        });
        build(values, setup.clock.clone()).await.map_err(|problems| problems.to_string())
    }

    fn token_body(&self, sample: &SampleToken<'_>) -> String {
        let mut body = json!({"token_type": "Bearer", "access_token": sample.access_token, "unknown": [1]});
        if let Some(token) = sample.refresh_token {
            body["refresh_token"] = token.into();
        }
        if let Some(expires_in) = sample.expires_in {
            body["expires_in"] = serde_json::from_str(expires_in).expect("JSON");
        }
        if let Some(scopes) = sample.scopes {
            body["scope"] = scopes.join(" ").into();
        }
        if let Some(account) = sample.account {
            body["team"] = json!({"id": account});
        }
        body.to_string()
    }

    fn introspection_body(&self) -> String {
        // The suite's clock stands at 1,700,000,000.
        json!({"active": true, "scope": "a b", "exp": 1_700_003_600, "team": {"id": 4711}}).to_string()
    }

    fn refusals(&self) -> Vec<Refusal> {
        use ErrorClass::{ClientConfig, ConnectAttempt, GrantDead, OutcomeUnknown, Unexpected};
        use Operation::{Exchange, Introspect, Refresh, Revoke};
        let rows = [
            (Refresh, 400, "invalid_grant", GrantDead),
            (Refresh, 401, "invalid_grant", GrantDead),
            (Refresh, 200, "invalid_grant", GrantDead),
            (Exchange, 400, "invalid_grant", ConnectAttempt),
            (Exchange, 400, "invalid_request", ConnectAttempt),
            (Refresh, 401, "invalid_client", ClientConfig),
            (Exchange, 400, "invalid_client", ClientConfig),
            (Introspect, 401, "invalid_client", ClientConfig),
            (Revoke, 401, "invalid_client", ClientConfig),
            (Refresh, 400, "unauthorized_client", ClientConfig),
            (Refresh, 400, "invalid_request", Unexpected),
            (Refresh, 400, "invalid_scope", Unexpected),
            (Refresh, 400, "unsupported_grant_type", Unexpected),
            (Refresh, 403, "access_denied", Unexpected),
            (Introspect, 400, "invalid_grant", Unexpected),
            (Revoke, 400, "unsupported_token_type", Unexpected),
            (Refresh, 400, "server_error", OutcomeUnknown),
            (Refresh, 400, "temporarily_unavailable", OutcomeUnknown),
        ];
        rows.into_iter()
            .map(|(operation, status, code, class)| {
                let body = json!({"error": code, "error_description": "in other words"}).to_string();
                Refusal::new(operation, status, body, class, Some(code))
            })
            .collect()
    }
}

fn humantime(duration: std::time::Duration) -> String {
    format!("{}ms", duration.as_millis())
}
