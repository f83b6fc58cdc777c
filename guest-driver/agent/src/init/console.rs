//! The serial console: finding it, making it a process's standard streams and controlling terminal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// Gives this process standard streams when the kernel could not: an initramfs without `/dev/console` starts its first
/// process with none, and the first files opened would then take their numbers.
pub(crate) fn ensure_streams() {
    use rustix::fs::{Mode, OFlags, open};
    // Opened files take the lowest free number: stop at the first that is none of the three.
    while let Ok(fd) = open("/dev/console", OFlags::RDWR, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            break;
        }
        std::mem::forget(fd);
    }
}

/// The terminal behind `/dev/console`. The console device itself cannot be a controlling terminal, so shells on it have
/// no job control and no Ctrl-C.
///
/// # Errors
/// When there is no console with a terminal, or it does not open.
pub(crate) fn open_terminal() -> io::Result<File> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active")?;
    // The last one listed is the one that `/dev/console` means.
    let name = active
        .split_whitespace()
        .last()
        .ok_or_else(|| io::Error::other("the kernel has no active console"))?;
    OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"))
}

/// Tells the terminal how large the window at its other end is. Programs that draw need it; a failure costs only looks.
pub(crate) fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size =
        rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// Makes `terminal` the controlling terminal of a new session that this process leads.
///
/// The first process leads it, not the program: when a session's leader ends, the kernel hangs its terminal up, and
/// throws away what the program has written and the serial port has not sent yet.
///
/// # Errors
/// When the kernel refuses either.
pub(crate) fn lead(terminal: &File) -> io::Result<()> {
    // SAFETY: `setsid` takes nothing, and `TIOCSCTTY` with an integer argument touches no memory.
    unsafe {
        if libc::setsid() < 0 || libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Waits until everything written to standard output has left the serial port.
///
/// The program was put into the foreground, and its group stays there when it has ended. The kernel refuses the wait to
/// whoever is in the background, unless SIGTTOU is ignored; which it is from here on.
///
/// # Errors
/// When the kernel refuses; not when standard output is no terminal, which has nothing to send.
pub(crate) fn drain() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler; the process is about to end.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    loop {
        // SAFETY: `tcdrain` takes a descriptor number, valid or not, and touches no memory.
        if unsafe { libc::tcdrain(1) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENOTTY | libc::EINVAL) => return Ok(()),
            _ => return Err(error),
        }
    }
}

/// Puts the calling process into the foreground of the terminal `fd`, in a process group of its own: Ctrl-C is for it.
/// Called between fork and exec.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn to_foreground(fd: i32) -> io::Result<()> {
    // SAFETY: four system calls with numbers; each may be called between fork and exec. SIGTTOU, which stops a
    // background process that asks for the foreground, is ignored meanwhile.
    unsafe {
        let before = libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        let done = libc::setpgid(0, 0) == 0 && libc::tcsetpgrp(fd, libc::getpid()) == 0;
        let error = io::Error::last_os_error();
        libc::signal(libc::SIGTTOU, before);
        if done { Ok(()) } else { Err(error) }
    }
}
