//! Finding the functions and numbering the buses.

use std::ops::RangeInclusive;

use super::{ConfigAccess, FirmwareError, WindowKind};
use crate::pci::address::Bdf;
use crate::pci::config::BridgeBuses;
use crate::pci::spec::header::{self, bar, header_type, type1};
use crate::pci::spec::id;
use crate::pci::spec::pcie::{self, capabilities};

/// A function as found.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) bdf: Bdf,
    pub(super) bars: Vec<Bar>,
    /// Offset of the PCI Express capability.
    pub(super) pcie: Option<u16>,
    pub(super) bridge: Option<Bridge>,
}

/// What is below a bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) buses: BridgeBuses,
    pub(super) below: Vec<Function>,
}

/// A BAR with its size.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) index: u8,
    pub(super) size: u64,
    pub(super) window: WindowKind,
}

/// Finds everything below a host bridge and numbers the buses.
pub(super) fn scan(
    access: &mut dyn ConfigAccess,
    buses: &RangeInclusive<u8>,
) -> Result<Vec<Function>, FirmwareError> {
    let mut last = *buses.start();
    scan_bus(access, buses, last, 32, &mut last)
}

/// Looks at `devices` device numbers of a bus; `last` is the highest bus number in use.
fn scan_bus(
    access: &mut dyn ConfigAccess,
    buses: &RangeInclusive<u8>,
    bus: u8,
    devices: u8,
    last: &mut u8,
) -> Result<Vec<Function>, FirmwareError> {
    let mut found = Vec::new();
    for device in 0..devices {
        for number in 0..8 {
            let bdf = Bdf::new(bus, device, number);
            let vendor = access.config_read(bdf, header::VENDOR_ID, 2);
            // Function 0 is always there when any other is (section 7.5.1.1.9).
            if vendor & 0xffff != 0xffff {
                found.push(scan_function(access, buses, bdf, last)?);
            } else if number == 0 {
                break;
            }
            if number == 0 && header_type(access, bdf) & header_type::MULTI_FUNCTION == 0 {
                break;
            }
        }
    }
    Ok(found)
}

fn header_type(access: &mut dyn ConfigAccess, bdf: Bdf) -> u8 {
    access.config_read(bdf, header::HEADER_TYPE, 1).to_le_bytes()[0]
}

fn scan_function(
    access: &mut dyn ConfigAccess,
    buses: &RangeInclusive<u8>,
    bdf: Bdf,
    last: &mut u8,
) -> Result<Function, FirmwareError> {
    // Sizing writes nonsense addresses, so nothing may be decoded meanwhile.
    access.config_write(bdf, header::COMMAND, 2, 0);
    let pcie = find_capability(access, bdf, id::PCI_EXPRESS);
    let kind = header_type(access, bdf) & header_type::LAYOUT_MASK;
    let is_bridge = kind == header_type::BRIDGE;
    let bars = size_bars(access, bdf, if is_bridge { 2 } else { bar::COUNT });
    let bridge = is_bridge.then(|| scan_bridge(access, buses, bdf, pcie, last)).transpose()?;
    Ok(Function { bdf, bars, pcie, bridge })
}

fn scan_bridge(
    access: &mut dyn ConfigAccess,
    buses: &RangeInclusive<u8>,
    bdf: Bdf,
    pcie: Option<u16>,
    last: &mut u8,
) -> Result<Bridge, FirmwareError> {
    let secondary = last.checked_add(1).filter(|bus| buses.contains(bus));
    let secondary =
        secondary.ok_or_else(|| FirmwareError::NoBus { function: bdf, buses: buses.clone() })?;
    *last = secondary;
    // While looking below, everything that is not numbered yet is taken to be there.
    let mut numbers = BridgeBuses { primary: bdf.bus(), secondary, subordinate: *buses.end() };
    write_buses(access, bdf, numbers);
    // A link has device 0 at its other end and no other (section 7.3.1).
    let devices = if ends_in_link(access, bdf, pcie) { 1 } else { 32 };
    let below = scan_bus(access, buses, secondary, devices, last)?;
    numbers.subordinate = *last;
    write_buses(access, bdf, numbers);
    Ok(Bridge { buses: numbers, below })
}

fn write_buses(access: &mut dyn ConfigAccess, bdf: Bdf, numbers: BridgeBuses) {
    let BridgeBuses { primary, secondary, subordinate } = numbers;
    let value = u32::from_le_bytes([primary, secondary, subordinate, 0]);
    access.config_write(bdf, type1::PRIMARY_BUS, 4, value);
}

/// Whether a bridge's secondary side is a link, and not the inside of a switch.
pub(super) fn ends_in_link(access: &mut dyn ConfigAccess, bdf: Bdf, pcie: Option<u16>) -> bool {
    let Some(offset) = pcie else { return false };
    let flags = access.config_read(bdf, offset + pcie::CAPABILITIES, 2);
    let kind = (flags & u32::from(capabilities::TYPE_MASK)) >> capabilities::TYPE_SHIFT;
    kind == u32::from(capabilities::TYPE_ROOT_PORT)
        || kind == u32::from(capabilities::TYPE_SWITCH_DOWNSTREAM)
}

/// Finds a capability in the list; a list that loops ends all the same.
fn find_capability(access: &mut dyn ConfigAccess, bdf: Bdf, id: u8) -> Option<u16> {
    let mut pointer = header::CAPABILITIES_POINTER;
    for _ in 0..48 {
        let offset = u16::from(access.config_read(bdf, pointer, 1).to_le_bytes()[0] & !3);
        if offset < 0x40 {
            return None;
        }
        if access.config_read(bdf, offset, 1).to_le_bytes()[0] == id {
            return Some(offset);
        }
        pointer = offset + 1;
    }
    None
}

/// Finds the sizes by the protocol of section 7.5.1.2.1: write ones, see which bits stay 0.
fn size_bars(access: &mut dyn ConfigAccess, bdf: Bdf, count: usize) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut registers = (0u8..).zip((header::BAR0..).step_by(4)).take(count);
    while let Some((index, offset)) = registers.next() {
        let attributes = access.config_read(bdf, offset, 4);
        let low = probe(access, bdf, offset);
        if low == 0 || attributes & bar::IO_SPACE != 0 {
            continue;
        }
        let wide = attributes & bar::TYPE_MASK == bar::TYPE_64_BIT;
        // The next register holds the upper half, if there is one.
        let upper = if wide { registers.next() } else { None };
        let high = upper.map_or(u32::MAX, |(_, offset)| probe(access, bdf, offset));
        let mask = u64::from(high) << 32 | u64::from(low & bar::ADDRESS_MASK);
        let prefetchable = wide && attributes & bar::PREFETCHABLE != 0;
        let window = if prefetchable { WindowKind::Prefetchable } else { WindowKind::Memory };
        if let Some(size) = (!mask).checked_add(1) {
            bars.push(Bar { index, size, window });
        }
    }
    bars
}

fn probe(access: &mut dyn ConfigAccess, bdf: Bdf, offset: u16) -> u32 {
    access.config_write(bdf, offset, 4, u32::MAX);
    let mask = access.config_read(bdf, offset, 4);
    access.config_write(bdf, offset, 4, 0);
    mask
}
