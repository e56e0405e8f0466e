//! A stand-in HubSpot for tests and for `tokenward dev`.
//!
//! It speaks HubSpot's OAuth API (v1, v3 and the date-versioned one), the consent page, uninstallation and one CRM
//! endpoint on a real socket, and makes trouble on order: see [`Fault`]. It shares no code with the gateway, so that
//! the two cannot agree on the same mistake. Tokens come from a seedable generator: nothing here protects anything.
//!
//! ```no_run
//! # async fn demo() -> Result<(), tokenward_hubspot_sim::SimError> {
//! use tokenward_hubspot_sim::{Fault, FaultKind, HubspotSim, SimConfig};
//!
//! let sim = HubspotSim::start(SimConfig::demo(["http://localhost:8080/callback"])).await?;
//! sim.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).on_refresh().times(1));
//! println!("{}", sim.base_url());
//! sim.shutdown().await;
//! # Ok(()) }
//! ```

mod clock;
mod config;
mod conn;
mod errors;
mod family;
mod faults;
mod handle;
mod http;
mod log;
mod rng;
mod server;
mod vendor;

pub use clock::{ClockKind, SimClock};
pub use config::{
    AfterWindow, App, ErrorStyle, GraceStyle, Portal, Rotation, Settings, SettingsPatch, SimConfig,
};
pub use family::{FamilyEnd, RefreshTokenState};
pub use faults::{ActiveFault, Endpoint, Fault, FaultKind};
pub use handle::{CreatedGrant, FamilyView, GrantRequest, Overlap, RefreshTokenView, SimHandle, TokenFilter};
pub use log::{IssuedTokens, LogEntry, LogPage, Outcome, Stats};
pub use server::{HubspotSim, RunningSim};

/// Why the stand-in could not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// It could not listen, or could not get a seed.
    #[error("could not start: {0}")]
    Start(String),
    /// No app with this client id.
    #[error("no app with client id {0:?}")]
    UnknownApp(String),
    /// No account with this number.
    #[error("no account {0}")]
    UnknownPortal(u64),
    /// HubSpot would not accept this redirect URI.
    #[error("redirect URI {0:?} must be https with a domain name, or http with localhost")]
    RedirectUri(String),
    /// A request to the control API that makes no sense.
    #[error("{0}")]
    Invalid(String),
}
