//! The processors, as places where handlers of interrupts run.

use rustix::io;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// An interrupt that is pending at one processor may wake its handler's thread on another that was visited before.
const ROUNDS: usize = 2;

/// Returns once the handlers of all interrupts that are pending now have run, and their threads, unless those sleep.
///
/// Whoever runs on a processor runs after the interrupts that are pending there, and after threads of a higher priority,
/// as those of interrupts are: so the caller visits every processor. Without the permission it does nothing, like the
/// rest of what a test does for a tidy log.
pub fn let_handlers_finish() {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    for _ in 0..ROUNDS {
        for processor in (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number)) {
            // One that has gone meanwhile handles nothing.
            let _: io::Result<()> = visit(processor);
        }
    }
    let _: io::Result<()> = sched_setaffinity(None, &allowed);
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
    fn a_visitor_runs_there() {
        let before = sched_getaffinity(None).unwrap();
        for processor in (0..CpuSet::MAX_CPU).filter(|number| before.is_set(*number)) {
            visit(processor).unwrap();
            assert_eq!(rustix::thread::sched_getcpu(), processor);
        }
        sched_setaffinity(None, &before).unwrap();
    }
}
