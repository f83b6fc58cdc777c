//! Fences that signal when a test says so (`drivers/dma-buf/sw_sync.c` of the kernel).

use rustix::io;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

/// Where the kernel gives them, with `CONFIG_SW_SYNC`.
pub const PATH: &str = "/sys/kernel/debug/sync/sw_sync";

/// `struct sw_sync_create_fence_data`.
#[repr(C)]
struct Create {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

const CREATE_FENCE: Opcode = opcode::read_write::<Create>(b'W', 0);
const INCREASE: Opcode = opcode::write::<u32>(b'W', 1);

/// A fence that has not signalled, and the line in time that it is the next point of. Without the line it signals, with
/// an error.
#[derive(Debug)]
pub struct Pending {
    timeline: File,
    /// The fence, as a `sync_file`.
    pub fence: OwnedFd,
}

impl Pending {
    /// A fence that signals with [`Pending::signal`].
    ///
    /// # Errors
    /// The kernel's; `ENOENT` without `CONFIG_SW_SYNC`.
    pub fn new() -> std::io::Result<Self> {
        let timeline = File::options().read(true).write(true).open(PATH)?;
        let mut argument = Create { value: 1, name: [0; 32], fence: -1 };
        // SAFETY: the number belongs to the structure, which the kernel reads and writes.
        unsafe { ioctl(&timeline, Updater::<CREATE_FENCE, Create>::new(&mut argument))? };
        if argument.fence < 0 {
            return Err(io::Errno::BADF.into());
        }
        // SAFETY: the kernel has just installed this descriptor for us.
        let fence = unsafe { OwnedFd::from_raw_fd(argument.fence) };
        Ok(Self { timeline, fence })
    }

    /// The fence signals.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(self) -> io::Result<()> {
        // SAFETY: the number belongs to a 32-bit number, which the kernel only reads.
        unsafe { ioctl(&self.timeline, Setter::<INCREASE, u32>::new(1)) }
    }
}
