//! vfio-pci as the exporter: our driver imports the BAR of a device that is assigned to user space.

use super::super::bench::must;
use super::super::{Bench, Stop, Verdict, ensure};
use super::known::Known;
use super::{VFIO_SAYS, function, refused, unless_unknown};
use crate::device::{Object, Pattern, Peer, View, Work};
use crate::partner::binding::Lent;
use crate::partner::iommufd::AddressSpace;
use crate::partner::vfio::{DRIVER, Device};
use crate::uapi;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// The BAR with the local memory.
const BAR: u32 = 2;
/// Where the exported range begins in it: not at its start, so that an offset that is forgotten shows.
const OFFSET: u64 = 1 << 20;
const LENGTH: usize = 64 << 10;

/// A device that vfio-pci has. Fields are dropped in this order: all that is open before the driver goes.
struct Exporter {
    dma_buf: OwnedFd,
    view: View,
    device: Device,
    _space: AddressSpace,
    lent: Lent,
    /// The instance number of the device.
    instance: u32,
}

impl Exporter {
    fn new(bench: &mut Bench<'_>, instance: u32) -> Result<Self, Stop> {
        bench.close_peers();
        bench.expect_messages(VFIO_SAYS);
        let lent = Lent::new(function(instance as usize)?, DRIVER)?;
        let space = AddressSpace::new()?;
        let device = Device::open(&lent.function, &space)?;
        let dma_buf = export_range(&device, OFFSET, LENGTH)?;
        let view = device.view(BAR, OFFSET, LENGTH)?;
        Ok(Self { dma_buf, view, device, _space: space, lent, instance })
    }

    /// Gives the device back to our driver.
    fn give_back(self) -> Verdict {
        let Self { dma_buf, view, device, _space, lent, instance } = self;
        drop((dma_buf, view, device, _space));
        Ok(lent.give_back(&Peer::path(instance))?)
    }
}

/// A dma-buf over one range of the BAR; a SKIP when vfio-pci does not make any yet.
pub(super) fn export_range(device: &Device, offset: u64, length: usize) -> Result<OwnedFd, Stop> {
    device
        .export(BAR, &[(offset, length as u64)])
        .map_err(|error| unless_unknown(error.errno, error.call))
}

/// The importer: our driver for the other device.
struct Importer {
    peer: Peer,
    imported: Object,
    local: Object,
}

impl Importer {
    fn new(exporter: &Exporter) -> Result<Self, Stop> {
        let peer = Peer::open(1 - exporter.instance)?;
        let imported = peer.import(&exporter.dma_buf, uapi::IMPORT_PEER2PEER)?;
        ensure!(
            imported.size == LENGTH as u64,
            "{LENGTH} bytes of a BAR were imported as {}",
            imported.size
        );
        let local = peer.alloc(LENGTH as u64, 1)?;
        Ok(Self { peer, imported, local })
    }

    /// Data both ways, every byte looked at by the CPU.
    fn both_ways(&self, bar: &View, seed: u64) -> Verdict {
        const SHIFT: usize = 5;
        let (peer, memory) = (&self.peer, self.peer.view(self.local)?);
        let (inward, outward) = (Pattern::new(seed), Pattern::new(seed + 1));
        let length = (LENGTH - SHIFT) as u64;
        bar.store(0..LENGTH, inward);
        must(peer, Work::copy(self.imported.at(SHIFT as u64), self.local.at(0), length))?;
        memory.expect(0..LENGTH - SHIFT, inward, SHIFT as u64)?;
        memory.store(0..LENGTH, outward);
        must(peer, Work::copy(self.local.at(0), self.imported.at(SHIFT as u64), length))?;
        bar.expect(SHIFT..LENGTH, outward, 0)?;
        bar.expect(0..SHIFT, inward, 0)?;
        Ok(())
    }

    /// A copy out of the import, however it ends.
    fn try_copy(&self) -> Result<(), Errno> {
        let work = Work::copy(self.imported.at(0), self.local.at(0), 256);
        match self.peer.run(work) {
            Err(error) => Err(error.errno),
            Ok(result) if result.error != 0 => Err(Errno::from_raw_os_error(-result.error)),
            Ok(_) => Ok(()),
        }
    }
}

/// One device's BAR 2, exported by vfio-pci, imported by our driver for the other.
pub(super) fn export(bench: &mut Bench<'_>, instance: u32) -> Verdict {
    let exporter = Exporter::new(bench, instance)?;
    let importer = Importer::new(&exporter)?;
    importer.both_ways(&exporter.view, 70)?;
    let (segments, _) = importer.peer.segments(importer.imported)?;
    let distance = importer.peer.function().name;
    let first = segments.first().map_or(0, |segment| segment.address);
    bench.note(format!(
        "{} reaches BAR {BAR} of {} at DMA address {first:#x}",
        distance, exporter.lent.function.name
    ));
    importer.peer.close(importer.imported)?;
    drop(importer);
    exporter.give_back()
}

/// Importers without a callback, or that want no peer-to-peer, are none for device memory.
pub(super) fn refusals(bench: &mut Bench<'_>) -> Verdict {
    let exporter = Exporter::new(bench, 0)?;
    let peer = Peer::open(1)?;
    let import = |flags| peer.import(&exporter.dma_buf, flags).map_err(|error| error.errno);
    refused("a static importer", import(uapi::IMPORT_STATIC), Errno::OPNOTSUPP)?;
    refused("an importer without peer2peer", import(0), Errno::OPNOTSUPP)?;
    let pinned = uapi::IMPORT_PEER2PEER | uapi::IMPORT_PINNED | uapi::IMPORT_NO_INVALIDATE;
    refused("an importer without invalidate_mappings", import(pinned), Errno::OPNOTSUPP)?;
    // Pinned is all right as long as there is a callback.
    let pinned = import(uapi::IMPORT_PEER2PEER | uapi::IMPORT_PINNED)?;
    peer.close(pinned)?;
    drop(peer);
    exporter.give_back()
}

/// A reset takes the mapping from the importer, and what was in the memory; afterwards the importer may map again.
pub(super) fn reset(bench: &mut Bench<'_>) -> Verdict {
    let exporter = Exporter::new(bench, 0)?;
    let importer = Importer::new(&exporter)?;
    importer.both_ways(&exporter.view, 72)?;
    let before = importer.peer.counters()?;
    exporter.device.reset()?;
    let after = importer.peer.counters()?;
    ensure!(
        after.invalidations > before.invalidations && after.unmaps > before.unmaps,
        "a reset notified the importer {} times and took {} mappings",
        after.invalidations - before.invalidations,
        after.unmaps - before.unmaps
    );
    importer.both_ways(&exporter.view, 74)?;
    importer.peer.close(importer.imported)?;
    drop(importer);
    exporter.give_back()
}

/// Memory decoding off, by a write to the command register: no device may reach the BAR, so the
/// importer loses it.
pub(super) fn memory_off(bench: &mut Bench<'_>) -> Verdict {
    let exporter = Exporter::new(bench, 0)?;
    let importer = Importer::new(&exporter)?;
    importer.both_ways(&exporter.view, 76)?;
    exporter.device.set_memory(false)?;
    let meanwhile = importer.try_copy();
    exporter.device.set_memory(true)?;
    refused("a copy while memory decoding was off", meanwhile, Errno::NODEV)?;
    importer.both_ways(&exporter.view, 78)?;
    importer.peer.close(importer.imported)?;
    drop(importer);
    exporter.give_back()
}

/// The exporter's device file is closed while its memory is imported: the dma-buf lives on and leads nowhere.
pub(super) fn closed(bench: &mut Bench<'_>) -> Verdict {
    let exporter = Exporter::new(bench, 0)?;
    let importer = Importer::new(&exporter)?;
    importer.both_ways(&exporter.view, 80)?;
    let Exporter { dma_buf, view, device, _space, lent, instance } = exporter;
    // The view holds the device's file as well.
    drop((view, device));
    refused("a copy after the device was closed", importer.try_copy(), Errno::NODEV)?;
    let again = importer.peer.import(&dma_buf, uapi::IMPORT_PEER2PEER);
    refused("a new import", again.map_err(|error| error.errno), Errno::NODEV)?;
    importer.peer.close(importer.imported)?;
    drop((importer, dma_buf, _space));
    Ok(lent.give_back(&Peer::path(instance))?)
}

/// A dma-buf of two ranges that lie apart. Linux 7.3 gives an importer behind an IOMMU wrong addresses for such a buffer
/// (`dma_buf_phys_vec_to_sgt()` maps every range at the same place); our own exporter maps its ranges one by one.
pub(super) fn two_ranges(bench: &mut Bench<'_>) -> Verdict {
    const NAME: &str = "vfio-exports-two-ranges";
    const PIECE: usize = 16 << 10;
    const PIECES: [(u64, u64); 2] = [(OFFSET, PIECE as u64), (OFFSET + (1 << 20), PIECE as u64)];
    let known = Known::load()?;
    let reason = known.reason("partners", NAME);
    if reason.is_some() {
        // The second range is mapped on top of the first one, which the IOMMU refuses, and is not where it is said to be.
        for class in ["iommu.request-failed", "iommu.unmapped", "iommu.stale"] {
            bench.expect(class, 0, None)?;
        }
        bench.expect_message("page fault from EP");
    }
    let exporter = Exporter::new(bench, 0)?;
    let dma_buf = exporter.device.export(BAR, &PIECES)?;
    let peer = Peer::open(1)?;
    let imported = peer.import(&dma_buf, uapi::IMPORT_PEER2PEER)?;
    let local = peer.alloc(2 * PIECE as u64, 1)?;
    let patterns = [Pattern::new(82), Pattern::new(83)];
    for ((offset, _), pattern) in PIECES.into_iter().zip(patterns) {
        exporter.device.view(BAR, offset, PIECE)?.store(0..PIECE, pattern);
    }
    let memory = peer.view(local)?;
    let compared = |piece: usize| -> Verdict {
        let at = piece * PIECE;
        must(&peer, Work::copy(imported.at(at as u64), local.at(at as u64), PIECE as u64))?;
        Ok(memory.expect(at..at + PIECE, patterns[piece], 0)?)
    };
    let (first, second) = (compared(0), compared(1));
    peer.close(imported)?;
    drop((memory, peer, dma_buf));
    exporter.give_back()?;
    // What is known to go wrong is the second range alone.
    first?;
    match (second, reason) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(reason)) => {
            bench.note(format!("{NAME} passes although vmm/suite/known-failures.toml has it ({reason}): take it off the list"));
            Ok(())
        }
        (Err(Stop::Fail(how)), Some(reason)) => {
            bench.note(format!("fails as is known ({how}): {reason}"));
            Ok(())
        }
        (stop, _) => stop,
    }
}
