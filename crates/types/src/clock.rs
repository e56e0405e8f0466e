//! Time is passed in, so that tests decide what time it is.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since 1970-01-01T00:00:00Z, the precision that every supported database keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A timestamp from microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A timestamp from whole seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// How long until this point, seen from `now`; zero when it has passed.
    pub fn until(self, now: Self) -> Duration {
        self.since(now)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, such as `2026-11-22T10:00:00.000000Z`; times before 1970 as microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0) {
            Ok(micros) if micros < 253_402_300_800_000_000 => {
                humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros)).fmt(f)
            }
            _ => write!(f, "{}us", self.0),
        }
    }
}

/// A point on a clock that never goes back: for measuring, never for storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// Time since `earlier`; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock, which may jump.
    fn now(&self) -> Timestamp;

    /// A clock that only goes forward, from an arbitrary start.
    fn monotonic(&self) -> Monotonic;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(micros(elapsed))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the monotonic clock is read")]
    fn monotonic(&self) -> Monotonic {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Monotonic(START.elapsed())
    }
}

/// A clock that moves only when told to. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    wall: Arc<AtomicI64>,
    monotonic: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { wall: Arc::new(AtomicI64::new(start.0)), monotonic: Arc::default() }
    }

    /// Lets `duration` pass on both clocks.
    pub fn advance(&self, duration: Duration) {
        self.wall.fetch_add(micros(duration), Ordering::SeqCst);
        self.monotonic.fetch_add(micros(duration), Ordering::SeqCst);
    }

    /// Sets the wall clock, as an administrator or a time daemon would; the monotonic clock does not move.
    pub fn set_wall(&self, now: Timestamp) {
        self.wall.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        let micros = u64::try_from(self.monotonic.load(Ordering::SeqCst)).unwrap_or(0);
        Monotonic(Duration::from_micros(micros))
    }
}

/// A clock that keeps the time of another one, such as the database's: between two looks at it, it runs with this
/// machine's monotonic clock, so that jumps of this machine's wall clock do not show. Clones share the time.
#[derive(Clone, Debug)]
pub struct FollowingClock {
    own: Arc<dyn Clock>,
    /// The other clock's time at the zero of this machine's monotonic clock.
    origin: Arc<AtomicI64>,
}

impl FollowingClock {
    /// A difference below this is left: looking at the other clock takes time, and time should not step back for nothing.
    pub const TOLERANCE: Duration = Duration::from_millis(100);

    /// A clock that shows `own`'s time until it is told the other one's.
    pub fn new(own: Arc<dyn Clock>) -> Self {
        let origin = own.now() - own.monotonic().since(Monotonic::default());
        Self { own, origin: Arc::new(AtomicI64::new(origin.0)) }
    }

    /// Takes over the other clock's time, which was `theirs` at some moment between `asked` and now. A look that took
    /// longer than the tolerance tells nothing about a difference that is smaller than it took.
    pub fn follow(&self, theirs: Timestamp, asked: Monotonic) {
        let took = self.own.monotonic().since(asked);
        let then = asked + took / 2;
        let ours = self.at(then);
        let difference = theirs.since(ours).max(ours.since(theirs));
        if difference > Self::TOLERANCE.max(took) {
            let origin = theirs - then.since(Monotonic::default());
            self.origin.store(origin.0, Ordering::SeqCst);
        }
    }

    fn at(&self, monotonic: Monotonic) -> Timestamp {
        Timestamp(self.origin.load(Ordering::SeqCst)) + monotonic.since(Monotonic::default())
    }
}

impl Clock for FollowingClock {
    fn now(&self) -> Timestamp {
        self.at(self.own.monotonic())
    }

    fn monotonic(&self) -> Monotonic {
        self.own.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        assert_eq!(Timestamp::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.500000Z");
        assert_eq!(Timestamp::from_micros(i64::MAX).to_string(), format!("{}us", i64::MAX));
        assert_eq!(Timestamp::from_micros(-1).to_string(), "-1us");
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let end = Timestamp::from_micros(i64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
        assert_eq!(Timestamp::from_secs(i64::MAX).as_micros(), i64::MAX);
    }

    #[test]
    fn a_wall_clock_that_jumps_does_not_move_the_monotonic_one() {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        let before = clock.monotonic();
        clock.set_wall(Timestamp::from_secs(1));
        assert_eq!(clock.monotonic(), before);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.monotonic().since(before), Duration::from_secs(5));
        assert_eq!(clock.now(), Timestamp::from_secs(6));
    }

    #[test]
    fn a_following_clock_shows_the_time_of_the_other_whatever_this_machines_wall_clock_does() {
        let own = ManualClock::new(Timestamp::from_secs(3600));
        own.advance(Duration::from_secs(9));
        let clock = FollowingClock::new(Arc::new(own.clone()));
        assert_eq!(clock.now(), Timestamp::from_secs(3609));
        clock.follow(Timestamp::from_secs(100), own.monotonic());
        own.set_wall(Timestamp::from_secs(7200));
        own.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), Timestamp::from_secs(105));
        assert_eq!(clock.monotonic(), own.monotonic());
    }

    #[test]
    fn a_following_clock_leaves_what_is_too_little_to_be_sure_of() {
        let own = ManualClock::new(Timestamp::from_secs(100));
        let clock = FollowingClock::new(Arc::new(own.clone()));
        clock.follow(Timestamp::from_micros(100_050_000), own.monotonic());
        assert_eq!(clock.now(), Timestamp::from_secs(100));
        let asked = own.monotonic();
        own.advance(Duration::from_secs(2));
        clock.follow(Timestamp::from_secs(102), asked);
        assert_eq!(clock.now(), Timestamp::from_secs(102), "the answer took two seconds");
        clock.follow(Timestamp::from_secs(99), own.monotonic());
        assert_eq!(clock.now(), Timestamp::from_secs(99));
    }
}
