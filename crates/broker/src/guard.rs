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
    /// The call that is under way to find out whether the pause may end.
    probe: Option<u64>,
    permits: u64,
    refusals: u32,
    unexpected: HashSet<(TenantId, ConnectionId)>,
    deaths: HashMap<(TenantId, ConnectionId), Timestamp>,
    last_success: Option<Timestamp>,
}

/// The breaker, the throttle and the mass-death guard of one OAuth client.
#[derive(Debug, Default)]
pub(crate) struct ClientGuard(Mutex<State>);

/// Leave to call the provider, and to tell how it went. Dropping it without a word ends a probe, not the pause.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    guard: &'a ClientGuard,
    number: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.end_probe(&mut self.guard.0.lock());
    }
}

impl Permit<'_> {
    /// Ends the probe if this is it, and tells whether it was: only a probe's outcome says that a pause is over, since
    /// other calls were under way before it began.
    fn end_probe(&self, state: &mut State) -> bool {
        let is_probe = state.probe == Some(self.number);
        if is_probe {
            state.probe = None;
        }
        is_probe
    }

    /// The call succeeded.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        let mut state = self.guard.0.lock();
        state.last_success = Some(now);
        state.unexpected.clear();
        if self.end_probe(&mut state) || state.pause.is_none() {
            state.pause = None;
            state.refusals = 0;
        }
    }

    /// The provider spoke to us about one connection: neither throttle nor credentials stand in the way.
    pub(crate) fn neutral(&self) {
        let mut state = self.guard.0.lock();
        if self.end_probe(&mut state) {
            state.pause = None;
        }
    }

    /// The provider gave no answer: a pause that was probed goes on for a little.
    pub(crate) fn unanswered(&self, now: Timestamp) {
        let mut state = self.guard.0.lock();
        if self.end_probe(&mut state) {
            state.pause = state.pause.map(|(pause, _)| (pause, now + RATE_LIMIT_DEFAULT));
        }
    }

    /// The provider throttles: every connection of the client waits. Returns how long.
    pub(crate) fn rate_limited(&self, retry_after: Option<Duration>, now: Timestamp) -> Duration {
        let wait = retry_after.unwrap_or(RATE_LIMIT_DEFAULT).clamp(Duration::from_secs(1), PAUSE_MAX);
        let mut state = self.guard.0.lock();
        self.end_probe(&mut state);
        let until = match state.pause {
            Some((_, until)) => until.max(now + wait),
            None => now + wait,
        };
        state.pause = Some((Pause::RateLimited, until));
        until.until(now)
    }

    /// The provider refused every usable secret. Returns how long the breaker stays open.
    pub(crate) fn refused(&self, now: Timestamp) -> Duration {
        let mut state = self.guard.0.lock();
        let is_probe = self.end_probe(&mut state);
        if let Some((Pause::Credentials, until)) = state.pause.filter(|_| !is_probe) {
            // Calls that were under way together are one refusal.
            return until.until(now);
        }
        let wait = BREAKER_FIRST.saturating_mul(1 << state.refusals.min(4)).min(PAUSE_MAX);
        state.refusals += 1;
        state.pause = Some((Pause::Credentials, now + wait));
        wait
    }

    /// An unexpected refusal of one connection. `true` when it opens the breaker for the whole client.
    pub(crate) fn unexpected(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) -> bool {
        let mut state = self.guard.0.lock();
        self.end_probe(&mut state);
        state.unexpected.insert((tenant.clone(), connection.clone()));
        let opens = state.unexpected.len() >= UNEXPECTED_LIMIT;
        if opens {
            state.pause = Some((Pause::Unexpected, now + BREAKER_FIRST));
        }
        opens
    }
}

impl ClientGuard {
    /// Whether a provider call may be made now. After a pause one call may, and the others wait for its outcome.
    ///
    /// # Errors
    /// `ProviderRateLimited`, `OAuthClientMisconfigured` or `ProviderUnavailable`, with the time to wait.
    pub(crate) fn admit(&self, client: &OAuthClientId, now: Timestamp) -> Result<Permit<'_>, Error> {
        let mut state = self.0.lock();
        state.permits += 1;
        let number = state.permits;
        if let Some((pause, until)) = state.pause {
            if now < until || state.probe.is_some() {
                let wait = until.until(now).max(Duration::from_secs(1));
                return Err(paused(pause, client).retry_after(wait));
            }
            state.probe = Some(number);
        }
        Ok(Permit { guard: self, number })
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
        guard.admit(&client(), NOW).unwrap().rate_limited(Some(Duration::from_secs(7)), NOW);
        let refused = guard.admit(&client(), NOW).unwrap_err();
        assert_eq!(refused.reason, Reason::ProviderRateLimited);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
        let later = NOW + Duration::from_secs(7);
        let probe = guard.admit(&client(), later).unwrap();
        assert!(guard.admit(&client(), later).is_err());
        probe.succeeded(later);
        assert!(guard.admit(&client(), later).is_ok());
    }

    #[test]
    fn a_probe_that_ends_without_a_word_lets_the_next_one_probe() {
        let guard = ClientGuard::default();
        guard.admit(&client(), NOW).unwrap().rate_limited(Some(Duration::from_secs(7)), NOW);
        let later = NOW + Duration::from_secs(7);
        drop(guard.admit(&client(), later).unwrap());
        guard.admit(&client(), later).unwrap().succeeded(later);
    }

    #[test]
    fn a_call_that_was_under_way_before_a_pause_does_not_end_it() {
        let guard = ClientGuard::default();
        let (early, other) = (guard.admit(&client(), NOW).unwrap(), guard.admit(&client(), NOW).unwrap());
        other.rate_limited(Some(Duration::from_secs(60)), NOW);
        early.succeeded(NOW);
        assert_eq!(guard.admit(&client(), NOW).unwrap_err().reason, Reason::ProviderRateLimited);
    }

    #[test]
    fn a_retry_after_is_believed_for_five_minutes_at_most() {
        let guard = ClientGuard::default();
        let permit = guard.admit(&client(), NOW).unwrap();
        assert_eq!(permit.rate_limited(Some(Duration::from_secs(86_400)), NOW), Duration::from_secs(300));
    }

    #[test]
    fn the_breaker_opens_longer_each_time() {
        let guard = ClientGuard::default();
        let together: Vec<_> = (0..5).map(|_| guard.admit(&client(), NOW).unwrap()).collect();
        assert!(together.iter().all(|permit| permit.refused(NOW) == Duration::from_secs(30)));
        let mut now = NOW;
        let waits: Vec<_> = (0..5)
            .map(|_| {
                now = now + PAUSE_MAX;
                guard.admit(&client(), now).unwrap().refused(now).as_secs()
            })
            .collect();
        assert_eq!(waits, [60, 120, 240, 300, 300]);
        assert_eq!(guard.admit(&client(), now).unwrap_err().reason, Reason::OAuthClientMisconfigured);
    }

    #[test]
    fn unexpected_refusals_reach_the_client_only_when_three_connections_show_them() {
        let guard = ClientGuard::default();
        let unexpected = |n| {
            let (tenant, connection) = id(n);
            guard.admit(&client(), NOW).unwrap().unexpected(&tenant, &connection, NOW)
        };
        assert!(![1, 1, 1, 2].into_iter().any(unexpected));
        guard.admit(&client(), NOW).unwrap().succeeded(NOW);
        assert!(![1, 2].into_iter().any(unexpected));
        assert!(unexpected(3));
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
