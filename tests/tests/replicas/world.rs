//! A world with a second server.

use std::time::Duration;

use tokenward_api::v1::GetTokenResponse;
use tokenward_hubspot_sim::SimConfig;
use tokenward_tests::{Clients, Database, Scratch, Serve, Settings, World, get_token};
use tokio::time::Instant;
use tonic::Status;
use tonic_types::StatusExt;

/// How soon a change must hold on every server.
pub(crate) const HOLDS_WITHIN: Duration = Duration::from_secs(2);

/// A server beside that of the world, on the same database and with the same key. The server ends before its files.
pub(crate) struct Second {
    pub(crate) server: Serve,
    _folder: Scratch,
}

impl Second {
    /// Starts it after changes to its configuration.
    pub(crate) async fn start(world: &World, configure: impl FnOnce(&mut Settings)) -> Self {
        let folder = Scratch::new();
        let mut settings = settings(&folder, world).await;
        configure(&mut settings);
        Self { server: Serve::start(&settings).await, _folder: folder }
    }

    /// The service's clients.
    pub(crate) fn service(&self, world: &World) -> Clients {
        Clients::new(&self.server.service(), &world.service_token)
    }

    /// Gets a tenant's token as the service.
    pub(crate) async fn get_token(&self, world: &World, tenant: &str) -> Result<GetTokenResponse, Status> {
        get_token(&self.service(world), tenant).await
    }
}

/// The configuration of a server beside that of the world.
pub(crate) async fn settings(folder: &Scratch, world: &World) -> Settings {
    let mut settings = Settings::new(folder, &world.database).await;
    let key = world.folder.file("tokenward.key").display().to_string();
    settings.hubspot(&world.sim.base_url()).set("encryption.key_file", key);
    settings
}

/// A world with a connected tenant that two servers have in memory; `None`, said and noted, without PostgreSQL.
pub(crate) async fn two_servers() -> Option<(World, Second)> {
    let world = World::start(Database::postgres().await?).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let second = Second::start(&world, |_| {}).await;
    world.get_token("acme").await.unwrap();
    second.get_token(&world, "acme").await.unwrap();
    Some((world, second))
}

/// A world whose tokens count as expired from the first moment on.
pub(crate) async fn with_expired_tokens(database: Database) -> World {
    let configure = |config: &mut SimConfig| config.settings.token_lifetime_secs = 5;
    World::start_with(database, |_| {}, configure).await
}

/// The reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Asks until the answer is the expected one. No call that begins later than [`HOLDS_WITHIN`] after `since` may get another.
#[track_caller]
pub(crate) fn holds_within<F: Future<Output = String>>(
    since: Instant,
    expected: &str,
    mut ask: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        loop {
            let began = since.elapsed();
            let answer = ask().await;
            if answer == expected {
                return;
            }
            assert!(began < HOLDS_WITHIN, "after {began:?} it still answers {answer}, at {caller}");
            tokio::task::yield_now().await;
        }
    }
}

/// The reason of a refusal, or `OK`.
pub(crate) fn outcome<T>(result: Result<T, Status>) -> String {
    result.map_or_else(|status| reason(&status), |_| "OK".to_owned())
}
