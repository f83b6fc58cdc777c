//! The two sides of the matrix, and the expected result of each pair.

use crate::device::{DeviceError, Object, Peer};
use crate::uapi;
use rustix::io::Errno;
use std::fmt;

/// What backs an exported buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exporter {
    /// Local memory without struct pages.
    Local,
    /// The same, in several ranges.
    Scattered,
    /// Local memory with ZONE_DEVICE pages.
    ZoneDevice,
    /// Pages of the system.
    Pages,
    /// Of `dma_alloc_noncontiguous()`.
    Noncontiguous,
    /// Of `dma_alloc_noncoherent()`.
    Noncoherent,
    /// Of `dma_alloc_coherent()`.
    Coherent,
    /// Local memory or pages, as need be.
    Migrating,
}

/// How a buffer is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importer {
    /// By the device whose memory it is.
    OwnDevice,
    /// `dma_buf_attach()`: knows neither peers' memory nor moving.
    Static,
    /// Dynamic, with `allow_peer2peer`.
    Dynamic,
    /// Dynamic, without it.
    DynamicNoPeers,
    /// Pinned, and notified when it is taken away.
    PinnedRevocable,
    /// Pinned, without a callback for invalidation.
    PinnedNotRevocable,
}

/// What must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    /// The device has it in its own memory: nothing crosses the bus.
    Inside,
    /// Data crosses the bus between the two devices.
    Peer,
    /// Data crosses the bus between a device and RAM.
    Memory,
    /// The buffer leaves the exporter's memory for RAM, with its contents.
    FallsBack,
    /// The attachment is refused, for this reason.
    Refused(Errno, &'static str),
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside => f.write_str("inside the device"),
            Self::Peer => f.write_str("between the devices"),
            Self::Memory => f.write_str("in system memory"),
            Self::FallsBack => f.write_str("falls back to system memory"),
            Self::Refused(errno, why) => write!(f, "refused: {errno}: {why}"),
        }
    }
}

const NO_PATH: &str = "pci_p2pdma_distance() knows no path between the devices";
const NO_PEERS: &str =
    "the importer takes no memory of another device (it has not set allow_peer2peer)";
const NO_CALLBACK: &str = "the exporter may take the memory away, and the importer has no invalidate_mappings to hear of it";
const OWN_ONLY: &str = "what dma_alloc_coherent() gives belongs to its own device: for another one it would need \
                        dma_get_sgtable(), which does not fit it";

impl Exporter {
    pub(crate) const ALL: [Self; 8] = [
        Self::Local,
        Self::Scattered,
        Self::ZoneDevice,
        Self::Pages,
        Self::Noncontiguous,
        Self::Noncoherent,
        Self::Coherent,
        Self::Migrating,
    ];

    /// The driver's name for the kind.
    fn kind(self) -> u32 {
        match self {
            Self::Local | Self::Scattered => uapi::BUFFER_LOCAL,
            Self::ZoneDevice => uapi::BUFFER_P2PMEM,
            Self::Pages => uapi::BUFFER_PAGES,
            Self::Noncontiguous => uapi::BUFFER_NONCONTIGUOUS,
            Self::Noncoherent => uapi::BUFFER_NONCOHERENT,
            Self::Coherent => uapi::BUFFER_COHERENT,
            Self::Migrating => uapi::BUFFER_MIGRATING,
        }
    }

    /// A buffer of this kind.
    pub(crate) fn buffer(self, owner: &Peer, size: u64) -> Result<Object, DeviceError> {
        owner.buffer(self.kind(), size, if self == Self::Scattered { 5 } else { 1 }, 0)
    }

    /// Whether it begins in the device's own memory.
    pub(crate) fn begins_inside(self) -> bool {
        matches!(self, Self::Local | Self::Scattered | Self::ZoneDevice | Self::Migrating)
    }
}

impl Importer {
    pub(crate) const ALL: [Self; 6] = [
        Self::OwnDevice,
        Self::Static,
        Self::Dynamic,
        Self::DynamicNoPeers,
        Self::PinnedRevocable,
        Self::PinnedNotRevocable,
    ];

    /// The flags of the import.
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Static => uapi::IMPORT_STATIC,
            Self::OwnDevice | Self::Dynamic => uapi::IMPORT_PEER2PEER,
            Self::DynamicNoPeers => 0,
            Self::PinnedRevocable => uapi::IMPORT_PEER2PEER | uapi::IMPORT_PINNED,
            Self::PinnedNotRevocable => {
                uapi::IMPORT_PEER2PEER | uapi::IMPORT_PINNED | uapi::IMPORT_NO_INVALIDATE
            }
        }
    }

    /// May be given another device's memory.
    fn takes_peers(self) -> bool {
        !matches!(self, Self::Static | Self::DynamicNoPeers)
    }

    /// Has a callback, by which it is asked to unmap.
    fn revocable(self) -> bool {
        !matches!(self, Self::Static | Self::PinnedNotRevocable)
    }
}

/// What the header promises for the pair; `reachable`: the kernel has a path between the devices.
pub(crate) fn contract(exporter: Exporter, importer: Importer, reachable: bool) -> Contract {
    use Exporter as E;
    if importer == Importer::OwnDevice {
        return if exporter.begins_inside() { Contract::Inside } else { Contract::Memory };
    }
    let refused = |why| Contract::Refused(Errno::OPNOTSUPP, why);
    // Pages of a device stay where they are until the last importer has gone.
    let may_be_taken = exporter != E::ZoneDevice;
    match exporter {
        E::Local | E::Scattered | E::ZoneDevice => {
            if !importer.takes_peers() {
                refused(NO_PEERS)
            } else if may_be_taken && !importer.revocable() {
                refused(NO_CALLBACK)
            } else if !reachable {
                Contract::Refused(Errno::REMOTEIO, NO_PATH)
            } else {
                Contract::Peer
            }
        }
        E::Pages | E::Noncontiguous | E::Noncoherent => Contract::Memory,
        E::Coherent => refused(OWN_ONLY),
        E::Migrating => match importer.takes_peers() && importer.revocable() && reachable {
            true => Contract::Peer,
            false => Contract::FallsBack,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_memory_never_reaches_an_importer_that_cannot_have_it() {
        for exporter in [Exporter::Local, Exporter::Scattered, Exporter::ZoneDevice] {
            for importer in [Importer::Static, Importer::DynamicNoPeers] {
                let refused = Contract::Refused(Errno::OPNOTSUPP, NO_PEERS);
                assert_eq!(contract(exporter, importer, true), refused);
            }
        }
    }

    #[test]
    fn the_documentation_has_the_contract() {
        let docs = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
        if !docs.exists() {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let line = format!("SKIP {name}: {} is not part of the package\n", docs.display());
            // Not captured by libtest; `make test` counts it.
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        }
        let text = std::fs::read_to_string(docs.join("matrix.md")).unwrap();
        let line = |name: &str| {
            let start = format!("| `{name}` | ");
            let mut lines = text.lines().filter_map(move |line| line.strip_prefix(&start));
            lines.next_back().unwrap().trim_end_matches(" |").split(" | ").collect::<Vec<_>>()
        };
        let names = [
            "local",
            "scattered",
            "zone-device",
            "pages",
            "noncontiguous",
            "noncoherent",
            "coherent",
            "migrating",
        ];
        for (exporter, name) in Exporter::ALL.into_iter().zip(names) {
            let cells = Importer::ALL.map(|importer| match contract(exporter, importer, true) {
                Contract::Inside => "inside",
                Contract::Peer => "peer",
                Contract::Memory => "memory",
                Contract::FallsBack => "falls back",
                Contract::Refused(..) => "refused",
            });
            assert_eq!(line(name), cells, "{name}");
        }
    }

    #[test]
    fn without_a_path_only_what_can_leave_the_device_arrives() {
        for exporter in Exporter::ALL {
            let there = contract(exporter, Importer::Dynamic, false);
            assert_ne!(there, Contract::Peer, "{exporter:?}");
        }
        assert_eq!(contract(Exporter::Migrating, Importer::Dynamic, false), Contract::FallsBack);
    }
}
