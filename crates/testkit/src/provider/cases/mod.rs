//! The cases, one function each: its name says what a provider does.
#![expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a case fails by a panic")]

mod answers;
mod outcomes;
mod refusals;
mod requests;
mod secrecy;

use std::sync::Arc;

use tokenward_provider::{ClientCredentials, Operation, Provider, ProviderError, TokenAnswer, TokenHint};
use tokenward_types::SecretString;

pub use answers::*;
pub use outcomes::*;
pub use refusals::*;
pub use requests::*;
pub use secrecy::*;

use super::{ProviderFixture, SampleToken, ScriptedVendor, Setup, Step};

/// Part of every secret that the suite sends; the rest has characters that need encoding.
const CANARY: &str = "c4n4ry";
const CLIENT_ID: &str = "our client/id";
const CLIENT_SECRET: &str = "c4n4ry-secret: &=%+/ä";
const CODE: &str = "c4n4ry-code &=%+/ä";
const VERIFIER: &str = "c4n4ry-verifier-0123456789-0123456789-0123456789";
const REFRESH_TOKEN: &str = "c4n4ry-refresh &=%+/ä";
const ACCESS_TOKEN: &str = "c4n4ry-access &=%+/ä";
const REDIRECT_URI: &str = "https://gateway.example/oauth/callback/hubspot?x=1";

const SAMPLE: SampleToken<'static> = SampleToken {
    access_token: "c4n4ry-new-access",
    refresh_token: Some("c4n4ry-new-refresh"),
    expires_in: Some("1800"),
    scopes: Some(&["b", "a"]),
    account: Some("4711"),
};

fn credentials() -> ClientCredentials {
    ClientCredentials { client_id: CLIENT_ID.into(), client_secret: CLIENT_SECRET.into() }
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

async fn build(fixture: &dyn ProviderFixture, setup: &Setup) -> Arc<dyn Provider> {
    fixture.build(setup).await.expect("the provider can be built")
}

/// A provider against a vendor that does the given steps.
async fn scripted(
    fixture: &dyn ProviderFixture,
    steps: impl IntoIterator<Item = Step>,
) -> (ScriptedVendor, Arc<dyn Provider>) {
    let vendor = ScriptedVendor::start(steps).await;
    let provider = build(fixture, &Setup::new(vendor.url())).await;
    (vendor, provider)
}

async fn refresh(provider: &dyn Provider) -> Result<TokenAnswer, ProviderError> {
    provider.refresh(&credentials(), &secret(REFRESH_TOKEN)).await
}

async fn exchange(provider: &dyn Provider) -> Result<TokenAnswer, ProviderError> {
    let verifier = secret(VERIFIER);
    provider.exchange_code(&credentials(), &secret(CODE), REDIRECT_URI, Some(&verifier)).await
}

/// The operations that this provider's vendor knows.
fn operations(provider: &dyn Provider) -> Vec<Operation> {
    let mut operations = vec![Operation::Exchange, Operation::Refresh];
    operations.extend(provider.info().introspection.then_some(Operation::Introspect));
    operations.extend(provider.info().revocation.then_some(Operation::Revoke));
    operations
}

/// Does `operation` with the suite's secrets.
async fn call(provider: &dyn Provider, operation: Operation) -> Result<(), ProviderError> {
    match operation {
        Operation::Exchange => exchange(provider).await.map(|_| ()),
        Operation::Refresh => refresh(provider).await.map(|_| ()),
        Operation::Revoke => provider.revoke(&credentials(), &secret(REFRESH_TOKEN)).await,
        Operation::Introspect | Operation::Probe => {
            let token = secret(ACCESS_TOKEN);
            provider.introspect(&credentials(), &token, TokenHint::AccessToken).await.map(|_| ())
        }
    }
}

/// An answer that makes `operation` succeed.
fn success(fixture: &dyn ProviderFixture, operation: Operation) -> Step {
    match operation {
        Operation::Exchange | Operation::Refresh => Step::answer(200, fixture.token_body(&SAMPLE)),
        Operation::Introspect | Operation::Probe => Step::answer(200, fixture.introspection_body()),
        Operation::Revoke => Step::answer(200, ""),
    }
}
