//! Memory of a device that is not there any more.
//!
//! vfio-pci takes a BAR's pages away while the device is reset, or sleeps, or has its memory switched off; a driver does
//! when its device goes. A process that touches them then gets SIGBUS, and the end of the guest's
//! first process is the end of the guest. Here it finds all ones instead, as it would on the bus,
//! and the test that it happened to fails.

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicUsize = AtomicUsize::new(0);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusErrors {
    /// How often, each time for one page.
    pub count: usize,
    /// The address, the last time.
    pub last: usize,
}

/// From here on, memory that has gone reads as all ones in this process.
///
/// # Errors
/// The kernel's.
pub fn survive() -> std::io::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does nothing but system calls and atomics; the
    // old action is not asked for.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// What has happened since it was last asked for.
pub fn take() -> Option<BusErrors> {
    let count = COUNT.swap(0, Ordering::Relaxed);
    (count > 0).then(|| BusErrors { count, last: LAST.load(Ordering::Relaxed) })
}

/// Puts a page of ones where the memory has gone. The access is then done once more, and succeeds.
extern "C" fn on_bus_error(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a valid structure to a handler with SA_SIGINFO; `si_addr` is there for SIGBUS, and is only
    // used if the code says that the kernel has filled it.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A process has sent it. The first process of a guest would not have noticed without a handler
    // either.
    if code <= 0 {
        return;
    }
    if code == libc::BUS_ADRERR && put_ones_at(address & !(PAGE - 1)) {
        LAST.store(address, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // There is no help: as if there were no handler, when the access is done once more.
    // SAFETY: setting the default action touches no memory of ours.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// Makes `page`, which must be one whose access has raised SIGBUS, a page of ones; false if the
/// kernel refuses. The switch is atomic: no thread sees the page unmapped.
fn put_ones_at(page: usize) -> bool {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, where the kernel likes.
    let ones = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE, access, MapFlags::PRIVATE) };
    let Ok(ones) = ones else { return false };
    // SAFETY: the page has just been mapped for writing, and is ours alone.
    unsafe { std::ptr::write_bytes(ones.cast::<u8>(), 0xff, PAGE) };
    // SAFETY: what is mapped at `page` has lost its memory, so nothing can be lost with it. Only files whose memory can go
    // are of that kind: a device's, which views reach by volatile accesses of any value. This program itself and all that
    // it has read come from the initramfs, which stays in RAM.
    let moved =
        unsafe { mremap_fixed(ones, PAGE, PAGE, MremapFlags::MAYMOVE, page as *mut c_void) };
    if moved.is_err() {
        // SAFETY: the page is still where it was, and nothing else uses it.
        let _ = unsafe { munmap(ones, PAGE) };
    }
    moved.is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::View;
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn memory_that_has_gone_reads_as_ones() {
        survive().unwrap();
        let file = memfd_create("gone", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 3 * PAGE as u64).unwrap();
        let view = View::new(&file, 3 * PAGE, 0).unwrap();
        view.set_dword(8, 7);
        ftruncate(&file, PAGE as u64).unwrap();
        assert_eq!((view.dword(8), take()), (7, None));
        assert_eq!(view.dword(PAGE + 8), u32::MAX);
        view.set_word(2 * PAGE + 16, 1);
        let errors = take().unwrap();
        assert_eq!((errors.count, errors.last % PAGE), (2, 16));
        assert_eq!(take(), None);
    }
}
