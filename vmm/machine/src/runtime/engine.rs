//! The thread that steps the lab.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use device_models::endpoint::Progress;
use device_models::system::System;

use super::lock::PriorityLock;
use crate::jitter::Jitter;

/// Wakes the engine.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Something may be to do. Read without the lock, so that ringing a bell that rings costs nothing.
    rung: AtomicBool,
    over: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Bell {
    /// There may be something to do.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.changed.notify_one();
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.rung.store(false, Ordering::Release);
        self.ring();
    }

    /// Waits for the next ring; `false`: it is over.
    fn wait(&self) -> bool {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // The end may be rung between the last look at `over` and `clear`, which takes the ring away.
        while !self.rung.load(Ordering::Acquire) && !self.over.load(Ordering::Acquire) {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        !self.over.load(Ordering::Acquire)
    }

    /// From here on a ring counts as a new one.
    fn clear(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

/// Steps a lab on a thread of its own, as long as this lives.
#[derive(Debug)]
pub struct Engine {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start(
        lab: Arc<PriorityLock<System>>,
        bell: Arc<Bell>,
        after: impl Fn(&System) + Send + 'static,
        mut jitter: Option<Jitter>,
    ) -> io::Result<Self> {
        let thread = {
            let bell = Arc::clone(&bell);
            thread::Builder::new().name("lab-engine".into()).spawn(move || {
                while bell.wait() {
                    // Before the work, not after: a ring meanwhile means one more round.
                    bell.clear();
                    while !bell.over.load(Ordering::Acquire) {
                        if turn(&lab, &after, jitter.as_mut()) == Progress::Idle {
                            break;
                        }
                    }
                }
            })?
        };
        Ok(Self { bell, thread: Some(thread) })
    }
}

/// Steps until there is nothing to do or somebody urgent wants the lock: one step more at most, which is 64 KiB. With
/// jitter one step, which may be late.
fn turn(
    lab: &PriorityLock<System>,
    after: &impl Fn(&System),
    jitter: Option<&mut Jitter>,
) -> Progress {
    let single = jitter.is_some();
    if let Some(jitter) = jitter {
        jitter.moment();
    }
    let mut lab = lab.background();
    loop {
        let progress = lab.step();
        after(&lab);
        if progress == Progress::Idle || single || lab.wanted() {
            return progress;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.bell.end();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the guest noticed that its devices stopped.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bell_rung_before_the_wait_is_heard() {
        let bell = Arc::new(Bell::default());
        bell.ring();
        bell.ring();
        assert!(bell.wait());
        bell.clear();
        let (sender, receiver) = channel();
        let waiter = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || sender.send(bell.wait()).is_ok())
        };
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
        bell.ring();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
        waiter.join().unwrap();
        bell.end();
        assert!(!bell.wait());
        bell.clear();
        assert!(!bell.wait(), "an end that was rung too early to be heard still counts");
    }
}
