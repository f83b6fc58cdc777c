//! Writing what was decided into the functions, and the settings a BIOS leaves behind.

use std::ops::RangeInclusive;

use super::scan::{Function, ends_in_link};
use super::{AssignedBar, Assignment, ConfigAccess};
use crate::pci::address::Bdf;
use crate::pci::config::Windows;
use crate::pci::spec::header::{self, bridge_control, command, type1};
use crate::pci::spec::pcie::{
    self, device_capabilities, device_control, link_control, link_status,
};

/// Writes addresses and settings.
pub(super) fn program(access: &mut dyn ConfigAccess, root: &[Function], plan: &Assignment) {
    for assigned in &plan.functions {
        for bar in &assigned.bars {
            write_bar(access, assigned.function, bar);
        }
        if let Some((_, windows)) = &assigned.bridge {
            write_windows(access, assigned.function, windows);
        }
    }
    for function in root {
        // No function below a root port may send more than all of them take.
        let payload = smallest_payload(access, function);
        settle(access, function, payload);
    }
}

fn write_bar(access: &mut dyn ConfigAccess, function: Bdf, bar: &AssignedBar) {
    let offset = header::BAR0 + 4 * u16::from(bar.index);
    let [low, high] = halves(*bar.range.start());
    let attributes = access.config_read(function, offset, 4);
    access.config_write(function, offset, 4, low);
    if attributes & header::bar::TYPE_MASK == header::bar::TYPE_64_BIT {
        access.config_write(function, offset + 4, 4, high);
    }
}

/// First and last address of a closed window: the limit lies below the base (section 7.5.1.3.8).
const CLOSED: (u64, u64) = (0xfff0_0000, 0x000f_ffff);

/// Writes both windows of a bridge; one that is not needed is closed.
fn write_windows(access: &mut dyn ConfigAccess, function: Bdf, windows: &Windows) {
    let ends = |window: &Option<RangeInclusive<u64>>| {
        window.as_ref().map_or(CLOSED, |range| (*range.start(), *range.end()))
    };
    let memory = base_and_limit(ends(&windows.memory));
    access.config_write(function, type1::MEMORY_BASE, 4, memory);
    let (first, last) = ends(&windows.prefetchable);
    let prefetchable = base_and_limit((first, last));
    access.config_write(function, type1::PREFETCHABLE_BASE, 4, prefetchable);
    let ([_, base], [_, limit]) = (halves(first), halves(last));
    access.config_write(function, type1::PREFETCHABLE_BASE_UPPER, 4, base);
    access.config_write(function, type1::PREFETCHABLE_LIMIT_UPPER, 4, limit);
}

/// The dword of base and limit: address bits 31:20 in bits 15:4 of each half.
fn base_and_limit((first, last): (u64, u64)) -> u32 {
    let ([base, _], [limit, _]) = (halves(first), halves(last));
    let mask = u32::from(type1::WINDOW_ADDRESS_MASK);
    base >> 16 & mask | limit & mask << 16
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// The smallest payload code that a function and all below it support.
fn smallest_payload(access: &mut dyn ConfigAccess, function: &Function) -> u32 {
    let own = function.pcie.map_or(device_capabilities::MAX_PAYLOAD_MASK, |offset| {
        let capabilities = access.config_read(function.bdf, offset + pcie::DEVICE_CAPABILITIES, 4);
        capabilities & device_capabilities::MAX_PAYLOAD_MASK
    });
    let below = function.bridge.iter().flat_map(|bridge| &bridge.below);
    below.fold(own, |smallest, function| smallest.min(smallest_payload(access, function)))
}

/// Sets payload, clocks and, for bridges, forwarding; endpoints stay off.
fn settle(access: &mut dyn ConfigAccess, function: &Function, payload: u32) {
    if let Some(offset) = function.pcie {
        let at = offset + pcie::DEVICE_CONTROL;
        let control = access.config_read(function.bdf, at, 2);
        let control = control & !u32::from(device_control::MAX_PAYLOAD_MASK)
            | payload << device_control::MAX_PAYLOAD_SHIFT;
        access.config_write(function.bdf, at, 2, control);
    }
    let Some(bridge) = &function.bridge else { return };
    let has_link = ends_in_link(access, function.bdf, function.pcie);
    for below in &bridge.below {
        settle(access, below, payload);
        if has_link {
            share_clock(access, function, below);
        }
    }
    let bridge_control = bridge_control::SERR.into();
    access.config_write(function.bdf, type1::BRIDGE_CONTROL, 2, bridge_control);
    let command = command::MEMORY_SPACE | command::BUS_MASTER | command::SERR;
    access.config_write(function.bdf, header::COMMAND, 2, command.into());
}

/// Sets Common Clock Configuration at both ends of a link that runs on the slot's clock (section
/// 7.5.3.7).
fn share_clock(access: &mut dyn ConfigAccess, port: &Function, below: &Function) {
    let ends = [port, below];
    let mut controls = [None; 2];
    for (control, end) in controls.iter_mut().zip(ends) {
        *control = end.pcie.filter(|offset| {
            let status = access.config_read(end.bdf, offset + pcie::LINK_STATUS, 2);
            status & u32::from(link_status::SLOT_CLOCK) != 0
        });
    }
    let [Some(upper), Some(lower)] = controls else { return };
    for (end, offset) in ends.into_iter().zip([upper, lower]) {
        let at = offset + pcie::LINK_CONTROL;
        let control = access.config_read(end.bdf, at, 2) | u32::from(link_control::COMMON_CLOCK);
        access.config_write(end.bdf, at, 2, control);
    }
}
