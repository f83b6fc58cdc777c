//! A look at a machine that stands still: its processors' registers, and memory as they see it; and what a debugger needs
//! besides.

mod breakpoints;
pub mod gdb;

use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) use breakpoints::Breakpoints;
use kvm_bindings::{kvm_fpu, kvm_guest_debug, kvm_regs};
use kvm_ioctls::VcpuFd;

use crate::control::Task;
use crate::fault::Registers;
use crate::machine::Shared;
use crate::memory::GuestRam;
use crate::protocol_call::{Buffer, VcpuMemory};

/// How long a processor's thread may take to answer: it may have an access to serve first, behind a device's lock.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why a processor has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is about to execute an instruction with a breakpoint of [`Breakpoints`].
    Breakpoint,
    /// It has executed one instruction.
    Step,
    /// A debug register of this number, 0 to 3, has hit.
    Register(u8),
    /// Something else that KVM stops it for.
    Other,
}

impl Stop {
    /// Of `KVM_EXIT_DEBUG`, by what DR6 says (Intel SDM vol. 3, 18.2.3).
    pub(crate) fn of(exception: u32, dr6: u64) -> Self {
        const DB: u32 = 1;
        const SINGLE_STEP: u64 = 1 << 14;
        match (exception, dr6 & 0xf) {
            (DB, 0) if dr6 & SINGLE_STEP != 0 => Self::Step,
            (DB, hit @ 1..) => Self::Register(u8::try_from(hit.trailing_zeros()).unwrap_or(0)),
            _ => Self::Other,
        }
    }
}

/// Why a processor cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// It runs, or the machine has ended, or there is no processor of that number.
    #[error("processor {vcpu} does not stand still")]
    NotPaused {
        /// Its number.
        vcpu: u8,
    },
    /// The host did not stop it in time.
    #[error("a processor did not stop in time")]
    NotStopped,
    /// KVM refused.
    #[error("KVM refuses to {what}: {source}")]
    Kvm {
        /// What was tried, as in "read registers".
        what: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
}

/// Has a machine's virtual processors stand still, and looks at them. Clones are the same handle.
#[derive(Clone)]
pub struct DebugHandle(Arc<Shared>);

impl fmt::Debug for DebugHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugHandle").field("control", &self.0.control).finish_non_exhaustive()
    }
}

/// A [`DebugHandle`] that does not keep the machine: for what the machine itself holds, its devices' observers for example.
#[derive(Clone)]
pub struct WeakDebugHandle(Weak<Shared>);

impl fmt::Debug for WeakDebugHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakDebugHandle").finish_non_exhaustive()
    }
}

impl WeakDebugHandle {
    /// The handle, as long as there is a machine.
    pub fn upgrade(&self) -> Option<DebugHandle> {
        self.0.upgrade().map(DebugHandle)
    }
}

impl DebugHandle {
    /// The same without keeping the machine.
    pub fn downgrade(&self) -> WeakDebugHandle {
        WeakDebugHandle(Arc::downgrade(&self.0))
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Stops all processors; returns when none executes the guest's code any more. May be called from any thread, a
    /// processor's own included while it serves an exit, and while they stand still already.
    ///
    /// # Errors
    /// [`DebugError::NotStopped`] when the host does not get one out in time.
    pub fn pause(&self) -> Result<(), DebugError> {
        if self.0.control.pause() { Ok(()) } else { Err(DebugError::NotStopped) }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.0.control.resume(0);
    }

    /// Lets those go on that have no bit in `held`.
    fn resume_but(&self, held: u64) {
        self.0.control.resume(held);
    }

    fn take_stop(&self) -> Option<(u8, Stop)> {
        self.0.control.take_stop()
    }

    /// Whether they are to stand still.
    pub fn is_paused(&self) -> bool {
        self.0.control.pausing()
    }

    /// Whether the run is over.
    pub fn ended(&self) -> bool {
        self.0.control.ending()
    }

    /// How many processors there are.
    pub fn vcpus(&self) -> u8 {
        u8::try_from(self.0.control.vcpus()).unwrap_or(u8::MAX)
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.0.ram
    }

    /// Where a processor stands.
    ///
    /// # Errors
    /// When it runs, or KVM refuses.
    pub fn registers(&self, vcpu: u8) -> Result<Registers, DebugError> {
        let (general, system) = self.on(vcpu, |fd| (fd.get_regs(), fd.get_sregs()))?;
        let failed = |error: kvm_ioctls::Error| DebugError::Kvm {
            what: "read registers",
            source: error.into(),
        };
        Ok(Registers { general: general.map_err(failed)?, system: system.map_err(failed)? })
    }

    /// The registers of a processor for floating-point numbers and vectors.
    ///
    /// # Errors
    /// When it runs, or KVM refuses.
    pub fn vectors(&self, vcpu: u8) -> Result<kvm_fpu, DebugError> {
        let read = self.on(vcpu, |fd| fd.get_fpu())?;
        read.map_err(|error| DebugError::Kvm { what: "read registers", source: error.into() })
    }

    /// Changes the general registers of a processor.
    ///
    /// # Errors
    /// When it runs, or KVM refuses.
    pub fn set_general(&self, vcpu: u8, general: kvm_regs) -> Result<(), DebugError> {
        let done = self.on(vcpu, move |fd| fd.set_regs(&general))?;
        done.map_err(|error| DebugError::Kvm { what: "write registers", source: error.into() })
    }

    /// Has KVM stop the guest at breakpoints, or behind the next instruction; what `KVM_SET_GUEST_DEBUG` takes.
    ///
    /// # Errors
    /// When it runs, or KVM refuses.
    pub fn set_debug(&self, vcpu: u8, debug: kvm_guest_debug) -> Result<(), DebugError> {
        let done = self.on(vcpu, move |fd| fd.set_guest_debug(&debug))?;
        done.map_err(|error| DebugError::Kvm { what: "set breakpoints", source: error.into() })
    }

    /// Reads as many of `length` bytes as are mapped at `address` for what runs on a processor, and lie in RAM.
    ///
    /// # Errors
    /// When it runs.
    pub fn read(&self, vcpu: u8, address: u64, length: usize) -> Result<Vec<u8>, DebugError> {
        let ram = self.0.ram.clone();
        self.on(vcpu, move |fd| {
            let memory = VcpuMemory::new(fd, &ram);
            Buffer::reach(&memory, address, length).read(0, length)
        })
    }

    /// Writes `bytes` at `address`, as for what runs on a processor, whatever its page tables allow; false if not all of
    /// it is mapped, and RAM: then nothing is written.
    ///
    /// # Errors
    /// When it runs.
    pub fn write(&self, vcpu: u8, address: u64, bytes: Vec<u8>) -> Result<bool, DebugError> {
        let ram = self.0.ram.clone();
        self.on(vcpu, move |fd| {
            let memory = VcpuMemory::new(fd, &ram);
            let found = Buffer::find(&memory, address, bytes.len());
            found.map(|buffer| buffer.write(0, &bytes)).is_some()
        })
    }

    fn on<R: Send + 'static>(
        &self,
        vcpu: u8,
        work: impl FnOnce(&VcpuFd) -> R + Send + 'static,
    ) -> Result<R, DebugError> {
        let (sender, receiver) = sync_channel(1);
        let work = Box::new(move |fd: &VcpuFd| {
            // Who asked may have given up.
            let _ = sender.send(work(fd));
        });
        self.0.control.ask(Task { vcpu, work });
        receiver.recv_timeout(ANSWER_LIMIT).map_err(|_| DebugError::NotPaused { vcpu })
    }
}
