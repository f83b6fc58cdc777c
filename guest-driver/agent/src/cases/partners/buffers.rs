//! System memory of other exporters, imported by our driver.

use super::super::bench::must;
use super::super::{Bench, Stop, Verdict};
use super::function;
use crate::device::{Pattern, Peer, View, Work};
use crate::partner::buffer::Buffer;
use crate::partner::vgem::Vgem;
use crate::uapi;
use std::fs::OpenOptions;
use std::path::Path;

/// A udmabuf of these (offset, size) pieces of a file.
pub(super) fn file(bench: &mut Bench<'_>, pieces: &[(usize, usize)]) -> Verdict {
    let (peer0, peer1) = bench.take_peers()?;
    let buffer = Buffer::from_file(pieces)?;
    for peer in [&peer0, &peer1] {
        out_and_in(peer, &buffer, uapi::IMPORT_PEER2PEER)?;
    }
    Ok(())
}

/// A buffer of the system heap.
pub(super) fn heap(bench: &mut Bench<'_>, flags: u32) -> Verdict {
    let (peer0, peer1) = bench.take_peers()?;
    let buffer = Buffer::from_heap(64 << 10)?;
    for peer in [&peer0, &peer1] {
        out_and_in(peer, &buffer, flags)?;
    }
    Ok(())
}

/// A buffer of vgem's: pages of a file in memory, as most GEM drivers have them.
pub(super) fn vgem(bench: &mut Bench<'_>) -> Verdict {
    const LINES: u32 = 16;
    let vgem = open_vgem()?;
    let (peer0, peer1) = bench.take_peers()?;
    let buffer = Buffer::from_dma_buf(vgem.export(LINES)?, LINES as usize * 4096)?;
    for peer in [&peer0, &peer1] {
        out_and_in(peer, &buffer, uapi::IMPORT_PEER2PEER)?;
    }
    Ok(())
}

/// The virtual GEM device; a SKIP when this kernel has none.
pub(super) fn open_vgem() -> Result<Vgem, Stop> {
    match Vgem::open() {
        Some(vgem) => Ok(vgem),
        None if Path::new("/sys/module/vgem").exists() => {
            Err(Stop::Fail("vgem is loaded, and no DRM device is its".into()))
        }
        None => Err(Stop::Skip("this kernel lacks CONFIG_DRM_VGEM".into())),
    }
}

/// From the device into the buffer and back, every byte looked at by the CPU.
fn out_and_in(peer: &Peer, buffer: &Buffer, flags: u32) -> Verdict {
    /// Odd, and different: a mistake of a few bytes shows.
    const FROM: usize = 1;
    const TO: usize = 3;
    let length: usize = buffer.views().iter().map(View::len).sum();
    let imported = peer.import(buffer, flags)?;
    if imported.size != length as u64 {
        return Err(Stop::Fail(format!("{length} bytes were imported as {}", imported.size)));
    }
    let local = peer.alloc(length as u64, 1)?;
    let memory = peer.view(local)?;

    let pattern = Pattern::new(u64::from(peer.instance) + 40);
    memory.store(0..length, pattern);
    let work = Work::copy(local.at(FROM as u64), imported.at(TO as u64), (length - TO) as u64);
    must(peer, work)?;
    buffer.begin_access()?;
    let mut base = 0;
    for view in buffer.views() {
        let start = TO.saturating_sub(base);
        view.expect(start..view.len(), pattern, (base + start - TO + FROM) as u64)?;
        base += view.len();
    }

    for (seed, view) in (50..).zip(buffer.views()) {
        view.store(0..view.len(), Pattern::new(seed));
    }
    buffer.end_access()?;
    must(peer, Work::copy(imported.at(0), local.at(0), length as u64))?;
    let mut base = 0;
    for (seed, view) in (50..).zip(buffer.views()) {
        memory.expect(base..base + view.len(), Pattern::new(seed), 0)?;
        base += view.len();
    }
    peer.close(imported)?;
    peer.close(local)?;
    Ok(())
}

/// Local memory that the kernel hands out itself, to a process that maps a file in sysfs.
pub(super) fn p2pmem(_bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: usize = 8192;
    for instance in 0..2 {
        let path = function(instance)?.path().join("p2pmem/allocate");
        if !path.exists() {
            return Err(Stop::Skip(format!(
                "there is no {}: the driver publishes no memory (pci_p2pmem_publish)",
                path.display()
            )));
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let view = View::new(&file, LENGTH, 0)?;
        let pattern = Pattern::new(60);
        view.store(0..LENGTH, pattern);
        view.expect(0..LENGTH, pattern, 0)?;
    }
    Ok(())
}
