//! Rules of dma-buf that no IOMMU knows.

use super::{LENGTH, SHARED, address_of, expect, import_local, write_at};
use crate::cases::Kind::Negative;
use crate::cases::bench::must;
use crate::cases::faults::class;
use crate::cases::lifetimes::patience::Patience;
use crate::cases::matrix::{Importer, SIZE, Shared};
use crate::cases::{Bench, Case, Verdict, ensure};
use crate::device::{Object, Peer, Work};
use crate::uapi;
use rustix::io::Errno;

pub(super) const CASES: &[Case] = &[
    Case::new("bugs", "buffer.write-after-invalidate", Negative, SHARED, write_after_invalidate),
    Case::new("bugs", "buffer.peer2peer-not-allowed", Negative, SHARED, peer2peer_not_allowed),
    Case::new("bugs", "buffer.freed-while-mapped", Negative, SHARED, freed),
];

/// An importer that ignores its callback, with the mapping that it has kept.
pub(super) fn ignore_invalidation(owner: &Peer, client: &Peer) -> super::Invalidated {
    let flags = uapi::IMPORT_PEER2PEER | uapi::IMPORT_LAB_IGNORE_INVALIDATE;
    let (shared, imported) = import_local(owner, client, flags, uapi::BIDIRECTIONAL)?;
    must(client, Work::fill(imported.at(0), LENGTH, 0))?;
    // The exporter waits for an unmap that does not come.
    let short = Patience::of(100)?;
    let outcome = owner.invalidate(shared.object).map_err(|error| error.errno);
    drop(short);
    ensure!(
        outcome == Err(Errno::TIME),
        "the importer keeps its mapping, and the exporter sees {outcome:?}"
    );
    Ok((shared, imported))
}

/// The fences have signalled, the importer goes on.
fn write_after_invalidate(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (_shared, imported) = ignore_invalidation(&owner, &client)?;
    expect(bench, class::WRITE_AFTER_INVALIDATE, 1)?;
    client.run(Work::fill(imported.at(0), LENGTH, 0).with(uapi::SUBMIT_NO_FLUSH))?;
    Ok(client.close(imported)?)
}

/// The exporter does not look at `attach->peer2peer`.
fn peer2peer_not_allowed(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let object =
        owner.buffer(uapi::BUFFER_P2PMEM, SIZE as u64, 1, uapi::BUFFER_LAB_ANY_IMPORTER)?;
    let shared = Shared::of(&owner, object)?;
    expect(bench, class::PEER2PEER_NOT_ALLOWED, 1)?;
    let imported: Object = client.import(&shared.fd, Importer::DynamicNoPeers.flags())?;
    client.map(imported, uapi::BIDIRECTIONAL)?;
    Ok(client.close(imported)?)
}

/// The importer drops its reference, which is the last one, before it unmaps.
fn freed(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let flags = Importer::Dynamic.flags();
    let (shared, imported) = import_local(&owner, &client, flags, uapi::BIDIRECTIONAL)?;
    write_at(&client, address_of(&client, imported)?)?;
    client.forget(imported)?;
    drop(shared);
    expect(bench, class::BUFFER_FREED, 1)?;
    Ok(client.close(imported)?)
}
