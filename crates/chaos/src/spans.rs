//! Stretches of time in which something holds.

/// From `from` up to, but not including, `to`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub from: i64,
    /// The first moment after it.
    pub to: i64,
}

impl Span {
    /// From one moment up to another.
    pub fn new(from: i64, to: i64) -> Self {
        Self { from, to }
    }

    /// From a moment on, with no end.
    pub fn since(from: i64) -> Self {
        Self { from, to: i64::MAX }
    }

    /// How long it is; nothing if it ends before it begins.
    pub fn length(self) -> i64 {
        self.to.saturating_sub(self.from).max(0)
    }

    /// Whether a moment is in it.
    pub fn has(self, at: i64) -> bool {
        self.from <= at && at < self.to
    }
}

/// Stretches that do not overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// All of one stretch.
    pub fn of(span: Span) -> Self {
        Self(if span.length() > 0 { vec![span] } else { Vec::new() })
    }

    /// A new stretch begins; does nothing while one goes on.
    pub fn begin(&mut self, at: i64) {
        if self.0.last().is_none_or(|last| last.to <= at) {
            self.0.push(Span::since(at));
        }
    }

    /// The stretch that goes on ends; does nothing when none goes on.
    pub fn end(&mut self, at: i64) {
        if let Some(last) = self.0.last_mut().filter(|last| last.to == i64::MAX) {
            last.to = at;
        }
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            let shared = Span::new(a.from.max(b.from), a.to.min(b.to));
            if shared.length() > 0 {
                both.push(shared);
            }
            if a.to <= b.to {
                mine.next();
            } else {
                theirs.next();
            }
        }
        Self(both)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut gaps = Vec::new();
        let mut from = i64::MIN;
        for span in &other.0 {
            gaps.push(Span::new(from, span.from));
            from = span.to;
        }
        gaps.push(Span::since(from));
        self.and(&Self(gaps.into_iter().filter(|gap| gap.length() > 0).collect()))
    }

    /// The stretch that a moment is in.
    pub fn at(&self, moment: i64) -> Option<Span> {
        self.0.iter().copied().find(|span| span.has(moment))
    }

    /// Whether any of it is in `span`.
    pub fn touches(&self, span: Span) -> bool {
        self.0.iter().any(|one| one.from < span.to && span.from < one.to)
    }

    /// Whether one stretch covers all of `span`.
    pub fn covers(&self, span: Span) -> bool {
        self.0.iter().any(|one| one.from <= span.from && span.to <= one.to)
    }

    /// How long the longest one is.
    pub fn longest(&self) -> i64 {
        self.0.iter().map(|span| span.length()).max().unwrap_or(0)
    }

    /// When, counted from a moment.
    pub fn in_words(&self, since: i64) -> String {
        let one = |span: &Span| format!("from {} to {} ms", span.from - since, span.to - since);
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(list: &[(i64, i64)]) -> Spans {
        Spans(list.iter().map(|(from, to)| Span::new(*from, *to)).collect())
    }

    #[test]
    fn what_is_in_both_and_what_is_in_one_alone() {
        let (a, b) = (spans(&[(0, 10), (20, 30)]), spans(&[(5, 22), (25, 26)]));
        assert_eq!(a.and(&b), spans(&[(5, 10), (20, 22), (25, 26)]));
        assert_eq!(b.and(&a), a.and(&b));
        assert_eq!(a.without(&b), spans(&[(0, 5), (22, 25), (26, 30)]));
        assert_eq!(a.without(&Spans::default()), a);
        assert_eq!(a.and(&Spans::default()), Spans::default());
    }

    #[test]
    fn a_stretch_goes_on_until_it_ends() {
        let mut up = Spans::default();
        up.end(1);
        up.begin(2);
        up.begin(3);
        assert_eq!(up.at(9), Some(Span::since(2)));
        up.end(10);
        up.end(11);
        up.begin(12);
        assert_eq!(up.and(&Spans::of(Span::new(0, 20))), spans(&[(2, 10), (12, 20)]));
        assert_eq!(up.at(10), None);
        assert_eq!(up.count(), 2);
    }

    #[test]
    fn covering_and_touching_look_at_each_stretch() {
        let a = spans(&[(0, 10), (10, 30)]);
        assert!(a.covers(Span::new(10, 30)) && !a.covers(Span::new(9, 11)));
        assert!(a.touches(Span::new(29, 90)) && !a.touches(Span::new(30, 90)));
        assert_eq!((a.longest(), Spans::default().longest()), (20, 0));
    }
}
