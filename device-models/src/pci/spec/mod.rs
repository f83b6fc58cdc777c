//! Register layouts of the PCI Express Base Specification 6.0: offsets and bits, no behaviour.

pub(crate) mod acs;
pub(crate) mod aer;
pub(crate) mod header;
pub(crate) mod msi;
pub(crate) mod msix;
pub(crate) mod pcie;
pub(crate) mod power;
pub(crate) mod resizable_bar;

/// Bytes of a function's configuration space (section 7.2.2).
pub(crate) const CONFIG_SPACE_SIZE: usize = 4096;

/// Capability IDs of the PCI-compatible list (section 7.5.3 and following).
pub(crate) mod id {
    pub(crate) const POWER_MANAGEMENT: u8 = 0x01;
    pub(crate) const MSI: u8 = 0x05;
    pub(crate) const VENDOR_SPECIFIC: u8 = 0x09;
    pub(crate) const BRIDGE_SUBSYSTEM: u8 = 0x0d;
    pub(crate) const PCI_EXPRESS: u8 = 0x10;
    pub(crate) const MSIX: u8 = 0x11;
}

/// Extended capability IDs (section 7.6.3).
pub(crate) mod extended_id {
    pub(crate) const ADVANCED_ERROR_REPORTING: u16 = 0x0001;
    pub(crate) const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
    pub(crate) const ACCESS_CONTROL_SERVICES: u16 = 0x000d;
    pub(crate) const RESIZABLE_BAR: u16 = 0x0015;
    pub(crate) const SECONDARY_PCI_EXPRESS: u16 = 0x0019;
}
