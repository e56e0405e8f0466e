//! Which processors the threads of the service listener run on. The benchmark's echo server, which is laid out alike, does the same.

use std::io;
use std::num::NonZeroUsize;

/// A thread of the service listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It runs where the kernel finds room.
    Anywhere,
    /// It stays on this processor, by the kernel's number.
    On(usize),
}

/// The places of so many threads, or of one for each processor. They stay on a processor each where they may and are as many as
/// the processors of this process: fewer would share theirs with the threads of other processes, which choose alike,
/// while other processors have nothing to do.
pub fn places(threads: Option<NonZeroUsize>, may_stay: bool) -> Vec<Place> {
    let threads = threads.map_or_else(one_per_processor, NonZeroUsize::get);
    let processors = if may_stay { allowed() } else { Vec::new() };
    if processors.len() == threads {
        processors.into_iter().map(Place::On).collect()
    } else {
        vec![Place::Anywhere; threads]
    }
}

/// A container's share of the processors' time counts as well.
fn one_per_processor() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The processors that this process may use; none where the system does not tell.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    // This fails where there are more than `MAX_CPU`.
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

impl Place {
    /// Moves the calling thread there; threads that it starts later stay there with it.
    ///
    /// # Errors
    /// The system refuses; the thread runs where it finds room.
    #[cfg(target_os = "linux")]
    pub fn take(self) -> io::Result<()> {
        use rustix::thread::{CpuSet, sched_setaffinity};
        let Self::On(number) = self else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(number);
        Ok(sched_setaffinity(None, &set)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub fn take(self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn threads(count: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(count)
    }

    #[test]
    fn as_many_threads_as_processors_stay_on_one_each() {
        let all = allowed();
        assert!(!all.is_empty());
        let expected: Vec<_> = all.iter().copied().map(Place::On).collect();
        assert_eq!(places(threads(all.len()), true), expected);
    }

    #[test]
    fn more_or_fewer_threads_and_those_that_may_not_run_anywhere() {
        let all = allowed().len();
        assert_eq!(places(threads(all + 1), true), vec![Place::Anywhere; all + 1]);
        assert_eq!(places(threads(all), false), vec![Place::Anywhere; all]);
        assert_eq!(places(None, false), vec![Place::Anywhere; one_per_processor()]);
    }

    #[test]
    fn who_takes_a_place_is_there_alone() {
        let last = *allowed().last().expect("we run on one");
        let there = std::thread::spawn(move || {
            Place::Anywhere.take().expect("nothing to do");
            let before = allowed();
            Place::On(last).take().expect("it is ours");
            (before, allowed())
        });
        assert_eq!(there.join().expect("it ends"), (allowed(), vec![last]));
    }
}
