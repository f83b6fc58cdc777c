//! Lets the devices finish, before their results are read.

use device_models::endpoint::Progress;
use device_models::system::System;

use super::lock::PriorityLock;

/// Steps at most, of up to 64 KiB: 256 MiB.
const STEPS: usize = 4096;

/// The devices still had something to do after as many steps as a guest's request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the devices are still at work after {STEPS} steps")]
pub struct StillBusy;

/// Steps until there is nothing to do, ahead of the stepping thread, whose turn might come much later: what has been set off has
/// happened then, and the interrupts are with the guest's processors. Other processors at the system wait for one step at
/// most. `after` sees the system after each step.
///
/// # Errors
/// [`StillBusy`] when it does not end.
pub(super) fn settle(
    lock: &PriorityLock<System>,
    after: impl Fn(&System),
) -> Result<(), StillBusy> {
    let mut left = STEPS;
    while left > 0 {
        let mut system = lock.urgent();
        while left > 0 {
            left -= 1;
            let progress = system.step();
            after(&system);
            if progress == Progress::Idle {
                // What the guest's witness has said until now counts, too.
                system.witness_drain();
                return Ok(());
            }
            if lock.wanted() {
                break;
            }
        }
        drop(system);
        lock.let_others_in();
    }
    Err(StillBusy)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use device_models::endpoint::Endpoint;
    use device_models::fabric::{InterruptSink, Port};
    use device_models::iommu::NoIommu;
    use device_models::pci::{FunctionDescription, ResetKind};
    use device_models::system::{Function, Topology};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    /// A device with work left to do, and how long each step takes it.
    #[derive(Debug)]
    struct Busy(Arc<AtomicUsize>, Duration);

    impl Endpoint for Busy {
        fn description(&self) -> FunctionDescription {
            FunctionDescription::default()
        }

        fn register_read(&mut self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

        fn register_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

        fn step(&mut self, _port: &mut Port<'_>) -> Progress {
            let done = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if done.is_err() {
                return Progress::Idle;
            }
            thread::sleep(self.1);
            Progress::Worked
        }

        fn reset(&mut self, _kind: ResetKind) {}
    }

    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    /// Two devices with work left to do, each step of which takes `pause`.
    fn system(left: &[Arc<AtomicUsize>; 2], pause: Duration) -> PriorityLock<System> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let [one, other] = left.clone().map(|left| Busy(left, pause));
        let places = vec![Function::endpoint(1, "one", one), Function::endpoint(2, "other", other)];
        let system =
            System::new(Topology::of(places), &ram, Box::new(NoIommu), Box::new(NoInterrupts));
        PriorityLock::new(system.unwrap())
    }

    /// What is left after settling.
    fn settled(left: [usize; 2]) -> (Result<(), StillBusy>, [usize; 2]) {
        let left = left.map(|left| Arc::new(AtomicUsize::new(left)));
        let end = settle(&system(&left, Duration::ZERO), |_| {});
        (end, left.map(|left| left.load(Ordering::Relaxed)))
    }

    #[test]
    fn nothing_is_left_to_do() {
        assert_eq!(settled([0, 0]), (Ok(()), [0, 0]));
        assert_eq!(settled([100, 3]), (Ok(()), [0, 0]));
    }

    #[test]
    fn a_device_without_an_end_does_not_hold_the_guest_up() {
        let (end, [_, other]) = settled([usize::MAX, 3]);
        assert_eq!(end, Err(StillBusy));
        assert_eq!(other, 0, "it held up the other device");
    }

    #[test]
    fn other_processors_do_not_wait_for_the_end() {
        const VISITS: usize = 50;
        let left = [STEPS, 0].map(|left| Arc::new(AtomicUsize::new(left)));
        let system = system(&left, Duration::from_micros(100));
        let to_do = || left[0].load(Ordering::Relaxed);
        thread::scope(|scope| {
            let settling = scope.spawn(|| settle(&system, |_| {}));
            while to_do() == STEPS {
                thread::yield_now();
            }
            let before = to_do();
            (0..VISITS).for_each(|_| drop(system.urgent()));
            // One step for each, and as much again for what happens between two of them.
            let steps = before - to_do();
            assert!(steps < STEPS / 4, "{VISITS} visits waited for {steps} steps");
            left[0].store(0, Ordering::Relaxed);
            assert_eq!(settling.join().unwrap(), Ok(()));
        });
    }
}
