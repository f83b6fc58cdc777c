#![doc = include_str!("../README.md")]
//!
//! The machine: KVM, memory, vCPUs, interrupts, ports. Everything here is ordinary PC; what is special about the
//! runtime lies behind [`DeviceBus`] and [`ProtocolHandler`].
//!
//! Threads: one for each vCPU, one for the console's output, and the caller of [`Machine::run`],
//! which waits. All end together, see `control`.
//!
//! Lock order: a vCPU thread takes none of these while it runs the guest, and only in this order: the protocol port's (whose
//! listener uses the bus), the memory slots' (which ask the bus for its map *while* held), the bus's (inside
//! [`DeviceBus`]), the serial port's, the control's (innermost).

pub mod boot;
pub mod bus;
mod control;
pub mod cpuid;
pub mod debug;
mod error;
mod fault;
mod instruction;
mod irqchip;
pub mod jitter;
mod kick;
mod kvm_payload;
pub mod kvm_probe;
pub mod layout;
mod machine;
pub mod memory;
mod paging;
mod platform;
mod ports;
mod protocol_call;
pub mod protocol_port;
pub mod runtime;
mod serial;
mod slots;
mod tsc;
mod vcpu;

pub use bus::{DeviceBus, DirectMap, EmptyBus, HostMemory, MappedMemory, Withheld};
pub use control::StopHandle;
pub use cpuid::CpuProfile;
pub use debug::{DebugError, DebugHandle, WeakDebugHandle};
pub use error::MachineError;
pub use fault::{Access, Fault, FaultKind, Registers, RunEnd};
pub use irqchip::MsiSignaller;
pub use machine::{Backends, ConsoleInput, FlatProgram, Machine, MachineConfig, Workload};
pub use memory::GuestRam;
pub use platform::Platform;
pub use protocol_port::{ProtocolHandler, Reply};
