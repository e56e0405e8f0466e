//! The error table of the token endpoint, in both forms of body, and the CRM API's errors.

use http::StatusCode;
use serde_json::{Value, json};

use crate::config::ErrorStyle;

/// The version of the OAuth API that a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiVersion {
    V1,
    V3,
    Dated,
}

/// A definite refusal by an OAuth endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OAuthError {
    RefreshToken,
    Hub,
    AuthCode,
    CodeVerifier,
    ClientId,
    ClientSecret,
    RedirectUri,
    GrantType,
    Scopes,
}

impl OAuthError {
    /// HubSpot's own `status` word.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::RefreshToken => "BAD_REFRESH_TOKEN",
            Self::Hub => "BAD_HUB",
            Self::AuthCode => "BAD_AUTH_CODE",
            Self::CodeVerifier => "BAD_CODE_VERIFIER",
            Self::ClientId => "BAD_CLIENT_ID",
            Self::ClientSecret => "BAD_CLIENT_SECRET",
            Self::RedirectUri => "BAD_REDIRECT_URI",
            Self::GrantType => "BAD_GRANT_TYPE",
            Self::Scopes => "BAD_SCOPES",
        }
    }

    /// RFC 6749 section 5.2 `error`.
    fn rfc(self) -> &'static str {
        match self {
            Self::RefreshToken | Self::AuthCode | Self::CodeVerifier | Self::RedirectUri => "invalid_grant",
            Self::Hub => "access_denied",
            Self::ClientId | Self::ClientSecret => "invalid_client",
            Self::GrantType => "unsupported_grant_type",
            Self::Scopes => "invalid_scope",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::RefreshToken => "missing or invalid refresh token",
            Self::Hub => "missing or unknown hub id",
            Self::AuthCode => "missing or unknown auth code",
            Self::CodeVerifier => "missing or invalid code verifier",
            Self::ClientId => "missing or unknown client id",
            Self::ClientSecret => "missing or invalid client secret",
            Self::RedirectUri => "missing or invalid redirect uri",
            Self::GrantType => "missing or unknown grant type",
            Self::Scopes => "missing or unknown scopes",
        }
    }

    pub(crate) fn status(self, version: ApiVersion, wrong_secret: u16) -> StatusCode {
        match self {
            Self::Hub if version == ApiVersion::V1 => StatusCode::FORBIDDEN,
            Self::ClientSecret => StatusCode::from_u16(wrong_secret).unwrap_or(StatusCode::BAD_REQUEST),
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn body(self, version: ApiVersion, style: ErrorStyle, correlation_id: &str) -> Value {
        let old = style == ErrorStyle::Old || (style == ErrorStyle::ByVersion && version == ApiVersion::V1);
        let (status, message) = (self.code(), self.message());
        if old {
            return json!({"status": status, "message": message, "correlationId": correlation_id});
        }
        match self {
            // The one error that names no description: observed so.
            Self::Hub => json!({"status": status, "message": message, "error": self.rfc()}),
            Self::RefreshToken => {
                let text = "refresh token is invalid, expired or revoked";
                json!({"error": self.rfc(), "error_description": text, "status": status, "message": text})
            }
            _ => {
                json!({"error": self.rfc(), "error_description": message, "status": status, "message": message})
            }
        }
    }
}

/// A refusal by the CRM API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiError {
    InvalidAuthentication,
    ExpiredAuthentication { seconds_ago: i64 },
    MissingScopes(&'static str),
    Validation(&'static str),
}

impl ApiError {
    pub(crate) fn category(&self) -> &'static str {
        match self {
            Self::InvalidAuthentication => "INVALID_AUTHENTICATION",
            Self::ExpiredAuthentication { .. } => "EXPIRED_AUTHENTICATION",
            Self::MissingScopes(_) => "MISSING_SCOPES",
            Self::Validation(_) => "VALIDATION_ERROR",
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::InvalidAuthentication | Self::ExpiredAuthentication { .. } => StatusCode::UNAUTHORIZED,
            Self::MissingScopes(_) => StatusCode::FORBIDDEN,
            Self::Validation(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn body(&self, correlation_id: &str) -> Value {
        let message = match self {
            Self::InvalidAuthentication => {
                "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find \
                 more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
                    .to_owned()
            }
            Self::ExpiredAuthentication { seconds_ago } => {
                format!("The OAuth token used to make this call expired {seconds_ago} second(s) ago.")
            }
            Self::MissingScopes(_) => {
                "This app hasn't been granted all required scopes to make this call. Read more about required \
                 scopes here: https://developers.hubspot.com/scopes."
                    .to_owned()
            }
            Self::Validation(text) => (*text).to_owned(),
        };
        let mut body = json!({
            "status": "error", "message": message, "correlationId": correlation_id, "category": self.category(),
        });
        if let Self::MissingScopes(scope) = self {
            body["errors"] = json!([{
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": [scope]},
            }]);
            body["links"] = json!({"scopes": "https://developers.hubspot.com/scopes"});
        }
        body
    }
}

/// The body of a 429.
pub(crate) fn rate_limited(policy: &str, correlation_id: &str) -> Value {
    json!({
        "status": "error", "message": "You have reached your rate limit.", "errorType": "RATE_LIMIT",
        "correlationId": correlation_id, "category": "RATE_LIMITS", "policyName": policy,
    })
}
