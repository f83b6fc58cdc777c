//! The thread that steps the system.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use device_models::endpoint::Progress;
use device_models::system::System;

use super::bell::Bell;
use super::lock::PriorityLock;
use crate::jitter::Jitter;

/// Steps a system on a thread of its own, as long as this lives.
#[derive(Debug)]
pub struct Stepper {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Stepper {
    pub(super) fn start(
        system: Arc<PriorityLock<System>>,
        bell: Arc<Bell>,
        after: impl Fn(&System) + Send + 'static,
        mut jitter: Option<Jitter>,
    ) -> io::Result<Self> {
        let thread = {
            let bell = Arc::clone(&bell);
            thread::Builder::new().name("stepper".into()).spawn(move || {
                while bell.wait() {
                    // Before the work, not after: a ring meanwhile means one more round.
                    bell.clear();
                    while !bell.rests() {
                        let rests = || bell.rests();
                        if turn(&system, &after, &rests, jitter.as_mut()) == Progress::Idle {
                            break;
                        }
                    }
                }
            })?
        };
        Ok(Self { bell, thread: Some(thread) })
    }
}

/// Steps until there is nothing to do, it is over or held, or an urgent user wants the lock: one step more
/// at most, which is 64 KiB. With jitter one step, which may be late.
fn turn(
    system: &PriorityLock<System>,
    after: &impl Fn(&System),
    rests: &impl Fn() -> bool,
    jitter: Option<&mut Jitter>,
) -> Progress {
    let single = jitter.is_some();
    if let Some(jitter) = jitter {
        jitter.moment();
    }
    let mut system = system.background();
    // A thread that holds the bell and then has had the lock finds that nothing moves any more.
    if rests() {
        return Progress::Worked;
    }
    loop {
        let progress = system.step();
        after(&system);
        if progress == Progress::Idle || single || rests() || system.wanted() {
            return progress;
        }
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        self.bell.end();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the guest noticed that its devices stopped.
            drop(thread.join());
        }
    }
}
