//! The processors, as places where handlers of interrupts run.

use super::patience::await_that;
use rustix::io;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

/// An interrupt that is pending at one processor may wake its handler's thread on another that was visited before.
const ROUNDS: usize = 2;

/// How long their threads may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns once the handlers of all interrupts that are pending now have run.
///
/// A thread that runs on a processor runs after the interrupts that are pending there, and after
/// threads of a higher priority, as those of interrupts are: so the caller visits every processor.
/// Without the permission it does nothing, like the rest of what a test does for a tidy log.
pub fn let_handlers_run() {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    for _ in 0..ROUNDS {
        for processor in (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number)) {
            // One that has gone meanwhile handles nothing.
            let _: io::Result<()> = visit(processor);
        }
    }
    let _: io::Result<()> = sched_setaffinity(None, &allowed);
}

/// Returns once they have finished, too: some have threads of their own, which sleep on the way, for a lock or for what
/// a device needs to recover.
pub fn let_handlers_finish() {
    let_handlers_run();
    // A processor that handles interrupts without an end has a reason; the test that waits here
    // goes on.
    let _: Result<bool, Infallible> = await_that(PATIENCE, || Ok(handlers_are_at_rest()));
}

/// Whether all threads of interrupts wait for their next one.
fn handlers_are_at_rest() -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    processes.flatten().all(|process| {
        let is_process =
            process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        // One that has ended meanwhile is at rest.
        !is_process
            || fs::read_to_string(process.path().join("stat")).map_or(true, |stat| rests(&stat))
    })
}

/// By what `/proc/PID/stat` says: the name in parentheses, then the state. Between interrupts such a thread sleeps
/// interruptibly (S); waiting for a lock or for time to pass it does not (D).
fn rests(stat: &str) -> bool {
    let Some((name, state)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "))
    else {
        return true;
    };
    !name.starts_with("irq/") || state.starts_with('S')
}

/// Returns on `processor`.
fn visit(processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_run_where_it_might_before() {
        let before = sched_getaffinity(None).unwrap();
        let_handlers_finish();
        assert!(sched_getaffinity(None).unwrap() == before);
    }

    #[test]
    fn only_threads_of_interrupts_keep_one_waiting() {
        for (stat, at_rest) in [
            ("57 (irq/26-aerdrv) S 2 0 0", true),
            ("57 (irq/26-aerdrv) D 2 0 0", false),
            ("57 (irq/26-aerdrv) R 2 0 0", false),
            ("58 (irq/27-a) S) R 2 0 0", false),
            ("1 (guest-agent) R 0 1", true),
            ("", true),
        ] {
            assert_eq!(rests(stat), at_rest, "{stat}");
        }
    }

    #[test]
    fn a_visitor_runs_there() {
        let before = sched_getaffinity(None).unwrap();
        for processor in (0..CpuSet::MAX_CPU).filter(|number| before.is_set(*number)) {
            visit(processor).unwrap();
            assert_eq!(rustix::thread::sched_getcpu(), processor);
        }
        sched_setaffinity(None, &before).unwrap();
    }
}
