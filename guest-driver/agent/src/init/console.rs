//! The serial console: finding it, making it this process's standard streams.

use rustix::io::Errno;
use rustix::termios::tcdrain;
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

/// The terminal behind `/dev/console`.
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

/// Sets the terminal's size to that of the window at its other end. Programs that draw need it; a
/// failure costs only looks.
pub(crate) fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size =
        rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// Waits until everything written to standard output has left the serial port.
///
/// # Errors
/// When the kernel refuses; not when standard output is not a terminal, which has nothing to send.
pub(crate) fn drain() -> io::Result<()> {
    loop {
        match tcdrain(io::stdout()) {
            Err(Errno::INTR) => {}
            Ok(()) | Err(Errno::NOTTY | Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
