//! Capabilities of a few bytes: vendor-specific, subsystem IDs of a bridge, serial number.

use crate::pci::config::{Builder, ConfigSpace, VendorRegister};
use crate::pci::description::{DescriptionError, VendorCapability};
use crate::pci::spec::{extended_id, id};

/// A vendor-specific capability (section 7.9.4): where its body begins, and the body's length.
pub(in crate::pci) fn install_vendor(
    builder: &mut Builder,
    index: usize,
    capability: &VendorCapability,
) -> Result<(u16, u16), DescriptionError> {
    let body = &capability.body;
    let needed = body.len() + 2;
    let length = u8::try_from(needed).map_err(|_| DescriptionError::NoRoom("PCI"))?;
    if body.first() != Some(&length) {
        return Err(DescriptionError::VendorLength { index, needed });
    }
    let start = builder.capability(id::VENDOR_SPECIFIC, length.into())? + 2;
    for (at, &byte) in (start..).zip(body) {
        builder.registers.define(at, [byte]);
    }
    for (at, &mask) in (start..).zip(capability.writable.iter().take(body.len())) {
        builder.registers.writable(at, [mask]);
    }
    Ok((start, u16::from(length) - 2))
}

/// Subsystem IDs of a bridge, whose header has no room for them (section 7.9.23).
pub(in crate::pci) fn install_bridge_subsystem(
    builder: &mut Builder,
    vendor: u16,
    subsystem: u16,
) -> Result<(), DescriptionError> {
    let offset = builder.capability(id::BRIDGE_SUBSYSTEM, 8)?;
    builder.registers.define_u16(offset + 4, vendor);
    builder.registers.define_u16(offset + 6, subsystem);
    Ok(())
}

/// Device Serial Number (section 7.9.3).
pub(in crate::pci) fn install_serial_number(
    builder: &mut Builder,
    number: u64,
) -> Result<(), DescriptionError> {
    let offset = builder.extended(extended_id::DEVICE_SERIAL_NUMBER, 1, 12)?;
    builder.registers.define(offset + 4, number.to_le_bytes());
    Ok(())
}

impl ConfigSpace {
    /// The register of a vendor-specific capability at `offset` of the configuration space, for
    /// functions that give such registers a meaning of their own; ID and next pointer are none.
    #[must_use]
    pub fn vendor_register(&self, offset: u16) -> Option<VendorRegister> {
        let capabilities = self.layout().vendor.iter().enumerate();
        let mut found = capabilities.filter_map(|(index, &(start, length))| {
            let inside = offset.checked_sub(start).filter(|inside| *inside < length)?;
            Some(VendorRegister { index, offset: inside.into() })
        });
        found.next()
    }

    /// Byte `offset` of the body of vendor-specific capability `index`.
    #[must_use]
    pub fn vendor_byte(&self, index: usize, offset: usize) -> Option<u8> {
        self.vendor_place(index, offset).map(|at| self.registers().u8(at))
    }

    /// Changes byte `offset` of the body of capability `index`, as the function itself; outside
    /// the body nothing happens.
    pub fn set_vendor_byte(&mut self, index: usize, offset: usize, value: u8) {
        if let Some(at) = self.vendor_place(index, offset) {
            self.registers_mut().put(at, [value]);
        }
    }

    fn vendor_place(&self, index: usize, offset: usize) -> Option<u16> {
        let &(start, length) = self.layout().vendor.get(index)?;
        let offset = u16::try_from(offset).ok().filter(|offset| *offset < length)?;
        Some(start + offset)
    }

    /// Whether a write of `len` bytes touches a vendor-specific capability's body.
    pub(in crate::pci) fn vendor_written(&self, offset: u16, len: u8) -> bool {
        (0..len.min(4)).any(|byte| {
            offset.checked_add(byte.into()).is_some_and(|at| self.vendor_register(at).is_some())
        })
    }
}
