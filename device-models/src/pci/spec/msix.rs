//! The MSI-X capability and table (section 7.7.2).

pub(crate) const LENGTH: u16 = 12;
pub(crate) const CONTROL: u16 = 2;
pub(crate) const TABLE: u16 = 4;
pub(crate) const PENDING: u16 = 8;
/// Most vectors of a function.
pub(crate) const VECTORS_MAX: u16 = 2048;

/// Message Control register (section 7.7.2.2).
pub(crate) mod control {
    pub(crate) const FUNCTION_MASK: u16 = 1 << 14;
    pub(crate) const ENABLE: u16 = 1 << 15;
}

/// A table entry (sections 7.7.2.5 to 7.7.2.8): four dwords.
pub(crate) mod entry {
    pub(crate) const LENGTH: u64 = 16;
    /// Bit of the Vector Control dword.
    pub(crate) const MASKED: u32 = 1;
}
