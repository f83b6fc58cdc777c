//! Where every mapping of system memory is a bounce buffer (`swiotlb=force`), a sync copies the
//! data: a missing one shows even on a machine with coherent caches.

use super::Kind::Positive;
use super::bench::must;
use super::matrix::{Exporter, Importer, SIZE, Shared};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict};
use crate::device::{Pattern, Work};
use crate::sys::dma_buf::{Access, begin_cpu_access, end_cpu_access};
use crate::uapi;

const NEEDS: &[Need] = &[Need::Peers, Need::Bounced];

pub(super) const CASES: &[Case] = &[
    Case::new("bounce", "own-pages-need-their-sync", Positive, NEEDS, own_pages),
    Case::new("bounce", "pages-between-two-devices", Positive, NEEDS, |bench| {
        shared(bench, Exporter::Pages)
    }),
    Case::new("bounce", "noncontiguous-between-two-devices", Positive, NEEDS, |bench| {
        shared(bench, Exporter::Noncontiguous)
    }),
    Case::new("bounce", "noncoherent-between-two-devices", Positive, NEEDS, |bench| {
        shared(bench, Exporter::Noncoherent)
    }),
];

/// What a fill writes, and a byte of it.
const FILL: u64 = 0x5A5A_5A5A_5A5A_5A5A;
const FILLED: u8 = 0x5A;

fn too_early(there: impl std::fmt::Display) -> Stop {
    Stop::Fail(format!("without a sync the data came through all the same: {there}"))
}

/// A device and the pages that are mapped for it: neither side sees what the other wrote before the sync for it.
fn own_pages(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    let pattern = Pattern::new(71);
    let local = peer.alloc(4096, 1)?;
    let pages = peer.system(4096, 0, uapi::BIDIRECTIONAL)?;
    let (view, inside) = (peer.view(pages)?, peer.view(local)?);
    let fetch = || must(peer, Work::copy(pages.at(0), local.at(0), 4096));

    view.store(0..4096, pattern);
    fetch()?;
    inside.expect_all(0..4096, 0).map_err(too_early)?;
    peer.sync(pages, uapi::SYNC_FOR_DEVICE)?;
    fetch()?;
    inside.expect(0..4096, pattern, 0)?;

    must(peer, Work::fill(pages.at(0), 4096, FILL))?;
    view.expect(0..4096, pattern, 0).map_err(too_early)?;
    peer.sync(pages, uapi::SYNC_FOR_CPU)?;
    view.expect_all(0..4096, FILLED)?;
    [local, pages].into_iter().try_for_each(|object| peer.close(object))?;
    Ok(())
}

/// A buffer that another device has mapped: begin and end of CPU access carry the data, and the exporter has to sync
/// every importer's mapping for that.
fn shared(bench: &mut Bench<'_>, exporter: Exporter) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let pattern = Pattern::new(72);
    let buffer = Shared::new(&owner, exporter, SIZE as u64)?;
    let import = client.import(&buffer.fd, Importer::Dynamic.flags())?;
    client.map(import, uapi::BIDIRECTIONAL)?;
    buffer.store(0..SIZE, pattern)?;
    let local = client.alloc(SIZE as u64, 1)?;
    must(&client, Work::copy(import.at(0), local.at(0), SIZE as u64))?;
    client.view(local)?.expect(0..SIZE, pattern, 0)?;

    must(&client, Work::fill(import.at(0), SIZE as u64, FILL))?;
    buffer.view.expect(0..SIZE, pattern, 0).map_err(too_early)?;
    begin_cpu_access(&buffer.fd, Access::Read)?;
    let found = buffer.view.expect_all(0..SIZE, FILLED);
    end_cpu_access(&buffer.fd, Access::Read)?;
    found?;
    [import, local].into_iter().try_for_each(|object| client.close(object))?;
    Ok(())
}
