//! The words that every other crate shares: identifiers, scopes, secrets, time and randomness. No I/O.

mod clock;
mod id;
pub mod net;
mod rng;
mod scopes;
mod sealed;
mod secret;

pub use clock::{Clock, FollowingClock, ManualClock, Monotonic, SystemClock, Timestamp};
pub use id::{
    AccessRuleId, AccountId, ConnectLinkId, ConnectionId, InvalidId, OAuthClientId, Principal, ProviderName,
    RequestId, TenantId, generate_suffix,
};
pub use rng::{Rng, SeededRng, SystemRng};
pub use scopes::{InvalidScope, MAX_SCOPE_LENGTH, MAX_SCOPES, Scopes};
pub use sealed::Sealed;
pub use secret::{ExposeSecret, Fingerprint, SecretString, constant_time_eq, hex, random_token, sha256};
