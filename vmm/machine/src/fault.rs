//! How a run ends, and the report of a bad end.

use std::fmt;

use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, kvm_regs, kvm_sregs};

use super::bus::Withheld;

/// How a machine's run ended.
#[derive(Debug)]
pub enum RunEnd {
    /// The guest said `exit CODE` at the protocol port.
    Exit(i32),
    /// The guest switched itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// Something that a healthy guest does not do, or that this host cannot run.
    Fault(Box<Fault>),
    /// The host ended the run through a [`super::StopHandle`].
    Stopped,
}

/// A vCPU that cannot go on.
#[derive(Debug)]
pub struct Fault {
    /// Number of the vCPU.
    pub vcpu: u8,
    /// What happened.
    pub kind: FaultKind,
    /// Where it stood, if KVM knows.
    pub registers: Option<Registers>,
}

/// What stopped a vCPU.
#[derive(Debug)]
#[non_exhaustive]
pub enum FaultKind {
    /// An exception while delivering an exception while delivering an exception (Intel SDM vol. 3, 6.15).
    TripleFault,
    /// `KVM_EXIT_INTERNAL_ERROR`.
    Internal {
        /// KVM's number for it; 1 is an instruction that it would have to emulate and cannot.
        suberror: u32,
        /// Bytes of the instruction, if known.
        instruction: Vec<u8>,
        /// What it was about to access, if known.
        access: Option<Access>,
        /// Memory BARs that KVM emulated each access to at that time; see [`super::DeviceBus::withheld`].
        withheld: Vec<Withheld>,
    },
    /// The processor refused the guest's state.
    EntryFailed {
        /// The processor's reason.
        reason: u64,
    },
    /// `KVM_RUN` failed.
    Run(std::io::Error),
    /// An exit that this VMM asks KVM never to make.
    Unexpected(String),
    /// The machine could not do its part.
    Machine(super::MachineError),
    /// A thread of the machine panicked, which is a defect of this program.
    Panicked,
}

/// An access that KVM could not emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Guest physical address.
    pub address: u64,
    /// Whether it was a write.
    pub write: bool,
}

/// The registers that show where a vCPU stood.
#[derive(Clone, Copy)]
pub struct Registers {
    /// General registers.
    pub general: kvm_regs,
    /// Control and segment registers.
    pub system: kvm_sregs,
}

/// The name of a `KVM_INTERNAL_ERROR_*` number.
fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        1 => "an instruction could not be emulated",
        2 => "exceptions arrived at the same time",
        3 => "an exit happened while an event was delivered",
        4 => "an exit reason that KVM does not know",
        _ => "a reason without a name",
    }
}

/// What the guest did there, and what it could do instead.
fn not_emulated(
    f: &mut fmt::Formatter<'_>,
    instruction: &[u8],
    access: Option<Access>,
    withheld: &[Withheld],
) -> fmt::Result {
    let kind = super::instruction::kind(instruction);
    let (does, instead) = match access {
        Some(Access { write: true, .. }) => ("wrote", "writel(), writeq() or memcpy_toio()"),
        Some(Access { write: false, .. }) => ("read", "readl(), readq() or memcpy_fromio()"),
        None => ("accessed", "readl(), readq(), memcpy_fromio() and their like"),
    };
    let at = |bar: &&Withheld| access.is_none_or(|access| bar.addresses.contains(&access.address));
    let bars: Vec<_> = withheld.iter().filter(at).map(|bar| bar.name.as_str()).collect();
    match (access, bars.as_slice()) {
        (None, []) => Ok(()),
        (Some(Access { address, .. }), []) => write!(
            f,
            "; the guest {does} physical address {address:#x}, where no memory is mapped, by {kind} that KVM does not \
             emulate"
        ),
        (Some(_), bars) => write!(
            f,
            "; the guest {does} {} by {kind} that KVM does not emulate; while posted writes to it are delayed, it emulates \
             each access to it: use {instead}, or in user space volatile accesses of at most 8 bytes",
            bars.join(", ")
        ),
        (None, bars) => write!(
            f,
            "; it is {kind} that KVM does not emulate; while posted writes to these are delayed, it emulates each access \
             to them: {}; use {instead} there, or in user space volatile accesses of at most 8 bytes",
            bars.join(", ")
        ),
    }
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "the guest ended with exit code {code}"),
            Self::PowerOff => f.write_str("the guest switched itself off"),
            Self::Reset => f.write_str("the guest asked for a reset"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Stopped => f.write_str("the guest was stopped from outside"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}: {}", self.vcpu, self.kind)?;
        match &self.registers {
            Some(registers) => write!(f, "; {registers:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => {
                f.write_str("triple fault: the guest could not deliver an exception")
            }
            Self::Internal { suberror, instruction, access, withheld } => {
                write!(f, "KVM internal error, suberror {suberror}: {}", suberror_name(*suberror))?;
                if !instruction.is_empty() {
                    f.write_str("; instruction bytes")?;
                    instruction.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
                }
                match *suberror {
                    KVM_INTERNAL_ERROR_EMULATION => not_emulated(f, instruction, *access, withheld),
                    _ => Ok(()),
                }
            }
            Self::EntryFailed { reason } => {
                write!(f, "the processor refused the guest's state, reason {reason:#x}")
            }
            Self::Run(error) => write!(f, "KVM_RUN failed: {error}"),
            Self::Unexpected(what) => write!(f, "unexpected exit: {what}"),
            Self::Machine(error) => error.fmt(f),
            Self::Panicked => {
                f.write_str("a thread of the VMM panicked; this is a defect, please report it")
            }
        }
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (g, s) = (&self.general, &self.system);
        write!(
            f,
            "rip={:#x} rsp={:#x} rflags={:#x} cs={:#x}",
            g.rip, g.rsp, g.rflags, s.cs.selector
        )?;
        write!(
            f,
            " cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
            s.cr0, s.cr2, s.cr3, s.cr4, s.efer
        )?;
        write!(f, " rax={:#x} rbx={:#x} rcx={:#x} rdx={:#x}", g.rax, g.rbx, g.rcx, g.rdx)?;
        write!(f, " rsi={:#x} rdi={:#x} rbp={:#x}", g.rsi, g.rdi, g.rbp)
    }
}
