//! The conformance suite of providers: what every [`Provider`] does, whatever its vendor.
//!
//! A provider contributes a [`ProviderFixture`]: how it is built against a fake vendor, and what that vendor writes.
//! `tokenward_testkit::provider_conformance!(name, fixture)` makes one test of each case.

pub mod cases;
mod fixture;
mod logs;
mod vendor;

pub use fixture::{ProviderFixture, Refusal, SampleToken, Setup};
pub use logs::LogCapture;
pub use vendor::{Received, ScriptedVendor, Step};

#[cfg(doc)]
use tokenward_provider::Provider;

/// One test for each conformance case of a provider, in a module `$name`.
#[macro_export]
macro_rules! provider_conformance {
    ($name:ident, $fixture:expr) => {
        mod $name {
            use super::*;

            $crate::provider_conformance!(@cases $fixture,
                the_authorize_url_carries_exactly_what_was_asked,
                without_pkce_the_authorize_url_has_no_challenge,
                secrets_travel_in_the_body_or_the_authorization_header_only,
                an_exchange_sends_code_redirect_uri_and_verifier,
                a_refresh_sends_the_refresh_token_once,
                a_token_answer_is_read_whole,
                a_token_answer_with_little_in_it_is_read,
                a_refresh_answered_without_a_refresh_token_gives_none,
                a_bad_lifetime_never_loses_the_tokens,
                the_time_of_sending_is_reported,
                introspection_tells_living_from_dead_tokens,
                revocation_takes_any_success_for_an_answer,
                every_refusal_has_its_class,
                a_rate_limit_honours_retry_after,
                a_server_error_leaves_the_outcome_unknown,
                a_bare_refusal_never_marks_a_grant_dead,
                a_redirect_is_not_followed,
                a_refused_connection_was_not_sent,
                a_failed_tls_handshake_was_not_sent,
                a_hang_up_leaves_the_outcome_unknown,
                a_timeout_leaves_the_outcome_unknown,
                an_unreadable_success_leaves_the_outcome_unknown,
                a_private_address_is_not_called,
                a_credential_probe_that_cannot_tell_says_so,
                nothing_secret_is_in_errors_or_logs,
            );
        }
    };
    (@cases $fixture:expr, $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::provider::cases::$case(&$fixture).await;
            }
        )*
    };
}
