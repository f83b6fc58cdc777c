//! The MSI capability with 64-bit address and per-vector masking (section 7.7.1). Offsets count
//! from the capability.

pub(crate) const LENGTH: u16 = 0x18;
pub(crate) const CONTROL: u16 = 0x02;
pub(crate) const ADDRESS: u16 = 0x04;
pub(crate) const ADDRESS_UPPER: u16 = 0x08;
pub(crate) const DATA: u16 = 0x0c;
pub(crate) const MASK: u16 = 0x10;
pub(crate) const PENDING: u16 = 0x14;

/// Message Control register (section 7.7.1.2).
pub(crate) mod control {
    pub(crate) const ENABLE: u16 = 1 << 0;
    pub(crate) const MULTIPLE_ENABLE_MASK: u16 = 7 << 4;
    pub(crate) const ADDRESS_64_BIT: u16 = 1 << 7;
    pub(crate) const PER_VECTOR_MASKING: u16 = 1 << 8;
}
