//! Of which kind a DMA address is, and the path that requests to it take.

use guest_agent::device::Peer;
use guest_agent::vmm::PathKind;
use serde_json::{Value, json};

use crate::output::hex;

/// A kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What stands in a BAR: the address on the bus.
    Bus,
    /// What CPUs use for it.
    Physical,
    /// Either: the host bridge does not translate, so the two are the same number.
    BusOrPhysical,
    /// One that the IOMMU translates.
    Iova,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bus => "bus address",
            Self::Physical => "CPU physical address",
            Self::BusOrPhysical => "bus address, here the same as the CPU physical address",
            Self::Iova => "IOVA",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::Physical => "physical",
            Self::BusOrPhysical => "bus-or-physical",
            Self::Iova => "iova",
        }
    }
}

/// An address, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) kind: Kind,
    /// The path, in a sentence.
    pub(crate) path: String,
}

impl Located {
    pub(crate) fn text(&self) -> String {
        format!(
            "{:#x}, {} bytes: {}\n    {}",
            self.address,
            self.length,
            self.kind.word(),
            self.path
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "address": hex(self.address),
            "length": self.length,
            "kind": self.kind.key(),
            "path": self.path,
        })
    }
}

/// A device's local memory, where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) bus: u64,
    pub(crate) phys: u64,
    pub(crate) size: u64,
}

impl Memory {
    pub(crate) fn of(peer: &Peer) -> Self {
        let info = peer.info;
        Self {
            name: peer.name(),
            bus: info.memory_bus,
            phys: info.memory_phys,
            size: info.memory_size,
        }
    }

    fn holds(&self, start: u64, address: u64) -> bool {
        start != 0 && (start..start.saturating_add(self.size)).contains(&address)
    }
}

/// What `address` is to a device whose addresses the IOMMU translates, or not. `owner` is the device whose memory it
/// should be, if that is known; `way` is what is expected of the kernel there, `memories` are those of all devices.
pub(crate) fn locate(
    address: u64,
    length: u64,
    is_translated: bool,
    owner: Option<&str>,
    way: Option<PathKind>,
    memories: &[Memory],
) -> Located {
    let by_bus = memories.iter().find(|memory| memory.holds(memory.bus, address));
    let by_phys = memories.iter().find(|memory| memory.holds(memory.phys, address));
    let (kind, path) = match (by_bus, by_phys) {
        // The same number may be both: what is expected of the kernel tells them apart.
        (Some(_), Some(phys)) if way == Some(PathKind::Host) => {
            (Kind::Physical, untranslated(&phys.name))
        }
        (Some(bus), Some(phys)) if bus.name == phys.name && way != Some(PathKind::Bus) => (
            Kind::BusOrPhysical,
            format!(
                "to {}, through a switch or by the root complex: `copy` prints which it was",
                bus.name
            ),
        ),
        (Some(bus), _) => (
            Kind::Bus,
            format!(
                "through the switch straight to {}: neither root complex nor IOMMU see it (PCI_P2PDMA_MAP_BUS_ADDR)",
                bus.name
            ),
        ),
        (None, Some(phys)) => (Kind::Physical, untranslated(&phys.name)),
        (None, None) if is_translated => {
            let target = owner
                .map_or("RAM, or a device's BAR".into(), |owner| format!("the BAR of {owner}"));
            let target = if owner == Some("") { "RAM".into() } else { target };
            let map = match owner {
                Some("") | None => "",
                Some(_) => " (PCI_P2PDMA_MAP_THRU_HOST_BRIDGE)",
            };
            (
                Kind::Iova,
                format!("up to the root complex, where the IOMMU translates it: {target}{map}"),
            )
        }
        (None, None) => {
            (Kind::Physical, "to RAM through the root complex; nothing translates it".to_owned())
        }
    };
    Located { address, length, kind, path }
}

fn untranslated(name: &str) -> String {
    format!(
        "up to the root complex and down to {name}, untranslated (PCI_P2PDMA_MAP_THRU_HOST_BRIDGE)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(name: &str, bus: u64, phys: u64) -> Memory {
        Memory { name: name.into(), bus, phys, size: 0x1000 }
    }

    #[test]
    fn kinds_are_distinguished_by_where_a_bar_is() {
        let memories = [memory("a", 0x10_0000, 0x90_0000), memory("b", 0x20_0000, 0x20_0000)];
        let of = |address, is_translated, owner| {
            let found = locate(address, 16, is_translated, owner, None, &memories);
            (found.kind, found.path)
        };
        let (kind, path) = of(0x10_0fff, true, Some("a"));
        assert!(kind == Kind::Bus && path.contains("straight to a"), "{path}");
        let (kind, path) = of(0x90_0000, false, Some("a"));
        assert!(kind == Kind::Physical && path.contains("down to a"), "{path}");
        assert_eq!(of(0x20_0010, true, None).0, Kind::BusOrPhysical);
        let by = |way| locate(0x20_0010, 16, false, Some("b"), Some(way), &memories).kind;
        assert_eq!((by(PathKind::Bus), by(PathKind::Host)), (Kind::Bus, Kind::Physical));
        let (kind, path) = of(0x10_1000, true, Some("b"));
        assert!(kind == Kind::Iova && path.contains("the BAR of b"), "{path}");
        let (kind, path) = of(0x5000, true, Some(""));
        assert!(kind == Kind::Iova && path.ends_with("translates it: RAM"), "{path}");
        let (kind, path) = of(0x5000, false, Some(""));
        assert!(kind == Kind::Physical && path.starts_with("to RAM"), "{path}");
        // A driver that may not know addresses reports zero.
        assert_eq!(locate(5, 1, false, None, None, &[memory("a", 0, 0)]).kind, Kind::Physical);
    }
}
