//! Wakes the stepping thread: any thread rings, one waits. `make loom` tries every interleaving.

use super::sync::{AtomicBool, Condvar, Mutex, Ordering, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Something may be to do. Read without the lock, so that ringing a bell that rings costs nothing.
    rung: AtomicBool,
    over: AtomicBool,
    /// Rings wait until it is let go.
    held: AtomicBool,
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

    /// Nothing more will have to be done.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.rung.store(false, Ordering::Release);
        self.ring();
    }

    /// Waits for the next ring; `false`: it is over.
    pub(super) fn wait(&self) -> bool {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // The end may be rung between the last look at `over` and `clear`, which takes the ring away.
        while (!self.rung.load(Ordering::Acquire) || self.is_held()) && !self.is_over() {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        !self.is_over()
    }

    /// From here on a ring counts as a new one.
    pub(super) fn clear(&self) {
        // Not a mere store: a ring that finds the bell rung still has to show what it was rung for.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Whether [`Bell::end`] has been called.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Nothing is to be done until [`Bell::let_go`].
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// What was rung for while it was held is to be done now.
    pub(super) fn let_go(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.held.store(false, Ordering::Release);
        // The stepping thread may have cleared a ring and then found the bell held.
        self.rung.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether work has to wait, or is over.
    pub(super) fn rests(&self) -> bool {
        self.is_held() || self.is_over()
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
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
        bell.hold();
        assert!(!bell.wait(), "the end counts while it is held");
        bell.clear();
        assert!(!bell.wait(), "an end that was rung too early to be heard still counts");
    }
}

#[cfg(all(test, not(loom)))]
mod hold_tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_ring_waits_while_the_bell_is_held() {
        let bell = Arc::new(Bell::default());
        bell.hold();
        bell.ring();
        let (sender, receiver) = channel();
        let waiter = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || sender.send(bell.wait()).is_ok())
        };
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
        bell.let_go();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
        waiter.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::model;
    use loom::model::Builder;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// Waits as the stepping thread does, until `work` has reached `goal` or the bell's end.
    fn serve(bell: &Bell, work: &AtomicUsize, goal: usize) -> usize {
        let mut seen = 0;
        while bell.wait() {
            bell.clear();
            seen = work.load(Ordering::Relaxed);
            if seen >= goal {
                break;
            }
        }
        seen
    }

    #[test]
    fn no_ring_is_lost() {
        model(|| {
            let (bell, work) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
            let server = {
                let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                thread::spawn(move || serve(&bell, &work, 2))
            };
            for _ in 0..2 {
                work.fetch_add(1, Ordering::Relaxed);
                bell.ring();
            }
            assert_eq!(server.join().unwrap(), 2);
        });
    }

    #[test]
    fn rings_of_two_threads_are_heard() {
        model(|| {
            let (bell, work) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
            let ringer = {
                let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                thread::spawn(move || {
                    work.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                })
            };
            let server = {
                let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                thread::spawn(move || serve(&bell, &work, 2))
            };
            work.fetch_add(1, Ordering::Relaxed);
            bell.ring();
            ringer.join().unwrap();
            assert_eq!(server.join().unwrap(), 2);
        });
    }

    #[test]
    fn work_that_a_hold_interrupted_is_taken_up_again() {
        model(|| {
            let (bell, work) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
            let server = {
                let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                thread::spawn(move || {
                    while bell.wait() {
                        bell.clear();
                        if !bell.rests() && work.load(Ordering::Relaxed) == 1 {
                            return;
                        }
                    }
                })
            };
            work.fetch_add(1, Ordering::Relaxed);
            bell.ring();
            bell.hold();
            bell.let_go();
            server.join().unwrap();
        });
    }

    #[test]
    fn the_end_is_heard_whatever_is_rung_beside_it() {
        // All interleavings with three preemptions at most: without a bound they take minutes.
        let mut bounded = Builder::new();
        bounded.preemption_bound = Some(3);
        bounded.check(|| {
            let bell = Arc::new(Bell::default());
            let work = Arc::new(AtomicUsize::new(0));
            let server = {
                let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                // Without a goal: only the end lets it go.
                thread::spawn(move || serve(&bell, &work, usize::MAX))
            };
            let ringer = {
                let bell = Arc::clone(&bell);
                thread::spawn(move || bell.ring())
            };
            bell.end();
            ringer.join().unwrap();
            server.join().unwrap();
        });
    }
}
