use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokenward_provider::{ErrorClass, Operation, Provider};
use tokenward_types::{Clock, ManualClock, Timestamp};

/// How a provider is to be built.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the fake vendor listens, such as `http://127.0.0.1:12345`.
    pub base_url: String,
    /// The longest time of a call.
    pub timeout: Duration,
    /// Whether private addresses may be called.
    pub allow_private_addresses: bool,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Setup {
    /// The settings of most cases.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            timeout: Duration::from_secs(20),
            allow_private_addresses: true,
            clock: Arc::new(ManualClock::new(Timestamp::from_secs(1_700_000_000))),
        }
    }
}

/// What a token answer is to hold.
#[derive(Clone, Copy, Debug)]
pub struct SampleToken<'a> {
    /// The access token.
    pub access_token: &'a str,
    /// The refresh token.
    pub refresh_token: Option<&'a str>,
    /// `expires_in` as JSON; `None` leaves it out.
    pub expires_in: Option<&'a str>,
    /// The scopes; `None` leaves them out.
    pub scopes: Option<&'a [&'a str]>,
    /// The account, made of digits; `None` leaves it out.
    pub account: Option<&'a str>,
}

/// A refusal of the vendor's and what it means.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What was asked for.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Its class.
    pub class: ErrorClass,
    /// The code that is reported.
    pub code: Option<&'static str>,
}

impl Refusal {
    /// A refusal with a body of the vendor's.
    pub fn new(
        operation: Operation,
        status: u16,
        body: impl Into<String>,
        class: ErrorClass,
        code: Option<&'static str>,
    ) -> Self {
        Self { operation, status, body: body.into(), class, code }
    }
}

/// What a provider contributes to the suite.
#[async_trait]
pub trait ProviderFixture: Send + Sync {
    /// Builds the provider by its public definition, with plaintext HTTP allowed.
    ///
    /// # Errors
    /// The problems of its configuration.
    async fn build(&self, setup: &Setup) -> Result<Arc<dyn Provider>, String>;

    /// The vendor's token answer.
    fn token_body(&self, sample: &SampleToken<'_>) -> String;

    /// The vendor's answer about a living token: one hour left, scopes `a` and `b`, account `4711`.
    fn introspection_body(&self) -> String;

    /// The vendor's error answers: the more, the better, and at least one of each of the classes `GrantDead`,
    /// `ClientConfig`, `ConnectAttempt` and `Unexpected`.
    fn refusals(&self) -> Vec<Refusal>;
}
