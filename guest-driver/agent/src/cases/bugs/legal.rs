//! Near-misses: as far as the rules go, and nothing may be found.

use super::buffers::ignore_invalidation;
use super::{LENGTH, Mode, NEEDS, Pages, SHARED, import_local, read_at, write_at};
use crate::cases::Kind::Positive;
use crate::cases::bench::{must, succeeded};
use crate::cases::busy::{Busy, Load};
use crate::cases::lifecycle::{bind, unbind};
use crate::cases::matrix::{Exporter, Importer, SIZE, Shared};
use crate::cases::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Pattern, WAIT_MS, Work, at_address};
use crate::uapi;

pub(super) const CASES: &[Case] = &[
    Case::new("legal", "past-end.to-the-last-byte", Positive, NEEDS, last_byte),
    Case::new("legal", "past-end.merged-scatterlist", Positive, NEEDS, merged),
    Case::new("legal", "unmapped.each-device-its-own-mapping", Positive, NEEDS, own_mappings),
    Case::new("legal", "stale.mapped-twice-unmapped-once", Positive, NEEDS, overlapping),
    Case::new("legal", "stale.address-used-again", Positive, NEEDS, used_again),
    Case::new("legal", "stale.unmapped-after-the-work", Positive, NEEDS, after_the_work),
    Case::new("legal", "direction.remapped-the-other-way", Positive, NEEDS, other_way),
    Case::new("legal", "direction.both-ways-at-once", Positive, NEEDS, both_ways),
    Case::new("legal", "sync.back-and-forth", Positive, NEEDS, synced),
    Case::new("legal", "leaked.nothing-left", Positive, NEEDS, nothing_left),
    Case::new("legal", "buffer.read-after-invalidate", Positive, SHARED, read_after_invalidate),
    Case::new("legal", "buffer.write-before-the-fence", Positive, SHARED, before_the_fence),
    Case::new("legal", "buffer.mapping-is-kept", Positive, SHARED, kept),
    Case::new("legal", "buffer.mapped-after-invalidate", Positive, SHARED, mapped_again),
    Case::new("legal", "buffer.pages-without-peer2peer", Positive, SHARED, pages_for_anyone),
    Case::new("legal", "buffer.exporter-closes-first", Positive, SHARED, closed_first),
];

/// The last byte of a mapping that ends within a page, and the whole of it at odd offsets.
fn last_byte(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    let (object, address) = peer.map_range(pages.phys + 253, 517, uapi::BIDIRECTIONAL, 0)?;
    for (offset, length) in [(516, 1), (0, 517), (0, 1), (1, 516), (255, 262)] {
        must(&peer, Work::fill(at_address(address + offset), length, 0))?;
        must(&peer, Work::checksum(at_address(address + offset), length))?;
    }
    Ok(peer.close(object)?)
}

/// One descriptor over all of a scatterlist whose pieces follow each other in DMA addresses.
fn merged(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    let pages = peer.system(64 << 10, 0, uapi::BIDIRECTIONAL)?;
    let (segments, total) = peer.segments(pages)?;
    ensure!(
        Mode::of(peer) == Mode::Direct || total == 1,
        "an IOMMU merges 16 pages, here are {total} pieces"
    );
    for segment in segments {
        must(peer, Work::fill(at_address(segment.address), segment.length, 0))?;
    }
    Ok(())
}

/// Two devices map the same pages, each for itself.
fn own_mappings(bench: &mut Bench<'_>) -> Verdict {
    let (one, two) = bench.take_peers()?;
    let pages = Pages::new(&two, &one)?;
    for peer in [&one, &two] {
        let (_, address) = peer.map_range(pages.phys, 4096, uapi::BIDIRECTIONAL, 0)?;
        must(peer, Work::fill(at_address(address), 4096, 0))?;
    }
    Ok(())
}

/// The same page, mapped twice for reading: what is unmapped is one of the two.
fn overlapping(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    let (first, _) = peer.map_range(pages.phys, 4096, uapi::TO_DEVICE, 0)?;
    let (second, address) = peer.map_range(pages.phys + 64, 1024, uapi::TO_DEVICE, 0)?;
    let (third, same) = peer.map_range(pages.phys + 64, 1024, uapi::TO_DEVICE, 0)?;
    peer.close(first)?;
    must(&peer, Work::checksum(at_address(address), 1024))?;
    peer.close(second)?;
    must(&peer, Work::checksum(at_address(same), 1024))?;
    Ok(peer.close(third)?)
}

/// The kernel gives addresses out again; what had them before counts no more.
fn used_again(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    for round in 0..64u64 {
        let direction = if round % 2 == 0 { uapi::TO_DEVICE } else { uapi::FROM_DEVICE };
        let length = 4096 - round;
        let (object, address) = peer.map_range(pages.phys + round, length, direction, 0)?;
        let work = match round % 2 {
            0 => Work::checksum(at_address(address), length),
            _ => Work::fill(at_address(address), length, round),
        };
        must(&peer, work)?;
        peer.close(object)?;
    }
    Ok(())
}

/// Work that ends, and then the unmap: the order that every driver keeps.
fn after_the_work(bench: &mut Bench<'_>) -> Verdict {
    let (peer, _) = bench.take_peers()?;
    for _ in 0..16 {
        let pages = peer.system(16 << 10, 0, uapi::BIDIRECTIONAL)?;
        let cookie = peer.submit(Work::fill(pages.at(0), 16 << 10, 0))?;
        succeeded(&peer, peer.wait(cookie, WAIT_MS)?)?;
        peer.close(pages)?;
    }
    Ok(())
}

/// The same page for the device to read, then for it to write.
fn other_way(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    for direction in [uapi::TO_DEVICE, uapi::FROM_DEVICE, uapi::TO_DEVICE] {
        let (object, address) = peer.map_range(pages.phys, 4096, direction, 0)?;
        match direction {
            uapi::TO_DEVICE => read_at(&peer, address)?,
            _ => write_at(&peer, address)?,
        }
        peer.close(object)?;
    }
    Ok(())
}

/// The same page, mapped once for each way at the same time.
fn both_ways(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    let (source, from) = peer.map_range(pages.phys, 1024, uapi::TO_DEVICE, 0)?;
    let (target, to) = peer.map_range(pages.phys, 2048, uapi::FROM_DEVICE, 0)?;
    must(&peer, Work::copy(at_address(from), at_address(to + 1024), 1024))?;
    peer.close(source)?;
    write_at(&peer, to)?;
    Ok(peer.close(target)?)
}

/// Memory that goes to the CPU and back stays mapped.
fn synced(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    let pages = peer.system(8192, 0, uapi::BIDIRECTIONAL)?;
    for round in 0..4u64 {
        must(peer, Work::fill(pages.at(round), LENGTH, round))?;
        peer.sync(pages, uapi::SYNC_FOR_CPU)?;
        peer.view(pages)?.store(0..64, Pattern::new(round));
        peer.sync(pages, uapi::SYNC_FOR_DEVICE)?;
        must(peer, Work::checksum(pages.at(0), 8192))?;
    }
    Ok(())
}

/// A driver that has unmapped everything is unbound.
fn nothing_left(bench: &mut Bench<'_>) -> Verdict {
    let (peer, other) = bench.take_peers()?;
    let pages = peer.system(64 << 10, 0, uapi::BIDIRECTIONAL)?;
    must(&peer, Work::fill(pages.at(0), 4096, 0))?;
    let (function, instance) = (peer.function(), peer.instance);
    // Closing the file unmaps.
    drop((peer, other));
    let driver = unbind(&function)?;
    bind(&function, &driver, instance)
}

/// Until it is unmapped, what was invalidated may be read.
fn read_after_invalidate(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (_shared, imported) = ignore_invalidation(&owner, &client)?;
    must(&client, Work::checksum(imported.at(0), LENGTH))?;
    Ok(client.close(imported)?)
}

/// Work that was queued before the invalidation: its fence lets it write until it signals.
fn before_the_fence(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (shared, imported) =
        import_local(&owner, &client, Importer::Dynamic.flags(), uapi::BIDIRECTIONAL)?;
    let mut load = Load::default();
    let busy = Busy::start(&client)?;
    let last = client.submit(Work::fill(imported.at(0), SIZE as u64, 0))?;
    load.look(&busy, &client)?;
    owner.invalidate(shared.object)?;
    busy.end(&client, &[last])?;
    load.conclude(bench)
}

/// A mapping that an importer keeps over many transfers and CPU accesses.
fn kept(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (shared, imported) =
        import_local(&owner, &client, Importer::Dynamic.flags(), uapi::BIDIRECTIONAL)?;
    for round in 0..8 {
        shared.store(0..SIZE, Pattern::new(round))?;
        must(&client, Work::checksum(imported.at(0), SIZE as u64))?;
        must(&client, Work::fill(imported.at(0), SIZE as u64, round))?;
    }
    Ok(())
}

/// The mapping that follows an invalidation may be written through.
fn mapped_again(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    for exporter in [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages] {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        for _ in 0..4 {
            must(&client, Work::fill(imported.at(0), SIZE as u64, 0))?;
            owner.invalidate(shared.object)?;
        }
        must(&client, Work::fill(imported.at(0), SIZE as u64, 0))?;
        client.close(imported)?;
    }
    Ok(())
}

/// System memory is for every importer.
fn pages_for_anyone(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    for importer in [Importer::DynamicNoPeers, Importer::Static] {
        for exporter in [Exporter::Pages, Exporter::Migrating] {
            let shared = Shared::new(&owner, exporter, SIZE as u64)?;
            let imported = client.import(&shared.fd, importer.flags())?;
            must(&client, Work::fill(imported.at(0), SIZE as u64, 0))?;
            client.close(imported)?;
        }
    }
    Ok(())
}

/// The importer's reference keeps the buffer alive.
fn closed_first(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (shared, imported) =
        import_local(&owner, &client, Importer::Dynamic.flags(), uapi::BIDIRECTIONAL)?;
    let object = shared.object;
    drop(shared);
    owner.close(object)?;
    must(&client, Work::fill(imported.at(0), SIZE as u64, 0))?;
    client.close(imported).map_err(Stop::from)
}
