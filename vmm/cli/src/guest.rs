//! This program inside a guest: its first process, and `guest-agent` and `peerdmactl` of its command line.
//!
//! Every guest's initramfs holds the program as `/init`, with links from `/bin/guest-agent` and `/bin/peerdmactl`. The
//! name by which it was started decides which. The process number alone would not do: in a
//! container the program may well be process 1.

use std::ffi::OsStr;
use std::path::Path;

use guest_agent::command_line;
use guest_agent::init;
use peerdma_suite::prepare::{AGENT, CTL, INIT};

/// What the program is in a guest.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    /// The guest's first process.
    Init,
    /// A command at the guest's prompt.
    Command,
    /// Transfers by hand, there too.
    Ctl,
}

impl Life {
    /// By the name that the program was started with, and the number of its process.
    fn of(name: Option<&OsStr>, process: u32) -> Option<Self> {
        let path = Path::new(name?);
        if process == 1 && path == Path::new(INIT) {
            return Some(Self::Init);
        }
        match path.file_name()?.to_str()? {
            AGENT => Some(Self::Command),
            CTL => Some(Self::Ctl),
            _ => None,
        }
    }
}

/// Runs the guest, or a command of its agent, and gives the exit status; None anywhere else.
pub(super) fn run() -> Option<u8> {
    let mut arguments = std::env::args_os();
    match Life::of(arguments.next().as_deref(), std::process::id())? {
        Life::Ctl => Some(peerdmactl::run(std::env::args_os())),
        Life::Init => init::run(),
        Life::Command => {
            let text = |argument: std::ffi::OsString| argument.to_string_lossy().into_owned();
            Some(command_line::run(&arguments.map(text).collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_starts_a_guest() {
        let life = |name: &str, process| Life::of(Some(OsStr::new(name)), process);
        assert_eq!(life("/init", 1), Some(Life::Init));
        assert_eq!(life("/init", 2), None);
        // As a container's first process, and as the test host's.
        for name in ["peerdma", "/usr/bin/peerdma", "/peerdma", "", "init", "/sbin/init"] {
            assert_eq!(life(name, 1), None, "{name}");
        }
        for process in [1, 77] {
            assert_eq!(life("guest-agent", process), Some(Life::Command));
            assert_eq!(life("/bin/guest-agent", process), Some(Life::Command));
        }
        assert_eq!(life("/bin/peerdmactl", 77), Some(Life::Ctl));
        assert_eq!(life("/opt/guest-agent/peerdma", 77), None);
        assert_eq!(Life::of(None, 1), None);
    }
}
