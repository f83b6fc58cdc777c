//! The Resizable BAR extended capability (section 7.8.6). Offsets of an entry count from the
//! entry, which follows the header and takes eight bytes.

pub(crate) const ENTRY: u16 = 4;
pub(crate) const ENTRY_LENGTH: u16 = 8;
pub(crate) const CAPABILITY: u16 = 0;
pub(crate) const CONTROL: u16 = 4;

/// Resizable BAR Capability: bit 4 stands for 1 MiB.
pub(crate) const SIZES_SHIFT: u32 = 4;

/// Resizable BAR Control register (section 7.8.6.3).
pub(crate) mod control {
    pub(crate) const COUNT_SHIFT: u32 = 5;
    pub(crate) const SIZE_SHIFT: u32 = 8;
    pub(crate) const SIZE_MASK: u32 = 0x3f << SIZE_SHIFT;
}
