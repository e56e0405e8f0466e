//! How far an error reaches: what one OAuth client's connections share, and what stays with one connection.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::{ConnectionId, OAuthClientId, TenantId, Timestamp};

use crate::clients::misconfigured;
use crate::{Error, Reason};

/// The first pause after the provider refused the client's credentials; it doubles.
const BREAKER_FIRST: Duration = Duration::from_secs(30);
/// The longest such pause, and the longest that a provider's Retry-After is believed.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A pause after 429 without Retry-After.
const RATE_LIMIT_DEFAULT: Duration = Duration::from_secs(10);
/// So many connections with an unexpected refusal and no success between speak for trouble of the whole client.
const UNEXPECTED_LIMIT: usize = 3;
/// The window in which first grant-dead answers are counted.
const DEATH_WINDOW: Duration = Duration::from_secs(600);
/// So many in the window are always believed.
const DEATHS_BELIEVED: usize = 5;

/// Why calls of a client pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    RateLimited,
    Credentials,
    Unexpected,
}

#[derive(Debug, Default)]
struct State {
    pause: Option<(Pause, Timestamp)>,
    /// One call is under way to find out whether the pause may end.
    probing: bool,
    refusals: u32,
    unexpected: HashSet<(TenantId, ConnectionId)>,
    deaths: HashMap<(TenantId, ConnectionId), Timestamp>,
    last_success: Option<Timestamp>,
}

/// The breaker, the throttle and the mass-death guard of one OAuth client.
#[derive(Debug, Default)]
pub(crate) struct ClientGuard(Mutex<State>);

impl ClientGuard {
    /// Whether a provider call may be made now. After a pause one call may, and the others wait for its outcome.
    ///
    /// # Errors
    /// `ProviderRateLimited`, `OAuthClientMisconfigured` or `ProviderUnavailable`, with the time to wait.
    pub(crate) fn admit(&self, client: &OAuthClientId, now: Timestamp) -> Result<(), Error> {
        let mut state = self.0.lock();
        let Some((pause, until)) = state.pause else { return Ok(()) };
        if now >= until && !state.probing {
            state.probing = true;
            return Ok(());
        }
        let wait = until.until(now).max(Duration::from_secs(1));
        Err(paused(pause, client).retry_after(wait))
    }

    /// A call succeeded: whatever was wrong is over.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        let mut state = self.0.lock();
        state.last_success = Some(now);
        state.pause = None;
        state.probing = false;
        state.refusals = 0;
        state.unexpected.clear();
    }

    /// A call ended in a way that says nothing about the client as a whole.
    pub(crate) fn neutral(&self) {
        let mut state = self.0.lock();
        if state.probing {
            // The provider spoke to us about one connection: neither throttle nor credentials stood in the way.
            state.pause = None;
            state.probing = false;
        }
    }

    /// The probe gave no answer: the pause goes on for a little.
    pub(crate) fn unanswered(&self, now: Timestamp) {
        let mut state = self.0.lock();
        if state.probing {
            state.probing = false;
            state.pause = state.pause.map(|(pause, _)| (pause, now + RATE_LIMIT_DEFAULT));
        }
    }

    /// The provider throttles: every connection of the client waits.
    pub(crate) fn rate_limited(&self, retry_after: Option<Duration>, now: Timestamp) -> Duration {
        let wait = retry_after.unwrap_or(RATE_LIMIT_DEFAULT).clamp(Duration::from_secs(1), PAUSE_MAX);
        let mut state = self.0.lock();
        state.probing = false;
        state.pause = Some((Pause::RateLimited, now + wait));
        wait
    }

    /// The provider refused every usable secret. Returns how long the breaker stays open.
    pub(crate) fn refused(&self, now: Timestamp) -> Duration {
        let mut state = self.0.lock();
        let wait = BREAKER_FIRST.saturating_mul(1 << state.refusals.min(4)).min(PAUSE_MAX);
        state.refusals += 1;
        state.probing = false;
        state.pause = Some((Pause::Credentials, now + wait));
        wait
    }

    /// An unexpected refusal of one connection. `true` when it opens the breaker for the whole client.
    pub(crate) fn unexpected(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        state.probing = false;
        state.unexpected.insert((tenant.clone(), connection.clone()));
        let opens = state.unexpected.len() >= UNEXPECTED_LIMIT;
        if opens {
            state.pause = Some((Pause::Unexpected, now + BREAKER_FIRST));
        }
        opens
    }

    /// A first grant-dead answer. Returns how many connections had one in the window.
    pub(crate) fn died(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) -> usize {
        let mut state = self.0.lock();
        state.deaths.retain(|_, at| now.since(*at) < DEATH_WINDOW);
        state.deaths.insert((tenant.clone(), connection.clone()), now);
        state.deaths.len()
    }

    /// How many connections had a first grant-dead answer in the window.
    pub(crate) fn deaths(&self, now: Timestamp) -> usize {
        let mut state = self.0.lock();
        state.deaths.retain(|_, at| now.since(*at) < DEATH_WINDOW);
        state.deaths.len()
    }

    /// Whether a refresh of the client succeeded after `since`.
    pub(crate) fn succeeded_after(&self, since: Timestamp) -> bool {
        self.0.lock().last_success.is_some_and(|at| at > since)
    }

    /// Whether so many deaths among so many connections are too many to be believed.
    pub(crate) fn is_mass_death(deaths: usize, connections: u64) -> bool {
        let share = usize::try_from(connections / 50).unwrap_or(usize::MAX);
        deaths > DEATHS_BELIEVED.max(share)
    }

    /// Whether the number of connections matters at all for [`ClientGuard::is_mass_death`].
    pub(crate) fn is_death_suspicious(deaths: usize) -> bool {
        deaths > DEATHS_BELIEVED
    }
}

fn paused(pause: Pause, client: &OAuthClientId) -> Error {
    match pause {
        Pause::RateLimited => Error::new(
            Reason::ProviderRateLimited,
            "the provider throttles this OAuth client; the token is refreshed as soon as it may be",
        )
        .with("oauth_client_id", client.as_str()),
        Pause::Credentials => misconfigured(
            client,
            "the provider refuses its client_id or secret: check them and add the right secret with `tokenward oauth-client \
             secret add --activate`",
        ),
        Pause::Unexpected => Error::new(
            Reason::ProviderUnavailable,
            "the provider refuses refreshes of several connections of this OAuth client in a way that is not understood",
        )
        .with("oauth_client_id", client.as_str()),
    }
}

/// A wait of a doubling kind with jitter: between half of and the whole `base · 2^tries`, at most `max`.
pub(crate) fn backoff(base: Duration, max: Duration, tries: u32, rng: &dyn tokenward_types::Rng) -> Duration {
    let full = base.saturating_mul(1 << tries.min(20)).min(max);
    let half = full / 2;
    half + Duration::from_millis(rng.below(u64::try_from(half.as_millis()).unwrap_or(u64::MAX) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> (TenantId, ConnectionId) {
        (TenantId::parse("acme").unwrap(), ConnectionId::parse(&format!("con_{n}")).unwrap())
    }

    fn client() -> OAuthClientId {
        OAuthClientId::parse("main").unwrap()
    }

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    #[test]
    fn after_a_throttle_one_probe_goes_first() {
        let guard = ClientGuard::default();
        guard.rate_limited(Some(Duration::from_secs(7)), NOW);
        let refused = guard.admit(&client(), NOW).unwrap_err();
        assert_eq!(refused.reason, Reason::ProviderRateLimited);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
        let later = NOW + Duration::from_secs(7);
        assert!(guard.admit(&client(), later).is_ok());
        assert!(guard.admit(&client(), later).is_err());
        guard.succeeded(NOW);
        assert!(guard.admit(&client(), later).is_ok());
    }

    #[test]
    fn a_retry_after_is_believed_for_five_minutes_at_most() {
        let guard = ClientGuard::default();
        assert_eq!(guard.rate_limited(Some(Duration::from_secs(86_400)), NOW), Duration::from_secs(300));
    }

    #[test]
    fn the_breaker_opens_longer_each_time() {
        let guard = ClientGuard::default();
        let waits: Vec<_> = (0..6).map(|_| guard.refused(NOW).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 300, 300]);
        assert_eq!(guard.admit(&client(), NOW).unwrap_err().reason, Reason::OAuthClientMisconfigured);
    }

    #[test]
    fn unexpected_refusals_reach_the_client_only_when_three_connections_show_them() {
        let guard = ClientGuard::default();
        for n in [1, 1, 1, 2] {
            let (tenant, connection) = id(n);
            assert!(!guard.unexpected(&tenant, &connection, NOW));
        }
        guard.succeeded(NOW);
        for n in [1, 2] {
            let (tenant, connection) = id(n);
            assert!(!guard.unexpected(&tenant, &connection, NOW));
        }
        let (tenant, connection) = id(3);
        assert!(guard.unexpected(&tenant, &connection, NOW));
        assert!(guard.admit(&client(), NOW).is_err());
    }

    #[test]
    fn deaths_are_counted_per_connection_in_ten_minutes() {
        let guard = ClientGuard::default();
        for n in 0..6 {
            let (tenant, connection) = id(n);
            guard.died(&tenant, &connection, NOW);
            guard.died(&tenant, &connection, NOW);
        }
        assert_eq!(guard.deaths(NOW), 6);
        assert!(ClientGuard::is_mass_death(6, 10));
        assert!(!ClientGuard::is_mass_death(6, 1000));
        assert!(!ClientGuard::is_mass_death(5, 10));
        assert_eq!(guard.deaths(NOW + DEATH_WINDOW), 0);
    }

    #[test]
    fn backoff_doubles_with_jitter_up_to_its_limit() {
        let rng = tokenward_types::SeededRng::new(3);
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(300));
        for tries in 0..40 {
            let wait = backoff(base, max, tries, &rng);
            let full = base.saturating_mul(1 << tries.min(20)).min(max);
            assert!(wait >= full / 2 && wait <= full, "{tries}: {wait:?}");
        }
    }
}
