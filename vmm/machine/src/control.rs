//! The one place where a run ends: the first reason counts, all threads are woken and leave. And where it stands still in
//! between: all vCPUs leave the guest and wait, and do what a debugger asks of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;

use super::debug::{Breakpoints, Stop};
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
    pausing: AtomicBool,
    /// Those that stand still when the others go on, a bit each.
    held: AtomicU64,
    pub(crate) breakpoints: Breakpoints,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<RunEnd>,
    kickers: Vec<Arc<Kicker>>,
    registers: Vec<(u8, Registers)>,
    /// Since when it stands still.
    paused: Option<Instant>,
    /// How long it stood still before that.
    stood: Duration,
    tasks: VecDeque<Task>,
    /// Where vCPUs have come to a breakpoint, or to the end of a step, and no debugger has been told yet.
    stops: VecDeque<(u8, Stop)>,
}

impl State {
    /// How long the guest has stood still in all.
    fn stood_until(&self, now: Instant) -> Duration {
        let open = self.paused.map(|since| now.saturating_duration_since(since));
        self.stood.saturating_add(open.unwrap_or_default())
    }
}

/// What the thread of a vCPU is to do with it while it stands still.
pub(crate) struct Task {
    pub(crate) vcpu: u8,
    pub(crate) work: Box<dyn FnOnce(&VcpuFd) + Send>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("vcpu", &self.vcpu).finish_non_exhaustive()
    }
}

impl Control {
    /// Whether the run is over and threads should leave.
    pub(crate) fn ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Registers a vCPU to be kicked at the end; at once if the end has come already.
    pub(crate) fn register(&self, kicker: Arc<Kicker>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ending() || self.pausing.load(Ordering::Acquire) {
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
        self.all_outside()
    }

    /// Has the vCPUs stand still, and waits until no vCPU executes the guest's code any more. It may be called again,
    /// and from any thread, a vCPU's own included while that serves an exit. False as for [`Control::freeze`].
    pub(crate) fn pause(&self) -> bool {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.paused.is_none() && !self.ending() {
                state.paused = Some(Instant::now());
                self.pausing.store(true, Ordering::Release);
                state.kickers.iter().for_each(|kicker| kicker.kick());
                self.changed.notify_all();
            }
        }
        self.all_outside()
    }

    /// A vCPU has come to a breakpoint, or has made its step: all stand still.
    pub(crate) fn stop_at(&self, vcpu: u8, stop: Stop) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.stops.push_back((vcpu, stop));
        }
        self.pause();
    }

    /// The first that has not been taken yet.
    pub(crate) fn take_stop(&self) -> Option<(u8, Stop)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stops.pop_front()
    }

    /// They go on, but for those with a bit in `held`.
    pub(crate) fn resume(&self, held: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = state.paused.take() else { return };
        state.stood = state.stood.saturating_add(since.elapsed());
        self.held.store(held, Ordering::Release);
        self.pausing.store(false, Ordering::Release);
        // Under the lock: an end that comes now finds it taken, and kicks afterwards.
        if !self.ending() {
            let free = state.kickers.iter().zip(0_u8..).filter(|(_, vcpu)| !is_in(held, *vcpu));
            free.for_each(|(kicker, _)| kicker.release());
        }
        self.changed.notify_all();
    }

    /// Whether the machine as a whole is to stand still.
    pub(crate) fn pausing(&self) -> bool {
        self.pausing.load(Ordering::Acquire)
    }

    /// Whether this vCPU is.
    pub(crate) fn stands(&self, vcpu: u8) -> bool {
        self.pausing() || is_in(self.held.load(Ordering::Acquire), vcpu)
    }

    /// How many vCPUs there are.
    pub(crate) fn vcpus(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kickers.len()
    }

    /// Waits on a vCPU's thread as long as it is to stand still, and does what is asked for meanwhile.
    pub(crate) fn park(&self, vcpu: u8, fd: &VcpuFd) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while self.stands(vcpu) && !self.ending() {
            let next = state.tasks.iter().position(|task| task.vcpu == vcpu);
            match next.and_then(|next| state.tasks.remove(next)) {
                Some(task) => {
                    drop(state);
                    (task.work)(fd);
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        // A caller that waits for an answer to these learns that none comes.
        state.tasks.retain(|task| task.vcpu != vcpu);
    }

    /// Asks the thread of a vCPU that stands still.
    pub(crate) fn ask(&self, task: Task) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pausing() && !self.ending() {
            state.tasks.push_back(task);
            self.changed.notify_all();
        }
    }

    fn all_outside(&self) -> bool {
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

    /// Waits for the end, at most until `deadline`, and takes the outcome. `None`: the time is up. While the guest stands
    /// still no time passes.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<RunEnd> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Some(outcome);
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let now = Instant::now();
                    let left = deadline
                        .checked_add(state.stood_until(now))
                        .map_or(FREEZE_LIMIT, |end| end.saturating_duration_since(now));
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Whether `vcpu` has its bit.
fn is_in(bits: u64, vcpu: u8) -> bool {
    bits >> vcpu.min(63) & 1 != 0
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
