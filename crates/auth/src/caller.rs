//! The authenticated caller and what it may do here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokenward_types::{Principal, Timestamp};

/// What a caller may do. No role gets tokens without an access rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Asks for tokens.
    Service,
    /// Manages tenants, connections and access rules; trusted, because it can grant access to itself.
    Operator,
    /// Registers OAuth clients and rotates secrets and keys.
    Admin,
    /// Reads who held which token, and when.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Service, Self::Operator, Self::Admin, Self::Auditor];

    /// The lower-case name, as in a token's role claim.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of service, operator, admin, auditor")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// Who is calling, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `<issuer name>:<claim>`, such as `builtin:billing-service`.
    pub principal: Principal,
    /// What it may do.
    pub role: Role,
    /// The configured name of the issuer of its token.
    pub issuer: Arc<str>,
    /// When its token expires (the `exp` claim, without the leeway).
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_reads_back_from_its_name() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(UnknownRole), "roles are lower case");
        assert_eq!("root".parse::<Role>(), Err(UnknownRole));
    }
}
