//! One call of `ioctl(2)`, with its result.

use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::io;

/// The number of a call that has a structure of `T` in the kernel's `_IOC` encoding: `_IOW` when `read` is false,
/// `_IOWR` when it is true.
pub(super) const fn number<T>(read: bool, kind: u8, number: u8) -> u32 {
    let direction = if read { 3 } else { 1 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "structures of calls have at most 14 bits of size"
    )]
    let size = size_of::<T>() as u32;
    direction << 30 | size << 16 | (kind as u32) << 8 | number as u32
}

/// Calls; gives what the kernel returns.
///
/// # Safety
/// `argument` must be what the call `number` of this device reads and writes, all pointers within it included.
///
/// # Errors
/// The kernel's.
pub(super) unsafe fn call<T>(fd: impl AsFd, number: u32, argument: &mut T) -> Result<i32, Errno> {
    // SAFETY: the caller vouches for what the argument points to.
    unsafe { call_with(fd, number, std::ptr::from_mut(argument) as usize) }
}

/// Calls with a number where most calls have a pointer; gives what the kernel returns.
///
/// # Safety
/// If the call `number` of this device takes an address all the same, it must be that of what the call reads and writes.
///
/// # Errors
/// The kernel's.
pub(super) unsafe fn call_with(fd: impl AsFd, number: u32, argument: usize) -> Result<i32, Errno> {
    // SAFETY: the descriptor is open as long as `fd` lives; the caller vouches for the argument.
    let result =
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::Ioctl::from(number), argument) };
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// A descriptor that the kernel has just made for us.
///
/// # Safety
/// Nothing else may own it.
///
/// # Errors
/// `EBADF` for a negative number, which is none.
pub(super) unsafe fn descriptor(number: i32) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the caller vouches that it is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_the_kernels() {
        // UDMABUF_CREATE is _IOW('u', 0x42, 24 bytes), DMA_HEAP_IOCTL_ALLOC _IOWR('H', 0, 24 bytes).
        assert_eq!(number::<[u64; 3]>(false, b'u', 0x42), 0x4018_7542);
        assert_eq!(number::<[u64; 3]>(true, b'H', 0), 0xc018_4800);
    }
}
