//! A terminal of the command's own: a pseudo-terminal, whose other end this process passes to the serial console.
//!
//! The serial console itself could be the command's controlling terminal. But when a session's leader ends, the kernel
//! hangs a serial terminal up and throws away what has not been sent yet. A pseudo-terminal keeps it, so the command
//! can lead its session, as after a login.

use super::console;
use guest_protocol::{END_OF_INPUT, Input};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long output may take to arrive behind the end of a command whose children still have its terminal.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How much longer than the command its children are listened to, if they never stop.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a thread looks whether it is still wanted.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A pseudo-terminal whose input and output are the serial console's.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The end that a program uses.
    slave: File,
    serial: File,
    before: Termios,
    ended: Arc<AtomicBool>,
    output: JoinHandle<()>,
}

impl Terminal {
    /// Opens one of `size` rows and columns for that `input`, and begins to pass bytes.
    ///
    /// # Errors
    /// When there is no serial terminal, or the kernel has no pseudo-terminals.
    pub(crate) fn open(size: Option<(u16, u16)>, input: Input) -> io::Result<Self> {
        let serial = console::open_terminal()?;
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let name = name.to_str().map_err(io::Error::other)?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(name)?;
        if let Some((rows, columns)) = size {
            console::set_size(&slave, rows, columns);
        }
        if input != Input::Terminal {
            let mut modes = tcgetattr(&slave)?;
            modes.local_modes -= LocalModes::ECHO;
            tcsetattr(&slave, OptionalActions::Now, &modes)?;
        }
        // Echo, line editing and line ends are the pseudo-terminal's affair now.
        let before = tcgetattr(&serial)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&serial, OptionalActions::Drain, &raw)?;
        let ended = Arc::new(AtomicBool::new(false));
        let master = File::from(master);
        if input == Input::Nothing {
            (&master).write_all(&END_OF_INPUT)?;
        }
        let (keys, to_program) = (serial.try_clone()?, master.try_clone()?);
        let is_over = Arc::clone(&ended);
        std::thread::spawn(move || pass(&keys, &to_program, &is_over, false));
        let (to_console, is_over) = (serial.try_clone()?, Arc::clone(&ended));
        let output = std::thread::spawn(move || pass(&master, &to_console, &is_over, true));
        Ok(Self { slave, serial, before, ended, output })
    }

    /// The end that a program uses, for its standard streams.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn slave(&self) -> io::Result<File> {
        self.slave.try_clone()
    }

    /// The program has ended: passes what it has written, and gives the serial terminal its modes back.
    pub(crate) fn close(self) {
        drop(self.slave);
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.output.join();
        let _ = tcsetattr(&self.serial, OptionalActions::Drain, &self.before);
    }
}

/// Passes bytes until there are no more. Once `ended` is set, what is there already (`rest`) or nothing.
fn pass(mut from: &File, mut to: &File, ended: &AtomicBool, rest: bool) {
    let mut bytes = [0; 4096];
    let mut end = None;
    loop {
        let over = ended.load(Ordering::Relaxed);
        if over
            && (!rest || *end.get_or_insert_with(|| Instant::now() + LAST_WORDS) < Instant::now())
        {
            return;
        }
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        match poll(&mut fds, Some(if over { &QUIET } else { &LOOK })) {
            Ok(0) if over => return,
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if to.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The other end is not open, or a serial line was hung up.
            Err(_) => return,
        }
    }
}
