//! Medians, percentiles, and conversions of counts.

use std::time::Duration;

/// The median; of an even count the mean of the middle two. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*sorted.get(middle - 1)?, upper)) }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank). `None` of nothing.
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a count.
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Calls per second.
pub fn rate(calls: u64, time: Duration) -> f64 {
    float(calls) / time.as_secs_f64()
}

/// A duration in milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A duration in microseconds, spread over calls.
pub fn micros_per_call(time: Duration, calls: u64) -> f64 {
    time.as_secs_f64() * 1e6 / float(calls.max(1))
}

/// To so many decimals, for output.
pub fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(500.0));
        assert_eq!(percentile(&values, 99), Some(990.0));
        assert_eq!(percentile(&values, 100), Some(1000.0));
        assert_eq!(percentile(&[5.0], 99), Some(5.0));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn time_is_spread_over_calls() {
        assert_eq!(micros_per_call(Duration::from_millis(10), 1000), 10.0);
        assert_eq!(rate(500, Duration::from_millis(250)), 2000.0);
        assert_eq!(round(1.2345, 2), 1.23);
    }
}
