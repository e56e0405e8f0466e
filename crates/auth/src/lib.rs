//! Who is calling: JWT issuers (RFC 7519) with their key sets (RFC 7517), the built-in issuer, and the bounded cache of
//! verified callers. It knows no storage and no gRPC.

mod address;
mod authenticator;
mod builtin;
mod caller;
mod error;
mod issuer;
mod jwks;
mod source;
mod verify;

pub use authenticator::{AuthSettings, Authenticator};
pub use builtin::{
    BuiltinIssuer, BuiltinIssuerKeys, BuiltinKeyError, BuiltinSettings, DEFAULT_LIFETIME, IssueError,
    IssuedToken,
};
pub use caller::{Caller, Role, UnknownRole};
pub use error::{AuthError, AuthErrorReason, SetupError};
pub use issuer::{BUILTIN_ISSUER_NAME, DEFAULT_ALGORITHMS, IssuerConfig, JwksSource};
pub use source::{REFETCH_INTERVAL, REFRESH_PERIOD};
pub use verify::{LEEWAY, MAX_LIFETIME, MAX_TOKEN_BYTES, bearer_token};
