//! What servers tell of themselves at `/metrics`, with the last words of those that were killed.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Values by the names and labels that they came with.
pub type Values = BTreeMap<String, f64>;

/// The metrics of a replica's processes.
#[derive(Debug, Default)]
pub struct Scraped(Mutex<BTreeMap<usize, Values>>);

impl Scraped {
    /// A new process, by its number: what is noted from now on is its.
    pub fn begin(&self, life: usize) {
        self.0.lock().insert(life, Values::new());
    }

    /// The newest values of the newest process.
    pub fn note(&self, values: Values) {
        if let Some(mut newest) = self.0.lock().last_entry() {
            *newest.get_mut() = values;
        }
    }

    /// The last values of each process.
    pub fn all(&self) -> Vec<Values> {
        self.0.lock().values().cloned().collect()
    }
}

/// Reads the metrics at `url`; `None` when there is no whole answer.
pub async fn scrape(http: &reqwest::Client, url: &str) -> Option<Values> {
    let answer = http.get(url).send().await.ok()?;
    Some(parse(&answer.error_for_status().ok()?.text().await.ok()?))
}

/// Lines of `name{labels} value`; comments are passed over.
fn parse(text: &str) -> Values {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// What came after `before`: those values are taken off again wherever values are added up.
#[must_use]
pub fn since(before: &[Values], mut after: Vec<Values>) -> Vec<Values> {
    let less = |process: &Values| process.iter().map(|(name, value)| (name.clone(), -value)).collect();
    after.extend(before.iter().map(less));
    after
}

/// The sum of a metric over processes and labels; `None` where no process knows it.
pub fn sum(processes: &[Values], name: &str) -> Option<f64> {
    let of_name =
        |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    let mut known = processes.iter().flatten().filter(|(key, _)| of_name(key)).map(|(_, value)| value);
    let first = *known.next()?;
    Some(known.fold(first, |sum, value| sum + value))
}

/// The same of something that is counted.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative"
)]
pub fn count(processes: &[Values], name: &str) -> Option<u64> {
    sum(processes, name).map(|sum| sum as u64)
}

/// The upper bound of the bucket that holds the given part of a histogram's observations; `None` where there are none, and
/// infinity above the last bound.
pub fn quantile(processes: &[Values], name: &str, part: f64) -> Option<f64> {
    let prefix = format!("{name}_bucket{{");
    let mut buckets: BTreeMap<u64, f64> = BTreeMap::new();
    for (key, count) in processes.iter().flatten() {
        let bound = key.strip_prefix(&prefix).and_then(|labels| labels.split("le=\"").nth(1));
        let bound = bound.and_then(|rest| rest.split('"').next());
        let Some(bound) = bound else { continue };
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        // Bounds are positive, and positive numbers are in the order of their bits.
        *buckets.entry(bound.to_bits()).or_default() += count;
    }
    let total = *buckets.values().last()?;
    let mut within = buckets.iter().filter(|(_, count)| total > 0.0 && **count >= part * total);
    within.next().map(|(bound, _)| f64::from_bits(*bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP tokenward_refreshes Refreshes.\n# TYPE tokenward_refreshes counter\n\
        tokenward_refreshes_total{provider=\"hubspot\",outcome=\"ok\"} 7\n\
        tokenward_refreshes_total{provider=\"hubspot\",outcome=\"not_sent\"} 2\n\
        tokenward_takeovers_total 3\n\
        tokenward_d_seconds_bucket{le=\"0.005\"} 90\ntokenward_d_seconds_bucket{le=\"0.01\"} 99\n\
        tokenward_d_seconds_bucket{le=\"+Inf\"} 100\n# EOF\n";

    #[test]
    fn counters_add_up_over_labels_and_processes() {
        let processes = [parse(TEXT), parse(TEXT)];
        assert_eq!(sum(&processes, "tokenward_refreshes_total"), Some(18.0));
        assert_eq!(count(&processes, "tokenward_takeovers_total"), Some(6));
        assert_eq!(sum(&processes, "tokenward_takeovers"), None, "another name");
    }

    #[test]
    fn what_was_before_does_not_count() {
        let before = [parse(
            "tokenward_d_seconds_bucket{le=\"0.005\"} 90\ntokenward_d_seconds_bucket{le=\"0.01\"} 90\ntokenward_d_seconds_bucket{le=\"+Inf\"} 90\n",
        )];
        let under_load = since(&before, vec![parse(TEXT)]);
        let of = |part| quantile(&under_load, "tokenward_d_seconds", part);
        assert_eq!((of(0.5), of(0.9), of(0.95)), (Some(0.01), Some(0.01), Some(f64::INFINITY)));
    }

    #[test]
    fn a_quantile_is_the_bound_below_which_that_part_lies() {
        let processes = [parse(TEXT), parse(TEXT)];
        let of = |part| quantile(&processes, "tokenward_d_seconds", part);
        assert_eq!((of(0.5), of(0.99), of(0.995)), (Some(0.005), Some(0.01), Some(f64::INFINITY)));
        assert_eq!(quantile(&processes, "tokenward_other_seconds", 0.5), None);
        assert_eq!(quantile(&[parse("a_bucket{le=\"1.0\"} 0\n")], "a", 0.5), None, "nothing was observed");
    }

    #[test]
    fn a_killed_process_keeps_its_last_values() {
        let scraped = Scraped::default();
        scraped.note(parse("a 9"));
        scraped.begin(0);
        scraped.note(parse("a 1"));
        scraped.note(parse("a 2"));
        scraped.begin(1);
        scraped.note(parse("a 5"));
        assert_eq!(sum(&scraped.all(), "a"), Some(7.0));
    }
}
