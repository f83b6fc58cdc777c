//! Type 0 and type 1 headers: command, base address registers, bus numbers, windows.

use std::ops::RangeInclusive;

use super::{ConfigEffects, ConfigSpace, RegisterFile};
use crate::pci::capability::power::PowerState;
use crate::pci::config::builder::Builder;
use crate::pci::description::{BarDescription, BarKind, DescriptionError};
use crate::pci::spec::header::{self, bar, bridge_control, command, status, type1};

/// A base address register of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub(super) size: u64,
    pub(super) wide: bool,
    pub(super) prefetchable: bool,
}

/// A base address register as software has programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedBar {
    /// Index of the (first) register, 0 to 5.
    pub index: u8,
    /// Programmed bus address; 0 while nothing was programmed.
    pub address: u64,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// The Prefetchable bit.
    pub prefetchable: bool,
}

impl DecodedBar {
    /// First and last address, unless the range would leave the 64-bit space.
    #[must_use]
    pub fn range(&self) -> Option<RangeInclusive<u64>> {
        Some(self.address..=self.address.checked_add(self.size - 1)?)
    }
}

/// The bus numbers of a bridge (sections 7.5.1.3.2 to 7.5.1.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeBuses {
    /// The bus it is on.
    pub primary: u8,
    /// The bus directly below.
    pub secondary: u8,
    /// The highest bus below.
    pub subordinate: u8,
}

impl BridgeBuses {
    /// Whether configuration and ID-routed transactions for `bus` go down through the bridge.
    #[must_use]
    pub const fn contains(&self, bus: u8) -> bool {
        self.secondary <= bus && bus <= self.subordinate
    }
}

/// The address windows of a bridge, inclusive. A window whose limit lies below its base is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Non-prefetchable memory, below 4 GiB.
    pub memory: Option<RangeInclusive<u64>>,
    /// Prefetchable memory, 64-bit.
    pub prefetchable: Option<RangeInclusive<u64>>,
}

impl Windows {
    /// Whether `address` is forwarded downwards.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        [&self.memory, &self.prefetchable]
            .into_iter()
            .flatten()
            .any(|range| range.contains(&address))
    }
}

/// What type 0 and type 1 headers have in common.
pub(super) fn install_common(
    builder: &mut Builder,
    vendor: u16,
    device: u16,
    revision: u8,
    class: u32,
) {
    let registers = &mut builder.registers;
    registers.define_u16(header::VENDOR_ID, vendor);
    registers.define_u16(header::DEVICE_ID, device);
    registers.define_u32(header::REVISION_AND_CLASS, u32::from(revision) | class << 8);
    registers.writable(header::CACHE_LINE_SIZE, [0xff]);
    registers.writable(header::INTERRUPT_LINE, [0xff]);
    registers.clearable_u16(header::STATUS, status::ERRORS);
}

/// The bits of Command that a function with memory space implements. There is no I/O space, so
/// I/O Space Enable is hardwired to 0 (section 7.5.1.1.3).
pub(super) fn install_command(builder: &mut Builder) {
    let writable = command::MEMORY_SPACE
        | command::BUS_MASTER
        | command::PARITY_ERROR_RESPONSE
        | command::SERR
        | command::INTERRUPT_DISABLE;
    builder.registers.writable_u16(header::COMMAND, writable);
    builder.watch_u16(header::COMMAND, command::MEMORY_SPACE, ConfigEffects::DECODE);
    builder.watch_u16(header::COMMAND, command::BUS_MASTER, ConfigEffects::BUS_MASTER);
    builder.watch_u16(header::COMMAND, command::SERR, ConfigEffects::AER);
}

/// The registers of a type 1 header (section 7.5.1.3). There is no I/O window and no VGA: their
/// registers read 0, by which software sees that they do not exist.
pub(super) fn install_bridge(builder: &mut Builder) {
    let registers = &mut builder.registers;
    registers.define(header::HEADER_TYPE, [header::header_type::BRIDGE]);
    registers.writable(type1::PRIMARY_BUS, [0xff; 3]);
    registers.clearable_u16(type1::SECONDARY_STATUS, status::ERRORS);
    registers.writable_u16(type1::MEMORY_BASE, type1::WINDOW_ADDRESS_MASK);
    registers.writable_u16(type1::MEMORY_LIMIT, type1::WINDOW_ADDRESS_MASK);
    for offset in [type1::PREFETCHABLE_BASE, type1::PREFETCHABLE_LIMIT] {
        registers.define_u16(offset, type1::WINDOW_64_BIT);
        registers.writable_u16(offset, type1::WINDOW_ADDRESS_MASK);
    }
    registers.writable_u32(type1::PREFETCHABLE_BASE_UPPER, u32::MAX);
    registers.writable_u32(type1::PREFETCHABLE_LIMIT_UPPER, u32::MAX);
    registers.writable_u16(
        type1::BRIDGE_CONTROL,
        bridge_control::PARITY_ERROR_RESPONSE
            | bridge_control::SERR
            | bridge_control::SECONDARY_BUS_RESET,
    );
    for offset in [
        type1::PRIMARY_BUS,
        type1::MEMORY_BASE,
        type1::PREFETCHABLE_BASE,
        type1::PREFETCHABLE_BASE_UPPER,
        type1::PREFETCHABLE_LIMIT_UPPER,
    ] {
        builder.watch_u32(offset, u32::MAX, ConfigEffects::DECODE);
    }
    builder.watch_u16(type1::BRIDGE_CONTROL, bridge_control::SERR, ConfigEffects::AER);
    builder.watch_u16(
        type1::BRIDGE_CONTROL,
        bridge_control::SECONDARY_BUS_RESET,
        ConfigEffects::SECONDARY_BUS_RESET,
    );
}

/// The base address registers of a type 0 header.
pub(super) fn install_bars(
    builder: &mut Builder,
    descriptions: &[BarDescription],
) -> Result<[Option<Bar>; bar::COUNT], DescriptionError> {
    let mut bars = [None; bar::COUNT];
    let mut taken = [false; bar::COUNT];
    for &BarDescription { index, size, kind } in descriptions {
        let wide = matches!(kind, BarKind::Memory64 { .. });
        let prefetchable = matches!(kind, BarKind::Memory64 { prefetchable: true });
        let largest = if wide { 1 << 62 } else { 1 << 31 };
        if !size.is_power_of_two() || !(16..=largest).contains(&size) {
            return Err(DescriptionError::BarSize { index, size });
        }
        let first = usize::from(index);
        let slots = taken.get_mut(first..=first + usize::from(wide));
        let slots = slots.filter(|slots| !slots.contains(&true));
        slots.ok_or(DescriptionError::BarIndex { index })?.fill(true);
        let attributes = if wide { bar::TYPE_64_BIT } else { 0 }
            | if prefetchable { bar::PREFETCHABLE } else { 0 };
        builder.registers.define_u32(bar_offset(first), attributes);
        let new = Bar { size, wide, prefetchable };
        new.set_mask(&mut builder.registers, first);
        for register in first..=first + usize::from(wide) {
            builder.watch_u32(bar_offset(register), u32::MAX, ConfigEffects::DECODE);
        }
        bars[first] = Some(new);
    }
    Ok(bars)
}

/// Offset of the BAR register `index`, which is below 6.
fn bar_offset(index: usize) -> u16 {
    header::BAR0 + 4 * u16::try_from(index).unwrap_or(0)
}

impl Bar {
    /// Address bits below the size are hardwired to 0: that is how software finds the size.
    pub(super) fn set_mask(self, registers: &mut RegisterFile, index: usize) {
        let mask = !(self.size - 1);
        let [low, high] = halves(mask);
        let offset = bar_offset(index);
        let attributes = registers.u32(offset) & !bar::ADDRESS_MASK;
        registers.writable_u32(offset, low & bar::ADDRESS_MASK);
        registers.put_u32(offset, registers.u32(offset) & low & bar::ADDRESS_MASK | attributes);
        if self.wide {
            registers.writable_u32(offset + 4, high);
            registers.put_u32(offset + 4, registers.u32(offset + 4) & high);
        }
    }
}

/// Low and high half.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

impl ConfigSpace {
    /// Memory Space Enable (section 7.5.1.1.3). Whether the function decodes memory now also
    /// depends on its power state: see [`decodes_memory`](Self::decodes_memory).
    #[must_use]
    pub fn memory_enabled(&self) -> bool {
        self.registers.u16(header::COMMAND) & command::MEMORY_SPACE != 0
    }

    /// Bus Master Enable (section 7.5.1.1.3): an endpoint may issue memory requests, a bridge may
    /// forward them upstream.
    #[must_use]
    pub fn bus_master_enabled(&self) -> bool {
        self.registers.u16(header::COMMAND) & command::BUS_MASTER != 0
    }

    /// Whether memory requests from above are taken: enabled and in D0 (section 5.3.1.4.1: in
    /// D3hot they are unsupported requests).
    #[must_use]
    pub fn decodes_memory(&self) -> bool {
        self.memory_enabled() && self.power_state() == PowerState::D0
    }

    /// Whether requests are issued, or by a bridge forwarded upstream: enabled and in D0.
    #[must_use]
    pub fn masters_bus(&self) -> bool {
        self.bus_master_enabled() && self.power_state() == PowerState::D0
    }

    /// SERR# Enable of the Command register.
    pub(in crate::pci) fn system_error_enabled(&self) -> bool {
        self.registers.u16(header::COMMAND) & command::SERR != 0
    }

    /// The BARs with the addresses programmed into them, whether memory decoding is on or not.
    pub fn bars(&self) -> impl Iterator<Item = DecodedBar> + '_ {
        (0u8..).zip(&self.bars).filter_map(|(index, bar)| {
            let Bar { size, wide, prefetchable } = (*bar)?;
            Some(DecodedBar { index, address: self.bar_address(index, wide), size, prefetchable })
        })
    }

    /// The size of BAR `index` in bytes, if there is one.
    pub(in crate::pci) fn bar_size(&self, index: u8) -> Option<u64> {
        Some((*self.bars.get(usize::from(index))?)?.size)
    }

    /// Gives a BAR another size; address bits that are no longer writable become 0.
    pub(in crate::pci) fn resize_bar(&mut self, index: u8, size: u64) {
        let index = usize::from(index);
        if let Some(Some(bar)) = self.bars.get_mut(index)
            && bar.size != size
        {
            bar.size = size;
            bar.set_mask(&mut self.registers, index);
        }
    }

    fn bar_address(&self, index: u8, wide: bool) -> u64 {
        let offset = bar_offset(usize::from(index));
        let low = u64::from(self.registers.u32(offset) & bar::ADDRESS_MASK);
        let high = if wide { u64::from(self.registers.u32(offset + 4)) } else { 0 };
        high << 32 | low
    }

    /// Marks the function as one of several of its device (section 7.5.1.1.9): software looks for
    /// the others when function 0 says so.
    pub fn set_multi_function(&mut self) {
        let kind = self.registers.u8(header::HEADER_TYPE) | header::header_type::MULTI_FUNCTION;
        self.registers.define(header::HEADER_TYPE, [kind]);
    }

    /// The bus numbers of a bridge; `None` for other functions.
    #[must_use]
    pub fn bridge_buses(&self) -> Option<BridgeBuses> {
        self.port?;
        Some(BridgeBuses {
            primary: self.registers.u8(type1::PRIMARY_BUS),
            secondary: self.registers.u8(type1::SECONDARY_BUS),
            subordinate: self.registers.u8(type1::SUBORDINATE_BUS),
        })
    }

    /// The programmed windows of a bridge, whether memory decoding is on or not (no windows for
    /// other functions).
    #[must_use]
    pub fn bridge_windows(&self) -> Windows {
        if self.port.is_none() {
            return Windows::default();
        }
        let part =
            |offset: u16| u64::from(self.registers.u16(offset) & type1::WINDOW_ADDRESS_MASK) << 16;
        let upper = |offset: u16| u64::from(self.registers.u32(offset)) << 32;
        let window = |base: u64, limit: u64| {
            let range = base..=limit | (type1::WINDOW_GRANULE - 1);
            (!range.is_empty()).then_some(range)
        };
        Windows {
            memory: window(part(type1::MEMORY_BASE), part(type1::MEMORY_LIMIT)),
            prefetchable: window(
                upper(type1::PREFETCHABLE_BASE_UPPER) | part(type1::PREFETCHABLE_BASE),
                upper(type1::PREFETCHABLE_LIMIT_UPPER) | part(type1::PREFETCHABLE_LIMIT),
            ),
        }
    }

    /// Secondary Bus Reset (section 7.5.1.3.13): while set, everything below is held in reset.
    #[must_use]
    pub fn secondary_bus_reset(&self) -> bool {
        self.port.is_some()
            && self.registers.u16(type1::BRIDGE_CONTROL) & bridge_control::SECONDARY_BUS_RESET != 0
    }
}
