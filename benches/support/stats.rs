//! Medians and their intervals, for benches that compare.
#![allow(dead_code, reason = "each bench uses a part of it")]

const RESAMPLES: usize = 4000;

/// The median; sorts the values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(low, high)
}

/// The value that a part `p` of the sorted values does not exceed.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Interval that holds the median with 95 %: quantiles of the medians of resamples.
pub fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut state = 1_u64;
    let mut random = || {
        // Knuth's MMIX.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sample: Vec<f64> = values
                .iter()
                .map(|_| values[random() % values.len()])
                .collect();
            median(&mut sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (
        medians[RESAMPLES / 40],
        medians[RESAMPLES - 1 - RESAMPLES / 40],
    )
}
