use async_trait::async_trait;
use tokenward_provider::{
    AnswerFacts, AuthorizeRequest, ClientCredentials, Dialect, ErrorAnswer, ErrorClass, Fields, Form,
    OAuth2Flow, Operation, probe_by_introspection, with_query,
};
use tokenward_types::{AccountId, ExposeSecret};
use url::Url;

/// HubSpot's way of speaking OAuth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubSpotDialect;

#[async_trait]
impl Dialect for HubSpotDialect {
    fn token_facts(&self, fields: &Fields) -> AnswerFacts {
        AnswerFacts {
            scopes: fields.scope_list("scopes").or_else(|| fields.scope_text("scope")),
            account: fields.account("hub_id"),
            account_name: fields.name("hub_domain"),
        }
    }

    fn authorize_url(&self, endpoint: &Url, request: &AuthorizeRequest<'_>) -> Url {
        let scope = request.scopes.to_string();
        let optional_scope = request.optional_scopes.to_string();
        let query = [
            ("client_id", Some(request.client_id)),
            ("redirect_uri", Some(request.redirect_uri)),
            ("scope", Some(scope.as_str())),
            ("optional_scope", Some(optional_scope.as_str()).filter(|scope| !scope.is_empty())),
            ("state", Some(request.state.expose_secret())),
            ("code_challenge", request.pkce_challenge),
            ("code_challenge_method", request.pkce_challenge.map(|_| "S256")),
        ];
        with_query(pinned(endpoint.clone(), request.account), query)
    }

    fn code<'a>(&self, fields: &'a Fields) -> Option<&'a str> {
        status(fields).or_else(|| fields.code("error"))
    }

    fn classify(&self, answer: &ErrorAnswer<'_>) -> ErrorClass {
        match answer.status {
            // HubSpot does not dress errors as success.
            200..300 => return ErrorClass::OutcomeUnknown,
            // The account is locked, or is moving to another data centre.
            423 | 477 => return ErrorClass::AccountUnavailable,
            _ => {}
        }
        let error = answer.fields.and_then(|fields| fields.code("error"));
        match (answer.fields.and_then(status).or(error), answer.operation) {
            (Some("BAD_CLIENT_ID" | "BAD_CLIENT_SECRET" | "invalid_client"), _) => ErrorClass::ClientConfig,
            (Some("BAD_REFRESH_TOKEN" | "BAD_HUB"), Operation::Refresh) => match error {
                None | Some("invalid_grant" | "access_denied") => ErrorClass::GrantDead,
                // The two halves of the answer disagree: not a definite word that the grant is dead.
                Some(_) => ErrorClass::Unexpected,
            },
            // RFC 6749's way to say it, which HubSpot never does: not enough to stop every connection of the client.
            (Some("unauthorized_client"), Operation::Exchange) => ErrorClass::ConnectAttempt,
            (Some("unauthorized_client"), _) => ErrorClass::Unexpected,
            _ => answer.standard_class(),
        }
    }

    /// `client_credentials` without a scope is refused with `BAD_SCOPES` when the secret is right. Should HubSpot answer
    /// anything else, introspection is asked.
    async fn check_credentials(
        &self,
        flow: &OAuth2Flow<Self>,
        credentials: &ClientCredentials,
    ) -> Option<bool> {
        let form = Form::new().with("grant_type", "client_credentials");
        match flow.call(Operation::Probe, &flow.endpoints().token, credentials, form).await {
            Ok(success) if success.fields().is_some_and(|fields| fields.has("access_token")) => Some(true),
            Err(error) if error.class == ErrorClass::ClientConfig => Some(false),
            Err(error) if error.class != ErrorClass::Unexpected => None,
            Err(error) if matches!(error.code.as_deref(), Some("BAD_SCOPES" | "invalid_scope")) => Some(true),
            Ok(_) | Err(_) => probe_by_introspection(flow, credentials).await,
        }
    }
}

/// HubSpot's own code, such as `BAD_HUB`; its other APIs use the same member for the word `error`.
fn status(fields: &Fields) -> Option<&str> {
    fields.code("status").filter(|status| status.starts_with("BAD_"))
}

/// `/oauth/authorize` becomes `/oauth/{hubId}/authorize`, which asks for that account.
fn pinned(mut endpoint: Url, account: Option<&AccountId>) -> Url {
    let Some(hub_id) = account.map(AccountId::as_str).filter(|id| id.bytes().all(|b| b.is_ascii_digit()))
    else {
        return endpoint;
    };
    let last = endpoint.path_segments().and_then(|mut segments| segments.next_back()).map(str::to_owned);
    if let (Some(last), Ok(mut segments)) = (last, endpoint.path_segments_mut()) {
        segments.pop().push(hub_id).push(&last);
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_put_before_the_last_segment() {
        let endpoint = || Url::parse("https://app.hubspot.com/oauth/authorize").unwrap();
        let account = |text| AccountId::parse(text).unwrap();
        let path = |account: Option<&AccountId>| pinned(endpoint(), account).path().to_owned();
        assert_eq!(path(Some(&account("1234567"))), "/oauth/1234567/authorize");
        assert_eq!(path(Some(&account("1/../evil"))), "/oauth/authorize");
        assert_eq!(path(None), "/oauth/authorize");
    }
}
