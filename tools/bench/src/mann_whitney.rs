//! Whether two kinds of times differ: the Mann–Whitney U test. It asks nothing of their distribution, and a few slow
//! ones do not hide many that are a little slower.

/// How two samples compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Chance that one of the first is larger than one of the second: 0.5 when they are alike.
    pub probability_larger: f64,
    /// By how many standard deviations that differs from 0.5. Chance alone gives more than 3.3 once in a thousand.
    pub deviations: f64,
}

/// Compares the samples; `None` when there are too few for the approximation to hold.
pub fn compare(one: &[f64], other: &[f64]) -> Option<Comparison> {
    const MIN_SAMPLES: usize = 8;
    if one.len() < MIN_SAMPLES || other.len() < MIN_SAMPLES {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|value| (*value, true)).chain(other.iter().map(|value| (*value, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties) = (0.0, 0.0);
    let mut at = 0;
    while at < all.len() {
        let tied = all[at..].iter().take_while(|(value, _)| value.total_cmp(&all[at].0).is_eq()).count();
        // All of a tie have the mean of its ranks, which count from 1.
        let rank = at as f64 + (tied as f64 + 1.0) / 2.0;
        ranks += rank * all[at..at + tied].iter().filter(|(_, first)| *first).count() as f64;
        ties += (tied as f64).powi(3) - tied as f64;
        at += tied;
    }
    let (n, m) = (one.len() as f64, other.len() as f64);
    let u = ranks - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let deviations = if variance > 0.0 { (u - n * m / 2.0) / variance.sqrt() } else { 0.0 };
    Some(Comparison { probability_larger: u / (n * m), deviations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_finds_no_difference_in_equal_samples() {
        let sample: Vec<f64> = (0..1_000).map(|n| f64::from(n * 7_919 % 1_009)).collect();
        let found = compare(&sample, &sample).unwrap();
        assert!((found.probability_larger - 0.5).abs() < 1e-9 && found.deviations.abs() < 1e-9);
        assert_eq!(compare(&[1.0; 20], &[1.0; 20]).unwrap().deviations, 0.0);
        assert_eq!(compare(&sample[..3], &sample), None);
    }

    #[test]
    fn compare_detects_small_shift() {
        let sample: Vec<f64> = (0..2_000).map(|n| f64::from(n * 7_919 % 1_009)).collect();
        let later: Vec<f64> = sample.iter().map(|value| value + 50.0).collect();
        let found = compare(&later, &sample).unwrap();
        assert!(found.probability_larger > 0.5 && found.deviations > 4.0, "{found:?}");
        assert!(compare(&sample, &later).unwrap().deviations < -4.0);
    }

    #[test]
    fn compare_matches_known_values() {
        // U = 64 of 64: all of the first are larger; z = (64 - 32) / sqrt(8 * 8 * 17 / 12).
        let (large, small): (Vec<f64>, Vec<f64>) =
            ((10..18).map(f64::from).collect(), (0..8).map(f64::from).collect());
        let found = compare(&large, &small).unwrap();
        assert!(
            (found.probability_larger - 1.0).abs() < 1e-9 && (found.deviations - 3.3607).abs() < 1e-3,
            "{found:?}"
        );
    }
}
