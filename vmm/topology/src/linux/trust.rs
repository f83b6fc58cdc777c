//! Which host bridges Linux trusts with peer-to-peer traffic (`pci_p2pdma_whitelist`, Linux 7.3).

use super::Version;
use crate::description::{Cpu, PciId};

/// What Linux thinks of a host bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It routes between any two of its functions and to those of other trusted bridges.
    Everywhere,
    /// It routes between its own functions.
    SameBridge,
    /// It is not on the list.
    Unknown,
}

/// Vendor ID of Intel.
pub(super) const INTEL: u16 = 0x8086;
const GOOGLE: u16 = 0x1ae0;
const NVIDIA: u16 = 0x10de;

const INTEL_SAME_BRIDGE: [u16; 4] = [0x3c00, 0x3c01, 0x2f00, 0x2f01];
const INTEL_EVERYWHERE: [u16; 6] = [0x2030, 0x2031, 0x2032, 0x2033, 0x2020, 0x09a2];
/// Listed since 6.12: functions of Intel's accelerators, where they come first on their root bus.
const INTEL_ACCELERATORS: [u16; 10] =
    [0x0b25, 0x0cfe, 0x11fb, 0x1212, 0x1216, 0x4940, 0x4942, 0x4944, 0x4946, 0x4948];
const NVIDIA_EVERYWHERE: [u16; 4] = [0x2f95, 0x2f96, 0x2f97, 0x2f98];

/// Looks a host bridge's own function up.
pub fn of(version: Version, PciId { vendor, device }: PciId) -> Trust {
    let late = version > Version::V6_12;
    match vendor {
        GOOGLE if late => Trust::Everywhere,
        INTEL if INTEL_SAME_BRIDGE.contains(&device) => Trust::SameBridge,
        INTEL if INTEL_EVERYWHERE.contains(&device) => Trust::Everywhere,
        INTEL if late && INTEL_ACCELERATORS.contains(&device) => Trust::Everywhere,
        NVIDIA if late && NVIDIA_EVERYWHERE.contains(&device) => Trust::Everywhere,
        _ => Trust::Unknown,
    }
}

/// Whether the processor alone is reason enough (`cpu_supports_p2pdma()`).
pub(super) fn by_processor(cpu: Cpu) -> bool {
    cpu == Cpu::TrustedForPeerToPeer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_identities_mean_what_they_should() {
        let trust = |text: &str| of(Version::V7_3, text.parse().unwrap());
        assert_eq!(trust("1ae0:0001"), Trust::Everywhere);
        assert_eq!(trust("8086:2020"), Trust::Everywhere);
        assert_eq!(trust("8086:3c00"), Trust::SameBridge);
        assert_eq!(trust("8086:29c0"), Trust::Unknown);
        assert_eq!(trust("3c00:8086"), Trust::Unknown);
    }

    #[test]
    fn the_list_has_grown_after_6_12() {
        let of = |version, text: &str| of(version, text.parse().unwrap());
        for version in [Version::V6_1, Version::V6_12] {
            assert_eq!(of(version, "8086:09a2"), Trust::Everywhere);
            assert_eq!(of(version, "8086:2f01"), Trust::SameBridge);
            for late in ["8086:0b25", "8086:4948", "1ae0:0001", "10de:2f95"] {
                assert_eq!(of(version, late), Trust::Unknown, "{late}");
                assert_eq!(of_7_3(late), Trust::Everywhere, "{late}");
            }
        }
    }

    fn of_7_3(text: &str) -> Trust {
        of(Version::V7_3, text.parse().unwrap())
    }
}
