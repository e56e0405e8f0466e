//! Connections that nobody asks for: each is looked at once in a while, by one of the servers, and last in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokenward_provider::{ErrorClass, ProviderInfo, Rotation, TokenHint};
use tokenward_storage::{CheckClaim, Connection, ConnectionState, DueCheck};
use tokenward_types::{Rng, Timestamp};

use crate::backoff::upto;
use crate::broker::Broker;
use crate::line::Turn;
use crate::metrics::CheckLabels;
use crate::refresh::Want;
use crate::{Error, Place};

/// How many looks are under way at the most.
const AT_ONCE: u32 = 100;
/// When a look that came to nothing is taken again: also by another server, if this one dies over it.
const AGAIN: Duration = Duration::from_secs(3600);

/// Looks under way.
#[derive(Default)]
pub(crate) struct Checks(Arc<AtomicU32>);

/// One of them, until it is dropped.
struct Looking(Arc<AtomicU32>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is to be done about a connection whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing, until then.
    In(Duration),
    /// Ask the provider whether the grant lives.
    Verify,
    /// Use the refresh token, lest it dies of not being used.
    Refresh,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Alive,
    Refreshed,
    /// The provider called the grant dead: from here on it is a refresh's affair.
    Dead,
    /// The connection changed meanwhile.
    Changed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Refreshed => "refreshed",
            Self::Dead => "dead",
            Self::Changed => "changed",
        }
    }
}

/// Less up to a tenth, at random, so that what was planned together comes apart.
fn spread(time: Duration, rng: &dyn Rng) -> Duration {
    time.saturating_sub(upto(time / 10, rng))
}

fn nine_tenths(time: Duration) -> Duration {
    time / 10 * 9
}

/// Half of the time in which a refresh token dies that is not used.
fn half_life(info: &ProviderInfo) -> Option<Duration> {
    info.refresh_token_idle_lifetime.map(|lifetime| lifetime / 2)
}

/// What to do about a connection whose refresh token was last used at `used_at`. A refresh within the interval was a look
/// already, and what is due within a tenth of its time is done now.
fn look(info: &ProviderInfo, used_at: Timestamp, now: Timestamp, interval: Duration) -> Look {
    let age = now.since(used_at);
    let half = half_life(info);
    if half.is_some_and(|half| age >= nine_tenths(half)) {
        return Look::Refresh;
    }
    let until_half = half.map(|half| half.saturating_sub(age));
    let at_most = |time: Duration| until_half.map_or(time, |until_half| time.min(until_half));
    if age < nine_tenths(interval) {
        return Look::In(at_most(interval.saturating_sub(age)));
    }
    // Asking spends nothing, but where tokens rotate the stored one may have been spent a moment ago.
    if info.introspection && info.rotation == Rotation::None {
        Look::Verify
    } else {
        Look::In(at_most(interval))
    }
}

/// Tokens that came after those that were seen.
fn newer(seen: &Connection) -> Want {
    Want::NewerThan(seen.tokens.as_ref().map_or(seen.updated_at, |tokens| tokens.issued_at))
}

impl Broker {
    /// Looks at connections that nobody asks for and that are due. A running broker does so every five seconds.
    pub async fn run_checks(&self) {
        if self.settings().idle_check_interval.is_zero() {
            return;
        }
        let left = AT_ONCE.saturating_sub(self.checks().0.load(Ordering::Relaxed));
        if left == 0 {
            return;
        }
        if let Err(error) = self.look_at_due(left).await {
            tracing::warn!(%error, detail = error.log_detail(), "cannot claim looks at idle connections that are due");
        }
    }

    async fn look_at_due(&self, limit: u32) -> Result<(), Error> {
        let due = self.storage().list_due_checks(limit).await?;
        let (mut looks, mut claims) = (Vec::new(), Vec::new());
        for DueCheck { connection, due } in due {
            let look = self.look_for(&connection, due.is_none());
            let next = match look {
                Look::In(time) => spread(time, self.rng()),
                Look::Verify | Look::Refresh => spread(AGAIN, self.rng()),
            };
            let (tenant, id) = (connection.tenant.clone(), connection.id.clone());
            claims.push(CheckClaim { tenant, connection: id, due, next });
            looks.push((connection, look));
        }
        if claims.is_empty() {
            return Ok(());
        }
        let claimed = self.storage().claim_checks(&claims).await?;
        for ((connection, look), claimed) in looks.into_iter().zip(claimed) {
            if claimed {
                self.start_look(connection, look);
            } else {
                self.count_check("elsewhere");
            }
        }
        Ok(())
    }

    fn look_for(&self, connection: &Connection, is_new: bool) -> Look {
        let interval = self.settings().idle_check_interval;
        let (Some(provider), Some(tokens)) = (self.provider(&connection.provider), &connection.tokens) else {
            return Look::In(interval);
        };
        match look(provider.info(), tokens.issued_at, self.now(), interval) {
            // All that there was before this was looked after would come at once.
            Look::Verify if is_new => Look::In(upto(interval, self.rng())),
            look => look,
        }
    }

    fn start_look(&self, connection: Connection, look: Look) {
        self.checks().0.fetch_add(1, Ordering::Relaxed);
        let looking = Looking(Arc::clone(&self.checks().0));
        let broker = self.clone();
        self.spawn(async move {
            let _looking = looking;
            if let Err(error) = broker.take_look(&connection, look).await {
                let Connection { tenant, id, .. } = connection;
                broker.count_check("failed");
                tracing::debug!(%tenant, connection = %id, %error, detail = error.log_detail(), "an idle connection could not be looked at");
            }
        });
    }

    async fn take_look(&self, connection: &Connection, look: Look) -> Result<(), Error> {
        let outcome = match look {
            Look::In(_) => return Ok(()),
            Look::Verify => self.ask_about(connection).await?,
            Look::Refresh => self.use_grant(connection).await?,
        };
        self.count_check(outcome.as_str());
        if outcome != Outcome::Dead {
            let interval = self.settings().idle_check_interval;
            let half = self.provider(&connection.provider).and_then(|provider| half_life(provider.info()));
            let next = spread(half.map_or(interval, |half| half.min(interval)), self.rng());
            self.storage().plan_check(&connection.tenant, &connection.id, next).await?;
        }
        Ok(())
    }

    fn count_check(&self, outcome: &'static str) {
        self.metrics().idle_checks.get_or_create(&CheckLabels { outcome }).inc();
    }

    /// Asks the provider about a grant, without using it. A dead one is refreshed, so that whatever is concluded is
    /// concluded as always.
    async fn ask_about(&self, seen: &Connection) -> Result<Outcome, Error> {
        let Some(client) = &seen.oauth_client else { return Ok(Outcome::Changed) };
        let client = self.client(client).await?;
        let permit = self.admit(&client, &seen.tenant, &seen.id, Turn::Idle).await?;
        // It may have stood in line for long.
        let current = self.storage().get_connection(&seen.tenant, &seen.id).await?;
        let current = current.filter(|current| {
            current.grant_fence == seen.grant_fence && current.state == ConnectionState::Active
        });
        let sealed = current.and_then(|current| current.tokens).and_then(|tokens| tokens.refresh_token);
        let Some(sealed) = sealed else { return Ok(Outcome::Changed) };
        let place = Place::token(&seen.tenant, seen.id.as_str(), "refresh_token", seen.grant_fence);
        let token = self.sealer().open_text(place, &sealed).await?;
        let credentials = client.first_credentials()?;
        match client.provider.introspect(&credentials, &token, TokenHint::RefreshToken).await {
            Ok(told) => {
                permit.neutral();
                drop(permit);
                if told.active {
                    return Ok(Outcome::Alive);
                }
            }
            Err(error) => {
                if error.class == ErrorClass::RateLimited {
                    permit.rate_limited(error.retry_after, self.now());
                } else {
                    permit.unanswered(self.now());
                }
                let answer = Error::new(
                    crate::Reason::ProviderUnavailable,
                    "the provider does not tell whether the grant lives",
                );
                return Err(answer.internal(error));
            }
        }
        let refresh = self.refresh_in(&seen.tenant, &seen.id, newer(seen), Turn::Doubt);
        Ok(refresh.await.map_or(Outcome::Dead, |_| Outcome::Refreshed))
    }

    async fn use_grant(&self, seen: &Connection) -> Result<Outcome, Error> {
        self.refresh_in(&seen.tenant, &seen.id, newer(seen), Turn::Idle).await?;
        Ok(Outcome::Refreshed)
    }
}

#[cfg(test)]
mod tests {
    use tokenward_types::{ProviderName, Scopes};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NOW: Timestamp = Timestamp::from_secs(100_000_000);

    fn info(rotation: Rotation, introspection: bool, idle_lifetime: Option<Duration>) -> ProviderInfo {
        ProviderInfo {
            name: ProviderName::parse("vendor").unwrap(),
            kind: "test",
            display_name: "Vendor".into(),
            base_scopes: Scopes::default(),
            can_narrow: false,
            pkce: false,
            introspection,
            revocation: false,
            rotation,
            default_token_lifetime: Duration::from_secs(1800),
            issuer: None,
            static_tokens: false,
            call_rate: None,
            refresh_token_idle_lifetime: idle_lifetime,
        }
    }

    fn of(info: &ProviderInfo, unused_for: Duration) -> Look {
        look(info, NOW - unused_for, NOW, DAY)
    }

    #[test]
    fn a_connection_that_was_refreshed_within_the_interval_needs_no_look() {
        let info = info(Rotation::None, true, None);
        assert_eq!(of(&info, Duration::ZERO), Look::In(DAY));
        assert_eq!(of(&info, DAY / 2), Look::In(DAY / 2));
        assert_eq!(of(&info, DAY), Look::Verify);
        assert_eq!(of(&info, nine_tenths(DAY)), Look::Verify, "plans are made less up to a tenth");
    }

    #[test]
    fn what_cannot_be_asked_about_without_spending_it_is_left_alone() {
        assert_eq!(of(&info(Rotation::None, false, None), 3 * DAY), Look::In(DAY));
        assert_eq!(of(&info(Rotation::Strict, true, None), 3 * DAY), Look::In(DAY));
    }

    #[test]
    fn a_token_that_dies_unused_is_used_at_half_of_its_life() {
        let info = info(Rotation::Strict, true, Some(30 * DAY));
        assert_eq!(of(&info, 13 * DAY), Look::In(DAY));
        assert_eq!(of(&info, 14 * DAY), Look::Refresh);
        assert_eq!(of(&info, 40 * DAY), Look::Refresh);
        let brief = super::tests::info(Rotation::None, true, Some(Duration::from_secs(3600)));
        assert_eq!(of(&brief, Duration::ZERO), Look::In(Duration::from_secs(1800)));
        assert_eq!(of(&brief, Duration::from_secs(1700)), Look::Refresh);
    }

    #[test]
    fn plans_made_together_come_apart() {
        let rng = tokenward_types::SeededRng::new(9);
        let mut hours = std::collections::HashSet::new();
        for _ in 0..1000 {
            let next = spread(DAY, &rng);
            assert!(next <= DAY && next >= nine_tenths(DAY));
            hours.insert(next.as_secs() / 60);
        }
        assert!(hours.len() > 130, "{}", hours.len());
    }
}
