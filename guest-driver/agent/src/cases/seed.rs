//! What the dma-buf and DMA API developers said in April 2018 about memory that devices share, sentence by sentence
//! (the thread "dma-buf: add peer2peer flag" on linaro-mm-sig): is it so, and is a driver that
//! ignores it caught?

use super::Kind::{Negative, Positive};
use super::bench::must;
use super::matrix::{Exporter, Importer, PATH, SIZE, Shared, TRANSLATED, goes_by_bus_address};
use super::misuse::{expect_no_such_address, must_fault};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, Work, at_address};
use crate::sys::dma_buf::{Access, begin_cpu_access, end_cpu_access};
use crate::uapi;
use rustix::io::Errno;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "seed",
        "mappings-are-not-interchangeable",
        Negative,
        TRANSLATED,
        not_interchangeable,
    ),
    Case::new("seed", "only-the-exporter-knows-the-backing", Positive, PATH, exporter_knows),
    Case::new(
        "seed",
        "each-device-makes-its-own-resource-mapping",
        Negative,
        TRANSLATED,
        resource_mapping,
    ),
    Case::new("seed", "struct-page-is-optional", Positive, PATH, page_is_optional),
    Case::new("seed", "dma-get-sgtable-does-not-fit", Negative, TRANSLATED, get_sgtable),
    Case::new("seed", "non-coherent-memory-needs-its-sync", Positive, PATH, needs_sync),
    Case::new("seed", "one-interface-for-all-allocators", Positive, PATH, one_interface),
];

/// All kinds that a second device can have.
fn sharable() -> impl Iterator<Item = Exporter> {
    Exporter::ALL.into_iter().filter(|exporter| *exporter != Exporter::Coherent)
}

fn first_address(peer: &Peer, object: Object) -> Result<u64, Stop> {
    let (segments, _) = peer.segments(object)?;
    let first = segments.first();
    Ok(first.ok_or_else(|| Stop::Fail("mapped memory has no DMA address".into()))?.address)
}

/// "While dma_alloc_coherent, ..., dma_map_page/dma_map_single/dma_map_sg and dma_map_resource all give back a dma_addr_t
/// they are in now way interchangable": what is right for one device is nothing for another, whichever call made it.
fn not_interchangeable(bench: &mut Bench<'_>) -> Verdict {
    expect_no_such_address(bench)?;
    let (owner, other) = bench.take_peers()?;
    let target = other.alloc(4096, 1)?;
    let source = other.alloc(4096, 1)?;
    let (resource, _) = owner.map_physical(other.info.memory_phys, 4096, uapi::BIDIRECTIONAL)?;
    let shared = other.export(source)?;
    let imported = owner.import(&shared, uapi::IMPORT_PEER2PEER)?;
    owner.map(imported, uapi::BIDIRECTIONAL)?;
    // A mapping of a BAR by dma_map_phys() knows nothing of switches: it may lead nowhere where they turn requests around.
    let blind = goes_by_bus_address(&other, &owner, imported)?;
    for (what, object) in [
        ("dma_map_sgtable", owner.system(4096, 0, uapi::BIDIRECTIONAL)?),
        ("dma_alloc_coherent", owner.system(4096, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL)?),
        ("dma_alloc_noncontiguous", Exporter::Noncontiguous.buffer(&owner, 4096)?),
        ("dma_alloc_noncoherent", Exporter::Noncoherent.buffer(&owner, 4096)?),
        ("dma_map_phys of a resource", resource),
        ("dma_buf_map_attachment", imported),
    ] {
        if blind && (object == resource || object == imported) {
            continue;
        }
        let address = first_address(&owner, object)?;
        // For the device that it was made for it is good.
        must(&owner, Work::checksum(at_address(address), 512))?;
        must_fault(&other, what, Work::copy(at_address(address), target.at(0), 512))?;
    }
    Ok(())
}

/// "The dma-buf exporter always knows what kind of backing storage it is dealing with ... The importer doesn't know."
/// One importer, which asks for nothing, for all kinds.
fn exporter_knows(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    for (seed, exporter) in (40..).zip(sharable()) {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        shared.store(0..SIZE, Pattern::new(seed))?;
        import_and_read(&client, &shared, Pattern::new(seed)).map_err(|stop| match stop {
            Stop::Fail(reason) => Stop::Fail(format!("{exporter:?}: {reason}")),
            skip @ Stop::Skip(_) => skip,
        })?;
    }
    Ok(())
}

fn import_and_read(client: &Peer, shared: &Shared, pattern: Pattern) -> Verdict {
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let local = client.alloc(SIZE as u64, 1)?;
    must(client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
    client.view(local)?.expect(0..SIZE, pattern, 0)?;
    client.close(local)?;
    Ok(client.close(imported)?)
}

/// "You never even try to share a mapping retourned from dma_map_resource - instead each device using it creates a new
/// mapping": two devices map the same piece of a BAR, each gets an address, and only its own works.
fn resource_mapping(bench: &mut Bench<'_>) -> Verdict {
    expect_no_such_address(bench)?;
    let (owner, client) = bench.take_peers()?;
    let object = owner.alloc(4096, 1)?;
    let pattern = Pattern::new(50);
    owner.view(object)?.store(0..4096, pattern);
    let phys = owner.info.memory_phys + first_address(&owner, object)?;
    let target = client.alloc(4096, 1)?;

    let (mine, address) = client.map_physical(phys, 4096, uapi::BIDIRECTIONAL)?;
    must(&client, Work::copy(at_address(address), target.at(0), 4096))?;
    client.view(target)?.expect(0..4096, pattern, 0)?;
    client.close(mine)?;

    let (theirs, address) = owner.map_physical(phys, 4096, uapi::BIDIRECTIONAL)?;
    must_fault(
        &client,
        "another device's mapping of the resource",
        Work::copy(at_address(address), target.at(0), 512),
    )?;
    Ok(owner.close(theirs)?)
}

/// "With struct page * being optional (if it's a resource, or something else that the kernel core mm isn't aware of)":
/// memory without pages works, and an importer that looks for them finds out at once.
fn page_is_optional(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    for exporter in [Exporter::Local, Exporter::Scattered, Exporter::Migrating] {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        shared.store(0..SIZE, Pattern::new(45))?;
        import_and_read(&client, &shared, Pattern::new(45))?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        client.map(imported, uapi::BIDIRECTIONAL)?;
        let looked = client.read_page(imported).err().map(|error| error.errno);
        ensure!(
            looked == Some(Errno::FAULT),
            "{exporter:?}: an importer that looks for a page got {looked:?} instead of EFAULT"
        );
        client.close(imported)?;
    }
    // Where there are pages the same look finds the data, unless the kernel hides them from importers.
    let shared = Shared::new(&owner, Exporter::Pages, SIZE as u64)?;
    shared.store(0..SIZE, Pattern::new(46))?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    client.map(imported, uapi::BIDIRECTIONAL)?;
    match client.read_page(imported) {
        Ok(found) => ensure!(
            found.value == Pattern::new(46).word(0) && found.entries > 0,
            "the page of the buffer holds {:#x}, {} entries",
            found.value,
            found.entries
        ),
        Err(error) if error.errno == Errno::FAULT => {
            bench.note("the kernel hides pages from importers (CONFIG_DMABUF_DEBUG)");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// "dma_get_sgtable is a pretty nasty layering violation": coherent memory of one device is refused to a second one, and
/// what a driver gives away that takes dma_get_sgtable() for a way around that, does not work there.
fn get_sgtable(bench: &mut Bench<'_>) -> Verdict {
    expect_no_such_address(bench)?;
    let (owner, client) = bench.take_peers()?;
    let target = client.alloc(SIZE as u64, 1)?;
    let shared = Shared::new(&owner, Exporter::Coherent, SIZE as u64)?;
    let refused = client.import(&shared.fd, Importer::Dynamic.flags()).err().map(|e| e.errno);
    ensure!(
        refused == Some(Errno::OPNOTSUPP),
        "coherent memory of one device for another: {refused:?}"
    );

    let object = owner.buffer(uapi::BUFFER_COHERENT, SIZE as u64, 1, uapi::BUFFER_LAB_SGTABLE)?;
    let shared = Shared::of(&owner, object)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    must_fault(
        &client,
        "a table made by dma_get_sgtable()",
        Work::copy(imported.at(0), target.at(0), SIZE as u64),
    )?;
    Ok(client.close(imported)?)
}

/// "If the original allocation used DMA_ATTR_NON_CONSISTENT the new allocation will need dma_cache_sync calls as well":
/// a device whose writes stay in it until a sync shows a driver that leaves the sync out, on a machine with coherent caches too.
fn needs_sync(bench: &mut Bench<'_>) -> Verdict {
    let (owner, _) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Noncoherent, SIZE as u64)?;
    let (before, after) = (Pattern::new(53), 0x5555_5555_5555_5555);
    shared.store(0..SIZE, before)?;
    owner.arm_fault(0, uapi::FAULT_WRITE_BACK, 0)?;
    must(&owner, Work::fill(shared.object.at(0), SIZE as u64, after))?;
    // The device has ended its work, and the CPU looks without a word: what it sees is old.
    shared.view.expect(0..SIZE, before, 0).map_err(|there| {
        Stop::Fail(format!(
            "without a sync the CPU sees what the device has not given away: {there}"
        ))
    })?;
    begin_cpu_access(&shared.fd, Access::Read)?;
    let found = shared.view.expect_all(0..SIZE, 0x55);
    end_cpu_access(&shared.fd, Access::Read)?;
    Ok(found?)
}

/// "1 interface to allow all drivers to share buffers with anything else, no matter how exactly they're allocated": data
/// goes through a buffer of each kind, from each to the next, by calls that are the same for all.
fn one_interface(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let buffers: Vec<_> = sharable()
        .map(|exporter| Shared::new(&owner, exporter, SIZE as u64))
        .collect::<Result<_, _>>()?;
    let imports: Vec<_> = buffers
        .iter()
        .map(|shared| client.import(&shared.fd, Importer::Dynamic.flags()))
        .collect::<Result<_, _>>()?;
    let pattern = Pattern::new(48);
    buffers[0].store(0..SIZE, pattern)?;
    for pair in imports.windows(2) {
        must(&client, Work::copy(pair[0].at(0), pair[1].at(0), SIZE as u64))?;
    }
    buffers.iter().try_for_each(|shared| shared.expect(0..SIZE, pattern, 0))
}
