//! Ctrl-C and its relatives: owners of what must not outlive the program register how to release
//! it.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code of a program that Ctrl-C ended, as shells have it.
pub const EXIT_CODE: i32 = 130;
/// How long the program may take to wind down by itself before it is ended.
const PATIENCE: Duration = Duration::from_secs(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static QUIT: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);
static HOOKS: Mutex<Hooks> = Mutex::new(Vec::new());

/// What is to be done, each with its number.
type Hooks = Vec<(u64, Box<dyn Fn() + Send>)>;

/// From here on SIGINT, SIGTERM and SIGHUP run the hooks, and end the program if it does not end by itself soon. A
/// second signal ends it at once.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                process::exit(EXIT_CODE);
            }
            run_hooks();
            thread::spawn(|| {
                thread::sleep(PATIENCE);
                run_hooks();
                process::exit(EXIT_CODE);
            });
        }
    })?;
    Ok(())
}

/// Whether the user wants the program to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// The user asked for the end by a key of ours: everything winds down as after a signal, and that is success.
pub fn quit() {
    QUIT.store(true, Ordering::SeqCst);
    INTERRUPTED.store(true, Ordering::SeqCst);
    run_hooks();
}

/// Whether the end came by [`quit`].
pub fn has_quit() -> bool {
    QUIT.load(Ordering::SeqCst)
}

fn hooks() -> MutexGuard<'static, Hooks> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_hooks() {
    // The last one first: what was built on top goes first.
    hooks().iter().rev().for_each(|(_, hook)| hook());
}

/// A hook is in force as long as this lives.
#[derive(Debug)]
pub struct Hook(u64);

impl Hook {
    /// Runs `hook`, on another thread and maybe more than once, when the user wants the program to end.
    pub fn new(hook: impl Fn() + Send + 'static) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        hooks().push((number, Box::new(hook)));
        let this = Self(number);
        if interrupted() {
            run_hooks();
        }
        this
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        hooks().retain(|(number, _)| *number != self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_hook_lives_as_long_as_its_guard() {
        let count = Arc::new(AtomicUsize::new(0));
        let hook = {
            let count = Arc::clone(&count);
            Hook::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
        };
        run_hooks();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(hook);
        run_hooks();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
