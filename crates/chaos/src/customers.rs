//! Customers who connect again while refreshes of their former grant are under way: what those bring must not be stored any
//! more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_bench::load::Random;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::people::{Line, People, line};
use crate::replica::Replica;
use crate::setup::{Connection, import_request};
use crate::sim::Sim;

/// The customer of one in so many tenants does.
const ONE_IN: usize = 10;
/// How long one may take.
const CALL: Duration = Duration::from_secs(10);

/// Whether the customer of the connection with this number connects again now and then.
pub fn is_restless(number: usize) -> bool {
    number.is_multiple_of(ONE_IN)
}

/// Customers, one after the other.
pub struct Customers<'a> {
    operators: Vec<Line>,
    sim: &'a Sim,
    connections: &'a [Connection],
    /// After this time the vendor has not answered yet.
    meanwhile: Duration,
    random: Random,
}

impl<'a> Customers<'a> {
    /// Those of some connections, at a vendor that takes `vendor` for an answer.
    ///
    /// # Errors
    /// When an address makes no URI.
    pub fn new(
        replicas: &[Arc<Replica>],
        people: &People,
        sim: &'a Sim,
        connections: &'a [Connection],
        vendor: Duration,
        seed: u64,
    ) -> Result<Self> {
        let operators = replicas.iter().map(|replica| line(replica.addresses.admin, &people.operator));
        Ok(Self {
            operators: operators.collect::<Result<_>>()?,
            sim,
            connections,
            meanwhile: vendor / 2,
            random: Random::new(seed),
        })
    }

    /// Goes on until stopped; returns how often it was done.
    ///
    /// # Errors
    /// When the vendor does not answer.
    pub async fn work(mut self, pause: Duration, mut stopped: watch::Receiver<bool>) -> Result<u64> {
        let mut done = 0;
        while timeout(pause, stopped.wait_for(|stopped| *stopped)).await.is_err() {
            let restless = self.random.below(self.connections.len().div_ceil(ONE_IN)) * ONE_IN;
            done += u64::from(self.connect_again(&self.connections[restless]).await?);
        }
        Ok(done)
    }

    /// Gives one more grant of the same account to any server, and has any server refresh the former one meanwhile, which the
    /// vendor answers later. When the first does not answer, or refuses, it is left at that: the new grant may have been taken,
    /// and the former one is still there.
    async fn connect_again(&mut self, connection: &Connection) -> Result<bool> {
        let grant =
            self.sim.grants(connection.hub_id, 1).await?.pop().context("the vendor gives no grant")?;
        let (mut one, mut other) = (self.any_server(), self.any_server());
        let import = timeout(CALL, one.import_connection(import_request(&connection.tenant_id, grant)));
        let refresh = async {
            tokio::time::sleep(self.meanwhile).await;
            let request = RefreshConnectionRequest {
                tenant_id: connection.tenant_id.clone(),
                connection_id: connection.connection_id.clone(),
            };
            timeout(CALL, other.refresh_connection(request)).await
        };
        let (imported, _) = futures::join!(import, refresh);
        Ok(matches!(imported, Ok(Ok(_))))
    }

    fn any_server(&mut self) -> ConnectionServiceClient<Line> {
        let number = self.random.below(self.operators.len());
        ConnectionServiceClient::new(self.operators[number].clone())
    }
}
