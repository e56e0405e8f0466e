//! The harness that the scenarios share: the built binary as processes, a stand-in HubSpot, databases, clients.
//!
//! Everything here panics with a message that says what happened: a scenario has nothing better to do.
//!
//! ```no_run
//! # use tokenward_tests::{Database, World};
//! # async fn scenario() {
//! let world = World::start(Database::sqlite()).await;
//! world.set_up_tenant("acme").await;
//! world.connect("acme", World::HUB_ID).await;
//! let token = world.get_token("acme").await.unwrap();
//! assert!(world.sim.handle().is_access_token_live(&token.access_token));
//! # }
//! ```

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "every helper fails the scenario by panicking, with what happened"
)]

mod browserless;
mod clients;
mod command;
mod config;
mod database;
mod dev;
mod files;
mod kms;
pub mod parts;
mod ports;
mod process;
mod script;
mod serve;
mod sql;
mod world;

pub use browserless::{Consent, Landed, Walk};
pub use clients::{Bearer, Clients, Connected, get_token};
pub use command::{Finished, Tokenward, binary, workspace};
pub use config::Settings;
pub use database::{Database, POSTGRES};
pub use dev::Dev;
pub use files::{Scratch, write_private};
pub use kms::{Kms, REGION};
pub use ports::free_port;
pub use process::{Captured, Ended, Process, Signal};
pub use script::Script;
pub use serve::{Addresses, Serve};
pub use sql::{SealedTokens, Sql};
pub use world::World;

/// How long anything may take that should take moments; only a hang reaches it.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
