//! Reports a test that does not end: otherwise the guest would be killed from outside without a
//! report.

use super::{Case, Kind};
use crate::sys;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one test may take, times what the VMM stretches limits by. The longest one here takes some ten seconds
/// where everything is emulated twice, and the host may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// And one that runs a whole program of another project's, or a stress of ten minutes, likewise.
const LONG_LIMIT: Duration = Duration::from_secs(1500);

/// The group of the long ones.
const STRESS: &str = "stress";

/// Watches tests from a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    factor: u32,
    sender: Option<Sender<(String, Duration)>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Begins to watch. Without a thread (no memory) tests simply go unwatched.
    /// `factor`: what limits are stretched by, for slow kernels and machines. `hang` gets the reason when a
    /// test has not ended in time, and ends the guest.
    pub(super) fn start(factor: u32, hang: fn(&str) -> !) -> Self {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch(receiver, hang))
            .ok();
        Self { factor: factor.max(1), sender: Some(sender), thread }
    }

    /// A test begins, and with it a new limit.
    pub(super) fn test(&self, case: &Case) {
        let is_long = case.kind == Kind::Partner || case.group == STRESS;
        let limit = if is_long { LONG_LIMIT } else { LIMIT };
        let limit = limit.saturating_mul(self.factor);
        if let Some(sender) = &self.sender {
            let _ = sender.send((case.full_name(), limit));
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Hanging up is what ends the thread.
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the thread owns its end of the channel")]
fn watch(receiver: Receiver<(String, Duration)>, hang: fn(&str) -> !) {
    let Ok((mut name, mut limit)) = receiver.recv() else { return };
    loop {
        match receiver.recv_timeout(limit) {
            Ok(next) => (name, limit) = next,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let reason = format!("test {name} has not ended after {} s", limit.as_secs());
                eprintln!("peerdma agent: {reason}; giving up");
                // Where in the kernel it hangs, if it does: needs CONFIG_STACKTRACE, does no harm without.
                // Tests run on the main thread, whose number is the process's.
                if let Ok(stack) =
                    sys::read(format!("/proc/self/task/{}/stack", std::process::id()))
                {
                    eprintln!("{stack}");
                }
                hang(&reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_hang(reason: &str) -> ! {
        panic!("{reason}");
    }

    #[test]
    fn it_ends_with_the_tests() {
        let watchdog = Watchdog::start(1, no_hang);
        watchdog.test(&Case::new("a", "b", Kind::Positive, &[], |_| Ok(())));
        watchdog.test(&Case::new("a", "c", Kind::Partner, &[], |_| Ok(())));
        drop(watchdog);
    }

    #[test]
    fn tests_that_end_in_time_are_left_alone() {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(|| watch(receiver, no_hang));
        sender.send(("a".into(), Duration::from_secs(50))).unwrap();
        drop(sender);
        thread.join().unwrap();
    }
}
