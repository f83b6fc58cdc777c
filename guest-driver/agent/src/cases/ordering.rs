//! Memory writes are posted: that the device has ended its work, and has said so by record, interrupt and fence, does not
//! mean that the bytes are there. The lab delays them on demand (`FAULT_WRITE_BACK`).

use super::Kind::Positive;
use super::bench::must;
use super::matrix::{Exporter, Importer, PATH, SIZE, Shared};
use super::{Bench, Case, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::sys::dma_buf;
use crate::uapi;

pub(super) const CASES: &[Case] = &[
    Case::new("ordering", "posted-data-delayed-and-flushed", Positive, PATH, flushed),
    Case::new("ordering", "posted-data-delayed-without-flush", Positive, PATH, not_flushed),
];

/// The kinds whose memory another device writes to over the bus: its own, and RAM.
const KINDS: [Exporter; 3] = [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages];

/// Bytes of a delayed write: in one page, hence one descriptor even where no IOMMU joins pages. The fault is for one.
const LENGTH: usize = 4_000;

/// A delayed write of a pattern into the import, over another pattern; returns when fence (where the kernel has
/// such) and result are there.
fn delayed_write(
    client: &Peer,
    imported: Object,
    shared: &Shared,
    (before, after): (Pattern, Pattern),
    flags: u32,
) -> Verdict {
    let local = client.alloc(SIZE as u64, 1)?;
    client.view(local)?.store(0..LENGTH, after);
    shared.store(0..LENGTH, before)?;
    client.arm_fault(0, uapi::FAULT_WRITE_BACK, 0)?;
    let copy = Work::copy(local.at(0), imported.at(0), LENGTH as u64).with(flags);
    let cookie = if client.info.features & uapi::FEATURE_SYNC_FILE == 0 {
        client.submit(copy)?
    } else {
        let (cookie, fence) = client.submit_fenced(copy)?;
        ensure!(dma_buf::signalled(&fence, WAIT_MS)?, "the fence does not signal");
        cookie
    };
    super::bench::succeeded(client, client.wait(cookie, WAIT_MS)?)?;
    Ok(client.close(local)?)
}

/// The driver reads back what it has written to another device: then the data is there when the fence says so.
fn flushed(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (before, after) = (Pattern::new(110), Pattern::new(111));
    for exporter in KINDS {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        delayed_write(&client, imported, &shared, (before, after), 0)?;
        // Without asking anybody: the fence was enough.
        shared.view.expect(0..LENGTH, after, 0)?;
        client.close(imported)?;
    }
    Ok(())
}

/// A driver that leaves the reading back out is caught: fence and record are there, the data is not.
fn not_flushed(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (before, after) = (Pattern::new(112), Pattern::new(113));
    for exporter in KINDS {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        delayed_write(&client, imported, &shared, (before, after), uapi::SUBMIT_NO_FLUSH)?;
        shared.view.expect(0..LENGTH, before, 0).map_err(|there| {
            super::Stop::Fail(format!("{exporter:?}: delayed data is there already: {there}"))
        })?;
        // Whatever the channel reads brings it there.
        must(&client, Work::checksum(imported.at(0), 8))?;
        shared.view.expect(0..LENGTH, after, 0)?;
        client.close(imported)?;
    }
    Ok(())
}
