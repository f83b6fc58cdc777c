//! The user's screen, which the guest's output and this program's messages share; while something else is shown there, they
//! wait.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerdma_support::say;

/// Bytes of output that wait at most; the latest ones are kept.
const MAX_WAITING: usize = 256 << 10;
/// How long what covers the screen may take to go.
const UNCOVERED: Duration = Duration::from_secs(2);
/// Messages that wait at most.
const MAX_MESSAGES: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Screen {
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    covered: bool,
    waiting: VecDeque<u8>,
    dropped: usize,
    messages: VecDeque<String>,
}

impl Screen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the guest's output.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if !state.covered {
            drop(state);
            return write_out(bytes);
        }
        state.keep(bytes);
        Ok(())
    }

    /// Prints a message of this program's.
    pub(super) fn say(&self, text: String) {
        let mut state = self.state();
        if !state.covered {
            drop(state);
            say!("{text}");
        } else if state.messages.len() < MAX_MESSAGES {
            state.messages.push_back(text);
        }
    }

    /// Something else is shown for as long as `show` takes.
    pub(super) fn cover<R>(&self, show: impl FnOnce() -> R) -> R {
        self.state().covered = true;
        let result = show();
        let state = std::mem::take(&mut *self.state());
        self.changed.notify_all();
        let (first, second) = state.waiting.as_slices();
        if state.dropped > 0 {
            say!(
                "\n[peerdma] {} bytes of the guest's output were dropped meanwhile",
                state.dropped
            );
        }
        // A screen that is gone is noticed at the next output.
        let _ = write_out(first).and_then(|()| write_out(second));
        state.messages.iter().for_each(|message| say!("{message}"));
        result
    }
}

impl Screen {
    /// Whether what covers the screen is to go.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Has what covers the screen go, and waits for that.
    pub(super) fn uncover(&self) {
        self.over.store(true, Ordering::Release);
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, UNCOVERED, |state| state.covered));
    }
}

impl State {
    fn keep(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        let over = self.waiting.len().saturating_sub(MAX_WAITING);
        self.dropped = self.dropped.saturating_add(over);
        self.waiting.drain(..over);
    }
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_it_is_covered_waits_within_a_bound() {
        let screen = Screen::default();
        screen.cover(|| {
            screen.write(&vec![b'a'; MAX_WAITING]).unwrap();
            screen.write(b"bc").unwrap();
            screen.say("later".into());
            let state = screen.state();
            assert_eq!((state.waiting.len(), state.dropped), (MAX_WAITING, 2));
            assert_eq!(state.waiting.back(), Some(&b'c'));
            assert_eq!(state.messages, ["later"]);
            drop(state);
            // The test's own output stays clean.
            *screen.state() = State::default();
        });
        assert!(!screen.state().covered);
    }
}
