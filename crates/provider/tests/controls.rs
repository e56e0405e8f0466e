//! The conformance suite can fail: careless providers are caught.
#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokenward_plugin::{Registry, Section};
use tokenward_provider::{
    AuthorizeRequest, ClientCredentials, ErrorClass, ExpiresIn, Introspection, Provider, ProviderContext,
    ProviderError, ProviderInfo, TokenAnswer, TokenHint, oauth2,
};
use tokenward_testkit::provider::{ProviderFixture, Refusal, SampleToken, Setup, cases};
use tokenward_types::{Clock, ExposeSecret, SecretString};
use url::Url;

/// What a careless provider does wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing: so the others fail for their fault alone.
    None,
    /// Sends a refresh again when the outcome is unknown.
    Retries,
    /// Takes every refusal for a dead grant.
    BuriesGrants,
    /// Puts the refresh token into the error.
    TellsTheToken,
    /// Logs the refresh token.
    LogsTheToken,
    /// Puts the client secret into the authorize URL.
    TellsTheBrowser,
    /// Reports the time of the answer.
    CountsFromTheAnswer,
    /// Refuses an answer whose lifetime is nonsense.
    DropsOddAnswers,
}

struct Careless {
    fault: Fault,
    inner: Arc<dyn Provider>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Provider for Careless {
    fn info(&self) -> &ProviderInfo {
        self.inner.info()
    }

    fn call_timeout(&self) -> Duration {
        self.inner.call_timeout()
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url {
        let mut url = self.inner.authorize_url(request);
        if matches!(self.fault, Fault::TellsTheBrowser) {
            url.query_pairs_mut().append_pair("client_secret", "c4n4ry");
        }
        url
    }

    async fn exchange_code(
        &self,
        credentials: &ClientCredentials,
        code: &SecretString,
        redirect_uri: &str,
        pkce_verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, ProviderError> {
        self.inner.exchange_code(credentials, code, redirect_uri, pkce_verifier).await
    }

    async fn refresh(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<TokenAnswer, ProviderError> {
        let token = refresh_token.expose_secret();
        if matches!(self.fault, Fault::LogsTheToken) {
            tracing::trace!("refreshing {token}");
        }
        let result = self.inner.refresh(credentials, refresh_token).await;
        match (self.fault, result) {
            (Fault::Retries, Err(error)) if error.class == ErrorClass::OutcomeUnknown => {
                self.inner.refresh(credentials, refresh_token).await
            }
            (Fault::BuriesGrants, Err(error)) => Err(ProviderError { class: ErrorClass::GrantDead, ..error }),
            (Fault::TellsTheToken, Err(error)) => Err(ProviderError { detail: token.to_owned(), ..error }),
            (Fault::CountsFromTheAnswer, Ok(answer)) => {
                Ok(TokenAnswer { requested_at: self.clock.now(), ..answer })
            }
            (Fault::DropsOddAnswers, Ok(answer)) if !matches!(answer.expires_in, ExpiresIn::Given(_)) => {
                Err(ProviderError::new(ErrorClass::OutcomeUnknown, "odd lifetime"))
            }
            (_, result) => result,
        }
    }

    async fn introspect(
        &self,
        credentials: &ClientCredentials,
        token: &SecretString,
        hint: TokenHint,
    ) -> Result<Introspection, ProviderError> {
        self.inner.introspect(credentials, token, hint).await
    }

    async fn revoke(
        &self,
        credentials: &ClientCredentials,
        token: &SecretString,
    ) -> Result<(), ProviderError> {
        self.inner.revoke(credentials, token).await
    }

    async fn check_credentials(&self, credentials: &ClientCredentials) -> Option<bool> {
        self.inner.check_credentials(credentials).await
    }
}

#[async_trait]
impl ProviderFixture for Fault {
    async fn build(&self, setup: &Setup) -> Result<Arc<dyn Provider>, String> {
        let base = &setup.base_url;
        let serde_json::Value::Object(values) = json!({
            "authorize_url": format!("{base}/authorize"), "token_url": format!("{base}/token"), "account_field": "account",
            "allow_http": true, "allow_private_addresses": setup.allow_private_addresses,
            "timeout": format!("{}ms", setup.timeout.as_millis()),
            "connect_timeout": format!("{}ms", setup.timeout.as_millis()),
        }) else {
            panic!("a section is an object")
        };
        let section = Section { at: "providers.vendor".into(), name: "vendor".into(), values };
        let context = ProviderContext { clock: setup.clock.clone() };
        let prepared = Registry::new("provider").with(oauth2()).prepare("oauth2", &section, &context);
        let inner = prepared.map_err(|problems| problems.to_string())?.build().await.expect("it builds");
        Ok(Arc::new(Careless { fault: *self, inner, clock: setup.clock.clone() }))
    }

    fn token_body(&self, sample: &SampleToken<'_>) -> String {
        let expires_in: serde_json::Value =
            serde_json::from_str(sample.expires_in.unwrap_or("null")).expect("JSON");
        json!({
            "access_token": sample.access_token, "refresh_token": sample.refresh_token, "expires_in": expires_in,
            "scope": sample.scopes.map(|scopes| scopes.join(" ")), "account": sample.account,
        })
        .to_string()
    }

    fn introspection_body(&self) -> String {
        String::new()
    }

    fn refusals(&self) -> Vec<Refusal> {
        use tokenward_provider::Operation::{Exchange, Refresh};
        let row = |operation, code: &'static str, class| {
            Refusal::new(operation, 400, format!(r#"{{"error":"{code}"}}"#), class, Some(code))
        };
        vec![
            row(Refresh, "invalid_grant", ErrorClass::GrantDead),
            row(Refresh, "invalid_client", ErrorClass::ClientConfig),
            row(Refresh, "invalid_request", ErrorClass::Unexpected),
            row(Exchange, "invalid_grant", ErrorClass::ConnectAttempt),
        ]
    }
}

tokenward_testkit::provider_conformance!(one_without_a_fault_passes, Fault::None);

macro_rules! caught {
    ($name:ident, $fault:expr, $message:literal, $($case:ident),+) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                #[should_panic(expected = $message)]
                async fn $case() {
                    cases::$case(&$fault).await;
                }
            )+
        }
    };
}

caught!(one_that_retries, Fault::Retries, "the vendor hung up", a_hang_up_leaves_the_outcome_unknown);
caught!(
    one_that_buries_grants,
    Fault::BuriesGrants,
    "GrantDead",
    every_refusal_has_its_class,
    a_rate_limit_honours_retry_after,
    a_server_error_leaves_the_outcome_unknown,
    a_bare_refusal_never_marks_a_grant_dead,
    a_redirect_is_not_followed,
    a_refused_connection_was_not_sent,
    a_timeout_leaves_the_outcome_unknown,
    an_unreadable_success_leaves_the_outcome_unknown
);
caught!(
    one_that_tells_the_token,
    Fault::TellsTheToken,
    "an error holds a secret",
    nothing_secret_is_in_errors_or_logs
);
caught!(
    one_that_logs_the_token,
    Fault::LogsTheToken,
    "the log holds a secret",
    nothing_secret_is_in_errors_or_logs
);
caught!(
    one_that_tells_the_browser,
    Fault::TellsTheBrowser,
    "client_secret=c4n4ry",
    the_authorize_url_carries_exactly_what_was_asked
);
caught!(
    one_that_counts_from_the_answer,
    Fault::CountsFromTheAnswer,
    "1700000007",
    the_time_of_sending_is_reported
);
caught!(
    one_that_drops_odd_answers,
    Fault::DropsOddAnswers,
    "the tokens are kept",
    a_bad_lifetime_never_loses_the_tokens
);
