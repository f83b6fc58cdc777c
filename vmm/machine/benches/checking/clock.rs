//! The clock of the measurements.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Counts the processor time of this thread: what other programs take meanwhile is not counted.
pub struct Stopwatch(Timespec);

impl Stopwatch {
    pub fn start() -> Self {
        Self(clock_gettime(ClockId::ThreadCPUTime))
    }

    pub fn seconds(&self) -> f64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        (now.tv_sec - self.0.tv_sec) as f64 + (now.tv_nsec - self.0.tv_nsec) as f64 * 1e-9
    }
}
