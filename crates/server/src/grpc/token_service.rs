//! The service that gives out tokens. What memory can answer is answered on the thread that the call came in on; everything
//! else leaves that thread at once.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokenward_api::v1::token_service_server::TokenService;
use tokenward_api::v1::{
    GetTokenRequest, GetTokenResponse, ReportRejectedTokenRequest, ReportRejectedTokenResponse, Warning,
    report_rejected_token_response, warning,
};
use tokenward_broker::{
    Broker, Error, LiveToken, Reason, ReportOutcome, Token, TokenRequest, WarningReason, audit,
};
use tokenward_types::{MAX_SCOPES, Principal, RequestId, TenantId};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::call::{Call, refuse_for};
use super::convert;
use super::request_id::request_span;
use super::seen::SeenTokens;
use crate::admission::Admission;

/// The service.
pub(crate) struct Tokens {
    /// The use cases.
    pub broker: Broker,
    /// The runtime for whatever memory cannot answer.
    pub main: Handle,
    /// Who got which token.
    pub seen: Arc<SeenTokens>,
    /// Places of calls that memory cannot answer.
    pub waiting: Admission,
}

fn ask<'a>(
    principal: &'a Principal,
    message: &'a GetTokenRequest,
    min_ttl: Option<Duration>,
    patience: Duration,
) -> TokenRequest<'a> {
    TokenRequest {
        principal,
        tenant: &message.tenant_id,
        provider: &message.provider,
        scopes: &message.scopes,
        min_ttl,
        connection: &message.connection_id,
        account: &message.account_id,
        patience: Some(patience),
    }
}

impl Tokens {
    /// Runs work about a tenant on the main runtime, if there is a place for it, and stops waiting for it when the caller
    /// goes away. What it logs names the request.
    async fn elsewhere<T, F>(
        &self,
        principal: &Principal,
        tenant: &str,
        request_id: &RequestId,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let _place = self.waiting.enter(principal.as_str(), Some(tenant))?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work.instrument(request_span(request_id)), &self.main);
        match tasks.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => Err(panicked(error)),
            None => Err(Error::new(Reason::Internal, "internal error")),
        }
    }

    /// The token, from memory where that suffices.
    pub(crate) async fn token(&self, call: &Call, message: GetTokenRequest) -> Result<Token, Status> {
        if message.scopes.len() > MAX_SCOPES {
            let count = message.scopes.len();
            let error = format_args!("{count} scopes are more than the {MAX_SCOPES} that are allowed");
            return Err(refuse_for(&message.tenant_id, Error::invalid("scopes", error)));
        }
        let min_ttl = convert::read_duration("min_ttl", message.min_ttl)
            .map_err(|error| refuse_for(&message.tenant_id, error))?;
        let asked = ask(&call.caller.principal, &message, min_ttl, call.patience);
        let (outcome, tenant) = if let Some(token) = self.broker.token_from_memory(&asked) {
            (Ok(token), message.tenant_id)
        } else {
            let (broker, principal) = (self.broker.clone(), call.caller.principal.clone());
            let (tenant, patience) = (message.tenant_id.clone(), call.patience);
            let work = async move { broker.token(&ask(&principal, &message, min_ttl, patience)).await };
            let principal = &call.caller.principal;
            (self.elsewhere(principal, &tenant, &call.id.to_id(), work).await, tenant)
        };
        let token = outcome.map_err(|error| refuse_for(&tenant, error))?;
        self.audit_first_issuance(call, &tenant, &token.live);
        Ok(token)
    }

    fn audit_first_issuance(&self, call: &Call, tenant: &str, live: &LiveToken) {
        let principal = &call.caller.principal;
        if !self.seen.is_first(principal, tenant, live) {
            return;
        }
        // It was found under this name, so it is one.
        if let Ok(tenant) = TenantId::parse(tenant) {
            let fingerprint = live.fingerprint.as_str();
            audit::first_issuance(principal, &tenant, &live.connection, fingerprint, &call.id.to_id());
        }
    }
}

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let call = Call::take(&mut extensions)?;
        Ok(Response::new(answer(&self.token(&call, message).await?)))
    }

    async fn report_rejected_token(
        &self,
        request: Request<ReportRejectedTokenRequest>,
    ) -> Result<Response<ReportRejectedTokenResponse>, Status> {
        use report_rejected_token_response::Outcome;
        let (_, mut extensions, message) = request.into_parts();
        let call = Call::take(&mut extensions)?;
        let principal = call.caller.principal.clone();
        let (broker, tenant) = (self.broker.clone(), message.tenant_id.clone());
        let place = self.waiting.enter(principal.as_str(), Some(&tenant));
        let place = place.map_err(|error| refuse_for(&tenant, error))?;
        let work = async move {
            let _place = place;
            let ReportRejectedTokenRequest { tenant_id, connection_id, fingerprint } = &message;
            broker.report_rejected(&principal, tenant_id, connection_id, fingerprint).await
        };
        // Not tied to the caller: what a report sets going concerns every caller of the token.
        let work = work.instrument(request_span(&call.id.to_id()));
        let outcome = self.main.spawn(work).await.unwrap_or_else(|error| Err(panicked(error)));
        let outcome = match outcome.map_err(|error| refuse_for(&tenant, error))? {
            ReportOutcome::Superseded => Outcome::Superseded,
            ReportOutcome::Alive => Outcome::Alive,
            ReportOutcome::Replaced => Outcome::Replaced,
            ReportOutcome::Unverified => Outcome::Unverified,
        };
        Ok(Response::new(ReportRejectedTokenResponse { outcome: outcome.into() }))
    }
}

fn panicked(error: JoinError) -> Error {
    Error::new(Reason::Internal, "internal error").internal(error)
}

/// The answer as the generated code has it.
pub(crate) fn answer(token: &Token) -> GetTokenResponse {
    let live = &token.live;
    GetTokenResponse {
        access_token: live.access_token().expose_secret().to_owned(),
        token_type: LiveToken::TOKEN_TYPE.to_owned(),
        expire_time: live.expires_at.map(convert::timestamp),
        ttl: token.ttl.map(convert::duration),
        scopes: convert::scopes(&live.scopes),
        connection_id: live.connection.as_str().to_owned(),
        account_id: live.account.as_str().to_owned(),
        fingerprint: live.fingerprint.as_str().to_owned(),
        warnings: token.warnings.iter().map(warning).collect(),
        provider: live.provider.as_str().to_owned(),
    }
}

/// A warning as the generated code has it.
pub(crate) fn warning(warning: &tokenward_broker::Warning) -> Warning {
    let reason = match warning.reason {
        WarningReason::MinTtlNotMet => warning::Reason::MinTtlNotMet,
        WarningReason::RefreshFailing => warning::Reason::RefreshFailing,
        WarningReason::GrantSuspect => warning::Reason::GrantSuspect,
        WarningReason::LifetimeAssumed => warning::Reason::LifetimeAssumed,
    };
    Warning { reason: reason.into(), message: warning.message.clone() }
}
