//! Vendor, family and model.

use super::CpuProfile;
use super::leaf::Table;

/// The maker of the processor, as far as Linux treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `AuthenticAMD`.
    Amd,
    /// `GenuineIntel`.
    Intel,
    /// Any other.
    Other,
}

/// `ebx`, `edx`, `ecx` of leaf 0.
const AMD: [u32; 3] = [0x6874_7541, 0x6974_6E65, 0x444D_4163];
const INTEL: [u32; 3] = [0x756E_6547, 0x4965_6E69, 0x6C65_746E];

/// The first family that Linux allows peer-to-peer DMA for whatever the host bridge is.
const FIRST_P2P_FAMILY: u32 = 0x17;
/// Family 0x16, model 0x30: the last before Zen, and free of errata that Linux would act upon.
const SIGNATURE_BEFORE_ZEN: u32 = 0x0073_0F01;
/// Family 0x19, model 0x01.
const SIGNATURE_ZEN3: u32 = 0x00A0_0F11;

/// Leaves that only Intel's processors have: cache descriptors, deterministic caches, TSC and frequencies.
const INTEL_ONLY: [u32; 4] = [0x2, 0x4, 0x15, 0x16];

pub(super) fn vendor(table: &Table) -> Vendor {
    match table.get(0).map(|entry| [entry.ebx, entry.edx, entry.ecx]) {
        Some(AMD) => Vendor::Amd,
        Some(INTEL) => Vendor::Intel,
        _ => Vendor::Other,
    }
}

/// The display family (Intel SDM vol. 2, CPUID leaf 1; AMD APM vol. 3, E.3.2).
pub(super) fn family(signature: u32) -> u32 {
    let base = signature >> 8 & 0xF;
    if base == 0xF { base + (signature >> 20 & 0xFF) } else { base }
}

/// Makes the processor one that does, or does not, switch Linux's rule on. Returns the vendor shown.
pub(super) fn apply(table: &mut Table, host: Vendor, profile: CpuProfile) -> Vendor {
    let host_signature = table.get(1).map_or(0, |entry| entry.eax);
    let has_rule = host == Vendor::Amd && family(host_signature) >= FIRST_P2P_FAMILY;
    let signature = match (profile.p2p_cpu_override, has_rule) {
        (true, true) | (false, false) => return host,
        (true, false) => SIGNATURE_ZEN3,
        (false, true) => SIGNATURE_BEFORE_ZEN,
    };
    if host != Vendor::Amd {
        table.retain(|entry| !INTEL_ONLY.contains(&entry.function));
    }
    for leaf in [0x0, 0x8000_0000] {
        table.edit(leaf, |entry| [entry.ebx, entry.edx, entry.ecx] = AMD);
    }
    table.edit(0x1, |entry| entry.eax = signature);
    table.edit(0x8000_0001, |entry| entry.eax = signature);
    Vendor::Amd
}
