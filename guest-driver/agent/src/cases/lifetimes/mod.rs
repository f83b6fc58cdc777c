//! Shared buffers while they are moved or revoked, while a side closes, unbinds or dies.

mod leaving;
pub(super) mod patience;
mod reset;

use super::Kind::Positive;
use super::bench::{must, succeeded};
use super::busy::{Busy, LOADS, Load, too_busy};
use super::cpu_access::published_bytes;
use super::leaks::Account;
use super::matrix::{Exporter, FENCED, FENCED_PATH, Importer, NEEDS, PATH, SIZE, Shared};
use super::traffic::{self, Traffic, Where};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::sys::dma_buf::{self, Access};
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

pub(super) const CASES: &[Case] = &[
    Case::new("lifetimes", "move-while-idle", Positive, PATH, move_while_idle),
    Case::new("lifetimes", "move-under-load", Positive, PATH, move_under_load),
    Case::new("lifetimes", "fall-back-under-load", Positive, PATH, fall_back_under_load),
    Case::new("lifetimes", "moves-within-a-submission", Positive, PATH, move_in_submission),
    Case::new("lifetimes", "pinned-buffer-stays", Positive, PATH, pinned_stays),
    Case::new("lifetimes", "revoke-and-map-again", Positive, PATH, revoke),
    Case::new("lifetimes", "close-with-work-in-flight", Positive, PATH, close_in_flight),
    Case::new("lifetimes", "every-kind-comes-back", Positive, NEEDS, comes_back),
    Case::new("lifetimes", "sync-file-out", Positive, FENCED, sync_file_out),
    Case::new("lifetimes", "sync-file-in", Positive, FENCED, sync_file_in),
    Case::new("lifetimes", "a-move-gives-up-in-time", Positive, patience::NEEDS, patience::moving),
    Case::new(
        "lifetimes",
        "a-recall-gives-up-in-time",
        Positive,
        patience::NEEDS,
        patience::invalidation,
    ),
    Case::new("lifetimes", "importer-unbinds-first", Positive, PATH, leaving::importer_unbinds),
    Case::new("lifetimes", "exporter-unbinds-first", Positive, PATH, leaving::exporter_unbinds),
    Case::new(
        "lifetimes",
        "exporter-unbind-waits-for-who-cannot-be-told",
        Positive,
        PATH,
        leaving::exporter_waits,
    ),
    Case::new(
        "lifetimes",
        "exporter-unbinds-before-late-unmaps",
        Positive,
        FENCED_PATH,
        patience::unbinding,
    ),
    Case::new("lifetimes", "exporter-process-killed", Positive, PATH, leaving::exporter_killed),
    Case::new(
        "lifetimes",
        "reset-takes-back-what-is-inside",
        Positive,
        PATH,
        leaving::reset_takes_back,
    ),
    Case::new(
        "lifetimes",
        "reset-during-a-transfer",
        Positive,
        FENCED_PATH,
        reset::during_a_transfer,
    ),
    Case::new("lifetimes", "pages-outlive-their-exporter", Positive, NEEDS, leaving::pages_outlive),
];

/// The importer reads the buffer and writes another pattern into it; by which way is checked.
fn both_ways(
    bench: &mut Bench<'_>,
    (owner, client): (&Peer, &Peer),
    imported: Object,
    shared: &Shared,
    (seed, to): (u64, Where),
) -> Verdict {
    let local = client.alloc(SIZE as u64, 1)?;
    let (before, after) = (Pattern::new(seed), Pattern::new(seed + 1));
    shared.expect(0..SIZE, before, 0)?;
    let moved = Traffic::during(bench, &client.function(), |_| {
        must(client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        client.view(local)?.expect(0..SIZE, before, 0)?;
        client.view(local)?.store(0..SIZE, after);
        must(client, Work::copy(local.at(0), imported.at(0), SIZE as u64))?;
        shared.expect(0..SIZE, after, 0)
    })?;
    moved.expect(to, &traffic::name(bench, &owner.function())?, SIZE as u64)?;
    Ok(client.close(local)?)
}

/// From local memory to RAM and back, with an importer that has a mapping each time.
fn move_while_idle(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    shared.store(0..SIZE, Pattern::new(10))?;
    let before = client.counters()?;
    both_ways(bench, (&owner, &client), imported, &shared, (10, Where::Peer))?;
    owner.move_buffer(shared.object, uapi::PLACE_SYSTEM, 0)?;
    ensure!(owner.buffer_state(shared.object)?.mappings == 0, "an idle importer keeps its mapping");
    both_ways(bench, (&owner, &client), imported, &shared, (11, Where::Memory))?;
    owner.move_buffer(shared.object, uapi::PLACE_LOCAL, 0)?;
    both_ways(bench, (&owner, &client), imported, &shared, (12, Where::Peer))?;
    let after = client.counters()?;
    let (notified, mapped) = (after.invalidations - before.invalidations, after.maps - before.maps);
    ensure!(
        notified == 2 && mapped == 3,
        "2 moves: notified {notified} times, mapped {mapped} times"
    );
    Ok(())
}

/// The buffer moves to and fro while the importer reads it on one channel and writes it on another.
fn move_under_load(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: usize = 256 << 10;
    const SIZE: u64 = LENGTH as u64;
    const ROUNDS: u64 = 12;
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let local = client.alloc(SIZE, 1)?;
    let word = |round: u64| (round + 1) * 0x0101_0101_0101_0101;
    let (mut pending, mut load) = (Vec::new(), Load::default());
    for round in 0..ROUNDS {
        let moves = round % 3 == 2;
        pending.push(client.submit(Work::copy(imported.at(0), local.at(0), SIZE).on(1))?);
        // Before a move the write is queued behind something long: it is surely still to come.
        let busy = moves.then(|| Busy::start(&client)).transpose()?;
        let write = client.submit(Work::fill(imported.at(0), SIZE, word(round)))?;
        if let Some(busy) = &busy {
            load.look(busy, &client)?;
            let place = if round % 2 == 0 { uapi::PLACE_SYSTEM } else { uapi::PLACE_LOCAL };
            owner.move_buffer(shared.object, place, 0)?;
        }
        match busy {
            Some(busy) => busy.end(&client, &[write])?,
            None => pending.push(write),
        }
    }
    for cookie in pending {
        succeeded(&client, client.wait(cookie, WAIT_MS)?)?;
    }
    let state = owner.buffer_state(shared.object)?;
    ensure!(state.moves == 4, "4 moves were asked for, {} were made", state.moves);
    // The last write stands, in the place where the buffer is now: for the CPU and for both devices.
    let last = u8::try_from(ROUNDS).unwrap_or_default();
    dma_buf::begin_cpu_access(&shared.fd, Access::Read)?;
    let found = (0..LENGTH)
        .step_by(4096)
        .try_for_each(|page| shared.view.expect_all(page..page + 64, last));
    dma_buf::end_cpu_access(&shared.fd, Access::Read)?;
    found?;
    let mut sums = Vec::new();
    for (peer, object) in [(&owner, shared.object), (&client, imported)] {
        sums.push(must(peer, Work::checksum(object.at(0), SIZE))?.result);
    }
    ensure!(sums[0] == sums[1], "the devices find the checksums {sums:#x?}");
    load.conclude(bench)
}

/// An importer that needs the buffer in RAM attaches while a write of another importer into it is
/// still outstanding: the buffer moves after that write.
fn fall_back_under_load(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut load = Load::default();
    for (seed, importer) in (16..).zip([Importer::DynamicNoPeers, Importer::Static]) {
        let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
        shared.store(0..SIZE, Pattern::new(seed))?;
        let first = client.import(&shared.fd, Importer::Dynamic.flags())?;
        client.map(first, uapi::BIDIRECTIONAL)?;
        let busy = Busy::start(&client)?;
        let write = client.submit(Work::fill(first.at(0), SIZE as u64, 0x4646_4646_4646_4646))?;
        load.look(&busy, &client)?;
        // Older kernels map for a static importer when it attaches.
        let second = client.import(&shared.fd, importer.flags())?;
        client.map(second, uapi::BIDIRECTIONAL)?;
        let place = owner.buffer_state(shared.object)?.place;
        ensure!(place == uapi::PLACE_SYSTEM, "{importer:?} has mapped the buffer at place {place}");
        let found = shared.view.expect_all(0..SIZE, 0x46);
        busy.end(&client, &[write])?;
        found?;
        client.close(second)?;
        client.close(first)?;
    }
    load.conclude(bench)
}

/// Work between two imports of one buffer: mapping the second moves it, which takes the mapping of the first away.
fn move_in_submission(bench: &mut Bench<'_>) -> Verdict {
    const HALF: usize = SIZE / 2;
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    shared.store(0..SIZE, Pattern::new(14))?;
    let first = client.import(&shared.fd, Importer::Dynamic.flags())?;
    client.map(first, uapi::BIDIRECTIONAL)?;
    let second = client.import(&shared.fd, Importer::DynamicNoPeers.flags())?;
    must(&client, Work::copy(first.at(0), second.at(HALF as u64), HALF as u64))?;
    let state = owner.buffer_state(shared.object)?;
    ensure!(
        state.place == uapi::PLACE_SYSTEM && state.mappings == 2,
        "work on two imports: place {}, {} mappings",
        state.place,
        state.mappings
    );
    shared.expect(HALF..SIZE, Pattern::new(14), 0)
}

/// A pinned buffer stays where it is, and moving it fails.
fn pinned_stays(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    let busy = |what: &str, error: Option<Errno>| -> Verdict {
        ensure!(error == Some(Errno::BUSY), "{what}: {error:?} instead of EBUSY");
        Ok(())
    };
    let pinned = client.import(&shared.fd, Importer::PinnedRevocable.flags())?;
    let moved = owner.move_buffer(shared.object, uapi::PLACE_SYSTEM, 0);
    busy("moving what is pinned in local memory", moved.err().map(|error| error.errno))?;
    let attached = client.import(&shared.fd, Importer::Static.flags());
    busy("attaching an importer that needs RAM", attached.err().map(|error| error.errno))?;
    client.close(pinned)?;

    let attached = client.import(&shared.fd, Importer::Static.flags())?;
    client.map(attached, uapi::BIDIRECTIONAL)?;
    let state = owner.buffer_state(shared.object)?;
    ensure!(
        state.place == uapi::PLACE_SYSTEM && state.pins == 1,
        "a static importer's mapping: place {}, {} pins",
        state.place,
        state.pins
    );
    let moved = owner.move_buffer(shared.object, uapi::PLACE_LOCAL, 0);
    busy("moving what is pinned in RAM", moved.err().map(|error| error.errno))?;
    client.close(attached)?;
    ensure!(owner.buffer_state(shared.object)?.pins == 0, "a pin outlives its importer");
    owner.move_buffer(shared.object, uapi::PLACE_LOCAL, 0)?;
    Ok(())
}

/// The exporter takes its buffer back under load; an importer with a callback unmaps, and maps again for its next work.
fn revoke(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut load = Load::default();
    for exporter in [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages] {
        for importer in [Importer::Dynamic, Importer::PinnedRevocable] {
            let shared = Shared::new(&owner, exporter, SIZE as u64)?;
            let imported = client.import(&shared.fd, importer.flags())?;
            let local = client.alloc(SIZE as u64, 1)?;
            let work = Work::copy(imported.at(0), local.at(0), SIZE as u64);
            let busy = Busy::start(&client)?;
            let last = client.submit(work)?;
            load.look(&busy, &client)?;
            owner.invalidate(shared.object)?;
            let (segments, _) = client.segments(imported)?;
            ensure!(segments.is_empty(), "{exporter:?}: {importer:?} keeps what was taken back");
            busy.end(&client, &[last])?;
            must(&client, work)?;
            client.close(imported)?;
            client.close(local)?;
        }
    }
    load.conclude(bench)
}

/// The importer's file is closed in the midst of its work: what was queued is cancelled, and everything comes back.
fn close_in_flight(bench: &mut Bench<'_>) -> Verdict {
    let (owner, watcher) = bench.take_peers()?;
    let mut load = Load::default();
    for exporter in Exporter::ALL {
        if exporter == Exporter::Coherent {
            continue;
        }
        let client = Peer::open(watcher.instance)?;
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        let busy = Busy::start(&client)?;
        client.submit(Work::fill(imported.at(0), SIZE as u64, 1))?;
        load.look(&busy, &client)?;
        drop(client);
        let counters = watcher.counters()?;
        ensure!(
            counters.live_work == 0 && counters.maps == counters.unmaps,
            "{exporter:?}: {} pieces of work are left, {} mappings made and {} given back",
            counters.live_work,
            counters.maps,
            counters.unmaps
        );
        // The exporter has it for itself again.
        must(&owner, Work::fill(shared.object.at(0), SIZE as u64, 0x4242_4242_4242_4242))?;
        dma_buf::begin_cpu_access(&shared.fd, Access::Read)?;
        shared.view.expect_all(0..SIZE, 0x42)?;
        dma_buf::end_cpu_access(&shared.fd, Access::Read)?;
    }
    load.conclude(bench)
}

/// Each kind of buffer with each kind of importer, some rounds: afterwards every counter has its
/// old value.
fn comes_back(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let round = || -> Verdict {
        for exporter in Exporter::ALL {
            for importer in Importer::ALL {
                let shared = Shared::new(&owner, exporter, SIZE as u64)?;
                shared.view.byte(0);
                let peer = if importer == Importer::OwnDevice { &owner } else { &client };
                // Refused attachments must leave nothing behind either.
                if let Ok(imported) = peer.import(&shared.fd, importer.flags()) {
                    must(peer, Work::checksum(imported.at(0), 64))?;
                    peer.close(imported)?;
                }
                owner.close(shared.object)?;
            }
        }
        Ok(())
    };
    // What the kernel keeps for the next user it has after the first round.
    round()?;
    let (before, published) = (Account::take(bench)?, published_bytes(&owner)?);
    round()?;
    round()?;
    before.await_return(bench)?;
    let now = published_bytes(&owner)?;
    ensure!(now == published, "memory with pages: {published} bytes before, {now} after");
    Ok(())
}

/// What the importer's device does to the buffer is in the buffer's fences, for every caller that
/// asks.
fn sync_file_out(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Noncontiguous, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    behind_others(bench, &client, |busy| {
        let byte = 0x40 + u8::try_from(busy.fills())?;
        let fill = Work::fill(imported.at(0), SIZE as u64, u64::from_ne_bytes([byte; 8]));
        let last = client.submit(fill)?;
        let fence = dma_buf::export_sync_file(&shared.fd, Access::Read)?;
        let early = is_early(&fence, busy, &client)?;
        ensure!(dma_buf::signalled(&fence, WAIT_MS)?, "the fence of the work does not signal");
        shared.view.expect_all(0..SIZE, byte)?;
        Ok((last, early))
    })
}

/// A fence put into the buffer from outside: the importer's work waits for it.
fn sync_file_in(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Noncontiguous, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let local = client.alloc(SIZE as u64, 1)?;
    // Work on something else, which the kernel cannot know to be about this buffer.
    let other = owner.alloc(SIZE as u64, 1)?;
    behind_others(bench, &owner, |busy| {
        let (first, fence) = owner.submit_fenced(Work::fill(other.at(0), SIZE as u64, 1))?;
        dma_buf::import_sync_file(&shared.fd, Access::Write, fence.as_fd())?;
        let early = is_early(&fence, busy, &owner)?;
        must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        ensure!(dma_buf::signalled(&fence, 0)?, "the importer did not wait for the buffer's fence");
        Ok((first, early))
    })?;
    // And by itself, given to the work.
    behind_others(bench, &owner, |busy| {
        let (last, fence) = owner.submit_fenced(Work::fill(other.at(0), SIZE as u64, 2))?;
        let early = is_early(&fence, busy, &owner)?;
        must(&client, Work::fill(local.at(0), 64, 3).after(fence.as_fd()))?;
        ensure!(dma_buf::signalled(&fence, 0)?, "the work did not wait for the fence it was given");
        Ok((last, early))
    })
}

/// Whether a fence behind other work has signalled before anything could be shown with it.
fn is_early(fence: &OwnedFd, busy: &Busy, peer: &Peer) -> Result<bool, Stop> {
    let early = dma_buf::signalled(fence, 0)?;
    ensure!(!early || !busy.is_under_way(peer)?, "the fence of work under way has signalled");
    Ok(early)
}

/// Does `work`, which gives the cookie of what it has queued on `peer` and whether that was over too early to show
/// anything, behind more and more other work until it was not.
fn behind_others(
    bench: &mut Bench<'_>,
    peer: &Peer,
    work: impl Fn(&Busy) -> Result<(u64, bool), Stop>,
) -> Verdict {
    for fills in LOADS {
        let busy = Busy::start_of(peer, fills)?;
        let (last, early) = work(&busy)?;
        busy.end(peer, &[last])?;
        if !early {
            return Ok(());
        }
        bench.note(format!("all was over at once behind {fills} fills"));
    }
    Err(too_busy())
}
