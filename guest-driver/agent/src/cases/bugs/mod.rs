//! One bug of each class, and beside it what looks like it and is legal.
//!
//! Each test of the group `bugs` breaks one rule and expects exactly the finding that the class's
//! page promises for the IOMMU mode of this guest. Each test of the group `legal` is a near-miss:
//! it goes as far as the rules allow, and nothing may be found.

mod buffers;
mod devices;
mod legal;
mod mappings;

use super::faults::{IOMMU_FAULT, PORT_ERROR};
use super::matrix::{Exporter, Importer, SIZE, Shared};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Peer, Work, at_address};
use crate::uapi;

/// What every test here cannot do without.
const NEEDS: &[Need] = &[Need::Vmm, Need::Peers];
/// And those that need the witness in any mode.
const WITNESSED: &[Need] = &[Need::Vmm, Need::Peers, Need::Witness];
/// And those that share a device's memory.
const SHARED: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Witness,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Path,
];

/// The tests that break a rule.
pub(super) fn bugs() -> Vec<Case> {
    [mappings::CASES, buffers::CASES, devices::CASES].concat()
}

/// The near-misses.
pub(super) const LEGAL: &[Case] = legal::CASES;

/// What stands between the devices and memory, as far as a mistake is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// An IOMMU that forgets an address when it is unmapped.
    Strict,
    /// An IOMMU that forgets it some time later.
    Lazy,
    /// Nothing: any address of RAM or of a BAR works.
    Direct,
}

impl Mode {
    fn of(peer: &Peer) -> Self {
        match peer.info.iommu {
            uapi::IOMMU_STRICT => Self::Strict,
            uapi::IOMMU_LAZY => Self::Lazy,
            _ => Self::Direct,
        }
    }

    /// The class of a mistake that the IOMMU notices in the modes in which it can, and the witness
    /// in the others.
    fn class(self, iommu: &'static str, witness: &'static str) -> &'static str {
        match self {
            Self::Strict | Self::Lazy => iommu,
            Self::Direct => witness,
        }
    }

    /// The class of one that only an IOMMU without a delay notices.
    fn class_if_strict(self, iommu: &'static str, witness: &'static str) -> &'static str {
        if self == Self::Strict { iommu } else { witness }
    }
}

/// Exactly `count` findings of `class`, and no other. The kernel's messages about them belong to the test.
fn expect(bench: &mut Bench<'_>, class: &str, count: u32) -> Verdict {
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    bench.expect(class, count, Some(count))
}

/// Any number of them.
fn expect_any(bench: &mut Bench<'_>, class: &str) -> Verdict {
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    bench.expect(class, 0, None)
}

/// All findings so far.
fn findings(bench: &mut Bench<'_>) -> Result<u64, Stop> {
    Ok(bench.stat()?.findings.values().sum())
}

/// Without a witness nothing tells these mistakes where no IOMMU does.
fn needs_witness(mode: Mode) -> Verdict {
    match mode {
        Mode::Strict => Ok(()),
        Mode::Lazy | Mode::Direct => Need::check_witness(),
    }
}

/// Bytes of an access: in one TLP, whatever its offset in 64.
const LENGTH: u64 = 64;

/// One read of `LENGTH` bytes at an address, whatever becomes of it.
fn read_at(peer: &Peer, address: u64) -> Verdict {
    peer.run(Work::checksum(at_address(address), LENGTH))?;
    Ok(())
}

/// One write, likewise. In a mode without IOMMU it arrives: at memory of the test's own.
fn write_at(peer: &Peer, address: u64) -> Verdict {
    peer.run(Work::fill(at_address(address), LENGTH, 0))?;
    Ok(())
}

/// The DMA address where an object begins.
fn address_of(peer: &Peer, object: Object) -> Result<u64, Stop> {
    let (segments, _) = peer.segments(object)?;
    let first = segments.first();
    Ok(first.ok_or_else(|| Stop::Fail("a mapped object has no DMA address".into()))?.address)
}

/// Pages whose physical address is known: nothing else uses them as long as this lives.
struct Pages {
    /// Closed with its peer.
    _shared: Shared,
    phys: u64,
}

impl Pages {
    /// `SIZE` bytes; the pages need not follow each other.
    fn new(owner: &Peer, client: &Peer) -> Result<Self, Stop> {
        let object = owner.buffer(uapi::BUFFER_PAGES, SIZE as u64, 1, uapi::BUFFER_LAB_PHYSICAL)?;
        let shared = Shared::of(owner, object)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        client.map(imported, uapi::BIDIRECTIONAL)?;
        let phys = address_of(client, imported)?;
        client.close(imported)?;
        ensure!(phys % 4096 == 0, "pages begin at {phys:#x}");
        Ok(Self { _shared: shared, phys })
    }
}

/// A dma-buf, and the import whose mapping is no more.
type Invalidated = Result<(Shared, Object), Stop>;

/// The owner's local memory, imported and mapped by the client with `flags`.
fn import_local(
    owner: &Peer,
    client: &Peer,
    flags: u32,
    direction: u32,
) -> Result<(Shared, Object), Stop> {
    let shared = Shared::new(owner, Exporter::Local, SIZE as u64)?;
    let imported = client.import(&shared.fd, flags)?;
    client.map(imported, direction)?;
    Ok((shared, imported))
}
