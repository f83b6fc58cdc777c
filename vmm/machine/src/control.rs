//! The one place where a run ends: the first reason counts, all threads are woken and leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fault::{Registers, RunEnd};
use super::kick::Kicker;

/// How long a freeze waits for the vCPUs: a host that is busy gets there, one that hangs does not.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How long it waits in between.
const FREEZE_PAUSE: Duration = Duration::from_micros(20);

/// Shared by all threads of a machine.
#[derive(Debug, Default)]
pub(crate) struct Control {
    ending: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<RunEnd>,
    kickers: Vec<Arc<Kicker>>,
    registers: Vec<(u8, Registers)>,
}

impl Control {
    /// Whether the run is over and threads should leave.
    pub(crate) fn ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Registers a vCPU to be kicked at the end; at once if the end has come already.
    pub(crate) fn register(&self, kicker: Arc<Kicker>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ending() {
            kicker.kick();
        }
        state.kickers.push(kicker);
    }

    /// Notes where a vCPU stood when its thread left.
    pub(crate) fn left(&self, vcpu: u8, registers: Registers) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.registers.push((vcpu, registers));
    }

    /// Ends the run. Only the first call's outcome counts. Safe from any thread, also a vCPU's own.
    pub(crate) fn finish(&self, outcome: RunEnd) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.outcome.is_none() && !self.ending() {
            state.outcome = Some(outcome);
            self.ending.store(true, Ordering::Release);
            state.kickers.iter().for_each(|kicker| kicker.kick());
            self.changed.notify_all();
        }
    }

    /// Ends the run, and waits until no vCPU executes the guest's code any more; a thread that serves an exit does not,
    /// and will not again. False: the host did not get one out in time.
    pub(crate) fn freeze(&self, outcome: RunEnd) -> bool {
        self.finish(outcome);
        let kickers = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.kickers.clone()
        };
        let begun = Instant::now();
        while kickers.iter().any(|kicker| kicker.is_inside()) {
            if begun.elapsed() > FREEZE_LIMIT {
                return false;
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
        true
    }

    /// Waits for the end, at most until `deadline`, and takes the outcome. `None`: the time is up.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<RunEnd> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Some(outcome);
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Ends a machine's run from any thread; a signal handler's thread for example. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct StopHandle(pub(crate) Arc<Control>);

impl StopHandle {
    /// Ends the run with [`RunEnd::Stopped`], unless it has ended already.
    pub fn stop(&self) {
        self.0.finish(RunEnd::Stopped);
    }

    /// Ends the run with an outcome of the caller's choice, unless it has ended already.
    pub fn finish(&self, outcome: RunEnd) {
        self.0.finish(outcome);
    }

    /// Ends the run with [`RunEnd::Stopped`], unless it has ended already, and returns when no vCPU executes the guest's
    /// code any more: what happens afterwards the guest does not see. Safe from any thread, also a vCPU's own while it
    /// serves an exit.
    pub fn freeze(&self) {
        if !self.0.freeze(RunEnd::Stopped) {
            log::warn!(
                "a virtual processor did not stop in time: the guest may have gone on for a moment"
            );
        }
    }

    /// Whether the run has ended.
    pub fn ended(&self) -> bool {
        self.0.ending()
    }

    /// Where each vCPU stood when the run ended, by number: what a report on a guest that hung can say. Empty before
    /// the end.
    pub fn registers(&self) -> Vec<(u8, Registers)> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registers = state.registers.clone();
        registers.sort_by_key(|(vcpu, _)| *vcpu);
        registers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn freezing_waits_for_those_that_are_inside_and_for_no_other() {
        let control = Arc::new(Control::default());
        let (busy, idle) = (Arc::new(Kicker::of_nothing()), Arc::new(Kicker::of_nothing()));
        control.register(Arc::clone(&busy));
        control.register(idle);
        let (entered, is_inside) = channel();
        let (leave, may_leave) = channel::<()>();
        let vcpu = thread::spawn(move || {
            busy.inside(|| {
                entered.send(()).unwrap();
                may_leave.recv().unwrap();
            });
        });
        is_inside.recv().unwrap();
        let (frozen, is_frozen) = channel();
        let freezer = {
            let control = Arc::clone(&control);
            thread::spawn(move || frozen.send(control.freeze(RunEnd::Stopped)).unwrap())
        };
        assert!(is_frozen.recv_timeout(Duration::from_millis(50)).is_err(), "it did not wait");
        assert!(control.ending());
        leave.send(()).unwrap();
        assert_eq!(is_frozen.recv_timeout(FREEZE_LIMIT), Ok(true));
        vcpu.join().unwrap();
        freezer.join().unwrap();
    }
}
