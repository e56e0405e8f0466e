//! Pauses hold over all servers: what happens here is told to the others by way of the database, and what happened there is
//! learned from it each second.

use std::collections::HashMap;
use std::time::Duration;

use tokenward_storage::{CallPause, PauseCause, StorageError};
use tokenward_types::OAuthClientId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;

use crate::broker::Broker;
use crate::guard::News;
use crate::line::Turn;
use crate::metrics::{PauseLabels, QueueLabels};

/// How often pauses of other servers are looked for.
const POLL: Duration = Duration::from_secs(1);

/// The news of this server's guards, in the order in which they happened.
pub(crate) type NewsReader = UnboundedReceiver<(OAuthClientId, News)>;

/// The numbers of the pauses that this server began.
type Numbers = HashMap<OAuthClientId, i64>;

impl Broker {
    /// Tells news and learns them, until the broker is gone. One task does both, so that a reading from before a piece of
    /// news is not taken for one from after it.
    pub(crate) fn share_pauses(&self, mut news: NewsReader) {
        let weak = self.downgrade();
        self.spawn(async move {
            let mut numbers = Numbers::new();
            let mut ticks = tokio::time::interval(POLL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    told = news.recv() => {
                        let (Some((client, news)), Some(broker)) = (told, weak.upgrade()) else { return };
                        if let Err(error) = broker.publish(&client, news, &mut numbers).await {
                            tracing::warn!(oauth_client = %client, ?news, %error, "other servers do not hear of a pause");
                        }
                    }
                    _ = ticks.tick() => {
                        let Some(broker) = weak.upgrade() else { return };
                        if let Err(error) = broker.learn_pauses().await {
                            tracing::debug!(%error, "cannot read the pauses of other servers");
                        }
                        broker.count_queues();
                    }
                }
            }
        });
    }

    async fn publish(
        &self,
        client: &OAuthClientId,
        news: News,
        numbers: &mut Numbers,
    ) -> Result<(), StorageError> {
        match news {
            News::Paused(pause) => {
                if let Some(shared) = self.storage().pause_calls(client, &pause).await? {
                    numbers.insert(client.clone(), shared.number);
                    if let Some(gate) = self.clients().gate(client) {
                        gate.guard.published(&shared);
                    }
                }
            }
            News::Ended(number) => {
                let began = numbers.remove(client);
                if let Some(number) = number.max(began) {
                    self.storage().end_pause(client, number).await?;
                }
            }
            News::ProbeReleased(number) => self.storage().release_probe(client, number).await?,
            News::Mended => {
                for pause in self.storage().list_pauses().await? {
                    if pause.oauth_client == *client && pause.cause != PauseCause::RateLimited {
                        self.storage().end_pause(client, pause.number).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn learn_pauses(&self) -> Result<(), StorageError> {
        let now = self.now();
        let pauses = self.storage().list_pauses().await?;
        let pauses: HashMap<&OAuthClientId, &CallPause> =
            pauses.iter().map(|pause| (&pause.oauth_client, pause)).collect();
        for gate in self.clients().gates() {
            gate.guard.learn(pauses.get(&gate.client).copied(), now);
        }
        Ok(())
    }

    fn count_queues(&self) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for gate in self.clients().gates() {
            for turn in Turn::ALL {
                let labels = QueueLabels { oauth_client: gate.client.to_string(), turn: turn.as_str() };
                self.metrics().provider_queue.get_or_create(&labels).set(gauge(gate.waiting(turn)));
            }
            let current = gate.guard.pause_cause();
            for cause in [PauseCause::RateLimited, PauseCause::Credentials, PauseCause::Unexpected] {
                let labels = PauseLabels { oauth_client: gate.client.to_string(), cause: word(cause) };
                let is_on = i64::from(current == Some(cause));
                self.metrics().client_paused.get_or_create(&labels).set(is_on);
            }
        }
    }
}

fn word(cause: PauseCause) -> &'static str {
    match cause {
        PauseCause::RateLimited => "rate_limited",
        PauseCause::Credentials => "credentials",
        PauseCause::Unexpected => "unexpected",
    }
}
