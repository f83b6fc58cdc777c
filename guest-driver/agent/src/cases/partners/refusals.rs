//! The kernel's importers, and what they do with our exports. Each takes another exporter's buffer
//! first, so that a refusal is about ours.

use super::super::{Bench, Verdict};
use super::{buffers, refused, unless_unknown};
use crate::partner::buffer::Buffer;
use crate::partner::iommufd::AddressSpace;
use crate::uapi;
use rustix::io::Errno;

const LENGTH: usize = 16 << 10;

/// vgem attaches as GEM drivers do: without `peer2peer` and without a way to take the memory back. It gets system
/// memory; our device memory it must not get.
pub(super) fn vgem(bench: &mut Bench<'_>) -> Verdict {
    let vgem = buffers::open_vgem()?;
    let handle = vgem.import(Buffer::from_file(&[(0, LENGTH)])?)?;
    vgem.close(handle)?;
    let peer = bench.peer(0)?;
    let memory = peer.alloc(LENGTH as u64, 1)?;
    let ours = peer.export(memory)?;
    refused("our device memory, by vgem", vgem.import(&ours), Errno::OPNOTSUPP)?;
    let pages = peer.buffer(uapi::BUFFER_PAGES, LENGTH as u64, 0, 0)?;
    let handle = vgem.import(peer.export(pages)?)?;
    vgem.close(handle)?;
    bench.note(
        "vgem takes udmabuf's pages and ours; our device memory it is refused, since it attaches without peer2peer",
    );
    Ok(())
}

/// iommufd attaches with a device that is on no bus, and asks vfio-pci, and it alone, for the physical address of the
/// dma-buf. Our exporter sees a device without a path to its memory and refuses it; an exporter that does not care is
/// refused by iommufd.
pub(super) fn iommufd(bench: &mut Bench<'_>) -> Verdict {
    const IOVA: u64 = 1 << 32;
    let space = AddressSpace::new()?;
    let peer = bench.peer(0)?;
    let memory = peer.alloc(LENGTH as u64, 1)?;
    let ours = peer.export(memory)?;
    let result = space.map_file(&ours, LENGTH as u64, IOVA);
    if result == Err(Errno::NOTTY) {
        return Err(unless_unknown(Errno::NOTTY, "IOMMU_IOAS_MAP_FILE"));
    }
    refused("iommufd, by our exporter", result, Errno::REMOTEIO)?;
    let file = Buffer::from_file(&[(0, LENGTH)])?;
    let result = space.map_file(&file, LENGTH as u64, IOVA);
    refused("a udmabuf, by iommufd", result, Errno::OPNOTSUPP)?;
    bench.note(
        "iommufd's attachment has no path to our memory (EREMOTEIO); of udmabuf it gets no physical address (EOPNOTSUPP)",
    );
    Ok(())
}
