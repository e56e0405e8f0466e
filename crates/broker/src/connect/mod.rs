//! The connect flow: from a link to a connection (RFC 6749, section 4.1).
//!
//! `link` makes links and shows them, `start` sends the browser to the provider, `finish` takes it back, `pending` keeps
//! what the provider gave until it is verified.

mod finish;
mod link;
mod pending;
mod start;

pub use finish::{Callback, FinishedConnect};
pub use link::{ConnectPage, NewConnectLink};
pub(crate) use pending::NewPending;
pub use start::StartedConnect;

use tokenward_storage::ConnectLink;
use tokenward_types::{hex, sha256};

use crate::broker::Broker;
use crate::{Error, Reason};

/// The longest link secret, state or code that is looked at, in bytes.
const MAX_INPUT: usize = 4096;

impl Broker {
    /// The link, if it can be used now.
    async fn usable_link(&self, secret: &str) -> Result<ConnectLink, Error> {
        let unknown = || {
            Error::new(
                Reason::LinkUnknown,
                "this link is not known: check that it was copied whole, or ask for a new one",
            )
        };
        if secret.is_empty() || secret.len() > MAX_INPUT {
            return Err(unknown());
        }
        let link = self.storage().find_connect_link(&sha256(secret.as_bytes())).await?.ok_or_else(unknown)?;
        if link.used_at.is_some() {
            return Err(Error::new(Reason::LinkUsed, "this link was used already: it works once"));
        }
        if link.expires_at <= self.now() {
            return Err(Error::new(Reason::LinkExpired, "this link has expired: ask for a new one"));
        }
        Ok(link)
    }

    /// The name of the cookie that ties an attempt to a browser. The `__Host-` prefix needs https, which loopback lacks.
    fn cookie_name(&self, state_hash: &[u8; 32]) -> String {
        let prefix = if self.settings().public_url.scheme() == "https" { "__Host-" } else { "" };
        format!("{prefix}tokenward-{}", hex(&state_hash[..8]))
    }
}
