//! Tokens for code that does not care where they come from.

use std::sync::Arc;

use async_trait::async_trait;

use crate::client::TokenClient;
use crate::error::Error;
use crate::request::TokenRequest;
use crate::token::AccessToken;

/// Where a client of some API gets its token.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// A token that works now. Ask before every request: implementations keep it in memory.
    async fn token(&self) -> Result<AccessToken, Error>;

    /// Tells that the API answered 401 to `token`, so that the next one is another.
    async fn rejected(&self, token: &AccessToken);
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    async fn token(&self) -> Result<AccessToken, Error> {
        (**self).token().await
    }

    async fn rejected(&self, token: &AccessToken) {
        (**self).rejected(token).await;
    }
}

/// A [`TokenClient`] with one request, from [`TokenClient::source`].
#[derive(Clone, Debug)]
pub struct BoundSource {
    client: TokenClient,
    request: Arc<TokenRequest>,
}

impl BoundSource {
    pub(crate) fn new(client: TokenClient, request: TokenRequest) -> Self {
        Self { client, request: Arc::new(request) }
    }
}

#[async_trait]
impl TokenSource for BoundSource {
    async fn token(&self) -> Result<AccessToken, Error> {
        self.client.get_token(&self.request).await
    }

    async fn rejected(&self, token: &AccessToken) {
        match self.client.report_rejected(token).await {
            Ok(outcome) => tracing::info!(fingerprint = token.fingerprint(), ?outcome, "token rejected"),
            // The token is forgotten all the same; the next one may be the same, and be rejected again.
            Err(error) => {
                tracing::warn!(fingerprint = token.fingerprint(), %error, "rejected token not reported");
            }
        }
    }
}

/// Gets a token and sends a request with it. If the answer `is_rejected`, tells the source, and sends once more with
/// the next token; that answer is returned whatever it is.
///
/// `send` makes the request afresh each time, so it may be one whose body cannot be cloned.
///
/// # Errors
/// No token, or `send` failed.
pub async fn call<S, A, E, F>(
    source: &S,
    mut send: impl FnMut(AccessToken) -> F,
    is_rejected: impl Fn(&A) -> bool,
) -> Result<A, E>
where
    S: TokenSource + ?Sized,
    E: From<Error>,
    F: Future<Output = Result<A, E>>,
{
    let token = source.token().await?;
    let answer = send(token.clone()).await?;
    if !is_rejected(&answer) {
        return Ok(answer);
    }
    source.rejected(&token).await;
    send(source.token().await?).await
}
