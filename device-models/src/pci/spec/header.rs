//! The type 0 and type 1 headers (sections 7.5.1.1 to 7.5.1.3).

pub(crate) const VENDOR_ID: u16 = 0x00;
pub(crate) const DEVICE_ID: u16 = 0x02;
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const STATUS: u16 = 0x06;
/// Revision ID in bits 7:0, class code in bits 31:8.
pub(crate) const REVISION_AND_CLASS: u16 = 0x08;
pub(crate) const CACHE_LINE_SIZE: u16 = 0x0c;
pub(crate) const HEADER_TYPE: u16 = 0x0e;
pub(crate) const BAR0: u16 = 0x10;
pub(crate) const CAPABILITIES_POINTER: u16 = 0x34;
pub(crate) const INTERRUPT_LINE: u16 = 0x3c;

/// Command register (section 7.5.1.1.3).
pub(crate) mod command {
    pub(crate) const MEMORY_SPACE: u16 = 1 << 1;
    pub(crate) const BUS_MASTER: u16 = 1 << 2;
    pub(crate) const PARITY_ERROR_RESPONSE: u16 = 1 << 6;
    pub(crate) const SERR: u16 = 1 << 8;
    pub(crate) const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Status register (section 7.5.1.1.4) and, with the same bits, Secondary Status (7.5.1.3.7).
pub(crate) mod status {
    pub(crate) const CAPABILITIES_LIST: u16 = 1 << 4;
    pub(crate) const MASTER_DATA_PARITY_ERROR: u16 = 1 << 8;
    pub(crate) const SIGNALED_TARGET_ABORT: u16 = 1 << 11;
    pub(crate) const RECEIVED_TARGET_ABORT: u16 = 1 << 12;
    pub(crate) const RECEIVED_MASTER_ABORT: u16 = 1 << 13;
    /// Signaled System Error; in Secondary Status, Received System Error.
    pub(crate) const SYSTEM_ERROR: u16 = 1 << 14;
    pub(crate) const DETECTED_PARITY_ERROR: u16 = 1 << 15;
    /// The bits that software clears by writing 1.
    pub(crate) const ERRORS: u16 = MASTER_DATA_PARITY_ERROR
        | SIGNALED_TARGET_ABORT
        | RECEIVED_TARGET_ABORT
        | RECEIVED_MASTER_ABORT
        | SYSTEM_ERROR
        | DETECTED_PARITY_ERROR;
}

/// Header Type register (section 7.5.1.1.9).
pub(crate) mod header_type {
    pub(crate) const BRIDGE: u8 = 1;
    pub(crate) const LAYOUT_MASK: u8 = 0x7f;
    pub(crate) const MULTI_FUNCTION: u8 = 1 << 7;
}

/// Base Address registers (section 7.5.1.2.1).
pub(crate) mod bar {
    pub(crate) const IO_SPACE: u32 = 1 << 0;
    pub(crate) const TYPE_MASK: u32 = 3 << 1;
    pub(crate) const TYPE_64_BIT: u32 = 2 << 1;
    pub(crate) const PREFETCHABLE: u32 = 1 << 3;
    pub(crate) const ADDRESS_MASK: u32 = 0xffff_fff0;
    /// Registers of a type 0 header.
    pub(crate) const COUNT: usize = 6;
}

/// Type 0 only (section 7.5.1.2).
pub(crate) mod type0 {
    pub(crate) const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    pub(crate) const SUBSYSTEM_ID: u16 = 0x2e;
}

/// Type 1 only (section 7.5.1.3).
pub(crate) mod type1 {
    pub(crate) const PRIMARY_BUS: u16 = 0x18;
    pub(crate) const SECONDARY_BUS: u16 = 0x19;
    pub(crate) const SUBORDINATE_BUS: u16 = 0x1a;
    pub(crate) const SECONDARY_STATUS: u16 = 0x1e;
    /// Address bits 31:20 in bits 15:4.
    pub(crate) const MEMORY_BASE: u16 = 0x20;
    pub(crate) const MEMORY_LIMIT: u16 = 0x22;
    pub(crate) const PREFETCHABLE_BASE: u16 = 0x24;
    pub(crate) const PREFETCHABLE_LIMIT: u16 = 0x26;
    pub(crate) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    pub(crate) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    pub(crate) const BRIDGE_CONTROL: u16 = 0x3e;
    pub(crate) const WINDOW_ADDRESS_MASK: u16 = 0xfff0;
    /// In the low bits of prefetchable base and limit: 64-bit addresses.
    pub(crate) const WINDOW_64_BIT: u16 = 1;
    /// A window is a multiple of this, in bytes.
    pub(crate) const WINDOW_GRANULE: u64 = 1 << 20;
}

/// Bridge Control register (section 7.5.1.3.13).
pub(crate) mod bridge_control {
    pub(crate) const PARITY_ERROR_RESPONSE: u16 = 1 << 0;
    pub(crate) const SERR: u16 = 1 << 1;
    pub(crate) const SECONDARY_BUS_RESET: u16 = 1 << 6;
}
