//! What is made of many numbers.

/// Nearest rank; 0 when there are no values.
pub(in crate::cli) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// Sorts the values, of which there is at least one; the mean of the middle two when they are even.
pub(in crate::cli) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// The lower and the upper quartile of sorted values, of which there is at least one; between two
/// values in proportion.
pub(in crate::cli) fn quartiles(sorted: &[f64]) -> [f64; 2] {
    [0.25, 0.75].map(|part| {
        let at = part * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    })
}

/// To a thousandth; more digits say nothing.
pub(in crate::cli) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// To four digits, however small.
pub(in crate::cli) fn four_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 99)),
            (50, 99)
        );
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99)), (7, 7));
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn four_digits_are_kept_of_any_size() {
        assert_eq!(
            [0.000_123_456, 9.999_96, 12345.6, 0.0].map(four_digits),
            [0.000_123_5, 10.0, 12350.0, 0.0]
        );
    }

    #[test]
    fn quartiles_hold_the_middle_half() {
        assert_eq!(quartiles(&[1.0, 2.0, 3.0, 4.0, 5.0]), [2.0, 4.0]);
        assert_eq!(quartiles(&[1.0, 2.0]), [1.25, 1.75]);
        assert_eq!(quartiles(&[7.0]), [7.0, 7.0]);
    }

    #[test]
    fn median_of_an_even_number_lies_between() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
