//! Refreshing: one task per connection, detached from callers.
//!
//! `run` leases, calls the provider and classifies; `record` makes an answer durable and serves it, `save` and `journal` where
//! the database does not take it at once; `judge` decides what a refusal means for the grant; `resolve` takes up what others
//! left; `restored` notices a database that was put back.

mod journal;
mod judge;
mod outage;
mod record;
mod resolve;
mod restored;
mod run;
mod save;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokenward_types::{ConnectionId, TenantId, Timestamp};

pub(crate) use outage::Outage;
pub(crate) use record::expiry;
pub(crate) use save::{Kept, Unsaved};

use crate::broker::Broker;
use crate::token::LiveToken;
use crate::{Error, Reason};

/// When the stored token will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// It must live for so long; a young one will do all the same.
    Ttl(Duration),
    /// It must have been got after this.
    NewerThan(Timestamp),
    /// It must be got now, if the connection is still a suspect.
    Confirm,
    /// It must be got now: an admin asked.
    Now,
}

type Key = (TenantId, ConnectionId);

/// A refresh under way, which any number of callers can wait for.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<Arc<LiveToken>, Error>>>;

/// The refreshes under way: at most one per connection.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Flight>>);

impl Flights {
    /// The connections, as `tenant/connection`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().keys().map(|(tenant, connection)| format!("{tenant}/{connection}")).collect()
    }

    /// Waits until none is under way.
    pub(crate) async fn finished(&self) {
        loop {
            let Some(flight) = self.0.lock().values().next().cloned() else { return };
            let _ = flight.await;
        }
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether a connection's refresh is under way.
    pub(crate) fn contains(&self, tenant: &TenantId, connection: &ConnectionId) -> bool {
        self.0.lock().contains_key(&(tenant.clone(), connection.clone()))
    }

    /// Waits for a connection's refresh, if one is under way.
    pub(crate) async fn wait_for(&self, tenant: &TenantId, connection: &ConnectionId) {
        let flight = self.0.lock().get(&(tenant.clone(), connection.clone())).cloned();
        if let Some(flight) = flight {
            let _ = flight.await;
        }
    }
}

/// Takes a flight off the list, also when its task panics.
struct Landing {
    broker: Broker,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.broker.flights().0.lock().remove(&self.key);
    }
}

impl Broker {
    /// Refreshes and makes sure that the token is what is wanted: a refresh that was joined may have been started for less.
    pub(crate) async fn refresh_surely(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        want: Want,
    ) -> Result<Arc<LiveToken>, Error> {
        let than = match want {
            Want::NewerThan(than) => than,
            _ => self.now() - Duration::from_micros(1),
        };
        let live = self.refresh(tenant, connection, want).await?;
        if live.issued_at > than {
            return Ok(live);
        }
        self.refresh(tenant, connection, want).await
    }

    /// Joins the connection's refresh, or starts it. Dropping the result cancels nothing.
    pub(crate) fn refresh(&self, tenant: &TenantId, connection: &ConnectionId, want: Want) -> Flight {
        let key = (tenant.clone(), connection.clone());
        let mut flights = self.flights().0.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let landing = Landing { broker: self.clone(), key: key.clone() };
        let task = self.spawn(async move {
            let started = landing.broker.clock().monotonic();
            let result = landing.broker.run_refresh(&landing.key.0, &landing.key.1, want).await;
            let took = landing.broker.clock().monotonic().since(started);
            landing.broker.metrics().refresh_seconds.observe(took.as_secs_f64());
            let result = result.map_err(|error| landing.broker.name_damage(&landing.key, error));
            drop(landing);
            result
        });
        let flight = async move {
            task.await
                .unwrap_or_else(|error| Err(Error::new(Reason::Internal, "internal error").internal(error)))
        }
        .boxed()
        .shared();
        flights.insert(key, flight.clone());
        flight
    }

    /// Says which connection cannot be read and what helps: whoever found it knows a ciphertext alone.
    fn name_damage(&self, (_, connection): &Key, error: Error) -> Error {
        if error.reason != Reason::StoredDataDamaged || error.metadata.contains_key("oauth_client_id") {
            return error;
        }
        self.metrics().alert("stored_data_damaged", connection.as_str());
        let message = format!(
            "connection {connection}: {}; restore its row or the key, or have the customer connect again",
            error.message
        );
        error.saying(message).with("connection_id", connection.as_str())
    }
}
