use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokenward_types::{AccountId, ExposeSecret, Scopes};
use url::Url;

use crate::{AuthorizeRequest, ClientCredentials, ErrorClass, Fields, Form, OAuth2Flow, TokenHint};

/// What a request asks for: the same code means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An authorization code is exchanged.
    Exchange,
    /// A grant is refreshed.
    Refresh,
    /// A token is asked about.
    Introspect,
    /// A grant is revoked.
    Revoke,
    /// A client secret is tried.
    Probe,
}

impl Operation {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "code exchange",
            Self::Refresh => "refresh",
            Self::Introspect => "introspection",
            Self::Revoke => "revocation",
            Self::Probe => "credential probe",
        }
    }
}

/// A refusal to classify. Server errors (5xx) and 429 never get here: they mean the same everywhere.
#[derive(Clone, Copy)]
pub struct ErrorAnswer<'a> {
    /// What was asked for.
    pub operation: Operation,
    /// The HTTP status; 2xx when an error came dressed as success.
    pub status: u16,
    /// The vendor's code, from [`Dialect::code`].
    pub code: Option<&'a str>,
    /// The body, if it was a JSON object.
    pub fields: Option<&'a Fields>,
}

impl ErrorAnswer<'_> {
    /// What the codes of RFC 6749 (section 5.2), RFC 7009 and RFC 7662 mean.
    pub fn standard_class(&self) -> ErrorClass {
        match (self.code, self.operation) {
            (Some("invalid_client" | "unauthorized_client"), _) => ErrorClass::ClientConfig,
            // Codes of the authorization endpoint (section 4.1.2.1) that some token endpoints use for their own trouble.
            (Some("server_error" | "temporarily_unavailable"), _) => ErrorClass::OutcomeUnknown,
            (Some("invalid_grant"), Operation::Refresh) => ErrorClass::GrantDead,
            (Some(_), Operation::Exchange) => ErrorClass::ConnectAttempt,
            _ => ErrorClass::Unexpected,
        }
    }
}

/// What an answer says about a token beside the token itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerFacts {
    /// Its scopes.
    pub scopes: Option<Scopes>,
    /// The account that it is for.
    pub account: Option<AccountId>,
    /// What people call that account.
    pub account_name: Option<String>,
}

/// What a vendor does its own way. The defaults are the standards'.
#[async_trait]
pub trait Dialect: Send + Sync + Sized + 'static {
    /// What a token answer says about the token.
    fn token_facts(&self, fields: &Fields) -> AnswerFacts;

    /// What an introspection answer says about the token.
    fn introspection_facts(&self, fields: &Fields) -> AnswerFacts {
        self.token_facts(fields)
    }

    /// Where to send the customer's browser (RFC 6749, section 4.1.1; RFC 7636, section 4.3). RFC 6749 knows no optional
    /// scopes, so they are asked for like the others.
    fn authorize_url(&self, endpoint: &Url, request: &AuthorizeRequest<'_>) -> Url {
        let scope = request.scopes.union(request.optional_scopes).to_string();
        let query = [
            ("response_type", Some("code")),
            ("client_id", Some(request.client_id)),
            ("redirect_uri", Some(request.redirect_uri)),
            ("scope", Some(scope.as_str()).filter(|scope| !scope.is_empty())),
            ("state", Some(request.state.expose_secret())),
            ("code_challenge", request.pkce_challenge),
            ("code_challenge_method", request.pkce_challenge.map(|_| "S256")),
        ];
        with_query(endpoint.clone(), query)
    }

    /// The vendor's code in an error answer.
    fn code<'a>(&self, fields: &'a Fields) -> Option<&'a str> {
        fields.code("error")
    }

    /// What a refusal means.
    fn classify(&self, answer: &ErrorAnswer<'_>) -> ErrorClass {
        answer.standard_class()
    }

    /// Probes a client secret: by default, by introspecting a token that never was. RFC 7662 (section 2.1) demands client
    /// authentication there, and an unknown token is an answer, not an error (section 2.2).
    async fn check_credentials(
        &self,
        flow: &OAuth2Flow<Self>,
        credentials: &ClientCredentials,
    ) -> Option<bool> {
        probe_by_introspection(flow, credentials).await
    }
}

/// The default of [`Dialect::check_credentials`].
pub async fn probe_by_introspection<D: Dialect>(
    flow: &OAuth2Flow<D>,
    credentials: &ClientCredentials,
) -> Option<bool> {
    let endpoint = flow.endpoints().introspect.as_ref()?;
    let form = Form::new()
        .with("token", "tokenward-credential-probe")
        .with("token_type_hint", TokenHint::AccessToken.as_str());
    match flow.call(Operation::Probe, endpoint, credentials, form).await {
        Ok(answer) => answer.fields()?.flag("active").map(|_| true),
        Err(error) if error.class == ErrorClass::ClientConfig => Some(false),
        Err(_) => None,
    }
}

/// The standards and nothing else; only the name of the account's member is a setting.
#[derive(Clone, Debug)]
pub struct StandardDialect {
    /// Names the account in token or introspection answers; `team.id` leads into an object.
    pub account_field: String,
    /// Names what people call the account.
    pub account_name_field: Option<String>,
}

impl Dialect for StandardDialect {
    fn token_facts(&self, fields: &Fields) -> AnswerFacts {
        AnswerFacts {
            scopes: fields.scope_text("scope"),
            account: fields.account(&self.account_field),
            account_name: self.account_name_field.as_deref().and_then(|path| fields.name(path)),
        }
    }
}

/// Everything but RFC 3986's unreserved characters, so that a space is `%20`: some vendors do not read `+` as one.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `url` with the given query parameters after those that it has (RFC 6749, section 3.1).
pub fn with_query<'a>(mut url: Url, parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Url {
    let mut query = url.query().unwrap_or_default().to_owned();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, QUERY));
    }
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(operation: Operation, status: u16, code: Option<&str>) -> ErrorClass {
        ErrorAnswer { operation, status, code, fields: None }.standard_class()
    }

    #[test]
    fn an_invalid_grant_kills_the_grant_only_on_refresh() {
        let code = Some("invalid_grant");
        assert_eq!(class(Operation::Refresh, 400, code), ErrorClass::GrantDead);
        assert_eq!(class(Operation::Exchange, 400, code), ErrorClass::ConnectAttempt);
        for operation in [Operation::Introspect, Operation::Revoke, Operation::Probe] {
            assert_eq!(class(operation, 400, code), ErrorClass::Unexpected);
        }
    }

    #[test]
    fn a_query_that_the_endpoint_has_already_is_kept() {
        let url = Url::parse("https://vendor.example/authorize?tenant=a").unwrap();
        let url = with_query(url, [("scope", Some("a b/ü")), ("none", None)]);
        assert_eq!(url.as_str(), "https://vendor.example/authorize?tenant=a&scope=a%20b%2F%C3%BC");
    }
}
