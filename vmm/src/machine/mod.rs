//! The machine: KVM, memory, vCPUs, interrupts, ports. Everything here is ordinary PC; what is special about the
//! lab lies behind [`DeviceBus`] and [`LabPort`].
//!
//! Threads: one for each vCPU, one for the console's output, and the caller of [`Machine::run`], who waits. All
//! end together, see `control`.
//!
//! Lock order: a vCPU thread takes at most one of these at a time, and none while it runs the guest: the bus's
//! lock (inside [`DeviceBus`]), the memory slots' (which asks the bus for its map *while* held), the serial
//! port's, the lab port's, the control's (innermost).

pub mod bus;
mod control;
pub mod cpuid;
mod error;
mod fault;
mod irqchip;
mod kick;
mod lab_call;
pub mod lab_port;
pub mod layout;
#[expect(clippy::module_inception, reason = "the machine of the module of that name")]
mod machine;
pub mod memory;
mod platform;
mod ports;
mod serial;
mod slots;
mod tsc;
mod vcpu;

pub use bus::{DeviceBus, EmptyBus, HostMemory, MappedMemory};
pub use control::StopHandle;
pub use cpuid::CpuProfile;
pub use error::MachineError;
pub use fault::{Fault, FaultKind, Outcome, Registers};
pub use irqchip::MsiSignaller;
pub use lab_port::{LabPort, Reply};
pub use machine::{ConsoleInput, Endpoints, FlatProgram, Machine, MachineConfig, Workload};
pub use memory::GuestRam;
pub use platform::Platform;
