//! What a real machine has on PCIe: a record of its functions, read from what people already have.
//!
//! [`read`] takes the text of a file: a record in JSON, or whatever a bug report carries (`lspci -vvv`, hex dumps,
//! `lspci -t`, the output of the shell script in `docs/machine-files.md`), also several of these one after the other.
//! [`capture`] reads sysfs on the machine in question.
//!
//! Input is not trusted: time and memory are bounded, and nothing in it makes the code panic. What decides something
//! and is missing is unknown in the [`Machine`], with a [`Note`] about it.

mod acs;
mod address;
mod assemble;
mod attributes;
mod config;
mod error;
mod field;
mod find;
mod function;
mod gather;
mod machine;
mod sysfs;
mod system;
mod text;

pub use acs::{Acs, AcsFlags, Egress};
pub use address::{Address, AddressError};
pub use error::{Error, FindError};
pub use find::Kind;
pub use function::{
    Bar, Bridge, Buses, Function, Header, Names, P2pMemory, Parent, PortType, Service, Space,
    Window,
};
pub use machine::{Cpu, Kernel, Machine, Note, Root, SCHEMA};
pub use sysfs::capture;
pub use text::{MAX_INPUT, read};
