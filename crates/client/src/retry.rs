//! What to do after a failed call.

use std::time::Duration;

use tonic::Code;

use crate::error::{Error, ErrorKind};
use crate::time::Time;

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing that this client can do.
    GiveUp,
    /// Another server, at once.
    OtherAddress,
    /// The same again, later.
    Wait,
    /// Another caller token.
    OtherCallerToken,
}

/// What may help after `error`. GetToken changes nothing that a second call would spoil, so an unknown outcome is repeated.
pub(crate) fn advice(error: &Error) -> Advice {
    if error.kind() == ErrorKind::Unauthenticated {
        return Advice::OtherCallerToken;
    }
    if !error.is_from_server() {
        return if error.kind() == ErrorKind::Unavailable { Advice::OtherAddress } else { Advice::GiveUp };
    }
    match error.reason() {
        // This server's own trouble: another one may be better off.
        "STORAGE_UNAVAILABLE"
        | "STATE_STALE"
        | "ENCRYPTION_UNAVAILABLE"
        | "CALLER_KEYS_UNAVAILABLE"
        | "OVERLOADED"
        | "DEADLINE_EXCEEDED" => Advice::OtherAddress,
        // The provider's trouble is the same at every address.
        _ if may_heal(error.code()) || error.retry_after().is_some() => Advice::Wait,
        _ => Advice::GiveUp,
    }
}

/// The codes of Tokenward's errors that may go away by themselves.
fn may_heal(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}

/// How long to wait between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// The first wait; it doubles.
    pub(crate) base: Duration,
    /// The longest wait, unless the server asks for a longer one.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait before try number `round` (from 1): between half and all of the exponential step, and never less than
    /// the server asks for. What the server asks for is spread upwards by a fifth, so that its callers do not all
    /// return at once.
    pub(crate) fn wait(&self, round: u32, error: &Error, time: &dyn Time) -> Duration {
        let step = self.base.saturating_mul(1 << round.saturating_sub(1).min(16)).min(self.max);
        let jitter = time.jitter();
        let own = step.mul_f64(0.5 + jitter / 2.0);
        match error.retry_after() {
            Some(asked) => own.max(asked.min(Duration::from_hours(1)).mul_f64(1.0 + jitter / 5.0)),
            None => own,
        }
    }
}
