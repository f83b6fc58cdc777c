//! How fast the test host's time stamp counter runs: it is this machine's, because QEMU passes the counter through.
//!
//! The test host's kernel can measure that itself, but it does so against timers that QEMU emulates. On a busy machine
//! it comes out wrong, by 0.2 % often, by a factor of 30 now and then, and every time-out in the guest with it.

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the measurement takes. Both ends are known to a microsecond or so: better than 100 parts in a million.
const PERIOD: Duration = Duration::from_millis(20);
/// Frequencies outside of this are a mistake, in kHz.
const PLAUSIBLE: std::ops::RangeInclusive<u128> = 100_000..=20_000_000;

/// The counter's frequency in kHz; `None` when it is unknown.
pub(super) fn tsc_khz() -> Option<u128> {
    let (first, begin) = sample();
    thread::sleep(PERIOD);
    let (last, end) = sample();
    let ticks = u128::from(last.checked_sub(first)?);
    let khz = (ticks * 1_000_000).checked_div(end.duration_since(begin).as_nanos())?;
    PLAUSIBLE.contains(&khz).then_some(khz)
}

/// The counter and the time at the same moment: the closest of a few tries, since we may lose the CPU in any of them.
fn sample() -> (u64, Instant) {
    let look = |_| {
        let before = Instant::now();
        // SAFETY: the instruction reads a counter and has no other effect; every x86-64 processor has it.
        let counter = unsafe { _rdtsc() };
        (before.elapsed(), counter, before)
    };
    let (_, counter, time) =
        (0..16).map(look).min_by_key(|&(gap, ..)| gap).unwrap_or_else(|| look(0));
    (counter, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (tsc_khz().unwrap(), tsc_khz().unwrap());
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two} kHz");
    }
}
