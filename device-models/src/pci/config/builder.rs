//! Lays the capabilities of a function out in its configuration space.

use super::effects::{ConfigEffects, Watch};
use super::registers::RegisterFile;
use crate::pci::description::DescriptionError;
use crate::pci::spec::header::{self, status};

/// Where the PCI-compatible capabilities lie (section 7.2.2): up to the end of 256 bytes.
const CAPABILITIES: std::ops::Range<u16> = 0x40..0x100;
/// Where the extended capabilities lie (section 7.6.1).
const EXTENDED: std::ops::Range<u16> = 0x100..0x1000;

/// A configuration space being built: both capability lists are chained as they grow.
#[derive(Debug)]
pub(in crate::pci) struct Builder {
    pub(in crate::pci) registers: RegisterFile,
    pub(in crate::pci) watches: Vec<Watch>,
    pub(in crate::pci) triggers: Vec<Watch>,
    /// First free byte of each area.
    free: u16,
    free_extended: u16,
    /// Where the pointer to the next capability goes.
    pointer: u16,
    /// Header of the last extended capability.
    last_extended: Option<u16>,
}

impl Builder {
    pub(in crate::pci) fn new() -> Self {
        Self {
            registers: RegisterFile::new(),
            watches: Vec::new(),
            triggers: Vec::new(),
            free: CAPABILITIES.start,
            free_extended: EXTENDED.start,
            pointer: header::CAPABILITIES_POINTER,
            last_extended: None,
        }
    }

    /// Adds a capability of `length` bytes, ID and pointer included, and returns its offset.
    pub(in crate::pci) fn capability(
        &mut self,
        id: u8,
        length: u16,
    ) -> Result<u16, DescriptionError> {
        let offset = self.free;
        let end = offset.checked_add(length).filter(|end| *end <= CAPABILITIES.end);
        let (end, low) =
            end.zip(u8::try_from(offset).ok()).ok_or(DescriptionError::NoRoom("PCI"))?;
        self.registers.define(self.pointer, [low]);
        self.registers.define(offset, [id]);
        let status = self.registers.u16(header::STATUS) | status::CAPABILITIES_LIST;
        self.registers.define_u16(header::STATUS, status);
        self.pointer = offset + 1;
        self.free = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Adds an extended capability of `length` bytes, header included (section 7.6.3).
    pub(in crate::pci) fn extended(
        &mut self,
        id: u16,
        version: u8,
        length: u16,
    ) -> Result<u16, DescriptionError> {
        let offset = self.free_extended;
        let end = offset.checked_add(length).filter(|end| *end <= EXTENDED.end);
        let end = end.ok_or(DescriptionError::NoRoom("extended"))?;
        self.registers.define_u32(offset, u32::from(id) | u32::from(version & 0xf) << 16);
        if let Some(last) = self.last_extended {
            let header = self.registers.u32(last) | u32::from(offset) << 20;
            self.registers.define_u32(last, header);
        }
        self.last_extended = Some(offset);
        self.free_extended = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Reports `effects` when a write changes one of the bits of `mask` in the word at `offset`.
    pub(in crate::pci) fn watch_u16(&mut self, offset: u16, mask: u16, effects: ConfigEffects) {
        self.watches.push(Watch::u16(offset, mask, effects));
    }

    /// The same for a dword.
    pub(in crate::pci) fn watch_u32(&mut self, offset: u16, mask: u32, effects: ConfigEffects) {
        self.watches.push(Watch { offset, mask, effects });
    }

    /// Reports `effects` when software writes 1 to one of the bits of `mask`, which reads 0.
    pub(in crate::pci) fn trigger_u16(&mut self, offset: u16, mask: u16, effects: ConfigEffects) {
        self.triggers.push(Watch::u16(offset, mask, effects));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_chained_in_order() {
        let mut builder = Builder::new();
        assert_eq!(builder.capability(1, 8), Ok(0x40));
        assert_eq!(builder.capability(9, 5), Ok(0x48));
        assert_eq!(builder.capability(0x11, 12), Ok(0x50));
        let registers = &builder.registers;
        assert_eq!(registers.u8(0x34), 0x40);
        assert_eq!((registers.u16(0x40), registers.u16(0x48)), (0x4801, 0x5009));
        assert_eq!(registers.u16(0x50), 0x0011);
        assert_eq!(registers.u16(header::STATUS), status::CAPABILITIES_LIST);
    }

    #[test]
    fn extended_list_begins_at_100h() {
        let mut builder = Builder::new();
        assert_eq!(builder.extended(1, 2, 0x48), Ok(0x100));
        assert_eq!(builder.extended(0xd, 1, 8), Ok(0x148));
        assert_eq!(builder.registers.u32(0x100), 0x1482_0001);
        assert_eq!(builder.registers.u32(0x148), 0x0001_000d);
    }

    #[test]
    fn overflow_is_an_error() {
        let mut builder = Builder::new();
        assert_eq!(builder.capability(9, 0xc0), Ok(0x40));
        assert_eq!(builder.capability(9, 4), Err(DescriptionError::NoRoom("PCI")));
        assert_eq!(builder.extended(1, 1, 0xf00), Ok(0x100));
        assert_eq!(builder.extended(1, 1, 4), Err(DescriptionError::NoRoom("extended")));
    }
}
