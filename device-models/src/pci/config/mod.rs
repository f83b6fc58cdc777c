//! The configuration space of one function: what software reads and writes, and what it means.

mod build;
mod builder;
mod effects;
mod header;
mod mirror;
mod registers;

pub(super) use builder::Builder;
pub use effects::ConfigEffects;
use effects::Watch;
use header::Bar;
pub use header::{BridgeBuses, DecodedBar, Windows};
pub(super) use registers::RegisterFile;

use super::capability::Services;
use super::description::{AcsControl, Link, PortKind};
use super::spec::header::bar;
use crate::memory::Memory;

/// The resets of a function (section 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetKind {
    /// Function level reset (section 6.6.2): sticky bits and the settings of the link stay.
    FunctionLevel,
    /// Conventional reset with power on, for instance by the bridge above (section 6.6.1): sticky
    /// bits stay.
    Hot,
    /// Power-on: nothing stays.
    Cold,
}

/// A register of a vendor-specific capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorRegister {
    /// Which capability, in the order of the description.
    pub index: usize,
    /// Byte within [`VendorCapability::body`](super::VendorCapability::body).
    pub offset: usize,
}

/// Where the capabilities of a function begin.
#[derive(Clone, Debug, Default)]
pub(in crate::pci) struct Layout {
    pub(in crate::pci) power: Option<u16>,
    pub(in crate::pci) msi: Option<u16>,
    pub(in crate::pci) msix: Option<u16>,
    pub(in crate::pci) pcie: Option<u16>,
    pub(in crate::pci) aer: Option<u16>,
    pub(in crate::pci) acs: Option<u16>,
    /// ACS controls whose bits do nothing.
    pub(in crate::pci) acs_without_effect: AcsControl,
    /// Header of the capability and number of entries.
    pub(in crate::pci) resizable: Option<(u16, u16)>,
    /// First byte of each body and its length.
    pub(in crate::pci) vendor: Vec<(u16, u16)>,
}

/// The 4 KiB configuration space of a function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    registers: RegisterFile,
    layout: Layout,
    watches: Vec<Watch>,
    triggers: Vec<Watch>,
    bars: [Option<Bar>; bar::COUNT],
    port: Option<PortKind>,
    /// The trained link: below a root port or downstream port, above any other function.
    /// `None` while there is none or it is down.
    link: Option<Link>,
    /// The conditions for an interrupt that held when they were last looked at: only their rise
    /// raises one (sections 6.2.4.1.2 and 6.7.3.4).
    pub(in crate::pci) asserted: Services,
}

impl ConfigSpace {
    /// Software's read of `len` bytes at `offset`. Bytes beyond the 4 KiB read as all ones, and
    /// those beyond the fourth are not read.
    #[must_use]
    pub fn read(&self, offset: u16, len: u8) -> u32 {
        self.registers.read(offset, len)
    }

    /// Software's write of the low `len` bytes of `value` at `offset`; what lies beyond the 4 KiB
    /// is dropped. Any offset and length are safe, aligned or not.
    pub fn write(&mut self, offset: u16, len: u8, value: u32) -> ConfigEffects {
        let len = len.min(4);
        // An unaligned write touches two dwords, but never more.
        let first = offset & !3;
        let dwords = [first, first.saturating_add(4)];
        let before = dwords.map(|dword| self.registers.u32(dword));
        let power_state = self.power_state();
        let ones = written_ones(offset, len, value);
        self.registers.hold();
        self.registers.write(offset, len, value);
        self.discard_unsupported_power_state(power_state);
        self.adopt_bar_sizes();

        let mut effects = ConfigEffects::empty();
        for (i, dword) in dwords.into_iter().enumerate() {
            let changed = before[i] ^ self.registers.u32(dword);
            effects |= hit(&self.watches, dword, changed) | hit(&self.triggers, dword, ones[i]);
        }
        if effects.contains(ConfigEffects::LINK) {
            let before = self.occupancy();
            self.refresh_link();
            self.latch_slot_events(before);
        }
        if self.vendor_written(offset, len) {
            effects |= ConfigEffects::VENDOR;
        }
        if self.interrupt_due() {
            effects |= ConfigEffects::INTERRUPT;
        }
        self.registers.release();
        effects
    }

    /// Keeps a copy at `offset` of `memory` for the guest's CPUs to read without an exit.
    /// [`ConfigSpace::show`] shows it: until then it reads as all ones, as if no function answered.
    pub(crate) fn mirror_to(&mut self, memory: Memory, offset: u64) {
        self.registers.mirror_to(memory, offset);
    }

    /// The memory of that copy, and where in it the copy begins; none while a read has to be asked
    /// for: without [`ConfigSpace::mirror_to`], or where a device answers for some registers
    /// itself.
    pub(crate) fn mirror(&self) -> Option<(&Memory, u64)> {
        self.registers.mirror().filter(|_| self.layout.vendor.is_empty())
    }

    /// Whether configuration requests reach the function: what the copy shows.
    pub(crate) fn show(&mut self, reached: bool) {
        self.registers.show(reached);
    }

    /// Brings the function into the state after a reset: registers to their initial values but
    /// for those this kind of reset keeps. The link is taken as trained again.
    pub fn reset(&mut self, kind: ResetKind) {
        self.registers.hold();
        self.registers.reset(kind);
        self.asserted = Services::empty();
        self.adopt_bar_sizes();
        self.refresh_link();
        self.registers.release();
    }

    pub(in crate::pci) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(in crate::pci) fn registers(&self) -> &RegisterFile {
        &self.registers
    }

    pub(in crate::pci) fn registers_mut(&mut self) -> &mut RegisterFile {
        &mut self.registers
    }

    pub(in crate::pci) fn trained_link(&self) -> Option<Link> {
        self.link
    }

    pub(in crate::pci) fn set_trained_link(&mut self, link: Option<Link>) {
        self.link = link;
    }

    /// The port this function is, if it has a type 1 header.
    #[must_use]
    pub const fn port_kind(&self) -> Option<PortKind> {
        self.port
    }
}

/// The effects of those watches on `dword` that `bits` touch.
fn hit(watches: &[Watch], dword: u16, bits: u32) -> ConfigEffects {
    let hits = watches.iter().filter(|watch| watch.offset == dword && watch.mask & bits != 0);
    hits.fold(ConfigEffects::empty(), |all, watch| all | watch.effects)
}

/// The bits written as 1, by dword, of the aligned pair of dwords in which `offset` lies.
fn written_ones(offset: u16, len: u8, value: u32) -> [u32; 2] {
    let mask = u64::MAX.checked_shr(64 - 8 * u32::from(len)).unwrap_or(0);
    let pair = (u64::from(value) & mask) << (8 * u32::from(offset & 3));
    let bytes = pair.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
