//! Waiting for a condition with a deadline; the only way of waiting in tests.

use std::env;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a poll sleeps at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// By how much deadlines are longer than on an ordinary machine: set where the processor is emulated.
const PATIENCE: &str = "BEELINE_TEST_PATIENCE";

/// A deadline on this machine. Only what fails takes that long.
pub(crate) fn patiently(deadline: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let factor = env::var(PATIENCE).unwrap_or_else(|_| "1".to_owned());
        factor
            .parse()
            .unwrap_or_else(|_| panic!("{PATIENCE}={factor} is not a number"))
    });
    deadline * *FACTOR
}

/// Polls `cond` until it is true.
///
/// # Errors
/// [`Error::Timeout`] naming `what` when `cond` is still false after `deadline`. It is asked at least once, and once
/// more when the time is over.
pub fn wait_for(what: &str, deadline: Duration, mut cond: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, deadline, || cond().then_some(()))
}

/// Polls `value` until it returns something, and returns that.
///
/// # Errors
/// [`Error::Timeout`] naming `what` when there is still nothing after `deadline`.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut value: impl FnMut() -> Option<T>,
) -> Result<T> {
    let (deadline, start) = (patiently(deadline), Instant::now());
    let mut pause = FIRST_PAUSE;
    loop {
        // The clock is read before the question, so that the last question comes after the deadline.
        let over = start.elapsed() >= deadline;
        if let Some(value) = value() {
            return Ok(value);
        }
        if over {
            return Err(Error::Timeout {
                what: what.to_owned(),
                after: deadline,
            });
        }
        thread::sleep(pause.min(deadline.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_what_was_waited_for() {
        let err = wait_for("the moon", Duration::from_millis(5), || false).unwrap_err();
        assert!(
            err.to_string()
                .starts_with("the moon did not happen within 5ms"),
            "{err}"
        );
    }

    #[test]
    fn value_is_returned_once_there() {
        let mut left = 3;
        let value = wait_until("three polls", Duration::from_secs(5), || {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!(value.unwrap(), "done");
    }
}
