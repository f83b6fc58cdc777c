//! Running the user's program as the first process of a system: its end, orphans, and requests to power off.

use super::console;
use crate::exit::{self, Failure};
use crate::lab::Hello;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The signals that the first process waits for: a child's end, and what `poweroff`, `halt` and `reboot` of busybox send.
const SIGNALS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM];

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program ended with this status, as a shell counts: 128 and the signal's number when a signal killed it.
    Status(u8),
    /// Somebody asked for the system to go down first.
    Asked,
}

/// Runs `argv` on the console until it ends, reaping every orphan meanwhile. `started` is called when nothing is left to
/// do but that: not afterwards, since the command may end the guest at once.
///
/// # Errors
/// When it cannot be started; the code says whether it was not found or not executable.
pub(crate) fn run(
    argv: &[String],
    hello: &Hello,
    started: impl FnOnce() -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Failure::new(exit::NOT_FOUND, "there is no command to run"))?;
    block_signals().map_err(|error| {
        Failure::new(exit::PROCESS, format!("blocking signals failed: {error}"))
    })?;

    let mut command = Command::new(program);
    command.args(arguments).env("PATH", super::PATH).env("HOME", "/root").env("TERM", "vt100");
    for variable in &hello.environment {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    if std::env::set_current_dir("/root").is_err() {
        // A minimal initramfs has no home directory; the root directory will do.
        let _ = std::env::set_current_dir("/");
    }
    attach_terminal(&mut command, hello);
    started()?;
    let child = command.spawn().map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound {
            exit::NOT_FOUND
        } else {
            exit::NOT_EXECUTABLE
        };
        Failure::new(code, format!("running {program} failed: {error}"))
    })?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    wait_for(pid).map_err(|error| {
        Failure::new(exit::PROCESS, format!("waiting for {program} failed: {error}"))
    })
}

/// Puts the command on the serial console's terminal, as its controlling terminal. Without a terminal it inherits our
/// streams, which is enough for everything but job control.
fn attach_terminal(command: &mut Command, hello: &Hello) {
    let Ok(terminal) = console::open_terminal() else { return };
    if let (Some(rows), Some(columns)) = (hello.rows, hello.columns) {
        console::set_size(&terminal, rows, columns);
    }
    // Without a controlling terminal the program still runs; it only cannot be interrupted by Ctrl-C.
    let _ = console::lead(&terminal);
    let (Ok(output), Ok(error)) = (terminal.try_clone(), terminal.try_clone()) else { return };
    command.stdin(Stdio::from(terminal)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
    // SAFETY: between fork and exec only system calls are made, on the standard input that was just set up.
    unsafe {
        command.pre_exec(|| {
            let _ = console::to_foreground(io::stdin().as_raw_fd());
            Ok(())
        });
    }
}

fn signal_set() -> libc::sigset_t {
    // SAFETY: an all-zero `sigset_t` is a valid value, `sigemptyset` initialises it whatever it was, and the signal
    // numbers are constants that exist.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocked signals stay pending until [`wait_for`] takes them, so none is lost between two looks. The standard library
/// unblocks them in a child.
fn block_signals() -> io::Result<()> {
    let set = signal_set();
    // SAFETY: `set` is initialised and outlives the call; the old mask is not asked for.
    let status =
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn wait_for(pid: i32) -> io::Result<Ended> {
    let set = signal_set();
    loop {
        if let Some(status) = reap(Some(pid)) {
            return Ok(Ended::Status(status));
        }
        // SAFETY: `set` is initialised and outlives the call; no details of the signal are asked for.
        match unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) } {
            libc::SIGCHLD => {}
            signal if signal > 0 => return Ok(Ended::Asked),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Collects every child that has ended, ours or an orphan's; gives the status of `wanted` if it was among them.
pub(crate) fn reap(wanted: Option<i32>) -> Option<u8> {
    use rustix::process::{WaitOptions, wait};
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid.as_raw_nonzero().get()) == wanted {
            let code = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            found = Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
    found
}
