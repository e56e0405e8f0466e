//! Whether the database is away, or has just come back: then everybody's journal comes first, and others' leases later.

use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::Monotonic;

/// How long after an outage others' leases are left alone: results that waited for the database are stored within a
/// fraction of it.
const SETTLING: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    There,
    Away,
    BackSince(Monotonic),
}

/// What is known of the database's absence.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<State>);

impl Outage {
    /// The database does not answer. Whether that is news.
    pub(crate) fn begin(&self) -> bool {
        std::mem::replace(&mut *self.0.lock(), State::Away) != State::Away
    }

    /// It answers.
    pub(crate) fn answered(&self, now: Monotonic) {
        let mut state = self.0.lock();
        *state = match *state {
            State::Away => State::BackSince(now),
            State::BackSince(since) if now.since(since) >= SETTLING => State::There,
            other => other,
        };
    }

    /// Whether others' leases are to be left alone: they may have lapsed while nobody could renew or end them.
    pub(crate) fn is_settling(&self, now: Monotonic) -> bool {
        match *self.0.lock() {
            State::There => false,
            State::Away => true,
            State::BackSince(since) => now.since(since) < SETTLING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_leases_are_left_alone_for_five_seconds_after_an_outage() {
        let outage = Outage::default();
        let start = Monotonic::default();
        outage.answered(start);
        assert!(!outage.is_settling(start));
        outage.begin();
        assert!(outage.is_settling(start + Duration::from_secs(60)));
        let back = start + Duration::from_secs(61);
        outage.answered(back);
        outage.answered(back + Duration::from_secs(4));
        assert!(outage.is_settling(back + Duration::from_millis(4999)));
        assert!(!outage.is_settling(back + Duration::from_secs(5)));
        outage.answered(back + Duration::from_secs(5));
        outage.begin();
        assert!(outage.is_settling(back + Duration::from_secs(60)), "each outage counts");
    }
}
