use secrecy::SecretString;
use tokenward_storage::{ConnectAttempt, ConnectLink, Connection, ConsumeOutcome};
use tokenward_types::{AccountId, ExposeSecret, OAuthClientId, constant_time_eq, sha256};

use super::{MAX_INPUT, NewPending};
use crate::broker::Broker;
use crate::consent::grant_failed;
use crate::{Error, Reason, audit};

/// What came back with the browser (RFC 6749, section 4.1.2).
#[derive(Clone, Copy)]
pub struct Callback<'a> {
    /// The client, from the path.
    pub oauth_client: &'a str,
    /// The authorization code.
    pub code: Option<&'a str>,
    /// The state.
    pub state: Option<&'a str>,
    /// The error code.
    pub error: Option<&'a str>,
    /// The issuer (RFC 9207).
    pub iss: Option<&'a str>,
    /// All cookies of the request.
    pub cookies: &'a [(&'a str, &'a str)],
}

/// A connection that was made.
#[derive(Clone, Debug)]
pub struct FinishedConnect {
    /// The tenant's name, or its identifier.
    pub tenant_name: String,
    /// The provider's name.
    pub provider_name: String,
    /// The account.
    pub account: AccountId,
    /// The account's name; may be empty.
    pub account_name: String,
    /// Where the browser may go on to.
    pub return_url: Option<String>,
}

/// The parts of a callback that outlive the request.
struct Returned {
    code: Option<SecretString>,
    error: Option<String>,
    iss: Option<String>,
}

impl Broker {
    /// Takes a browser back and makes the connection.
    ///
    /// # Errors
    /// `StateUnknown`, `OtherBrowser`, `StateExpired`, `StateUsed`: nothing was spent. `ConsentRefused`, `IssuerMismatch`,
    /// `GrantRefused`, `AccountMismatch`, `ScopeNotGranted`, `AccountTaken`: this attempt failed, the link may be used again.
    pub async fn finish_connect(&self, callback: Callback<'_>) -> Result<FinishedConnect, Error> {
        let attempt = self.consume_state(&callback).await?;
        let tenant = attempt.tenant.clone();
        let returned = Returned {
            code: callback.code.map(SecretString::from),
            error: callback.error.map(str::to_owned),
            iss: callback.iss.map(str::to_owned),
        };
        let broker = self.clone();
        // Detached: a browser that goes away must not lose what the provider gave for the code, nor its audit event.
        let finish = async move {
            let result = broker.finish_attempt(&attempt, returned).await;
            let account = result.as_ref().ok().map(|(connection, _)| connection.account.as_str());
            let outcome = result.as_ref().map(|(connection, _)| &connection.id).map_err(|error| error.reason);
            audit::connect(&attempt.tenant, attempt.link.as_str(), account, outcome);
            result
        };
        let (connection, link) = self.detached(finish).await?;
        let tenant = self.existing_tenant(&tenant).await?;
        let provider_name = self
            .provider(&connection.provider)
            .map(|provider| provider.info().display_name.clone())
            .unwrap_or_default();
        let tenant_name =
            if tenant.display_name.is_empty() { tenant.id.to_string() } else { tenant.display_name };
        Ok(FinishedConnect {
            tenant_name,
            provider_name,
            account: connection.account,
            account_name: connection.account_name,
            return_url: link.return_url,
        })
    }

    async fn consume_state(&self, callback: &Callback<'_>) -> Result<ConnectAttempt, Error> {
        let unknown = || {
            Error::new(
                Reason::StateUnknown,
                "this address was not opened by a connection that is under way: start from the link",
            )
        };
        let state = callback.state.filter(|state| !state.is_empty() && state.len() <= MAX_INPUT);
        let state_hash = sha256(state.ok_or_else(unknown)?.as_bytes());
        let name = self.cookie_name(&state_hash);
        let cookie = callback.cookies.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
        let cookie_hash = sha256(cookie.as_bytes());
        match self.storage().consume_connect_attempt(&state_hash, &cookie_hash, self.now()).await? {
            ConsumeOutcome::Consumed(attempt) if attempt.oauth_client.as_str() == callback.oauth_client => {
                Ok(*attempt)
            }
            ConsumeOutcome::Consumed(_) | ConsumeOutcome::Unknown => Err(unknown()),
            ConsumeOutcome::OtherBrowser => Err(Error::new(
                Reason::OtherBrowser,
                "this connection was started in another browser, or cookies are blocked: open the link again in this one",
            )),
            ConsumeOutcome::Expired => Err(Error::new(
                Reason::StateExpired,
                "too much time went by at the provider's page: open the link again",
            )),
            ConsumeOutcome::AlreadyUsed => Err(Error::new(
                Reason::StateUsed,
                "this page was loaded before; if it did not succeed then, open the link again",
            )),
        }
    }

    async fn finish_attempt(
        &self,
        attempt: &ConnectAttempt,
        returned: Returned,
    ) -> Result<(Connection, ConnectLink), Error> {
        let client = self.client(&attempt.oauth_client).await?;
        if let Some(expected) = &client.provider.info().issuer {
            let given = returned.iss.as_deref().unwrap_or_default();
            if !constant_time_eq(given.as_bytes(), expected.as_bytes()) {
                return Err(Error::new(
                    Reason::IssuerMismatch,
                    "the answer does not come from the provider that was asked",
                ));
            }
        }
        if let Some(error) = &returned.error {
            return Err(refusal(error));
        }
        let is_code = |code: &SecretString| (1..=MAX_INPUT).contains(&code.expose_secret().len());
        let code = returned
            .code
            .filter(is_code)
            .ok_or_else(|| Error::new(Reason::GrantRefused, "the provider sent no authorization code"))?;
        let link = self
            .storage()
            .get_connect_link(&attempt.tenant, &attempt.link)
            .await?
            .ok_or_else(|| Error::new(Reason::LinkUnknown, "the link was taken back meanwhile"))?;
        if link.used_at.is_some() {
            return Err(Error::new(Reason::LinkUsed, "this link was used already: it works once"));
        }
        let verifier = self.open_verifier(attempt).await?;
        let pending = NewPending::of(attempt, &link, &client.client);
        let connection = self.exchange(&attempt.oauth_client, code, verifier, pending).await?;
        Ok((connection, link))
    }

    async fn exchange(
        &self,
        oauth_client: &OAuthClientId,
        code: SecretString,
        verifier: Option<SecretString>,
        pending: NewPending,
    ) -> Result<Connection, Error> {
        let client = self.client(oauth_client).await?;
        let redirect_uri = self.redirect_uri(oauth_client);
        let mut refused = None;
        for (_, credentials) in client.credentials() {
            let answer =
                client.provider.exchange_code(&credentials, &code, &redirect_uri, verifier.as_ref()).await;
            match answer {
                Ok(answer) => return self.settle_grant(pending, &client, &credentials, answer).await,
                // Another secret is tried only on a definite answer that this one is wrong.
                Err(error) if error.class == tokenward_provider::ErrorClass::ClientConfig => {
                    refused = Some(error);
                }
                Err(error) => return Err(grant_failed(error)),
            }
        }
        Err(refused.map_or_else(
            || Error::new(Reason::OAuthClientMisconfigured, "the OAuth client has no usable secret"),
            grant_failed,
        ))
    }
}

/// The provider's `error` (RFC 6749, section 4.1.2.1). Its description is not shown: it is whatever the URL says.
fn refusal(error: &str) -> Error {
    let code: String =
        error.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).take(64).collect();
    if code == "access_denied" {
        return Error::new(Reason::ConsentRefused, "access was declined at the provider's page");
    }
    Error::new(Reason::GrantRefused, "the provider ended the attempt").with("provider_code", code)
}
