//! Running the user's program as the first process of a system: its end, orphans, and requests to power off.

use super::terminal::Terminal;
use crate::exit::{self, Failure};
use crate::sys::children::reap;
use crate::vmm::Hello;
use rustix::fs::Mode;
use rustix::process::{ioctl_tiocsctty, setsid, umask};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The signals that the first process waits for: a child's end, and what `poweroff`, `halt` and `reboot` of busybox send.
const SIGNALS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM];
/// The last of the real-time signals (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;
/// What a program starts with, as after a login by root.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", super::PATH),
    ("HOME", HOME),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("TERM", "vt100"),
];
const HOME: &str = "/root";

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program ended with this status, as a shell counts: 128 and the signal's number when a signal killed it.
    Status(u8),
    /// The system was asked to go down first.
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
    command.args(arguments).env_clear().envs(ENVIRONMENT);
    command.envs(hello.environment.iter().filter_map(|variable| variable.split_once('=')));
    // A user's own initramfs may have no home directory.
    command.current_dir(if Path::new(HOME).is_dir() { HOME } else { "/" });
    let terminal = attach_terminal(&mut command, hello);
    started()?;
    let child = command.spawn();
    // It holds copies of the terminal, which would keep it open.
    drop(command);
    let ended = child.as_ref().map(|child| wait_for(i32::try_from(child.id()).unwrap_or(i32::MAX)));
    if let Some(terminal) = terminal {
        terminal.close();
    }
    match ended {
        Ok(ended) => ended.map_err(|error| {
            Failure::new(exit::PROCESS, format!("waiting for {program} failed: {error}"))
        }),
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                exit::NOT_FOUND
            } else {
                exit::NOT_EXECUTABLE
            };
            Err(Failure::new(code, format!("running {program} failed: {error}")))
        }
    }
}

/// Gives the command a session of its own on a terminal of its own, and signals as a login shell finds them. Without
/// a terminal it inherits our streams, which is enough for everything but job control.
fn attach_terminal(command: &mut Command, hello: &Hello) -> Option<Terminal> {
    let terminal = Terminal::open(hello.rows.zip(hello.columns), hello.input);
    let terminal = terminal
        .map_err(|error| eprintln!("peerdma agent: the command has no terminal: {error}"))
        .ok();
    let streams = terminal.as_ref().and_then(|terminal| {
        Some([terminal.slave().ok()?, terminal.slave().ok()?, terminal.slave().ok()?])
    });
    let on_terminal = streams.is_some();
    if let Some([input, output, error]) = streams {
        command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
    }
    // SAFETY: `begin` only makes system calls that are allowed between fork and exec, and allocates nothing.
    unsafe {
        command.pre_exec(move || begin(on_terminal));
    }
    terminal
}

/// Makes the calling process what a login shell is: leader of a session, of its only process group, which has the
/// foreground of the terminal on standard input; no signal blocked or ignored; files made writable by their owner alone.
/// Called between fork and exec.
fn begin(on_terminal: bool) -> io::Result<()> {
    setsid()?;
    if on_terminal {
        ioctl_tiocsctty(std::io::stdin())?;
    }
    umask(Mode::WGRP | Mode::WOTH);
    // SAFETY: system calls with numbers, and two calls that fill a `sigset_t` and hand it to the kernel; all may be made
    // between fork and exec. SIG_DFL installs no handler. For SIGKILL, SIGSTOP and the two that the C library keeps for
    // itself, `signal` fails and changes nothing.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
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

/// Blocked signals stay pending until [`wait_for`] takes them, so none is lost between two looks. A child inherits the
/// mask: [`begin`] clears it.
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
