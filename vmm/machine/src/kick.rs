//! Getting a thread out of `KVM_RUN`, without a race.
//!
//! `immediate_exit` in the shared `kvm_run` page makes the *next* `KVM_RUN` return at once, a signal interrupts
//! the *current* one. Setting the first and then sending the second leaves no gap: whichever comes first, the
//! thread returns from `KVM_RUN` and finds the flag.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::error::MachineError;

/// A mapping of a vCPU's `kvm_run` page of our own, so that it can be poked while the thread that owns the
/// `VcpuFd` sits in it.
#[derive(Debug)]
pub(crate) struct Kicker {
    page: NonNull<kvm_run>,
    /// Kernel thread ID of the thread that runs the vCPU, while there is one.
    thread: Mutex<Option<i32>>,
    /// Whether the thread is in `KVM_RUN`, or about to be.
    inside: AtomicBool,
}

// SAFETY: the page is shared memory that lives until drop, and only its `immediate_exit` byte is touched, as an
// atomic.
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

fn signal_number() -> i32 {
    SIGRTMIN()
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // The interruption of KVM_RUN is all that is wanted.
}

/// Installs the handler of the kick signal, once a process.
fn install_handler() -> Result<(), MachineError> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = register_signal_handler(signal_number(), on_kick));
    result.map_err(MachineError::host("install a signal handler"))
}

impl Kicker {
    pub(crate) fn new(vcpu: &VcpuFd) -> Result<Self, MachineError> {
        install_handler()?;
        // SAFETY: the descriptor is open for the duration of the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping of KVM's own page; no existing mapping is replaced.
        let page = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<kvm_run>(),
                flags,
                MapFlags::SHARED,
                fd,
                0,
            )
        };
        let page = page.map_err(MachineError::host("map a vCPU's kvm_run page"))?;
        let page = NonNull::new(page.cast::<kvm_run>()).ok_or_else(|| {
            MachineError::host("map a vCPU's kvm_run page")(std::io::Error::other("null mapping"))
        })?;
        Ok(Self { page, thread: Mutex::new(None), inside: AtomicBool::new(false) })
    }

    /// One without a vCPU.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        let length = size_of::<kvm_run>();
        // SAFETY: a fresh anonymous mapping; no existing mapping is replaced.
        let page = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, flags, MapFlags::PRIVATE)
        };
        let page = NonNull::new(page.unwrap().cast::<kvm_run>()).unwrap();
        Self { page, thread: Mutex::new(None), inside: AtomicBool::new(false) }
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped until drop; KVM and we access the byte only whole, and nothing
        // in this process through a plain reference.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.page.as_ptr()).immediate_exit) }
    }

    /// The calling thread is about to run the vCPU.
    pub(crate) fn enter(&self) {
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// The thread will not run the vCPU any more; its ID may be used again by the kernel.
    pub(crate) fn leave(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Runs the vCPU once by `run`, which calls `KVM_RUN`.
    pub(crate) fn inside<R>(&self, run: impl FnOnce() -> R) -> R {
        // Ordered with the kick's store of `immediate_exit`: a thread that is not seen inside after a kick finds that
        // flag, and returns without having entered the guest.
        self.inside.store(true, Ordering::SeqCst);
        let result = run();
        self.inside.store(false, Ordering::SeqCst);
        result
    }

    /// Whether the thread may be executing the guest's code.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst)
    }

    /// Takes back what a kick has done: the thread may enter the guest again.
    pub(crate) fn release(&self) {
        self.immediate_exit().store(0, Ordering::SeqCst);
    }

    /// Makes the thread return from `KVM_RUN`, now or at its next try, until it is released.
    pub(crate) fn kick(&self) {
        self.immediate_exit().store(1, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = *thread {
            // SAFETY: a system call on numbers. The thread exists: `leave` has not been called, and takes the
            // lock that we hold.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, signal_number()) };
        }
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference to it outlives `self`.
        let unmapped =
            unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), size_of::<kvm_run>()) };
        if let Err(error) = unmapped {
            log::debug!("munmap of a kvm_run page: {error}");
        }
    }
}
