//! How long work reports its progress, and learns that the user has cancelled it.

use std::fmt::Debug;
use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use peerdma_support::say;

/// Takes reports of long work. Work runs in phases, one after the other.
pub trait Progress: Debug + Sync {
    /// A new phase begins. `total` is the number of steps it will take, where that is known or well guessed.
    fn phase(&self, title: &str, total: Option<u64>);

    /// `done` steps of the current phase have been taken since it began. It may exceed the guessed total.
    fn advance(&self, done: u64);

    /// A line worth keeping: which version was chosen, what is being waited for.
    fn note(&self, line: &str);

    /// True once the user wants the work to end. Long work asks several times a second.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _title: &str, _total: Option<u64>) {}
    fn advance(&self, _done: u64) {}
    fn note(&self, _line: &str) {}
}

/// What suits standard error: a bar on a terminal, now and then a line elsewhere.
pub fn for_stderr() -> Box<dyn Progress> {
    if stderr().is_terminal() {
        Box::new(Bar::new())
    } else {
        Box::new(Lines::every(Duration::from_secs(20)))
    }
}

/// A progress bar on standard error.
#[derive(Debug)]
pub struct Bar(Mutex<ProgressBar>);

impl Bar {
    /// A bar that appears with the first phase.
    pub fn new() -> Self {
        Self(Mutex::new(ProgressBar::hidden()))
    }

    fn with<R>(&self, work: impl FnOnce(&mut ProgressBar) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.with(|bar| bar.finish_and_clear());
    }
}

impl Progress for Bar {
    fn phase(&self, title: &str, total: Option<u64>) {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {percent:>3} % {elapsed}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        };
        // The templates are constants: should one ever be wrong, the crate's own style serves as well.
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with(|current| {
            current.finish_and_clear();
            *current = bar;
        });
    }

    fn advance(&self, done: u64) {
        self.with(|bar| {
            // A guessed total may be a little short: hold at the end rather than start again.
            let limit = bar.length().unwrap_or(u64::MAX);
            bar.set_position(done.min(limit));
        });
    }

    fn note(&self, line: &str) {
        self.with(|bar| bar.suspend(|| say!("{line}")));
    }
}

/// A line on standard error when a phase begins, and then at most one in each interval.
#[derive(Debug)]
pub struct Lines {
    every: Duration,
    state: Mutex<LinesState>,
}

#[derive(Debug)]
struct LinesState {
    title: String,
    total: Option<u64>,
    begun: Instant,
    said: Instant,
}

impl Lines {
    /// Lines at least `every` apart.
    pub fn every(every: Duration) -> Self {
        let now = Instant::now();
        let state = LinesState { title: String::new(), total: None, begun: now, said: now };
        Self { every, state: Mutex::new(state) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut LinesState) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl LinesState {
    fn line(&self, done: u64) -> String {
        let seconds = self.begun.elapsed().as_secs();
        match self.total {
            Some(total) if total > 0 => {
                let percent = done.min(total).saturating_mul(100) / total;
                format!("{}: {percent} % ({done} of about {total}) after {seconds} s", self.title)
            }
            _ => format!("{}: {done} done after {seconds} s", self.title),
        }
    }
}

impl Progress for Lines {
    fn phase(&self, title: &str, total: Option<u64>) {
        let now = Instant::now();
        self.with(|state| {
            *state = LinesState { title: title.to_owned(), total, begun: now, said: now }
        });
        say!("{title} ...");
    }

    fn advance(&self, done: u64) {
        self.with(|state| {
            if state.said.elapsed() >= self.every {
                state.said = Instant::now();
                say!("{}", state.line(done));
            }
        });
    }

    fn note(&self, line: &str) {
        say!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(total: Option<u64>) -> LinesState {
        let now = Instant::now();
        LinesState { title: "compiling".to_owned(), total, begun: now, said: now }
    }

    #[test]
    fn a_line_never_claims_more_than_all() {
        assert_eq!(state(Some(100)).line(120), "compiling: 100 % (120 of about 100) after 0 s");
        assert_eq!(state(Some(3)).line(1), "compiling: 33 % (1 of about 3) after 0 s");
    }

    #[test]
    fn an_unknown_or_empty_total_is_not_a_division() {
        assert_eq!(state(None).line(7), "compiling: 7 done after 0 s");
        assert_eq!(state(Some(0)).line(7), "compiling: 7 done after 0 s");
    }
}
