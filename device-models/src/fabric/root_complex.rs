//! Host bridges: what they forward down to their root bus, and how far they take traffic between
//! functions.
use super::{AddressMap, FunctionId};
use crate::AddressRange;

/// An address range that a host bridge forwards to its root bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostWindow {
    /// Where it lies on the bus.
    pub bus: AddressRange,
    /// What is added to a bus address, modulo 2^64, to get the address on the CPUs' side: ACPI's
    /// `_TRA` (ACPI 6.5, 6.4.3.5).
    pub offset: u64,
}

impl HostWindow {
    /// Everything, untranslated.
    const EVERYTHING: Self = Self { bus: AddressRange { first: 0, last: u64::MAX }, offset: 0 };

    /// Where the CPUs see it.
    pub fn seen_by_cpu(self) -> AddressRange {
        let AddressRange { first, last } = self.bus;
        AddressRange {
            first: first.wrapping_add(self.offset),
            last: last.wrapping_add(self.offset),
        }
    }

    /// The bus address for an address on the CPUs' side, if the window holds it.
    fn to_bus(self, physical: u64) -> Option<u64> {
        Some(physical.wrapping_sub(self.offset)).filter(|address| self.bus.contains(*address))
    }
}

/// How far a host bridge takes requests of functions below it for functions below it or another
/// one. Real root complexes differ, which is why Linux keeps a list of those it trusts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PeerRouting {
    /// To any function.
    #[default]
    Everywhere,
    /// To functions below the same host bridge.
    SameBridge,
    /// It forwards nothing between its ports.
    Nowhere,
}

/// A host bridge for routing.
#[derive(Debug, Clone, Default)]
pub struct RootComplex {
    /// The functions on its root bus, the bridge's own first.
    pub functions: Vec<FunctionId>,
    /// What it forwards downwards. Empty: everything, untranslated.
    pub windows: Vec<HostWindow>,
    /// How far it takes peer-to-peer requests.
    pub peer_routing: PeerRouting,
}

impl RootComplex {
    fn windows(&self) -> &[HostWindow] {
        if self.windows.is_empty() { &[HostWindow::EVERYTHING] } else { &self.windows }
    }

    /// The bus address that stands behind `physical`, and for how many of `length` bytes that
    /// holds.
    pub(super) fn to_bus(&self, physical: u64, length: u64) -> Option<(u64, u64)> {
        self.windows().iter().find_map(|window| {
            let bus = window.to_bus(physical)?;
            Some((bus, window.bus.clip(bus, length)))
        })
    }

    /// Where the CPUs see a range of bus addresses; none unless one window holds all of it.
    pub(super) fn seen_by_cpu(&self, bus: &AddressRange) -> Option<AddressRange> {
        let holds =
            |window: &&HostWindow| window.bus.contains(bus.first) && window.bus.contains(bus.last);
        let offset = self.windows().iter().find(holds)?.offset;
        let range = AddressRange {
            first: bus.first.wrapping_add(offset),
            last: bus.last.wrapping_add(offset),
        };
        Some(range).filter(|range| range.first <= range.last)
    }

    /// How many of `length` bytes from `physical`, which no window holds, come before the next
    /// window.
    pub(super) fn clip_before_windows(&self, physical: u64, length: u64) -> u64 {
        self.windows().iter().fold(length, |length, window| {
            let ahead = window.bus.first.wrapping_add(window.offset).wrapping_sub(physical);
            if ahead == 0 { length } else { length.min(ahead) }
        })
    }
}

impl AddressMap {
    /// Whether requests of `from` reach `to` through the root complex.
    pub(super) fn routes_between(&self, from: FunctionId, to: FunctionId) -> bool {
        let index = |function| {
            let top = self.on_root_bus(function);
            self.roots.iter().position(|root| root.functions.contains(&top))
        };
        let (Some(a), Some(b)) = (index(from), index(to)) else { return false };
        let far = |root: usize| match self.roots[root].peer_routing {
            PeerRouting::Everywhere => true,
            PeerRouting::SameBridge => a == b,
            PeerRouting::Nowhere => false,
        };
        far(a) && far(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> RootComplex {
        let window = |first, last, offset| HostWindow { bus: AddressRange { first, last }, offset };
        RootComplex {
            windows: vec![
                window(0xc000_0000, 0xdfff_ffff, 0x20_0000_0000),
                window(0x1000, 0x1fff, 0u64.wrapping_sub(0x1000)),
            ],
            ..RootComplex::default()
        }
    }

    #[test]
    fn addresses_are_translated_both_ways_and_only_inside_the_windows() {
        let bridge = bridge();
        assert_eq!(bridge.to_bus(0x20_c000_0010, 0x100), Some((0xc000_0010, 0x100)));
        assert_eq!(bridge.to_bus(0x20_dfff_fff0, 0x100), Some((0xdfff_fff0, 0x10)));
        assert_eq!(bridge.to_bus(0xc000_0010, 1), None);
        assert_eq!(bridge.to_bus(0x10, 0x10), Some((0x1010, 0x10)));
        let range = |first, last| AddressRange { first, last };
        assert_eq!(
            bridge.seen_by_cpu(&range(0xc000_0000, 0xc000_0fff)),
            Some(range(0x20_c000_0000, 0x20_c000_0fff))
        );
        assert_eq!(bridge.seen_by_cpu(&range(0xdfff_f000, 0xe000_0fff)), None);
    }

    #[test]
    fn a_run_of_bytes_ends_where_a_window_begins() {
        assert_eq!(bridge().clip_before_windows(0x20_bfff_fff0, 0x100), 0x10);
        assert_eq!(bridge().clip_before_windows(0x20_e000_0000, 0x100), 0x100);
    }

    #[test]
    fn without_windows_everything_is_forwarded_as_it_is() {
        let bridge = RootComplex::default();
        assert_eq!(bridge.to_bus(0xdead_0000, 0x40), Some((0xdead_0000, 0x40)));
        assert_eq!(bridge.clip_before_windows(5, 100), 100);
    }
}
