//! A histogram in characters.

use datapath::hist::Histogram;

use super::output;
use crate::observe::hist::{Bucket, Unit, View};

/// Columns of the longest bar; with bound and count, a line has 80.
const BAR: usize = 54;

/// A line each for its sums and for every bucket.
pub(super) fn text(view: &View) -> String {
    let mut text = format!("  {}\n", sums(view));
    for line in lines(view, BAR) {
        text += &line;
        text.push('\n');
    }
    text
}

/// How many, and their mean.
pub(super) fn sums(view: &View) -> String {
    let mean = view.sum as f64 / view.count.max(1) as f64;
    format!(
        "{} counted, {} on average",
        view.count,
        amount(mean, view.unit)
    )
}

/// A line for every bucket, with bars of at most `width` columns.
pub(super) fn lines(view: &View, width: usize) -> impl Iterator<Item = String> {
    let most = view.buckets.iter().map(|bucket| bucket.count).max();
    let most = most.unwrap_or(0).max(1);
    view.buckets.iter().map(move |bucket| {
        let part = bucket.count as f64 / most as f64 * width as f64;
        let bar = "#".repeat(part.ceil() as usize);
        format!(
            "{:>12} {:>11}  {bar}",
            bound(bucket, view.unit),
            bucket.count
        )
        .trim_end()
        .into()
    })
}

fn bound(bucket: &Bucket, unit: Unit) -> String {
    let above = || Histogram::bound(datapath::hist::SLOTS - 2).unwrap_or(0);
    match bucket.up_to {
        Some(bound) => amount(bound as f64, unit),
        None => format!("> {}", amount(above() as f64, unit)),
    }
}

/// A value in its best unit.
fn amount(value: f64, unit: Unit) -> String {
    let (units, step): (&[&str], f64) = match unit {
        Unit::Bytes => (&["B", "KiB", "MiB", "GiB"], 1024.0),
        Unit::Microseconds => (&["us", "ms", "s"], 1000.0),
        Unit::Milliseconds => (&["ms", "s"], 1000.0),
    };
    let (mut value, mut at) = (value, 0);
    while value >= step && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    let whole = value.fract() == 0.0;
    let number = if whole {
        format!("{value:.0}")
    } else {
        output::digits(value)
    };
    format!("{number} {}", units[at])
}

#[cfg(test)]
mod tests {
    use datapath::abi::Hist;

    use super::*;

    fn histogram(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.sum += value;
            histogram.slots[Histogram::slot(*value)] += 1;
        }
        histogram
    }

    #[test]
    fn bars_are_to_scale_and_fit() {
        let counted = histogram(&[100, 100, 100, 100, 300, u64::MAX >> 8]);
        let text = text(&View::of(Hist::Redirected, &counted));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            format!("{:>12} {:>11}  {}", "128 B", 4, "#".repeat(BAR))
        );
        assert_eq!(
            lines[3],
            format!("{:>12} {:>11}  {}", "512 B", 1, "#".repeat(14))
        );
        assert!(lines.last().unwrap().contains("> 8 MiB"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn values_have_their_best_unit() {
        let shown = |value, unit| amount(value, unit);
        assert_eq!(shown(0.0, Unit::Bytes), "0 B");
        assert_eq!(shown(4096.0, Unit::Bytes), "4 KiB");
        assert_eq!(shown(16_384.0, Unit::Microseconds), "16.4 ms");
        assert_eq!(shown(512.5, Unit::Milliseconds), "512 ms");
    }
}
