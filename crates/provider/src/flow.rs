use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use tokenward_types::{Clock, ExposeSecret, SecretString, Timestamp};
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::answer::{ExpiresIn, Introspection, MAX_LIFETIME, TokenAnswer, TokenHint};
use crate::dialect::{Dialect, ErrorAnswer, Operation};
use crate::http::{HttpAnswer, HttpClient, parse_retry_after};
use crate::provider::{AuthorizeRequest, ClientCredentials, Provider, ProviderInfo};
use crate::{ErrorClass, Fields, Form, ProviderError};

/// Where a vendor listens.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The page that the customer's browser is sent to.
    pub authorize: Url,
    /// The token endpoint.
    pub token: Url,
    /// The introspection endpoint, if there is one.
    pub introspect: Option<Url>,
    /// The revocation endpoint, if there is one.
    pub revoke: Option<Url>,
}

/// How the client proves who it is (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_id` and `client_secret` in the body.
    Body,
    /// HTTP Basic.
    Basic,
}

/// The authorization-code flow (RFC 6749, section 4.1) with a vendor's dialect.
#[derive(Debug)]
pub struct OAuth2Flow<D> {
    info: ProviderInfo,
    endpoints: Endpoints,
    authentication: ClientAuthentication,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    dialect: D,
}

/// An answer that reports success; whether it holds what was asked for is for the reader to see.
pub struct Success {
    fields: Result<Fields, &'static str>,
    status: u16,
    requested_at: Timestamp,
}

impl Success {
    /// The members, if the body was a JSON object.
    pub fn fields(&self) -> Option<&Fields> {
        self.fields.as_ref().ok()
    }

    fn unreadable(&self, detail: &'static str) -> ProviderError {
        ProviderError {
            http_status: Some(self.status),
            ..ProviderError::new(ErrorClass::OutcomeUnknown, detail)
        }
    }
}

impl<D: Dialect> OAuth2Flow<D> {
    /// A flow after `info`, with a vendor at `endpoints`.
    pub fn new(
        info: ProviderInfo,
        endpoints: Endpoints,
        authentication: ClientAuthentication,
        http: HttpClient,
        clock: Arc<dyn Clock>,
        dialect: D,
    ) -> Self {
        Self { info, endpoints, authentication, http, clock, dialect }
    }

    /// Where the vendor listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Posts `form` with the client's credentials, once.
    ///
    /// # Errors
    /// Every answer but 2xx, classified, and a definite error dressed as 2xx.
    pub async fn call(
        &self,
        operation: Operation,
        endpoint: &Url,
        credentials: &ClientCredentials,
        form: Form<'_>,
    ) -> Result<Success, ProviderError> {
        let (authorization, form) = match self.authentication {
            ClientAuthentication::Basic => (basic(credentials), form),
            ClientAuthentication::Body => {
                let form = form
                    .with("client_id", &credentials.client_id)
                    .with("client_secret", credentials.client_secret.expose_secret());
                (None, form)
            }
        };
        let body = form.encode();
        let requested_at = self.clock.now();
        let answer = self.http.post_form(endpoint, authorization, body).await;
        let result = answer.and_then(|answer| self.judge(operation, answer, requested_at));
        if let Err(error) = &result {
            tracing::debug!(
                provider = %self.info.name, operation = operation.as_str(), class = error.class.as_str(),
                http_status = error.http_status, code = error.code, detail = error.detail,
                "vendor call failed"
            );
        }
        result
    }

    fn judge(
        &self,
        operation: Operation,
        answer: HttpAnswer,
        requested_at: Timestamp,
    ) -> Result<Success, ProviderError> {
        let status = answer.status;
        let fields =
            answer.body.and_then(|body| Fields::parse(&body).ok_or("the answer is not a JSON object"));
        let success = Success { fields, status, requested_at };
        let code = success.fields().and_then(|fields| self.dialect.code(fields));
        let classify =
            || self.dialect.classify(&ErrorAnswer { operation, status, code, fields: success.fields() });
        let class = match status {
            200..300 => {
                let delivers = |fields: &Fields| fields.has("access_token") || fields.has("active");
                let class = classify();
                let is_error = code.is_some() && !success.fields().is_some_and(delivers);
                let is_definite = !matches!(class, ErrorClass::Unexpected | ErrorClass::OutcomeUnknown);
                if !(is_error && is_definite) {
                    return Ok(success);
                }
                class
            }
            429 => ErrorClass::RateLimited,
            500.. => ErrorClass::OutcomeUnknown,
            _ => classify(),
        };
        let retry_after = answer.retry_after.and_then(|value| parse_retry_after(&value, self.clock.now()));
        let what = if (300..400).contains(&status) { "answered with a redirect" } else { "was refused" };
        Err(ProviderError {
            class,
            http_status: Some(status),
            code: code.map(str::to_owned),
            retry_after,
            detail: format!("{} {what}", operation.as_str()),
        })
    }

    async fn token(
        &self,
        operation: Operation,
        credentials: &ClientCredentials,
        form: Form<'_>,
    ) -> Result<TokenAnswer, ProviderError> {
        let mut success = self.call(operation, &self.endpoints.token, credentials, form).await?;
        let fields = match &mut success.fields {
            Ok(fields) => fields,
            Err(detail) => {
                let detail = *detail;
                return Err(success.unreadable(detail));
            }
        };
        let Some(access_token) = fields.take_secret("access_token") else {
            return Err(success.unreadable("the answer has no access token"));
        };
        let expires_in = fields.lifetime("expires_in");
        let facts = self.dialect.token_facts(fields);
        let odd_type = fields.text("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"));
        if odd_type || expires_in == ExpiresIn::Invalid {
            tracing::warn!(
                provider = %self.info.name, odd_type, ?expires_in,
                "vendor's token answer is odd; the tokens are kept"
            );
        }
        Ok(TokenAnswer {
            access_token,
            refresh_token: fields.take_secret("refresh_token"),
            expires_in,
            scopes: facts.scopes,
            account: facts.account,
            account_name: facts.account_name,
            requested_at: success.requested_at,
        })
    }

    fn absent(&self, endpoint: &str) -> ProviderError {
        let detail = format!("provider {} has no {endpoint} endpoint", self.info.name);
        ProviderError::new(ErrorClass::NotSent, detail)
    }
}

#[async_trait]
impl<D: Dialect> Provider for OAuth2Flow<D> {
    fn info(&self) -> &ProviderInfo {
        &self.info
    }

    fn call_timeout(&self) -> std::time::Duration {
        self.http.settings().timeout
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url {
        self.dialect.authorize_url(&self.endpoints.authorize, request)
    }

    async fn exchange_code(
        &self,
        credentials: &ClientCredentials,
        code: &SecretString,
        redirect_uri: &str,
        pkce_verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, ProviderError> {
        let form = Form::new()
            .with("grant_type", "authorization_code")
            .with("code", code.expose_secret())
            .with("redirect_uri", redirect_uri)
            .with_some("code_verifier", pkce_verifier.map(ExposeSecret::expose_secret));
        self.token(Operation::Exchange, credentials, form).await
    }

    async fn refresh(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<TokenAnswer, ProviderError> {
        let form = Form::new()
            .with("grant_type", "refresh_token")
            .with("refresh_token", refresh_token.expose_secret());
        self.token(Operation::Refresh, credentials, form).await
    }

    async fn introspect(
        &self,
        credentials: &ClientCredentials,
        token: &SecretString,
        hint: TokenHint,
    ) -> Result<Introspection, ProviderError> {
        let endpoint = self.endpoints.introspect.as_ref().ok_or_else(|| self.absent("introspection"))?;
        let form = Form::new().with("token", token.expose_secret()).with("token_type_hint", hint.as_str());
        let success = self.call(Operation::Introspect, endpoint, credentials, form).await?;
        let fields = match &success.fields {
            Ok(fields) => fields,
            Err(detail) => return Err(success.unreadable(detail)),
        };
        let active = fields
            .flag("active")
            .ok_or_else(|| success.unreadable("the answer does not say whether the token is active"))?;
        let facts = self.dialect.introspection_facts(fields);
        Ok(Introspection {
            active,
            account: facts.account,
            account_name: facts.account_name,
            scopes: facts.scopes,
            expires_in: remaining_life(fields, success.requested_at),
        })
    }

    async fn revoke(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<(), ProviderError> {
        let endpoint = self.endpoints.revoke.as_ref().ok_or_else(|| self.absent("revocation"))?;
        let form = Form::new()
            .with("token", refresh_token.expose_secret())
            .with("token_type_hint", TokenHint::RefreshToken.as_str());
        self.call(Operation::Revoke, endpoint, credentials, form).await.map(|_| ())
    }

    async fn check_credentials(&self, credentials: &ClientCredentials) -> Option<bool> {
        self.dialect.check_credentials(self, credentials).await
    }
}

/// `exp` (RFC 7662, section 2.2), or the `expires_in` that some vendors answer instead.
fn remaining_life(fields: &Fields, now: Timestamp) -> Option<std::time::Duration> {
    if let ExpiresIn::Given(life) = fields.lifetime("expires_in") {
        return Some(life);
    }
    let expiry = i64::try_from(fields.seconds("exp")?).ok()?;
    Some(Timestamp::from_secs(expiry).until(now).min(MAX_LIFETIME))
}

/// RFC 6749, section 2.3.1: both parts are form-encoded before they are joined.
fn basic(credentials: &ClientCredentials) -> Option<HeaderValue> {
    let encoded = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
    let id = encoded(&credentials.client_id);
    let secret = encoded(credentials.client_secret.expose_secret());
    let pair = Zeroizing::new(format!("{}:{}", id.as_str(), secret.as_str()));
    let header = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::try_from(header.as_str()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
