//! What a write to a configuration space means for the rest of the machine.

bitflags::bitflags! {
    /// Consequences of a configuration write, for the code that routes transactions and steps
    /// devices. A flag is set when a value changed, not merely when it was written.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ConfigEffects: u32 {
        /// What the function decodes: Memory Space Enable, a BAR, its size, bus numbers, a window.
        const DECODE = 1 << 0;
        /// Bus Master Enable.
        const BUS_MASTER = 1 << 1;
        /// MSI-X Enable or Function Mask.
        const MSIX = 1 << 2;
        /// A register of the MSI capability.
        const MSI = 1 << 3;
        /// A function level reset was asked for: finish or drop what is in flight, then call
        /// [`ConfigSpace::reset`](super::ConfigSpace::reset).
        const FLR = 1 << 4;
        /// The power state: transactions other than configuration stop in D3hot.
        const POWER = 1 << 5;
        /// ACS Control or the egress control vector.
        const ACS = 1 << 6;
        /// Error reporting: a register of AER, or its enables in other registers.
        const AER = 1 << 7;
        /// Link disable or a retrain.
        const LINK = 1 << 8;
        /// Maximum payload or read request size.
        const PAYLOAD = 1 << 9;
        /// Secondary Bus Reset of a bridge was set or cleared; see
        /// [`ConfigSpace::secondary_bus_reset`](super::ConfigSpace::secondary_bus_reset).
        const SECONDARY_BUS_RESET = 1 << 10;
        /// A writable register of a vendor-specific capability, also when its value is the same.
        const VENDOR = 1 << 11;
        /// An interrupt of a port's services became due: call
        /// [`ConfigSpace::take_interrupt`](super::ConfigSpace::take_interrupt).
        const INTERRUPT = 1 << 12;
    }
}

/// Bits of a dword whose change, or whose being written as 1, has effects.
#[derive(Clone, Copy, Debug)]
pub(in crate::pci) struct Watch {
    pub(in crate::pci) offset: u16,
    pub(in crate::pci) mask: u32,
    pub(in crate::pci) effects: ConfigEffects,
}

impl Watch {
    /// On a word, which is half of an aligned dword.
    pub(in crate::pci) fn u16(offset: u16, mask: u16, effects: ConfigEffects) -> Self {
        let shift = u32::from(offset & 2) * 8;
        Self { offset: offset & !3, mask: u32::from(mask) << shift, effects }
    }
}
