//! Ending the guest, whatever state it is in.

use super::console;
use crate::exit;
use crate::vmm::{PortWire, Vmm};
use rustix::system::{RebootCommand, reboot};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when this process is the first of its system: only then does its end end the system.
static FIRST: AtomicBool = AtomicBool::new(false);

/// What stands on the console when its last characters may be missing; `ci/examples.sh` looks for it.
const UNDRAINED: &str = "guest-agent: the console may not have sent all that was written";

/// From here on [`end`] ends the whole guest.
pub(crate) fn own_the_system() {
    FIRST.store(true, Ordering::Relaxed);
}

/// Ends the guest because a test does not end.
pub(crate) fn hang(reason: &str) -> ! {
    end(exit::HANG, Some(reason))
}

/// Ends the guest with `code`: through the protocol port, else by powering off (then only the console shows
/// the code). `reason` is why the agent gives up; none when it has done its work. In a process that
/// is not the first, ends just the process.
pub(crate) fn end(code: u8, reason: Option<&str>) -> ! {
    if !FIRST.load(Ordering::Relaxed) {
        std::process::exit(i32::from(code));
    }
    // The console's driver still has characters to send; without this the last and most interesting ones are lost.
    if let Err(error) = console::drain() {
        println!("{UNDRAINED}: {error}");
    }
    // A fresh wire: this may be a panic in the middle of another conversation.
    if let Ok(wire) = PortWire::open() {
        let _ = Vmm::new(Box::new(wire)).exit(code, reason);
    }
    rustix::fs::sync();
    for how in [RebootCommand::PowerOff, RebootCommand::Halt] {
        // Does not return when it works.
        let _ = reboot(how);
    }
    // The first process must never return; if nothing ends the machine, the VMM's watchdog does.
    loop {
        std::thread::park();
    }
}
