//! A lock with two kinds of users: the guest's CPUs, which must not wait, and the stepping thread, which always wants it.
//! `make loom` tries every interleaving.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, yield_now};

/// See the module. An urgent user waits for the holder at most, never for another turn of the background user.
pub struct PriorityLock<T> {
    /// Urgent users that wait.
    waiting: AtomicUsize,
    value: Mutex<T>,
}

impl<T> fmt::Debug for PriorityLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityLock").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// Held by an urgent user.
pub type Urgent<'a, T> = MutexGuard<'a, T>;

/// Held by the background user, which asks it now and then whether to let go.
#[derive(Debug)]
pub struct Background<'a, T> {
    lock: &'a PriorityLock<T>,
    guard: MutexGuard<'a, T>,
}

impl<T> PriorityLock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Self { waiting: AtomicUsize::new(0), value: Mutex::new(value) }
    }

    /// Takes the lock ahead of the background user.
    ///
    /// A thread that panicked while it held the lock does not lock out the others: every access leaves the value
    /// consistent, and the panic is reported where it happened.
    pub fn urgent(&self) -> Urgent<'_, T> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let guard = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        guard
    }

    /// Takes the lock once no urgent user waits for it.
    pub fn background(&self) -> Background<'_, T> {
        self.let_others_in();
        Background { lock: self, guard: self.value.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// For a user that has just let go of the lock and wants it again: a mutex that is taken again
    /// at once goes to the same thread most of the time.
    pub(super) fn let_others_in(&self) {
        while self.wanted() {
            yield_now();
        }
    }

    /// Whether an urgent user waits.
    pub(super) fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

impl<T> Background<'_, T> {
    /// Whether an urgent user waits.
    pub fn wanted(&self) -> bool {
        self.lock.wanted()
    }
}

impl<T> Deref for Background<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Background<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn an_urgent_user_does_not_wait_for_a_busy_background() {
        let lock = Arc::new(PriorityLock::new(0_u64));
        let stop = Arc::new(AtomicBool::new(false));
        let background = {
            let (lock, stop) = (Arc::clone(&lock), Arc::clone(&stop));
            thread::spawn(move || {
                let mut turns = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let mut guard = lock.background();
                    while !guard.wanted() && !stop.load(Ordering::Relaxed) {
                        *guard += 1;
                    }
                    turns += 1;
                }
                turns
            })
        };
        // Not before it is at it.
        while *lock.urgent() == 0 {
            thread::yield_now();
        }
        // Each of these would wait for ever if the background did not see it coming.
        for _ in 0..200 {
            drop(lock.urgent());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(background.join().unwrap() > 0);
        assert_eq!(lock.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panic_does_not_lock_the_others_out() {
        let lock = Arc::new(PriorityLock::new(1));
        let other = Arc::clone(&lock);
        let result = thread::spawn(move || {
            let _guard = other.urgent();
            panic!("on purpose");
        })
        .join();
        assert!(result.is_err());
        assert_eq!(*lock.urgent(), 1);
        assert_eq!(*lock.background(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::model;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn one_user_at_a_time_and_none_is_left_waiting() {
        model(|| {
            let lock = Arc::new(PriorityLock::new(0));
            let urgent = {
                let lock = Arc::clone(&lock);
                thread::spawn(move || *lock.urgent() += 1)
            };
            let background = {
                let lock = Arc::clone(&lock);
                thread::spawn(move || *lock.background() += 1)
            };
            *lock.urgent() += 1;
            urgent.join().unwrap();
            background.join().unwrap();
            assert_eq!(*lock.urgent(), 3);
            assert!(!lock.wanted());
        });
    }

    /// A background user that does not stop by itself lets an urgent one in.
    #[test]
    fn a_background_user_notices_that_the_lock_is_wanted() {
        model(|| {
            let lock = Arc::new(PriorityLock::new(0));
            let background = {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    let guard = lock.background();
                    while *guard == 0 && !guard.wanted() {
                        yield_now();
                    }
                })
            };
            *lock.urgent() += 1;
            background.join().unwrap();
            assert!(!lock.wanted());
        });
    }
}
