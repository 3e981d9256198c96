//! Figures and names in little room.

use crate::cli::output::digits;
use crate::observe::rates::Trend;
use crate::observe::route::Route;

/// From little to much.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last values as bars, the largest one as the highest; nothing is a blank.
pub(super) fn bars(trend: &Trend, width: usize) -> String {
    let shown = || trend.iter().skip(trend.len().saturating_sub(width));
    let most = shown().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| match (value * 8).div_ceil(most) {
        0 => ' ',
        eighths => BARS[eighths as usize - 1],
    };
    shown().map(bar).collect()
}

/// Bytes in at most eight characters.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// A number in at most five characters.
pub(super) fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value.round() >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let number = if unit == 0 {
        format!("{value:.0}")
    } else {
        digits(value)
    };
    format!("{number}{}", units[unit])
}

/// The largest unit of a time.
pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Both directions, the client's first.
pub(super) fn paths(client: Route, server: Route) -> String {
    if client == server {
        client.name().into()
    } else {
        format!("{client}/{server}")
    }
}

/// As much of a name as there is room for, and all of its ending.
pub(super) fn fit(name: &str, ending: &str, width: usize) -> String {
    let room = width.saturating_sub(ending.chars().count());
    if name.chars().count() <= room {
        return format!("{name}{ending}");
    }
    let start: String = name.chars().take(room.saturating_sub(1)).collect();
    format!("{start}…{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit() {
        let values = [0.0, 9.4, 1023.0, 1024.0, 10_000.0, 1e6, 5e9, 3e12];
        let shown = values.map(bytes);
        let expected = [
            "0 B", "9 B", "1023 B", "1.00 KiB", "9.77 KiB", "977 KiB", "4.66 GiB", "2.73 TiB",
        ];
        assert_eq!(shown, expected);
        assert!(
            (0..1 << 20)
                .step_by(97)
                .all(|n| bytes(f64::from(n)).len() <= 8)
        );
        assert_eq!(
            [0.4, 999.0, 1000.0, 123_456.0].map(count),
            ["0", "999", "1.00k", "123k"]
        );
    }

    #[test]
    fn bars_show_the_last_values_to_scale() {
        let trend = Trend::from([9, 0, 1, 4, 8]);
        assert_eq!(bars(&trend, 4), " ▁▄█");
        assert_eq!(bars(&Trend::from([0, 8, 4]), 9), " █▄");
        assert_eq!(bars(&Trend::from([0, 0]), 9), "  ");
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        assert_eq!(fit("nginx", ":80", 8), "nginx:80");
        assert_eq!(fit("nginx[123]", ":80", 8), "ngin…:80");
        assert_eq!(fit("nginx", ":65535", 3), "…:65535");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(
            [0.9, 61.0, 7200.0, 200_000.0].map(age),
            ["0s", "1m", "2h", "2d"]
        );
    }
}
