//! How far an error reaches: what one OAuth client's connections share, and what stays with one connection.
//!
//! Pauses hold over all servers. What is here is this server's copy: it changes at once, what changed is told to the
//! others by way of the database (`pauses`), and what they did is learned from there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_storage::{BeginPause, CallPause, PauseCause};
use tokenward_types::{ConnectionId, OAuthClientId, TenantId, Timestamp};
use tokio::sync::mpsc::UnboundedSender;

use crate::clients::misconfigured;
use crate::gate::Slot;
use crate::{Error, Reason};

/// The first pause after the provider refused the client's credentials; it doubles.
const BREAKER_FIRST: Duration = Duration::from_secs(30);
/// The longest such pause, and the longest that a provider's Retry-After is believed.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A pause after 429 without Retry-After.
const RATE_LIMIT_DEFAULT: Duration = Duration::from_secs(10);
/// A throttle that says about the same as the one before needs not be told.
const SAME_PAUSE: Duration = Duration::from_secs(1);
/// So many connections with an unexpected refusal and no success between speak for trouble of the whole client.
const UNEXPECTED_LIMIT: usize = 3;
/// The window in which first grant-dead answers are counted.
const DEATH_WINDOW: Duration = Duration::from_secs(600);
/// So many in the window are always believed.
const DEATHS_BELIEVED: usize = 5;

/// What other servers have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Calls pause.
    Paused(BeginPause),
    /// A probe ended the pause; its number, if it is known here.
    Ended(Option<i64>),
    /// A probe found out nothing.
    ProbeReleased(i64),
    /// An admin changed the client or its secrets: what is not a throttle is over.
    Mended,
}

/// Where news go.
pub(crate) type Sender = UnboundedSender<(OAuthClientId, News)>;

#[derive(Clone, Copy, Debug)]
struct Pause {
    cause: PauseCause,
    until: Timestamp,
    /// Its number among the servers; `None` while it is known here alone.
    number: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    pause: Option<Pause>,
    /// Pauses up to this number are over, whatever an older reading says.
    ended: i64,
    /// The call that is under way to find out whether the pause may end.
    probe: Option<u64>,
    permits: u64,
    refusals: u32,
    unexpected: HashSet<(TenantId, ConnectionId)>,
    deaths: HashMap<(TenantId, ConnectionId), Timestamp>,
    last_success: Option<Timestamp>,
}

impl State {
    fn end_pause(&mut self) -> Option<News> {
        let pause = self.pause.take()?;
        self.ended = self.ended.max(pause.number.unwrap_or_default());
        Some(News::Ended(pause.number))
    }
}

/// The breaker, the throttle and the mass-death guard of one OAuth client.
#[derive(Debug)]
pub(crate) struct ClientGuard {
    client: OAuthClientId,
    state: Mutex<State>,
    news: Option<Sender>,
}

/// Leave to call the provider, and to tell how it went. Dropping it without a word ends a probe, not the pause.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    guard: &'a ClientGuard,
    number: u64,
    /// The pause whose only probe, over all servers, this is.
    claimed: Option<i64>,
    told: AtomicBool,
    slot: Option<Slot>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if *self.told.get_mut() {
            return;
        }
        let was_probe = self.end_probe(&mut self.guard.state.lock());
        if let (Some(number), true) = (self.claimed, was_probe) {
            self.guard.tell(Some(News::ProbeReleased(number)));
        }
        if let Some(slot) = self.slot.take() {
            slot.unused();
        }
    }
}

impl Permit<'_> {
    /// Holds a place among the calls under way, until it is dropped.
    pub(crate) fn hold(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// This call is the only probe over all servers.
    pub(crate) fn claimed(&mut self, number: i64) {
        self.claimed = Some(number);
    }

    /// Ends the probe if this is it, and tells whether it was: only a probe's outcome says that a pause is over, since
    /// other calls were under way before it began.
    fn end_probe(&self, state: &mut State) -> bool {
        self.told.store(true, Ordering::Relaxed);
        let is_probe = state.probe == Some(self.number);
        if is_probe {
            state.probe = None;
        }
        is_probe
    }

    /// The call succeeded.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        let mut state = self.guard.state.lock();
        state.last_success = Some(now);
        state.unexpected.clear();
        if self.end_probe(&mut state) || state.pause.is_none() {
            state.refusals = 0;
            self.guard.tell(state.end_pause());
        }
    }

    /// The provider spoke to us about one connection: neither throttle nor credentials stand in the way.
    pub(crate) fn neutral(&self) {
        let mut state = self.guard.state.lock();
        if self.end_probe(&mut state) {
            self.guard.tell(state.end_pause());
        }
    }

    /// The provider gave no answer: a pause that was probed goes on for a little.
    pub(crate) fn unanswered(&self, now: Timestamp) {
        let mut state = self.guard.state.lock();
        if self.end_probe(&mut state)
            && let Some(pause) = state.pause
        {
            self.guard.pause(&mut state, pause.cause, RATE_LIMIT_DEFAULT, now);
        }
    }

    /// The provider throttles: every connection of the client waits. Returns how long.
    pub(crate) fn rate_limited(&self, retry_after: Option<Duration>, now: Timestamp) -> Duration {
        let wait = retry_after.unwrap_or(RATE_LIMIT_DEFAULT).clamp(Duration::from_secs(1), PAUSE_MAX);
        let mut state = self.guard.state.lock();
        let is_probe = self.end_probe(&mut state);
        let left = state.pause.map_or(Duration::ZERO, |pause| pause.until.until(now));
        let is_known = state.pause.is_some_and(|pause| pause.cause == PauseCause::RateLimited);
        if is_known && !is_probe && wait <= left + SAME_PAUSE {
            return left.max(wait);
        }
        let wait = wait.max(left);
        self.guard.pause(&mut state, PauseCause::RateLimited, wait, now);
        wait
    }

    /// The provider refused every usable secret. Returns how long the breaker stays open.
    pub(crate) fn refused(&self, now: Timestamp) -> Duration {
        let mut state = self.guard.state.lock();
        let is_probe = self.end_probe(&mut state);
        if let Some(Pause { cause: PauseCause::Credentials, until, .. }) = state.pause
            && !is_probe
        {
            // Calls that were under way together are one refusal.
            return until.until(now);
        }
        let wait = BREAKER_FIRST.saturating_mul(1 << state.refusals.min(4)).min(PAUSE_MAX);
        state.refusals += 1;
        self.guard.pause(&mut state, PauseCause::Credentials, wait, now);
        wait
    }

    /// An unexpected refusal of one connection. `true` when it opens the breaker for the whole client.
    pub(crate) fn unexpected(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) -> bool {
        let mut state = self.guard.state.lock();
        let was_probe = self.end_probe(&mut state);
        state.unexpected.insert((tenant.clone(), connection.clone()));
        let opens = state.unexpected.len() >= UNEXPECTED_LIMIT;
        if opens {
            self.guard.pause(&mut state, PauseCause::Unexpected, BREAKER_FIRST, now);
        } else if was_probe {
            self.guard.tell(self.claimed.map(News::ProbeReleased));
        }
        opens
    }
}

impl ClientGuard {
    /// A guard that tells its news.
    pub(crate) fn new(client: OAuthClientId, news: Option<Sender>) -> Self {
        Self { client, state: Mutex::default(), news }
    }

    fn tell(&self, news: Option<News>) {
        if let (Some(sender), Some(news)) = (&self.news, news) {
            // Nobody listens any more when the broker stops.
            let _ = sender.send((self.client.clone(), news));
        }
    }

    fn pause(&self, state: &mut State, cause: PauseCause, length: Duration, now: Timestamp) {
        state.pause = Some(Pause { cause, until: now + length, number: None });
        self.tell(Some(News::Paused(BeginPause { cause, length, refusals: state.refusals })));
    }

    fn refusal(&self, state: &State, now: Timestamp) -> Option<Error> {
        let pause = state.pause.filter(|pause| now < pause.until || state.probe.is_some())?;
        let wait = pause.until.until(now).max(Duration::from_secs(1));
        Some(paused(pause.cause, &self.client).retry_after(wait))
    }

    /// Whether a call may be made, or will be the probe after a pause.
    ///
    /// # Errors
    /// Those of [`ClientGuard::admit`].
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Error> {
        self.refusal(&self.state.lock(), now).map_or(Ok(()), Err)
    }

    /// Whether a provider call may be made now, and the pause that it probes, by its number. After a pause one call may,
    /// and the others wait for its outcome.
    ///
    /// # Errors
    /// `ProviderRateLimited`, `OAuthClientMisconfigured` or `ProviderUnavailable`, with the time to wait.
    pub(crate) fn admit(&self, now: Timestamp) -> Result<(Permit<'_>, Option<i64>), Error> {
        let mut state = self.state.lock();
        if let Some(refusal) = self.refusal(&state, now) {
            return Err(refusal);
        }
        state.permits += 1;
        let number = state.permits;
        let mut probed = None;
        if let Some(pause) = state.pause {
            state.probe = Some(number);
            probed = pause.number;
        }
        let permit = Permit { guard: self, number, claimed: None, told: AtomicBool::new(false), slot: None };
        Ok((permit, probed))
    }

    /// Another server probes: its outcome counts here too.
    pub(crate) fn probed_elsewhere(&self) -> Error {
        let cause = self.state.lock().pause.map_or(PauseCause::RateLimited, |pause| pause.cause);
        paused(cause, &self.client).retry_after(Duration::from_secs(1))
    }

    /// An admin changed the client or its secrets: what is not a throttle is over.
    pub(crate) fn mended(&self) {
        let mut state = self.state.lock();
        state.refusals = 0;
        state.unexpected.clear();
        if state.pause.is_some_and(|pause| pause.cause != PauseCause::RateLimited) {
            state.end_pause();
            state.probe = None;
        }
        self.tell(Some(News::Mended));
    }

    /// A pause of this server is known to the others.
    pub(crate) fn published(&self, shared: &CallPause) {
        let mut state = self.state.lock();
        match &mut state.pause {
            Some(pause) => pause.number = pause.number.or(Some(shared.number)),
            None => state.ended = state.ended.max(shared.number),
        }
    }

    /// Takes over what the servers share, as it was read at `now` or later; `None` where there is no pause.
    pub(crate) fn learn(&self, shared: Option<&CallPause>, now: Timestamp) {
        let mut state = self.state.lock();
        if state.pause.is_some_and(|pause| pause.number.is_none()) {
            // Ours is on its way there.
            return;
        }
        match shared {
            None => state.pause = None,
            Some(shared) if shared.number <= state.ended => {}
            Some(shared) => {
                state.refusals = state.refusals.max(shared.refusals);
                let number = Some(shared.number);
                state.pause = Some(Pause { cause: shared.cause, until: now + shared.remaining, number });
            }
        }
    }

    /// Why calls pause at the moment, if they do.
    pub(crate) fn pause_cause(&self) -> Option<PauseCause> {
        self.state.lock().pause.map(|pause| pause.cause)
    }

    /// A first grant-dead answer. Returns how many connections had one in the window.
    pub(crate) fn died(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) -> usize {
        let mut state = self.state.lock();
        state.deaths.retain(|_, at| now.since(*at) < DEATH_WINDOW);
        state.deaths.insert((tenant.clone(), connection.clone()), now);
        state.deaths.len()
    }

    /// How many connections had a first grant-dead answer in the window.
    pub(crate) fn deaths(&self, now: Timestamp) -> usize {
        let mut state = self.state.lock();
        state.deaths.retain(|_, at| now.since(*at) < DEATH_WINDOW);
        state.deaths.len()
    }

    /// Whether a refresh of the client succeeded after `since`.
    pub(crate) fn succeeded_after(&self, since: Timestamp) -> bool {
        self.state.lock().last_success.is_some_and(|at| at > since)
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

fn paused(cause: PauseCause, client: &OAuthClientId) -> Error {
    match cause {
        PauseCause::RateLimited => Error::new(
            Reason::ProviderRateLimited,
            "the provider throttles this OAuth client; the token is refreshed as soon as it may be",
        )
        .with("oauth_client_id", client.as_str()),
        PauseCause::Credentials => misconfigured(
            client,
            "the provider refuses its client_id or secret: check them and add the right secret with `tokenward oauth-client \
             secret add --activate`",
        ),
        PauseCause::Unexpected => Error::new(
            Reason::ProviderUnavailable,
            "the provider refuses refreshes of several connections of this OAuth client in a way that is not understood",
        )
        .with("oauth_client_id", client.as_str()),
    }
}

#[cfg(test)]
mod tests;
