//! Median, extremes and percentiles of measurements.

/// Median, lowest and highest of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// The spread of these runs; zeros without a run.
    pub fn of(runs: &[f64]) -> Self {
        Self { median: percentile(runs, 0.5), min: percentile(runs, 0.0), max: percentile(runs, 1.0) }
    }
}

/// The percentile `part` (0 to 1) by nearest rank; the median of an even number of values is the mean of the
/// middle two. Zero without values.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    if count == 0 {
        return 0.0;
    }
    if part == 0.5 && count.is_multiple_of(2) {
        return f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]);
    }
    // Exact below 2^52 values.
    let rank = (part * count as f64).ceil() as usize;
    sorted[rank.clamp(1, count) - 1]
}

#[cfg(test)]
mod tests {
    use super::{Spread, percentile};

    #[test]
    fn nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
