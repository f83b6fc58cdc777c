//! Mappings of the DMA API: none, no more, the wrong way, too far, left behind.

use super::{
    LENGTH, Mode, NEEDS, Pages, SHARED, WITNESSED, address_of, expect, expect_any, findings,
    import_local, needs_witness, read_at, write_at,
};
use crate::cases::Kind::Negative;
use crate::cases::busy::{Busy, LOADS};
use crate::cases::faults::{NEVER_MAPPED, class};
use crate::cases::lifecycle::{bind, unbind};
use crate::cases::matrix::Importer;
use crate::cases::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Peer, WAIT_MS, Work, at_address};
use crate::uapi;

pub(super) const CASES: &[Case] = &[
    Case::new("bugs", "unmapped.made-up-address", Negative, NEEDS, made_up),
    Case::new("bugs", "unmapped.mapping-of-another-device", Negative, NEEDS, other_device),
    Case::new("bugs", "unmapped.cpu-address-of-a-bar", Negative, NEEDS, raw_bar),
    Case::new("bugs", "stale.use-after-unmap", Negative, NEEDS, use_after_unmap),
    Case::new("bugs", "stale.unmapped-under-work", Negative, NEEDS, unmapped_under_work),
    Case::new("bugs", "stale.coherent-memory-freed", Negative, NEEDS, coherent_freed),
    Case::new("bugs", "stale.dma-buf-unmapped", Negative, SHARED, dma_buf_unmapped),
    Case::new("bugs", "direction.write-to-what-is-read", Negative, NEEDS, write_to_device),
    Case::new("bugs", "direction.read-of-what-is-written", Negative, NEEDS, read_from_device),
    Case::new("bugs", "direction.write-to-a-dma-buf", Negative, SHARED, write_to_dma_buf),
    Case::new("bugs", "past-end.within-the-page", Negative, WITNESSED, past_end_in_page),
    Case::new("bugs", "past-end.into-a-neighbour", Negative, WITNESSED, past_end_in_neighbour),
    Case::new("bugs", "leaked.by-unbinding", Negative, WITNESSED, leaked),
];

/// Where nothing is, or only what no test may write to: read, in every mode.
fn expect_unmapped(bench: &mut Bench<'_>) -> Verdict {
    let mode = Mode::of(bench.peer(0)?);
    needs_witness(mode)?;
    expect(bench, mode.class(class::UNMAPPED, class::WITNESS_UNMAPPED), 1)
}

fn made_up(bench: &mut Bench<'_>) -> Verdict {
    expect_unmapped(bench)?;
    read_at(bench.peer(0)?, NEVER_MAPPED)
}

/// "Each device needs its own mapping."
fn other_device(bench: &mut Bench<'_>) -> Verdict {
    expect_unmapped(bench)?;
    let (user, owner) = bench.take_peers()?;
    // Large, so that no smaller mapping of the user's was ever at the address of its middle.
    let pages = owner.system(4 << 20, 0, uapi::BIDIRECTIONAL)?;
    let address = address_of(&owner, pages)?;
    write_at(&user, if owner.is_translated() { address + (2 << 20) } else { address })
}

/// What `/proc/iomem` shows is where CPUs find a BAR.
fn raw_bar(bench: &mut Bench<'_>) -> Verdict {
    expect_unmapped(bench)?;
    let (user, owner) = bench.take_peers()?;
    // Half-way in, where no test has had anything mapped.
    write_at(&user, owner.info.memory_phys + owner.info.memory_size / 2)
}

fn expect_stale(bench: &mut Bench<'_>, count: u32) -> Verdict {
    let mode = Mode::of(bench.peer(0)?);
    needs_witness(mode)?;
    expect(bench, mode.class_if_strict(class::STALE, class::WITNESS_STALE), count)
}

/// The same in `work` that takes its time, or unmaps what the kernel does not unmap lazily: an IOMMU
/// that is told late may have been told by then.
fn stale_at_any_time(
    bench: &mut Bench<'_>,
    work: impl FnOnce(&mut Bench<'_>) -> Verdict,
) -> Verdict {
    if Mode::of(bench.peer(0)?) != Mode::Lazy {
        expect_stale(bench, 1)?;
        return work(bench);
    }
    needs_witness(Mode::Lazy)?;
    for class in [class::STALE, class::WITNESS_STALE] {
        expect_any(bench, class)?;
    }
    let before = findings(bench)?;
    work(bench)?;
    let found = findings(bench)? - before;
    ensure!(found == 1, "one stale access, {found} findings");
    Ok(())
}

fn use_after_unmap(bench: &mut Bench<'_>) -> Verdict {
    expect_stale(bench, 2)?;
    let peer = bench.peer(0)?;
    let pages = peer.system(4096, 0, uapi::BIDIRECTIONAL)?;
    let address = address_of(peer, pages)?;
    write_at(peer, address)?;
    // The object keeps its pages, and nothing else is mapped meanwhile.
    peer.unmap(pages)?;
    write_at(peer, address)?;
    read_at(peer, address + 128)
}

/// The most common one: the driver gives up and unmaps, the device has not been stopped.
fn unmapped_under_work(bench: &mut Bench<'_>) -> Verdict {
    stale_at_any_time(bench, |bench| unmap_under_work(&bench.take_peers()?.0))
}

fn unmap_under_work(peer: &Peer) -> Verdict {
    for fills in LOADS {
        let pages = peer.system(4096, 0, uapi::FROM_DEVICE)?;
        let busy = Busy::start_of(peer, fills)?;
        // By its address: work on the object would keep it mapped.
        let late = peer.submit(Work::fill(at_address(address_of(peer, pages)?), LENGTH, 0))?;
        peer.unmap(pages)?;
        let in_time = !busy.is_under_way(peer)?;
        peer.wait(late, WAIT_MS)?;
        busy.end(peer, &[])?;
        if !in_time {
            return Ok(());
        }
    }
    Err(Stop::Skip("the work was over each time before its memory was unmapped".into()))
}

fn coherent_freed(bench: &mut Bench<'_>) -> Verdict {
    expect_stale(bench, 1)?;
    let peer = bench.peer(0)?;
    let memory = peer.system(4096, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL)?;
    let address = address_of(peer, memory)?;
    read_at(peer, address)?;
    peer.close(memory)?;
    // Read: the page may be anyone's by now.
    read_at(peer, address)
}

fn dma_buf_unmapped(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let flags = Importer::Dynamic.flags();
    let (_shared, imported) = import_local(&owner, &client, flags, uapi::BIDIRECTIONAL)?;
    let address = address_of(&client, imported)?;
    write_at(&client, address)?;
    stale_at_any_time(bench, |_| {
        client.unmap(imported)?;
        read_at(&client, address)
    })
}

fn expect_direction(bench: &mut Bench<'_>) -> Verdict {
    let mode = Mode::of(bench.peer(0)?);
    if mode == Mode::Direct {
        needs_witness(mode)?;
    }
    expect(bench, mode.class(class::PERMISSION, class::WITNESS_DIRECTION), 1)
}

fn write_to_device(bench: &mut Bench<'_>) -> Verdict {
    expect_direction(bench)?;
    let peer = bench.peer(0)?;
    let pages = peer.system(4096, 0, uapi::TO_DEVICE)?;
    let address = address_of(peer, pages)?;
    read_at(peer, address)?;
    write_at(peer, address)
}

fn read_from_device(bench: &mut Bench<'_>) -> Verdict {
    expect_direction(bench)?;
    let peer = bench.peer(0)?;
    let pages = peer.system(4096, 0, uapi::FROM_DEVICE)?;
    let address = address_of(peer, pages)?;
    write_at(peer, address)?;
    read_at(peer, address)
}

fn write_to_dma_buf(bench: &mut Bench<'_>) -> Verdict {
    expect_direction(bench)?;
    let (owner, client) = bench.take_peers()?;
    let flags = Importer::Dynamic.flags();
    let (_shared, imported) = import_local(&owner, &client, flags, uapi::TO_DEVICE)?;
    let address = address_of(&client, imported)?;
    read_at(&client, address)?;
    write_at(&client, address)
}

/// An IOMMU knows pages. The DMA API knows bytes.
fn past_end_in_page(bench: &mut Bench<'_>) -> Verdict {
    expect(bench, class::WITNESS_PAST_END, 1)?;
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    let (object, address) = peer.map_range(pages.phys + 256, 512, uapi::FROM_DEVICE, 0)?;
    // Two TLPs: the second is wrong.
    peer.run(Work::fill(at_address(address + 512 - LENGTH), 2 * LENGTH, 0))?;
    Ok(peer.close(object)?)
}

const PAGE: u64 = 4096;

/// What lies behind is mapped, too, by another call: the transfer succeeds.
fn past_end_in_neighbour(bench: &mut Bench<'_>) -> Verdict {
    expect(bench, class::WITNESS_PAST_END, 1)?;
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    let low = neighbours(&peer, &pages)?;
    // A read: without an IOMMU the second page may be anyone's.
    peer.run(Work::checksum(at_address(low + PAGE - LENGTH), 2 * LENGTH))?;
    Ok(())
}

/// The lower of the DMA addresses of two pages, mapped by calls of their own, of which the second
/// follows the first.
fn neighbours(peer: &Peer, pages: &Pages) -> Result<u64, Stop> {
    let mut mapped = Vec::new();
    for round in 0..64 {
        // Without an IOMMU the addresses follow each other as the pages do; with one, as the kernel
        // hands them out.
        let phys = pages.phys + if Mode::of(peer) == Mode::Direct { round % 2 * PAGE } else { 0 };
        let (_, address) = peer.map_range(phys, PAGE, uapi::TO_DEVICE, 0)?;
        mapped.push(address);
        if let Some(low) = mapped.iter().find(|low| mapped.contains(&(**low + PAGE))) {
            return Ok(*low);
        }
    }
    Err(Stop::Skip("no two mappings have followed each other".into()))
}

/// The driver is unbound, and something is still mapped.
fn leaked(bench: &mut Bench<'_>) -> Verdict {
    expect(bench, class::WITNESS_LEAKED, 1)?;
    // CONFIG_DMA_API_DEBUG would see it, too: the scenario switches that off (dma_debug=off).
    let (peer, other) = bench.take_peers()?;
    let pages = Pages::new(&other, &peer)?;
    peer.map_range(pages.phys, 4096, uapi::TO_DEVICE, uapi::LAB_MAP_LEAK)?;
    let (function, instance) = (peer.function(), peer.instance);
    drop((pages, peer, other));
    let driver = unbind(&function)?;
    bind(&function, &driver, instance)
}
