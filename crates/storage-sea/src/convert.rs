//! Between columns and the types that they stand for.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokenward_storage::{
    ClientSecretState, ConnectionKind, ConnectionState, KekState, KeyJobKind, KeyJobState, KeyJobStep,
    PauseCause, TenantState,
};
use tokenward_types::Scopes;

use crate::error::Inconsistent;

/// An enumeration that is stored as a word.
pub(crate) trait Word: Sized {
    /// The word of a value.
    fn word(self) -> &'static str;
    /// The value of a word.
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal),+ }) => {
        impl Word for $type {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(TenantState { Active = "active", Suspended = "suspended" });
words!(ClientSecretState { Enabled = "enabled", Active = "active", Retired = "retired" });
words!(KekState { DecryptOnly = "decrypt_only", Active = "active", Retired = "retired" });
words!(KeyJobKind { Rotate = "rotate", RotateData = "rotate_data", Verify = "verify" });
words!(KeyJobState { Running = "running", Done = "done", Failed = "failed" });
words!(KeyJobStep { Spreading = "spreading", Working = "working" });
words!(ConnectionKind { OAuth = "oauth", Static = "static" });
words!(PauseCause { RateLimited = "rate_limited", Credentials = "credentials", Unexpected = "unexpected" });
words!(ConnectionState {
    Active = "active",
    Suspect = "suspect",
    ReauthRequired = "reauth_required",
    Revoked = "revoked"
});

/// A row that is being read: names the place of what is wrong.
pub(crate) struct Row<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a [&'a str],
}

impl Row<'_> {
    /// The error for a column.
    pub(crate) fn wrong(&self, column: &'static str) -> Inconsistent {
        Inconsistent { table: self.table, column, row: self.key.join("/") }
    }

    /// An identifier.
    pub(crate) fn parse<T: FromStr>(&self, column: &'static str, text: &str) -> Result<T, Inconsistent> {
        text.parse().map_err(|_| self.wrong(column))
    }

    /// An identifier that may be missing.
    pub(crate) fn parse_some<T: FromStr>(
        &self,
        column: &'static str,
        text: Option<&String>,
    ) -> Result<Option<T>, Inconsistent> {
        text.map(|text| self.parse(column, text)).transpose()
    }

    /// An enumeration.
    pub(crate) fn word<T: Word>(&self, column: &'static str, text: &str) -> Result<T, Inconsistent> {
        T::from_word(text).ok_or_else(|| self.wrong(column))
    }

    /// Scopes in the form of RFC 6749, section 3.3.
    pub(crate) fn scopes(&self, column: &'static str, text: &str) -> Result<Scopes, Inconsistent> {
        Scopes::parse(text).map_err(|_| self.wrong(column))
    }

    /// A structure that is stored as JSON.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        column: &'static str,
        text: &str,
    ) -> Result<T, Inconsistent> {
        serde_json::from_str(text).map_err(|_| self.wrong(column))
    }

    /// A SHA-256.
    pub(crate) fn hash(&self, column: &'static str, bytes: &[u8]) -> Result<[u8; 32], Inconsistent> {
        bytes.try_into().map_err(|_| self.wrong(column))
    }
}

/// A structure of texts as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    // Maps and sets of texts always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}
