//! What redirecting was worth so far, as far as that can be told.

use serde::Serialize;

/// Half of what a round trip of 64 bytes between two pods on one core got shorter: 24.0 to 11.6 us, the first line of the
/// demo's figures in README.md. Both ends share the core and keep it busy, so that its time is processor time. Of all
/// that was measured there it is the least for a message: 11 us at 16 KiB, 41 us in a stream of 64 KiB.
const SECONDS_A_MESSAGE: f64 = (24.0e-6 - 11.6e-6) / 2.0;

const BASIS: &str = "An estimate: 6.2 us for each redirected message, which is half of what a round trip of 64 bytes \
                     between two pods on one core got shorter when Beeline was measured (24.0 to 11.6 us; the demo's \
                     figures in the README, on a virtual machine with two cores of an AMD EPYC and Linux 6.18). Longer \
                     messages save more. Streams of short writes save less, because the kernel path joins them; they are \
                     counted here all the same. Other machines differ: `beeline demo` measures this one.";

/// Processor time that the network stack would have taken.
#[derive(Debug, Clone, Serialize)]
pub struct Gain {
    /// An estimate, in seconds.
    pub cpu_seconds: f64,
    /// What it rests on, and where it is wrong.
    pub basis: &'static str,
}

impl Gain {
    /// By so many redirected messages.
    #[must_use]
    pub fn of(redirected_messages: u64) -> Self {
        Self {
            cpu_seconds: redirected_messages as f64 * SECONDS_A_MESSAGE,
            basis: BASIS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_is_computed() {
        let microseconds = Gain::of(1_000_000).cpu_seconds;
        assert!(BASIS.contains(&format!("{microseconds:.1} us for each")));
    }
}
