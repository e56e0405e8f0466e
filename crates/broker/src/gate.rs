//! The way to a provider: a line in front of each OAuth client's token bucket, and leave to call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_provider::CallRate;
use tokenward_types::{ConnectionId, OAuthClientId, TenantId};
use tokio::sync::{Notify, oneshot};

use crate::backoff::upto;
use crate::broker::Broker;
use crate::calls::Calls;
use crate::clients::ClientEntry;
use crate::guard::{ClientGuard, Permit, Sender};
use crate::line::{Joined, Key, Line, MAX_WAITING, Turn};
use crate::{Error, Reason};

/// How many calls of one client are under way at the most: a vendor that hangs uses up no more of this process.
const MAX_UNDER_WAY: usize = 500;
/// How often a probe is claimed before somebody else's is waited for.
const PROBE_CLAIMS: u32 = 2;
/// How long the line sleeps at the most before it looks again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The shortest time that is worth sleeping.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

type Seat = oneshot::Sender<Result<Slot, Error>>;

/// What the calls of one OAuth client pass, for as long as this process lives.
#[derive(Debug)]
pub(crate) struct Gate {
    pub client: OAuthClientId,
    pub guard: ClientGuard,
    inside: Mutex<Inside>,
    /// A call under way has ended.
    room: Notify,
}

#[derive(Debug)]
struct Inside {
    line: Line<Seat>,
    calls: Calls,
    under_way: usize,
    /// Somebody leads the line forward.
    is_led: bool,
    is_closed: bool,
}

/// One of the calls under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Gate>);

impl Slot {
    /// The call was not made after all.
    pub(crate) fn unused(self) {
        self.0.inside.lock().calls.put_back();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.inside.lock().under_way -= 1;
        self.0.room.notify_one();
    }
}

/// What keeps the line from moving.
enum Stop {
    Empty,
    Full,
    NoCall,
}

impl Gate {
    /// A gate for a client whose provider sets this rate.
    pub(crate) fn new(client: OAuthClientId, rate: Option<CallRate>, news: Option<Sender>) -> Self {
        let inside = Inside {
            line: Line::new(MAX_WAITING),
            calls: Calls::new(rate),
            under_way: 0,
            is_led: false,
            is_closed: false,
        };
        let guard = ClientGuard::new(client.clone(), news);
        Self { client, guard, inside: Mutex::new(inside), room: Notify::new() }
    }

    /// How many wait for such a turn.
    pub(crate) fn waiting(&self, turn: Turn) -> usize {
        self.inside.lock().line.length(turn)
    }

    /// Sends everybody away, and lets nobody in any more.
    pub(crate) fn close(&self) {
        self.inside.lock().is_closed = true;
        self.send_away(&stopping());
    }

    fn send_away(&self, error: &Error) {
        let mut inside = self.inside.lock();
        while let Some((_, seat)) = inside.line.call() {
            // Whoever left does not mind.
            let _ = seat.send(Err(error.clone()));
        }
    }
}

impl Inside {
    /// A slot, if there is room for one more call and a call in hand.
    fn take(&mut self, gate: &Arc<Gate>, broker: &Broker) -> Option<Slot> {
        if self.under_way >= MAX_UNDER_WAY || !self.calls.take(broker.clock().monotonic()) {
            return None;
        }
        self.under_way += 1;
        Some(Slot(Arc::clone(gate)))
    }
}

impl Broker {
    /// Leave to call the provider for a connection: waits for its turn, unless calls of the client pause. After a pause
    /// one call over all servers may, and the others wait for its outcome.
    ///
    /// # Errors
    /// Those of a pause; `ProviderRateLimited` when too many wait already; `StorageUnavailable` when other servers cannot
    /// be asked whether they probe.
    pub(crate) async fn admit<'a>(
        &self,
        client: &'a ClientEntry,
        tenant: &TenantId,
        connection: &ConnectionId,
        turn: Turn,
    ) -> Result<Permit<'a>, Error> {
        let key = (tenant.clone(), connection.clone());
        let admitted = self.pass(&client.gate, &key, turn).await;
        if let Err(error) = &admitted
            && turn == Turn::Ahead
        {
            self.put_off(&key, error.retry_after.unwrap_or(LONGEST_SLEEP));
        }
        admitted
    }

    async fn pass<'a>(&self, gate: &'a Arc<Gate>, key: &Key, turn: Turn) -> Result<Permit<'a>, Error> {
        for _ in 0..PROBE_CLAIMS {
            gate.guard.check(self.now())?;
            let slot = self.take_turn(gate, key, turn).await?;
            let (mut permit, probed) = match gate.guard.admit(self.now()) {
                Ok(admitted) => admitted,
                Err(error) => {
                    slot.unused();
                    return Err(error);
                }
            };
            permit.hold(slot);
            let Some(number) = probed else { return Ok(permit) };
            if self.storage().claim_probe(&gate.client, number, self.settings().lease).await? {
                permit.claimed(number);
                return Ok(permit);
            }
            drop(permit);
            // The pause may have gone on, or have ended, at another server.
            self.learn_pause(gate).await?;
        }
        Err(gate.guard.probed_elsewhere())
    }

    /// Reads anew whether the calls of a client pause.
    pub(crate) async fn learn_pause(&self, gate: &Gate) -> Result<(), Error> {
        let now = self.now();
        let pauses = self.storage().list_pauses().await?;
        let pause = pauses.iter().find(|pause| pause.oauth_client == gate.client);
        gate.guard.learn(pause, now);
        Ok(())
    }

    /// A connection in use is tried again when it may be, not all of them at once.
    fn put_off(&self, (tenant, connection): &Key, wait: Duration) {
        let at = self.now() + wait + upto(wait / 2, self.rng());
        if let Some(entry) = self.directory().connection(tenant, connection) {
            self.schedule().push_ahead(at, &entry);
        }
    }

    async fn take_turn(&self, gate: &Arc<Gate>, key: &Key, turn: Turn) -> Result<Slot, Error> {
        let started = self.clock().monotonic();
        let seat = {
            let mut inside = gate.inside.lock();
            if inside.is_closed {
                return Err(stopping());
            }
            if inside.line.is_empty()
                && let Some(slot) = inside.take(gate, self)
            {
                return Ok(slot);
            }
            let turn = if self.callers().contain(key) { Turn::Asked } else { turn };
            let (seat, called) = oneshot::channel();
            let position = match inside.line.join(turn, key.clone(), seat) {
                Joined::At(position) => position,
                Joined::Instead(position, _, seat) => {
                    let wait = self.wait_of(&inside, MAX_WAITING);
                    let _ = seat.send(Err(crowded(&gate.client, wait)));
                    position
                }
                Joined::Full(_) => {
                    let wait = self.wait_of(&inside, MAX_WAITING);
                    return Err(crowded(&gate.client, wait));
                }
            };
            self.callers().tell(key, Some(self.wait_of(&inside, position)));
            if !inside.is_led {
                inside.is_led = true;
                self.spawn(lead(self.clone(), Arc::clone(gate)));
            }
            called
        };
        let called = seat.await.unwrap_or_else(|_| Err(stopping()));
        self.callers().tell(key, None);
        self.metrics().provider_wait_seconds.observe(self.clock().monotonic().since(started).as_secs_f64());
        called
    }

    /// Somebody asks for a connection whose refresh may stand in line already.
    pub(crate) fn hurry(&self, client: &OAuthClientId, key: &Key) {
        let Some(gate) = self.clients().gate(client) else { return };
        let mut inside = gate.inside.lock();
        if let Some(position) = inside.line.promote(key, Turn::Asked) {
            let wait = self.wait_of(&inside, position);
            self.callers().tell(key, Some(wait));
        }
    }

    fn wait_of(&self, inside: &Inside, position: usize) -> Duration {
        inside.calls.wait(position, self.replicas())
    }

    /// Gets calls out of the bucket that the servers share, or out of this server's share when the database is away.
    ///
    /// Returns how long to wait when there are none.
    async fn reserve(&self, gate: &Gate) -> Option<Duration> {
        let ask = gate.inside.lock().calls.ask()?;
        let now = self.now();
        let reserved = match self.storage().reserve_calls(&gate.client, &ask).await {
            Ok(reserved) => reserved,
            Err(error) => {
                tracing::debug!(oauth_client = %gate.client, %error, "cannot reserve calls; this server's share counts");
                let mut inside = gate.inside.lock();
                let at = self.clock().monotonic();
                let alone = inside.calls.alone(self.replicas(), at);
                return alone.map(|()| inside.calls.add(1, at)).err();
            }
        };
        if let Some(pause) = &reserved.pause {
            gate.guard.learn(Some(pause), now);
        }
        gate.inside.lock().calls.add(reserved.calls, self.clock().monotonic());
        (reserved.calls == 0).then_some(reserved.wait)
    }
}

/// Leads a line forward until nobody waits.
async fn lead(broker: Broker, gate: Arc<Gate>) {
    loop {
        if let Err(error) = gate.guard.check(broker.now()) {
            gate.send_away(&error);
        }
        // Of those who waited and are gone; a slot locks the gate when it is dropped.
        let mut unused = Vec::new();
        let stop = {
            let mut inside = gate.inside.lock();
            loop {
                if inside.line.is_empty() {
                    inside.is_led = false;
                    break Stop::Empty;
                }
                let Some(slot) = inside.take(&gate, &broker) else {
                    break if inside.under_way >= MAX_UNDER_WAY { Stop::Full } else { Stop::NoCall };
                };
                let sent = match inside.line.call() {
                    Some((_, seat)) => seat.send(Ok(slot)),
                    None => Err(Ok(slot)),
                };
                unused.extend(sent.err().and_then(Result::ok));
            }
        };
        unused.into_iter().for_each(Slot::unused);
        match stop {
            Stop::Empty => return,
            Stop::Full => {
                // A pause is noticed although no call ends.
                let _ = tokio::time::timeout(LONGEST_SLEEP, gate.room.notified()).await;
            }
            Stop::NoCall => {
                if let Some(wait) = broker.reserve(&gate).await {
                    tokio::time::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
                }
            }
        }
    }
}

fn crowded(client: &OAuthClientId, wait: Duration) -> Error {
    Error::new(
        Reason::ProviderRateLimited,
        "more tokens have to be refreshed than the provider may be asked for; this one has its turn",
    )
    .with("oauth_client_id", client.as_str())
    .retry_after(wait.clamp(Duration::from_secs(1), Duration::from_secs(300)))
}

fn stopping() -> Error {
    Error::new(Reason::ProviderUnavailable, "this server is stopping; another one refreshes the token")
        .retry_after(Duration::from_secs(1))
}
