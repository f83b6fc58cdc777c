//! The Power Management capability (section 7.5.2). Offsets count from the capability.

pub(crate) const LENGTH: u16 = 8;
pub(crate) const CAPABILITIES: u16 = 2;
pub(crate) const CONTROL: u16 = 4;

/// Version 3: the layout of the current specification.
pub(crate) const VERSION_3: u16 = 3;
/// PME can be sent from D0, D3hot and D3cold.
pub(crate) const PME_D0_D3: u16 = 1 << 11 | 1 << 14 | 1 << 15;

/// Power Management Control/Status register (section 7.5.2.2).
pub(crate) mod control {
    pub(crate) const STATE_MASK: u16 = 3;
    pub(crate) const STATE_D0: u16 = 0;
    pub(crate) const STATE_D3: u16 = 3;
    pub(crate) const NO_SOFT_RESET: u16 = 1 << 3;
    pub(crate) const PME_ENABLE: u16 = 1 << 8;
    pub(crate) const PME_STATUS: u16 = 1 << 15;
}
