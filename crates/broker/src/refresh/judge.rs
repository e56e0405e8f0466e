//! What it means that the provider calls a grant dead. A first answer is never believed: the connection becomes a suspect.
//! It is dead only if a second answer agrees a minute later, the row did not change, and no attempt is unresolved.

use std::sync::Arc;
use std::time::Duration;

use tokenward_provider::{ClientCredentials, ErrorClass, ProviderError, Rotation, TokenHint};
use tokenward_storage::{
    Connection, ConnectionFilter, ConnectionState, PageRequest, StateChange, StorageErrorKind,
};
use tokenward_types::SecretString;

use super::record::{Fresh, is_same};
use super::restored::is_restored;
use super::run::{Called, Held, suspect};
use crate::broker::{Broker, state_name};
use crate::clients::ClientEntry;
use crate::guard::{ClientGuard, Permit};
use crate::select::reauthorization_required_of;
use crate::token::LiveToken;
use crate::{Error, Place, Reason, audit};

/// The longest time between two looks at a suspect.
const LOOK_MAX: Duration = Duration::from_secs(3600);

/// Whether somebody stored another grant or other tokens since a row was read.
fn has_moved(current: &Connection, seen: &Connection) -> bool {
    current.grant_fence != seen.grant_fence || current.consent_epoch != seen.consent_epoch
}

/// What became of the tokens that may live in the stored one's place.
enum Tried {
    /// One did.
    Served(Arc<LiveToken>),
    /// None did, as far as they were tried: all of them, or fewer because the lease ran out or the provider said something else.
    Refused { all: bool },
}

impl Broker {
    /// The stored token was refused. Tries those that may live in its place, then judges. `None` when somebody else stored
    /// another one meanwhile, which is the answer then.
    pub(super) async fn judge_dead(
        &self,
        row: &Connection,
        (client, credentials): (&ClientEntry, &ClientCredentials),
        permit: &Permit<'_>,
        held: &Held,
        refused: &SecretString,
        error: ProviderError,
    ) -> Result<Option<Arc<LiveToken>>, Error> {
        permit.neutral();
        tracing::warn!(
            tenant = %row.tenant,
            connection = %row.id,
            code = error.code,
            status = error.http_status,
            "the provider calls a grant dead"
        );
        let current = self.storage().get_connection(&row.tenant, &row.id).await?;
        if current.is_none_or(|current| has_moved(&current, row)) {
            self.end_attempt(row, held.fence, true).await;
            return Ok(None);
        }
        let others = self.other_tokens(row, (client, credentials), refused, held.fence).await?;
        let all_tried = match self.try_others(row, (client, credentials), held, others).await? {
            Tried::Served(live) => return Ok(Some(live)),
            Tried::Refused { all } => all,
        };
        self.end_attempt(row, held.fence, true).await;
        self.resolve_spent(row).await?;
        self.change_dead_state(row, client, error, all_tried).await.map(Some)
    }

    /// Introspection says that the stored token was spent by an attempt whose answer is lost, or is dead. `None` when the
    /// row moved or its lease is held.
    pub(super) async fn judge_spent(
        &self,
        row: &Connection,
        (client, credentials): (&ClientEntry, &ClientCredentials),
        permit: &Permit<'_>,
        spent: &SecretString,
        secret_version: i32,
    ) -> Result<Option<Arc<LiveToken>>, Error> {
        permit.neutral();
        let others = self.other_tokens(row, (client, credentials), spent, row.lease_fence + 1).await?;
        let mut all_tried = true;
        if !others.is_empty() {
            let Some(held) = self.lease(row, secret_version).await? else { return Ok(None) };
            match self.try_others(row, (client, credentials), &held, others).await? {
                Tried::Served(live) => return Ok(Some(live)),
                Tried::Refused { all } => all_tried = all,
            }
            self.end_attempt(row, held.fence, true).await;
        }
        self.resolve_spent(row).await?;
        let spent = ProviderError::new(ErrorClass::GrantDead, "introspection calls the refresh token dead");
        self.change_dead_state(row, client, spent, all_tried).await.map(Some)
    }

    /// Spends one token after the other until one brings an answer.
    async fn try_others(
        &self,
        row: &Connection,
        (client, credentials): (&ClientEntry, &ClientCredentials),
        held: &Held,
        others: Vec<(SecretString, i64)>,
    ) -> Result<Tried, Error> {
        for (token, spent_fence) in others {
            match self.call(client, credentials, &token, held).await {
                Called::Tokens(answer) => {
                    let fresh = Fresh { answer, spent: token, spent_fence, fence: held.fence };
                    return self.record(row, client, fresh).await.map(Tried::Served);
                }
                Called::Failed(error) if error.class == ErrorClass::GrantDead => {
                    self.forget_token(row, spent_fence).await?;
                }
                Called::Failed(error) if !error.outcome_is_certain() => {
                    self.end_attempt(row, held.fence, false).await;
                    return Err(self.note_failure(row, suspect(row).internal(error), None));
                }
                Called::Failed(_) | Called::Contended => return Ok(Tried::Refused { all: false }),
            }
        }
        Ok(Tried::Refused { all: true })
    }

    /// The tokens of unresolved attempts within their grace, then the spares. Where using a spent token again may end the
    /// grant, only those that introspection says live. What was stored after the lease with this fence was given belongs to
    /// whoever came later: spending it could end the token that they got.
    async fn other_tokens(
        &self,
        row: &Connection,
        (client, credentials): (&ClientEntry, &ClientCredentials),
        refused: &SecretString,
        lease_fence: i64,
    ) -> Result<Vec<(SecretString, i64)>, Error> {
        let mut sealed = Vec::new();
        let info = client.provider.info();
        let rotation = info.rotation;
        let asks_first = rotation == Rotation::Strict || (rotation != Rotation::None && is_restored(row));
        if asks_first && !info.introspection {
            return Ok(Vec::new());
        }
        let now = self.now();
        for attempt in self.storage().list_attempts(&row.tenant, &row.id).await? {
            let in_grace = match rotation {
                Rotation::Grace(grace) => now.since(attempt.started_at) < grace,
                Rotation::None | Rotation::Strict => true,
            };
            if in_grace {
                sealed.push((attempt.refresh_token, attempt.token_fence));
            }
        }
        let spares = self.storage().list_spares(&row.tenant, &row.id).await?;
        sealed.extend(spares.into_iter().map(|spare| (spare.refresh_token, spare.token_fence)));
        let mut tokens: Vec<(SecretString, i64)> = Vec::new();
        for (sealed, fence) in sealed {
            if fence != row.grant_fence
                && fence < lease_fence
                && !tokens.iter().any(|(_, known)| *known == fence)
            {
                let place = Place::token(&row.tenant, row.id.as_str(), "refresh_token", fence);
                match self.sealer().open_text(place, &sealed).await {
                    Ok(token) if is_same(&token, refused) => self.forget_token(row, fence).await?,
                    Ok(token) if asks_first && !self.lives(row, (client, credentials), &token).await? => {
                        // An attempt that spent it stays: its answer may be in a journal.
                        self.storage().remove_spare(&row.tenant, &row.id, fence).await?;
                    }
                    Ok(token) => tokens.push((token, fence)),
                    Err(error) if error.reason == Reason::StoredDataDamaged => {
                        self.metrics().alert("stored_data_damaged", row.id.as_str());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(tokens)
    }

    /// Whether introspection says that a refresh token lives.
    pub(super) async fn lives(
        &self,
        row: &Connection,
        (client, credentials): (&ClientEntry, &ClientCredentials),
        token: &SecretString,
    ) -> Result<bool, Error> {
        let told = client.provider.introspect(credentials, token, TokenHint::RefreshToken).await;
        told.map(|told| told.active).map_err(|error| {
            let answer = Error::new(
                Reason::ProviderUnavailable,
                "the outcome of a refresh is unknown, and the provider does not tell whether its token still lives",
            );
            self.note_failure(row, answer.internal(error), None)
        })
    }

    /// A token turned out to be dead: the spare goes, and attempts that spent it are resolved.
    async fn forget_token(&self, row: &Connection, token_fence: i64) -> Result<(), Error> {
        self.storage().remove_spare(&row.tenant, &row.id, token_fence).await?;
        for attempt in self.storage().list_attempts(&row.tenant, &row.id).await? {
            if attempt.token_fence == token_fence {
                self.end_attempt(row, attempt.fence, true).await;
            }
        }
        Ok(())
    }

    /// Ends attempts whose answers no longer matter.
    async fn resolve_spent(&self, row: &Connection) -> Result<(), Error> {
        for attempt in self.storage().list_attempts(&row.tenant, &row.id).await? {
            if self.is_over(&row.provider, &attempt) {
                self.end_attempt(row, attempt.fence, true).await;
            }
        }
        Ok(())
    }

    async fn change_dead_state(
        &self,
        row: &Connection,
        client: &ClientEntry,
        error: ProviderError,
        all_tried: bool,
    ) -> Result<Arc<LiveToken>, Error> {
        let now = self.now();
        let current = self
            .storage()
            .get_connection(&row.tenant, &row.id)
            .await?
            .ok_or_else(|| Error::not_found("connection", &row.id))?;
        if has_moved(&current, row) {
            // A race lost: somebody else's token is stored by now, and the next round serves it.
            return Err(suspect(row).retry_after(Duration::from_secs(1)));
        }
        // What a restored database made a suspect was not called dead before.
        let is_first = current.state == ConnectionState::Active || is_restored(&current);
        let deaths = if is_first {
            client.gate.guard.died(&row.tenant, &row.id, now)
        } else {
            client.gate.guard.deaths(now)
        };
        let confirmed = !is_first
            && all_tried
            && current.state == ConnectionState::Suspect
            && now.since(current.state_since) >= self.settings().suspect_confirm_after
            && !self.has_unresolved(row).await?
            && !self.is_mass_death(client, &current, deaths).await?;
        let state = match current.state {
            ConnectionState::ReauthRequired => ConnectionState::ReauthRequired,
            _ if confirmed => ConnectionState::ReauthRequired,
            _ => ConnectionState::Suspect,
        };
        let current = if state == current.state && !is_restored(&current) {
            current
        } else {
            let reason = error.code.clone().unwrap_or_else(|| error.class.as_str().to_owned());
            let change = StateChange { seen: current.version, state, reason: reason.clone(), now };
            match self.storage().change_state(&row.tenant, &row.id, &change).await {
                Ok(Some(changed)) => {
                    let (from, to) = (state_name(current.state), state_name(state));
                    audit::state_change(&row.tenant, &row.id, from, to, &reason);
                    changed
                }
                Ok(None) => return Err(Error::not_found("connection", &row.id)),
                Err(error) if error.kind() == StorageErrorKind::Conflict => {
                    return Err(suspect(row).retry_after(Duration::from_secs(1)));
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.show(&current, None);
        if state == ConnectionState::ReauthRequired {
            return Err(
                reauthorization_required_of(&current, client.client.help_url.as_deref()).internal(error)
            );
        }
        let wait = self.next_look(&current);
        self.schedule().push_look(now + wait, &row.tenant, &row.id);
        Err(self.note_failure(row, suspect(row).internal(error), Some(wait)))
    }

    /// When a suspect is looked at again: after the time to confirm, then ever more rarely, at most hourly.
    pub(crate) fn next_look(&self, current: &Connection) -> Duration {
        let first = self.settings().suspect_confirm_after;
        if is_restored(current) {
            // Verified as soon as can be, but not all at once.
            let millis = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
            return Duration::from_millis(self.rng().below(millis.max(1)));
        }
        let suspected = self.now().since(current.state_since);
        if suspected < first {
            return first.saturating_sub(suspected);
        }
        (suspected / 2).clamp(first, LOOK_MAX.max(first))
    }

    async fn has_unresolved(&self, row: &Connection) -> Result<bool, Error> {
        Ok(!self.storage().list_attempts(&row.tenant, &row.id).await?.is_empty())
    }

    /// Whether so many of the client's grants died at once that the provider is more likely wrong than all the customers
    /// gone: many in a short time, or many suspects and not one success since.
    async fn is_mass_death(
        &self,
        client: &ClientEntry,
        current: &Connection,
        deaths: usize,
    ) -> Result<bool, Error> {
        let id = &client.client.id;
        let mut deaths = deaths;
        if !client.gate.guard.succeeded_after(current.state_since) {
            let suspects = ConnectionFilter {
                oauth_client: Some(id.clone()),
                state: Some(ConnectionState::Suspect),
                ..Default::default()
            };
            let suspects = self.storage().list_connections(&suspects, &PageRequest::first()).await?;
            deaths = deaths.max(suspects.items.len());
        }
        if !ClientGuard::is_death_suspicious(deaths) {
            return Ok(false);
        }
        let filter = ConnectionFilter { oauth_client: Some(id.clone()), ..Default::default() };
        let mut page = PageRequest::first();
        let mut connections = 0_u64;
        loop {
            let answer = self.storage().list_connections(&filter, &page).await?;
            connections += answer.items.len() as u64;
            if !ClientGuard::is_mass_death(deaths, connections) {
                return Ok(false);
            }
            match answer.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        self.metrics().alert("mass_death", id.as_str());
        Ok(true)
    }
}
