use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::OAuthClientId;

use crate::Result;

/// Calls that a server wants to make at once, and how many the client may make in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveCalls {
    /// How many are wanted, at least one.
    pub calls: u32,
    /// The time that one call takes up: a second divided by the calls per second.
    pub interval: Duration,
    /// How many calls may be made at once after a silence, at least one.
    pub burst: u32,
}

/// What a reservation brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// How many calls may be made now.
    pub calls: u32,
    /// If none may: how long until one may, as far as nobody else takes it.
    pub wait: Duration,
    /// The client's pause, if there is one.
    pub pause: Option<CallPause>,
}

/// Why the calls of a client pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseCause {
    /// The provider throttles the client.
    RateLimited,
    /// The provider refuses the client's credentials.
    Credentials,
    /// The provider refuses several connections of the client in a way that is not understood.
    Unexpected,
}

/// A pause to begin, or to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeginPause {
    /// Why.
    pub cause: PauseCause,
    /// How long, by the database's clock.
    pub length: Duration,
    /// How many pauses of this cause there were in a row, this one included.
    pub refusals: u32,
}

/// A pause that every server keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPause {
    /// The client whose calls pause.
    pub oauth_client: OAuthClientId,
    /// Why.
    pub cause: PauseCause,
    /// Counts the pauses of the client; a pause that goes on is a new one.
    pub number: i64,
    /// How long it still lasts, by the database's clock; zero when a probe may go.
    pub remaining: Duration,
    /// How many pauses of this cause there were in a row.
    pub refusals: u32,
}

/// What the servers share about calls to providers: one row for each OAuth client that has a rate or had a pause.
#[async_trait]
pub trait BudgetStore: Send + Sync {
    /// Reserves calls by one conditional update on the database's clock: never more than `burst` at once, and never more
    /// than one for each `interval` in the long run, whoever asks. Fewer than wanted when there is no room for all;
    /// none when there is no room for one, and then `wait` says how long. A client that does not exist has no room, and
    /// an interval to wait.
    async fn reserve_calls(&self, client: &OAuthClientId, ask: &ReserveCalls) -> Result<Reserved>;

    /// Begins a pause and gives it the next number. A pause that is there already goes on, with the new cause, for at
    /// least as long as it would have lasted. A probe that is under way does not count any more. `None` when there is no
    /// such client.
    async fn pause_calls(&self, client: &OAuthClientId, pause: &BeginPause) -> Result<Option<CallPause>>;

    /// Claims the one call that finds out whether a pause is over, for `hold` by the database's clock. `false` when the
    /// pause has another number, still lasts, or the probe is claimed already.
    async fn claim_probe(&self, client: &OAuthClientId, number: i64, hold: Duration) -> Result<bool>;

    /// Gives back a probe that found out nothing: another call may claim it. Changes nothing when the pause has another
    /// number.
    async fn release_probe(&self, client: &OAuthClientId, number: i64) -> Result<()>;

    /// Ends a pause. Changes nothing when it has another number. Numbers go on where they were.
    async fn end_pause(&self, client: &OAuthClientId, number: i64) -> Result<()>;

    /// Every pause that was not ended, in order of the clients' identifiers.
    async fn list_pauses(&self) -> Result<Vec<CallPause>>;
}
