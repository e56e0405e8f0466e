//! What the answers tell browsers to refuse.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokenward_types::sha256;
use url::Url;

use super::views::STYLE;

const PERMISSIONS: &str = "browsing-topics=(), camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The headers of every answer.
#[derive(Clone, Debug)]
pub(super) struct SecurityHeaders {
    fixed: Vec<(HeaderName, HeaderValue)>,
    style_hash: String,
}

impl SecurityHeaders {
    /// Headers for an installation that browsers reach at `public_url`.
    pub(super) fn new(public_url: &Url) -> Self {
        let fixed = [
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("permissions-policy"), PERMISSIONS),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        let transport =
            (public_url.scheme() == "https").then_some((STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
        let fixed = fixed
            .into_iter()
            .chain(transport)
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect();
        Self { fixed, style_hash: BASE64_STANDARD.encode(sha256(STYLE.as_bytes())) }
    }

    /// Adds the headers; a page may have set a policy of its own.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fixed {
            headers.insert(name, value.clone());
        }
        if !headers.contains_key(CONTENT_SECURITY_POLICY) {
            headers.insert(CONTENT_SECURITY_POLICY, self.policy("'none'"));
        }
    }

    /// The policy of a page whose form leads to the provider's page at `authorize_origin`.
    pub(super) fn policy_with_form(&self, authorize_origin: &str) -> HeaderValue {
        // Chromium holds every redirect after a form's POST against form-action, and vendors send browsers on among hosts
        // of their own before a page shows. So any https host is allowed; on loopback the one that is configured.
        if authorize_origin.starts_with("https://") {
            self.policy("'self' https:")
        } else {
            self.policy(&format!("'self' {authorize_origin}"))
        }
    }

    fn policy(&self, form_action: &str) -> HeaderValue {
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'",
            self.style_hash
        );
        // An origin is ASCII without spaces; were it not, the strictest policy is the safe answer.
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(public_url: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        SecurityHeaders::new(&Url::parse(public_url).unwrap()).apply(&mut headers);
        headers
    }

    #[test]
    fn answers_are_neither_stored_framed_sniffed_nor_referred() {
        let headers = headers("https://connect.example.com");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=31536000");
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'none'", "form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn plain_http_on_loopback_does_not_demand_https() {
        assert!(!headers("http://127.0.0.1:8080").contains_key(STRICT_TRANSPORT_SECURITY));
    }

    #[test]
    fn a_form_may_lead_to_the_provider_only() {
        let security = SecurityHeaders::new(&Url::parse("https://connect.example.com").unwrap());
        let policy = |origin| security.policy_with_form(origin).to_str().unwrap().to_owned();
        assert!(policy("https://app.hubspot.com").contains("form-action 'self' https:;"));
        assert!(policy("http://127.0.0.1:9000").contains("form-action 'self' http://127.0.0.1:9000;"));
    }
}
