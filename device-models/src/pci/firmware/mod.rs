//! What a BIOS does with the fabric at power-on: find the functions, number the buses, give every
//! BAR and every bridge window an address, and switch the bridges on.
//!
//! It works through configuration requests alone, as software on a real machine does, so it fits
//! any tree of ports and devices and also tests the routing of those requests. The result depends
//! on nothing but the tree.

mod allocate;
mod program;
mod scan;

use std::fmt;
use std::ops::RangeInclusive;

use super::address::Bdf;
use super::config::{BridgeBuses, Windows};

/// How firmware reaches configuration spaces. A function that is not there reads as all ones and
/// ignores writes.
pub trait ConfigAccess {
    /// Reads 1, 2 or 4 bytes at an aligned offset.
    fn config_read(&mut self, function: Bdf, offset: u16, len: u8) -> u32;
    /// Writes 1, 2 or 4 bytes at an aligned offset.
    fn config_write(&mut self, function: Bdf, offset: u16, len: u8, value: u32);
}

/// What a host bridge forwards to its root bus, all inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostResources {
    /// Bus numbers; the first one is the root bus.
    pub buses: RangeInclusive<u8>,
    /// Bus addresses below 4 GiB, for everything that is not 64-bit prefetchable.
    pub memory: RangeInclusive<u64>,
    /// Bus addresses for 64-bit prefetchable BARs.
    pub prefetchable: RangeInclusive<u64>,
}

/// One of the two address ranges of a host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// Below 4 GiB, not prefetchable.
    Memory,
    /// 64-bit prefetchable.
    Prefetchable,
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "32-bit memory",
            Self::Prefetchable => "64-bit prefetchable",
        })
    }
}

/// What firmware decided, in the order in which it found the functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Every function found.
    pub functions: Vec<AssignedFunction>,
}

/// A function with what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedFunction {
    /// Bus, device and function number.
    pub function: Bdf,
    /// Its BARs, with the addresses that they were given.
    pub bars: Vec<AssignedBar>,
    /// Bus numbers and windows, for a bridge.
    pub bridge: Option<(BridgeBuses, Windows)>,
}

/// A BAR with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedBar {
    /// Index of its first register.
    pub index: u8,
    /// First and last bus address.
    pub range: RangeInclusive<u64>,
    /// Which window it came from.
    pub window: WindowKind,
}

/// Why a tree cannot be given numbers and addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// A BAR that has no place.
    #[error(
        "BAR{index} of {function} ({size:#x} bytes) does not fit into the {window} window \
         {:#x}-{:#x} of the host bridge together with the other devices; make BARs smaller, \
         devices fewer or the window larger",
        .range.start(), .range.end()
    )]
    NoSpace {
        /// The function.
        function: Bdf,
        /// Index of the BAR.
        index: u8,
        /// Its size in bytes.
        size: u64,
        /// Which window.
        window: WindowKind,
        /// The window's addresses.
        range: RangeInclusive<u64>,
    },
    /// A bridge without a bus number for what is below it.
    #[error(
        "bridge {function} gets no bus number: the host bridge has buses {:#04x} to {:#04x} and \
         all are taken; use fewer ports or give the host bridge more buses",
        .buses.start(), .buses.end()
    )]
    NoBus {
        /// The bridge.
        function: Bdf,
        /// Buses of the host bridge.
        buses: RangeInclusive<u8>,
    },
}

/// Numbers the buses below a host bridge depth first, assigns all addresses and leaves the
/// functions as a BIOS does: bridges forward in both directions, endpoints neither decode memory
/// nor issue requests until a driver asks for it.
///
/// # Errors
/// Something does not fit; what was written until then stays written, and decoding is off.
pub fn assign(
    access: &mut dyn ConfigAccess,
    host: &HostResources,
) -> Result<Assignment, FirmwareError> {
    let root = scan::scan(access, &host.buses)?;
    let plan = allocate::allocate(&root, host)?;
    program::program(access, &root, &plan);
    Ok(plan)
}

#[cfg(test)]
mod tests;
