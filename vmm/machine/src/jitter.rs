//! Timing that a driver cannot count on: threads of the machine that stall at random moments, as
//! they do when the host gives its processors to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peerdma_support::random::next;

/// One in this many moments is a short stall, ...
const SHORT_IN: u64 = 32;
/// ... of less than this many microseconds.
const SHORT: u64 = 1 << 14;
/// One in this many is a long one, ...
const LONG_IN: u64 = 1024;
/// ... of this many milliseconds.
const LONG: std::ops::Range<u64> = 50..300;

/// Whose moments they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Those of the thread that steps the devices: one for each step.
    Devices,
    /// Those of a virtual processor: one for each exit from the guest.
    Processor(u8),
}

/// Stalls of all threads of one machine under one seed, and how many there have been.
#[derive(Debug, Clone)]
pub struct Stalls {
    seed: u64,
    devices: Arc<AtomicU64>,
    processors: Arc<AtomicU64>,
}

impl Stalls {
    /// None yet.
    pub fn of(seed: u64) -> Self {
        Self { seed, devices: Arc::default(), processors: Arc::default() }
    }

    /// Those of one thread.
    pub fn stream(&self, stream: Stream) -> Jitter {
        let (number, count) = match stream {
            Stream::Devices => (0, &self.devices),
            Stream::Processor(index) => (1 + u64::from(index), &self.processors),
        };
        let mut state = self.seed;
        // Seeds and streams are small numbers: mixed, they have nothing in common.
        let state = next(&mut state) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Jitter { state, count: Arc::clone(count) }
    }

    /// How often the devices' thread has stood still.
    pub fn of_devices(&self) -> u64 {
        self.devices.load(Ordering::Relaxed)
    }

    /// How often processors have.
    pub fn of_processors(&self) -> u64 {
        self.processors.load(Ordering::Relaxed)
    }
}

/// Decides at which moments a thread stands still, and for how long.
///
/// The same seed gives the same stalls, but not the same run: which moment meets which access is up to the host.
#[derive(Debug)]
pub struct Jitter {
    state: u64,
    count: Arc<AtomicU64>,
}

impl Jitter {
    /// A moment; stands still if it is one of those.
    pub fn moment(&mut self) {
        if let Some(stall) = self.draw() {
            self.count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(stall);
        }
    }

    fn draw(&mut self) -> Option<Duration> {
        let number = next(&mut self.state);
        let length = number >> 32;
        if number.is_multiple_of(LONG_IN) {
            Some(Duration::from_millis(LONG.start + length % (LONG.end - LONG.start)))
        } else if number.is_multiple_of(SHORT_IN) {
            Some(Duration::from_micros(length % SHORT))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalls(seed: u64, stream: Stream) -> Vec<(usize, Duration)> {
        let mut jitter = Stalls::of(seed).stream(stream);
        (0..20_000).filter_map(|moment| Some((moment, jitter.draw()?))).collect()
    }

    #[test]
    fn a_seed_has_its_own_stalls_for_each_stream() {
        let devices = stalls(7, Stream::Devices);
        assert_eq!(devices, stalls(7, Stream::Devices));
        for other in [
            stalls(8, Stream::Devices),
            stalls(7, Stream::Processor(0)),
            stalls(7, Stream::Processor(1)),
        ] {
            let common = devices.iter().filter(|stall| other.contains(stall)).count();
            assert!(common < devices.len() / 20, "{common} of {}", devices.len());
        }
    }

    #[test]
    fn stalls_are_counted() {
        let stalls = Stalls::of(3);
        let mut devices = stalls.stream(Stream::Devices);
        (0..100).for_each(|_| devices.moment());
        assert!(stalls.of_devices() > 0 && stalls.of_processors() == 0, "{stalls:?}");
        let mut processor = stalls.stream(Stream::Processor(1));
        (0..100).for_each(|_| processor.moment());
        assert!(stalls.of_processors() > 0, "{stalls:?}");
    }

    #[test]
    fn stalls_are_as_frequent_and_as_long_as_they_should_be() {
        for seed in [0, 1, u64::MAX] {
            let stalls = stalls(seed, Stream::Devices);
            assert!((500..800).contains(&stalls.len()), "{}", stalls.len());
            let long = stalls.iter().filter(|(_, stall)| *stall >= Duration::from_millis(50));
            assert!((5..60).contains(&long.count()));
            assert!(stalls.iter().all(|(_, stall)| *stall < Duration::from_millis(300)));
        }
    }
}
