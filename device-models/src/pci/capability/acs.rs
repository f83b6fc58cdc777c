//! Access Control Services (section 7.7.11).

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::{AcsCapabilities, AcsControl, DescriptionError};
use crate::pci::spec::{acs, extended_id};

/// Lays the capability out: each control that exists can be switched, all start off.
pub(in crate::pci) fn install(
    builder: &mut Builder,
    capabilities: AcsCapabilities,
) -> Result<u16, DescriptionError> {
    let AcsCapabilities { controls, egress_vector_bits, .. } = capabilities;
    let egress = controls.contains(AcsControl::P2P_EGRESS_CONTROL);
    if egress && !(1..=256).contains(&egress_vector_bits) {
        return Err(DescriptionError::EgressVector(egress_vector_bits));
    }
    let bits = if egress { egress_vector_bits } else { 0 };
    let dwords = bits.div_ceil(32);
    let length = acs::EGRESS_VECTOR + 4 * dwords;
    let offset = builder.extended(extended_id::ACCESS_CONTROL_SERVICES, 1, length)?;
    // 256 bits are coded as 0 (section 7.7.11.2).
    let size = (bits & 0xff) << acs::EGRESS_SIZE_SHIFT;
    builder.registers.define_u16(offset + acs::CAPABILITY, controls.bits() | size);
    builder.registers.writable_u16(offset + acs::CONTROL, controls.bits());
    builder.watch_u16(offset + acs::CONTROL, controls.bits(), ConfigEffects::ACS);
    for dword in 0..dwords {
        let at = offset + acs::EGRESS_VECTOR + 4 * dword;
        let mask = u32::MAX.checked_shr(u32::from(32 * (dword + 1)).saturating_sub(bits.into()));
        builder.registers.writable_u32(at, mask.unwrap_or(0));
        builder.watch_u32(at, u32::MAX, ConfigEffects::ACS);
    }
    Ok(offset)
}

impl ConfigSpace {
    /// The services switched on; none for a function without the capability.
    #[must_use]
    pub fn acs_control(&self) -> AcsControl {
        let bits =
            self.layout().acs.map_or(0, |offset| self.registers().u16(offset + acs::CONTROL));
        AcsControl::from_bits_truncate(bits)
    }

    /// The services that the port performs: those switched on, but for a defective port's, see
    /// [`AcsCapabilities::without_effect`].
    #[must_use]
    pub fn acs_in_effect(&self) -> AcsControl {
        self.acs_control() - self.layout().acs_without_effect
    }

    /// The services that exist; `None` for a function without the capability.
    #[must_use]
    pub fn acs_capabilities(&self) -> Option<AcsControl> {
        let offset = self.layout().acs?;
        Some(AcsControl::from_bits_truncate(self.registers().u16(offset + acs::CAPABILITY)))
    }

    /// The egress control vector, bit 0 of the first word for port (or, in a multi-function device,
    /// function) 0: with P2P Egress Control on, a request to a port whose bit is set may not go
    /// there directly. Zeros beyond its length.
    #[must_use]
    pub fn acs_egress_vector(&self) -> [u32; 8] {
        let mut vector = [0; 8];
        let Some(offset) = self.layout().acs else { return vector };
        let capability = self.registers().u16(offset + acs::CAPABILITY);
        if capability & acs::P2P_EGRESS_CONTROL == 0 {
            return vector;
        }
        let coded = capability >> acs::EGRESS_SIZE_SHIFT;
        let bits = if coded == 0 { 256 } else { coded };
        // Bits beyond the length cannot be set.
        let dwords = usize::from(bits.div_ceil(32));
        for (word, at) in
            vector.iter_mut().zip((offset + acs::EGRESS_VECTOR..).step_by(4)).take(dwords)
        {
            *word = self.registers().u32(at);
        }
        vector
    }

    /// Whether the egress control vector names `port`.
    #[must_use]
    pub fn acs_egress_blocked(&self, port: u8) -> bool {
        egress_names(&self.acs_egress_vector(), port)
    }
}

/// Whether an egress control vector (PCIe 6.0, 7.7.11.4) has the bit of the port with the number
/// `port`.
pub(crate) fn egress_names(vector: &[u32; 8], port: u8) -> bool {
    vector[usize::from(port / 32)] >> (port % 32) & 1 != 0
}
