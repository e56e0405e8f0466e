//! Attempts whose outcome nobody recorded: their process died, or the provider's answer was lost. Every server looks for
//! them at its start and each second, in use or not; which one takes an attempt up, the lease decides.

use std::time::Duration;

use tokenward_provider::Rotation;
use tokenward_storage::{Attempt, Connection, ConnectionState, StorageErrorKind};
use tokenward_types::{ProviderName, Timestamp};

use super::Want;
use crate::Error;
use crate::broker::Broker;
use crate::line::Turn;

/// How many attempts are listed, oldest first; in any but the worst of times it is all there are.
const LISTED: u32 = 500;
/// How many of them are looked at each time.
const LOOKED_AT: usize = 100;
/// How many refreshes are started for them each time.
const TAKEN_UP: usize = 20;

impl Broker {
    /// Takes up unresolved attempts that no lease covers, in an order of its own, so that several servers spread.
    ///
    /// # Errors
    /// `StorageUnavailable`, when an outage begins: the next look is a second away.
    pub async fn resolve_attempts(&self) -> Result<(), Error> {
        let listed = self.storage().list_unresolved_attempts(LISTED).await;
        let now = self.clock().monotonic();
        match &listed {
            Err(error) if error.kind() == StorageErrorKind::Unavailable => {
                if !self.outage().begin() {
                    // It was said once.
                    return Ok(());
                }
            }
            _ => self.outage().answered(now),
        }
        let mut attempts = listed?;
        if self.outage().is_settling(now) {
            return Ok(());
        }
        let mut taken_up = 0;
        for _ in 0..LOOKED_AT {
            if attempts.is_empty() || taken_up >= TAKEN_UP {
                break;
            }
            let picked = self.rng().below(u64::try_from(attempts.len()).unwrap_or(u64::MAX));
            let attempt = attempts.swap_remove(usize::try_from(picked).unwrap_or_default());
            taken_up += usize::from(self.take_up(&attempt).await?);
        }
        Ok(())
    }

    /// Ends an attempt that no longer matters, or starts the refresh that finds out. Whether it started one.
    async fn take_up(&self, attempt: &Attempt) -> Result<bool, Error> {
        let (tenant, connection) = (&attempt.tenant, &attempt.connection);
        if self.unsaved().contains(tenant, connection) || self.flights().contains(tenant, connection) {
            return Ok(false);
        }
        let entry = self.directory().connection(tenant, connection);
        let now = self.now();
        if entry
            .is_some_and(|entry| entry.snapshot().failing.as_ref().is_some_and(|failing| failing.until > now))
        {
            return Ok(false);
        }
        let Some(row) = self.storage().get_connection(tenant, connection).await? else { return Ok(false) };
        let rotation = self.rotation_of(&row.provider);
        let newer_than = if rotation != Rotation::None && attempt.fence >= row.grant_fence {
            attempt.started_at
        } else if let Some(moment) = moment_of_proof(rotation, attempt, &row).filter(|moment| *moment <= now)
        {
            moment
        } else {
            if self.is_over(&row.provider, attempt) {
                self.storage().end_attempt(tenant, connection, attempt.fence, true).await?;
            }
            return Ok(false);
        };
        // In memory, so that failures back off.
        self.tenant(tenant).await?;
        drop(self.refresh_in(tenant, connection, Want::NewerThan(newer_than), Turn::Doubt));
        Ok(true)
    }

    pub(super) fn rotation_of(&self, provider: &ProviderName) -> Rotation {
        self.provider(provider).map_or(Rotation::None, |provider| provider.info().rotation)
    }

    /// Whether an attempt's answer no longer matters: where tokens do not rotate, it cannot have brought another one;
    /// elsewhere whoever got one has had the time to store it, and the token that it spent is no longer accepted.
    pub(super) fn is_over(&self, provider: &ProviderName, attempt: &Attempt) -> bool {
        let age = self.now().since(attempt.started_at);
        let stored_by_then = self.settings().lease * 4;
        age >= match self.rotation_of(provider) {
            Rotation::None => Duration::ZERO,
            Rotation::Grace(grace) => stored_by_then.max(grace),
            Rotation::Strict => stored_by_then,
        }
    }
}

/// When a token that is stored has to prove that it lives, although a later attempt brought it. A provider may get to a call long
/// after whoever made it gave up: the token that it spends was replaced by then, which with some ends the one that replaced
/// it. Halfway through the grace it has had the time to, and what it spent still answers. `None` for a token that is younger.
fn moment_of_proof(rotation: Rotation, attempt: &Attempt, row: &Connection) -> Option<Timestamp> {
    let Rotation::Grace(grace) = rotation else { return None };
    let moment = attempt.started_at + grace / 2;
    let issued_at = row.tokens.as_ref()?.issued_at;
    (row.state == ConnectionState::Active && issued_at < moment).then_some(moment)
}
