//! Child processes that have ended.

use rustix::process::{WaitOptions, wait};

/// Collects every child that has ended, ours or an orphan's; returns the status of `wanted` if it was among them,
/// as a shell counts: 128 and the signal's number when a signal killed it.
pub fn reap(wanted: Option<i32>) -> Option<u8> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid.as_raw_nonzero().get()) == wanted {
            let code = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            ended = Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
    ended
}
