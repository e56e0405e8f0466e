//! The use cases: connect, get a token, refresh, rotate. Knows the traits of storage, encryption and providers, and no
//! backend of them.
//!
//! The warm path ([`Broker::token_from_memory`]) reads memory alone. Everything else goes through one task per connection
//! (`refresh`), detached from callers, so that no caller can cancel what a grant depends on.

mod access;
pub mod admin;
pub mod audit;
mod background;
mod backoff;
mod broker;
mod callers;
mod calls;
mod clients;
mod compare;
mod connect;
mod connections;
mod consent;
mod directory;
mod due;
mod error;
mod follow;
mod gate;
mod get_token;
mod guard;
mod idle;
mod import;
mod key_jobs;
mod line;
mod maintenance;
mod metrics;
mod pace;
mod pauses;
mod readiness;
mod refresh;
mod report;
mod sealer;
mod select;
mod settings;
mod timer;
mod token;
mod watched;

pub use audit::Actor;
pub use broker::{Broker, LEASE_MARGIN, Parts, Shutdown};
pub use connect::{Callback, ConnectPage, FinishedConnect, NewConnectLink, StartedConnect};
pub use error::{Error, Reason};
pub use follow::{Callers, LIVE_WITHIN};
pub use metrics::Metrics;
pub use readiness::Readiness;
pub use report::ReportOutcome;
pub use sealer::{INSTALLATION_SCOPE, Place, Sealer, SealerParts};
pub use settings::Settings;
pub use timer::{RuntimeTimer, Timer};
pub use token::{LiveToken, Token, TokenFacts, TokenRequest, Warning, WarningReason};
pub use watched::ProviderHealth;
