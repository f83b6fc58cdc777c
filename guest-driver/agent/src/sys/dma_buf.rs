//! The calls that every dma-buf has, whatever its exporter (`include/uapi/linux/dma-buf.h` of the
//! kernel).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which access is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading: it has to wait for writers.
    Read = 1,
    /// Writing: it has to wait for readers and writers.
    Write = 2,
    /// Both.
    Both = 3,
}

#[repr(C)]
struct SyncFile {
    flags: u32,
    fd: i32,
}

const SYNC: Opcode = opcode::write::<u64>(b'b', 0);
const EXPORT_SYNC_FILE: Opcode = opcode::read_write::<SyncFile>(b'b', 2);
const IMPORT_SYNC_FILE: Opcode = opcode::write::<SyncFile>(b'b', 3);
const SYNC_END: u64 = 1 << 2;

/// The CPU begins to access the buffer by its mappings.
///
/// # Errors
/// The exporter's.
pub fn begin_cpu_access(buffer: impl AsFd, access: Access) -> io::Result<()> {
    // SAFETY: the number belongs to a structure of one 64-bit field, which the kernel only reads.
    unsafe { ioctl(buffer, Setter::<SYNC, u64>::new(access as u64)) }
}

/// ... and has ended.
///
/// # Errors
/// The exporter's.
pub fn end_cpu_access(buffer: impl AsFd, access: Access) -> io::Result<()> {
    // SAFETY: as above.
    unsafe { ioctl(buffer, Setter::<SYNC, u64>::new(access as u64 | SYNC_END)) }
}

/// The fences that such an access would have to wait for, as a `sync_file`.
///
/// # Errors
/// The kernel's; `ENOTTY` without `CONFIG_SYNC_FILE`.
pub fn export_sync_file(buffer: impl AsFd, access: Access) -> io::Result<OwnedFd> {
    let mut argument = SyncFile { flags: access as u32, fd: -1 };
    // SAFETY: the number belongs to the structure, which the kernel reads and writes.
    unsafe { ioctl(buffer, Updater::<EXPORT_SYNC_FILE, SyncFile>::new(&mut argument))? };
    if argument.fd < 0 {
        return Err(io::Errno::BADF);
    }
    // SAFETY: the kernel has just installed this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(argument.fd) })
}

/// Adds a `sync_file`'s fences to the buffer's, as left by such an access.
///
/// # Errors
/// The kernel's; `ENOTTY` without `CONFIG_SYNC_FILE`.
pub fn import_sync_file(
    buffer: impl AsFd,
    access: Access,
    fence: BorrowedFd<'_>,
) -> io::Result<()> {
    let argument = SyncFile { flags: access as u32, fd: fence.as_raw_fd() };
    // SAFETY: the number belongs to the structure, which the kernel only reads.
    unsafe { ioctl(buffer, Setter::<IMPORT_SYNC_FILE, SyncFile>::new(argument)) }
}

/// Whether a `sync_file` has signalled; waits at most `milliseconds`.
///
/// # Errors
/// The kernel's.
pub fn signalled(fence: impl AsFd, milliseconds: u32) -> io::Result<bool> {
    let mut polled = [PollFd::new(&fence, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::from(milliseconds / 1000),
        tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
    };
    Ok(poll(&mut polled, Some(&timeout))? > 0)
}
