//! The list of tests that did not run.
//!
//! A test that finds its part's variable unset appends one line, `test name<TAB>part`, to the file that
//! `TOKENWARD_SKIP_LOG` names, and returns: test runners hide what a passing test prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Skipped tests by what they lacked.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Skips(BTreeMap<String, BTreeSet<String>>);

impl Skips {
    /// Reads a skip log. Lines are kept whatever they hold: a line without a part still is a test that did not run.
    pub(crate) fn parse(log: &str) -> Self {
        let mut skips = Self::default();
        for line in log.lines().filter(|line| !line.trim().is_empty()) {
            let (test, part) = line.split_once('\t').unwrap_or((line, "an unnamed part"));
            skips.add(test.trim(), part.trim());
        }
        skips
    }

    /// Notes that `test` did not run for want of `reason`.
    pub(crate) fn add(&mut self, test: &str, reason: &str) {
        self.0.entry(reason.to_owned()).or_default().insert(test.to_owned());
    }

    pub(crate) fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}

impl fmt::Display for Skips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (reason, tests) in &self.0 {
            writeln!(f, "  {reason}: {} not run", tests.len())?;
            for test in tests {
                writeln!(f, "    {test}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_grouped_by_part_and_a_test_that_says_so_twice_counts_once() {
        let skips = Skips::parse("b::two\tpostgres\na::one\tpostgres\na::one\tpostgres\nc\tchromium\n");
        assert_eq!(skips.count(), 3);
        let expected = "  chromium: 1 not run\n    c\n  postgres: 2 not run\n    a::one\n    b::two\n";
        assert_eq!(skips.to_string(), expected);
    }

    #[test]
    fn a_line_without_a_part_still_counts() {
        assert_eq!(Skips::parse("lonely\n\n").count(), 1);
    }

    #[test]
    fn an_empty_log_holds_nothing() {
        assert_eq!(Skips::parse("").count(), 0);
    }
}
