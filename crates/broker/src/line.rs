//! The line in front of an OAuth client's calls: the most urgent kind goes first, and within a kind who came first.

use std::collections::{BTreeMap, HashMap};

use tokenward_types::{ConnectionId, TenantId};

/// How many stand in one client's line at the most.
pub(crate) const MAX_WAITING: usize = 10_000;

/// What a call is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Turn {
    /// Somebody waits for it.
    Asked,
    /// A token in use comes to its last quarter.
    Ahead,
    /// A suspect, or an attempt whose outcome is unknown.
    Doubt,
    /// A connection that nobody asks for.
    Idle,
}

impl Turn {
    /// All of them, the most urgent first.
    pub(crate) const ALL: [Self; 4] = [Self::Asked, Self::Ahead, Self::Doubt, Self::Idle];

    /// The word for it in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Ahead => "ahead",
            Self::Doubt => "doubt",
            Self::Idle => "idle",
        }
    }
}

/// Whose call it is.
pub(crate) type Key = (TenantId, ConnectionId);

type Place = (Turn, u64);

/// What became of a newcomer. The number is that of those up to and with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined<T> {
    /// It stands in line.
    At(usize),
    /// It stands in line, and the last of the least urgent had to go.
    Instead(usize, Key, T),
    /// The line is full of others who are as urgent.
    Full(T),
}

/// A line of bounded length.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: BTreeMap<Place, (Key, T)>,
    places: HashMap<Key, Place>,
    lengths: [usize; Turn::ALL.len()],
    /// The number that the next one of each kind gets.
    next: [u64; Turn::ALL.len()],
    longest: usize,
}

impl<T> Line<T> {
    /// An empty line for so many.
    pub(crate) fn new(longest: usize) -> Self {
        Self { waiting: BTreeMap::new(), places: HashMap::new(), lengths: [0; 4], next: [0; 4], longest }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait for such a turn.
    pub(crate) fn length(&self, turn: Turn) -> usize {
        self.lengths[turn as usize]
    }

    /// Puts somebody behind those who are as urgent.
    pub(crate) fn join(&mut self, turn: Turn, key: Key, who: T) -> Joined<T> {
        let mut displaced = None;
        if self.waiting.len() >= self.longest {
            match self.waiting.last_key_value() {
                Some((&last, _)) if last.0 > turn => displaced = self.leave(last),
                _ => return Joined::Full(who),
            }
        }
        let position = self.put(turn, key, who);
        match displaced {
            Some((key, who)) => Joined::Instead(position, key, who),
            None => Joined::At(position),
        }
    }

    /// Makes somebody at least so urgent; how many stand up to there, about, since some may have left their places.
    /// `None` when he does not wait.
    pub(crate) fn promote(&mut self, key: &Key, turn: Turn) -> Option<usize> {
        let place = *self.places.get(key)?;
        if place.0 > turn {
            let (key, who) = self.leave(place)?;
            return Some(self.put(turn, key, who));
        }
        let more_urgent: usize = self.lengths[..place.0 as usize].iter().sum();
        let (first, _) = self.waiting.range((place.0, 0)..).next()?;
        let among_his = usize::try_from(place.1 - first.1).unwrap_or(usize::MAX).saturating_add(1);
        Some(more_urgent.saturating_add(among_his))
    }

    /// Whose turn it is.
    pub(crate) fn call(&mut self) -> Option<(Key, T)> {
        let first = *self.waiting.first_key_value()?.0;
        self.leave(first)
    }

    fn put(&mut self, turn: Turn, key: Key, who: T) -> usize {
        let place = (turn, self.next[turn as usize]);
        self.next[turn as usize] += 1;
        self.lengths[turn as usize] += 1;
        self.places.insert(key.clone(), place);
        self.waiting.insert(place, (key, who));
        self.lengths[..=turn as usize].iter().sum()
    }

    fn leave(&mut self, place: Place) -> Option<(Key, T)> {
        let (key, who) = self.waiting.remove(&place)?;
        self.lengths[place.0 as usize] -= 1;
        if self.places.get(&key) == Some(&place) {
            self.places.remove(&key);
        }
        Some((key, who))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokenward_provider::CallRate;
    use tokenward_types::{Clock, ManualClock, Rng, SeededRng, Timestamp};

    use super::*;
    use crate::calls::Calls;

    fn key(n: usize) -> Key {
        (TenantId::parse("acme").unwrap(), ConnectionId::parse(&format!("con_{n}")).unwrap())
    }

    #[test]
    fn a_full_line_turns_away_the_least_urgent() {
        let mut line = Line::new(2);
        assert_eq!(line.join(Turn::Ahead, key(1), 1), Joined::At(1));
        assert_eq!(line.join(Turn::Idle, key(2), 2), Joined::At(2));
        assert_eq!(line.join(Turn::Idle, key(3), 3), Joined::Full(3));
        assert_eq!(line.join(Turn::Asked, key(4), 4), Joined::Instead(1, key(2), 2));
        assert_eq!(line.join(Turn::Ahead, key(5), 5), Joined::Full(5));
        assert_eq!(line.join(Turn::Asked, key(6), 6), Joined::Instead(2, key(1), 1));
        assert_eq!(line.join(Turn::Asked, key(7), 7), Joined::Full(7));
        assert_eq!([line.call().unwrap().1, line.call().unwrap().1], [4, 6]);
        assert!(line.is_empty());
    }

    #[test]
    fn who_is_asked_for_moves_behind_those_asked_for_earlier() {
        let mut line = Line::new(10);
        line.join(Turn::Asked, key(1), 1);
        line.join(Turn::Idle, key(2), 2);
        line.join(Turn::Ahead, key(3), 3);
        assert_eq!(line.promote(&key(2), Turn::Asked), Some(2));
        assert_eq!(line.promote(&key(2), Turn::Asked), Some(2), "he keeps his place");
        assert_eq!(line.promote(&key(3), Turn::Idle), Some(3));
        assert_eq!(line.promote(&key(9), Turn::Asked), None);
        let order: Vec<_> = std::iter::from_fn(|| line.call()).map(|(_, who)| who).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    proptest! {
        /// Whatever joins, is promoted and is called: nobody goes ahead of somebody more urgent, or of somebody as urgent
        /// who came or was promoted before; nobody is lost, and nobody is called twice.
        #[test]
        fn the_order_holds(steps in prop::collection::vec((0_u8..6, 0_usize..4, 0_usize..40), 1..400)) {
            let mut line = Line::new(30);
            // The same by brute force: (turn, when, who), sorted at every call.
            let mut model: Vec<(Turn, usize, usize)> = Vec::new();
            for (when, (step, turn, who)) in steps.into_iter().enumerate() {
                let turn = Turn::ALL[turn];
                let known = model.iter().position(|(_, _, other)| *other == who);
                match (step, known) {
                    (0..=2, None) => {
                        let worst = model.iter().copied().max();
                        match line.join(turn, key(who), who) {
                            Joined::At(_) => prop_assert!(model.len() < 30),
                            Joined::Instead(_, _, gone) => {
                                let worst = worst.unwrap();
                                prop_assert!(model.len() == 30 && worst.0 > turn && worst.2 == gone);
                                model.retain(|(_, _, other)| *other != gone);
                            }
                            Joined::Full(_) => {
                                prop_assert!(model.len() == 30 && worst.unwrap().0 <= turn);
                                continue;
                            }
                        }
                        model.push((turn, when, who));
                    }
                    (3, Some(at)) => {
                        prop_assert!(line.promote(&key(who), turn).is_some());
                        if model[at].0 > turn {
                            model[at] = (turn, when, who);
                        }
                    }
                    (3, None) => prop_assert_eq!(line.promote(&key(who), turn), None),
                    (4..=5, _) => {
                        model.sort_unstable();
                        let expected = (!model.is_empty()).then(|| model.remove(0).2);
                        prop_assert_eq!(line.call().map(|(_, who)| who), expected);
                    }
                    _ => {}
                }
                for turn in Turn::ALL {
                    prop_assert_eq!(line.length(turn), model.iter().filter(|(other, ..)| *other == turn).count());
                }
            }
        }
    }

    /// After an outage everything has expired. What callers ask for while the rest is caught up with goes first, at the
    /// rate and not faster.
    #[test]
    fn recovery_runs_at_the_rate_and_those_asked_for_go_first() {
        let (clock, rng) = (ManualClock::new(Timestamp::from_secs(1_000_000)), SeededRng::new(11));
        let rate = CallRate { per_second: 50, burst: 50 };
        let mut calls = Calls::new(Some(rate));
        let mut line = Line::new(MAX_WAITING);
        for n in 0..3000 {
            let turn = if n % 3 == 0 { Turn::Idle } else { Turn::Ahead };
            line.join(turn, key(n), (turn, clock.now()));
        }
        let (mut made, mut asked, mut longest, mut next) = (0_u32, 0_u32, Duration::ZERO, 3000);
        let mut ahead_is_over = false;
        for _ in 0..600 {
            // Ten a second: some of those that stand in line, some that nobody thought of.
            if rng.below(10) == 0 {
                for _ in 0..10 {
                    let who = usize::try_from(rng.below(3000)).unwrap();
                    if line.promote(&key(who), Turn::Asked).is_none() {
                        line.join(Turn::Asked, key(next), (Turn::Asked, clock.now()));
                        next += 1;
                    }
                }
            }
            while !line.is_empty() && calls.alone(1, clock.monotonic()).is_ok() {
                let was_asked = line.length(Turn::Asked) > 0;
                let (_, (turn, since)) = line.call().unwrap();
                made += 1;
                if was_asked {
                    asked += 1;
                    if turn == Turn::Asked {
                        longest = longest.max(clock.now().since(since));
                    }
                } else if turn == Turn::Idle {
                    ahead_is_over = true;
                } else {
                    assert!(!ahead_is_over, "an idle connection went ahead of one in use");
                }
            }
            clock.advance(Duration::from_millis(100));
        }
        assert!(made > 2900 && made <= 50 + 60 * 50, "{made} calls in a minute");
        assert!(asked > 400, "{asked}");
        assert!(longest < Duration::from_secs(1), "somebody was kept waiting for {longest:?}");
    }
}
