//! Time limits that suit machines of any speed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How many times slower than usual this machine may be.
static FACTOR: AtomicU32 = AtomicU32::new(1);

/// Multiplies all limits from here on; 0 counts as 1.
pub fn stretch(factor: u32) {
    FACTOR.store(factor.max(1), Ordering::Relaxed);
}

/// `limit` as it is on this machine.
pub fn stretched(limit: Duration) -> Duration {
    limit.saturating_mul(FACTOR.load(Ordering::Relaxed))
}

/// Waits until `condition` holds, [`stretched`] `limit` at most; whether it does.
///
/// # Errors
/// Those of `condition`, which end it.
pub fn await_that<E>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    const PAUSE: Duration = Duration::from_millis(2);
    let end = Instant::now() + stretched(limit);
    while !condition()? {
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// The only test that looks at the factor, which all threads share.
    #[test]
    fn limits_are_stretched_by_the_factor() {
        let second = Duration::from_secs(1);
        for (factor, expected) in [(3, 3 * second), (0, second), (1, second)] {
            stretch(factor);
            assert_eq!(stretched(second), expected, "{factor}");
        }
    }

    #[test]
    fn waiting_ends_with_the_condition_or_the_limit() {
        let mut calls = 0;
        let third = || -> Result<bool, Infallible> {
            calls += 1;
            Ok(calls == 3)
        };
        assert_eq!(await_that(Duration::from_secs(3600), third), Ok(true));
        assert_eq!(calls, 3);
        assert_eq!(await_that(Duration::ZERO, || Ok::<_, Infallible>(false)), Ok(false));
        assert_eq!(await_that(Duration::from_secs(3600), || Err(7)), Err(7));
    }
}
