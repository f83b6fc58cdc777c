//! Shared buffers while somebody moves, revokes, closes, unbinds or dies.

use super::Kind::Positive;
use super::bench::{must, succeeded};
use super::cpu_access::Busy;
use super::lifecycle::{bind, reset, unbind};
use super::matrix::{Exporter, Importer, NEEDS, SIZE, Shared, Traffic, Way};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::sys::dma_buf::{self, Access};
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("lifetimes", "move-while-idle", Positive, NEEDS, move_while_idle),
    Case::new("lifetimes", "move-under-load", Positive, NEEDS, move_under_load),
    Case::new("lifetimes", "pinned-buffer-stays", Positive, NEEDS, pinned_stays),
    Case::new("lifetimes", "revoke-and-map-again", Positive, NEEDS, revoke),
    Case::new("lifetimes", "close-with-work-in-flight", Positive, NEEDS, close_in_flight),
    Case::new("lifetimes", "sync-file-out", Positive, NEEDS, sync_file_out),
    Case::new("lifetimes", "sync-file-in", Positive, NEEDS, sync_file_in),
    Case::new("lifetimes", "importer-unbinds-first", Positive, NEEDS, importer_unbinds),
    Case::new("lifetimes", "exporter-unbinds-first", Positive, NEEDS, exporter_unbinds),
    Case::new(
        "lifetimes",
        "exporter-unbind-waits-for-who-cannot-be-told",
        Positive,
        NEEDS,
        exporter_waits,
    ),
    Case::new("lifetimes", "exporter-process-killed", Positive, NEEDS, exporter_killed),
    Case::new("lifetimes", "reset-takes-back-what-is-inside", Positive, NEEDS, reset_takes_back),
    Case::new("lifetimes", "pages-outlive-their-exporter", Positive, NEEDS, pages_outlive),
];

/// The importer reads the buffer and writes another pattern into it; by which way is checked.
fn both_ways(
    bench: &mut Bench<'_>,
    client: &Peer,
    imported: Object,
    shared: &Shared,
    (seed, way): (u64, Way),
) -> Verdict {
    let local = client.alloc(SIZE as u64, 1)?;
    let (before, after) = (Pattern::new(seed), Pattern::new(seed + 1));
    shared.expect(0..SIZE, before, 0)?;
    let counted = Traffic::now(bench, client)?;
    must(client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
    client.view(local)?.expect(0..SIZE, before, 0)?;
    client.view(local)?.store(0..SIZE, after);
    must(client, Work::copy(local.at(0), imported.at(0), SIZE as u64))?;
    shared.expect(0..SIZE, after, 0)?;
    Traffic::now(bench, client)?.since(counted).expect(way, SIZE as u64)?;
    Ok(client.close(local)?)
}

/// From local memory to RAM and back, with an importer that has a mapping each time.
fn move_while_idle(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    shared.store(0..SIZE, Pattern::new(10))?;
    let before = client.counters()?;
    both_ways(bench, &client, imported, &shared, (10, Way::Peer))?;
    owner.move_buffer(shared.object, uapi::PLACE_SYSTEM, 0)?;
    ensure!(owner.buffer_state(shared.object)?.mappings == 0, "an idle importer keeps its mapping");
    both_ways(bench, &client, imported, &shared, (11, Way::Memory))?;
    owner.move_buffer(shared.object, uapi::PLACE_LOCAL, 0)?;
    both_ways(bench, &client, imported, &shared, (12, Way::Peer))?;
    let after = client.counters()?;
    let (told, mapped) = (after.invalidations - before.invalidations, after.maps - before.maps);
    ensure!(told == 2 && mapped == 3, "2 moves: told {told} times, mapped {mapped} times");
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
    let mut pending = Vec::new();
    for round in 0..ROUNDS {
        let moves = round % 3 == 2;
        pending.push(client.submit(Work::copy(imported.at(0), local.at(0), SIZE).on(1))?);
        // Before a move the write is queued behind something long: it is surely still to come.
        let busy = moves.then(|| Busy::start(&client)).transpose()?;
        let write = client.submit(Work::fill(imported.at(0), SIZE, word(round)))?;
        if moves {
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
    Ok(())
}

/// Who has pinned a buffer has it where it is, and whoever needs it elsewhere is told so.
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
    busy("attaching who needs RAM", attached.err().map(|error| error.errno))?;
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

/// The exporter takes its buffer back under load; who can be told lets go, and maps again for its next work.
fn revoke(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    for exporter in [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages] {
        for importer in [Importer::Dynamic, Importer::PinnedRevocable] {
            let shared = Shared::new(&owner, exporter, SIZE as u64)?;
            let imported = client.import(&shared.fd, importer.flags())?;
            let local = client.alloc(SIZE as u64, 1)?;
            let work = Work::copy(imported.at(0), local.at(0), SIZE as u64);
            let busy = Busy::start(&client)?;
            let last = client.submit(work)?;
            owner.invalidate(shared.object)?;
            let (segments, _) = client.segments(imported)?;
            ensure!(segments.is_empty(), "{exporter:?}: {importer:?} keeps what was taken back");
            busy.end(&client, &[last])?;
            must(&client, work)?;
            client.close(imported)?;
            client.close(local)?;
        }
    }
    Ok(())
}

/// The importer's file is closed in the midst of its work: what was queued is cancelled, and everything comes back.
fn close_in_flight(bench: &mut Bench<'_>) -> Verdict {
    let (owner, watcher) = bench.take_peers()?;
    for exporter in Exporter::ALL {
        if exporter == Exporter::Coherent {
            continue;
        }
        let client = Peer::open(watcher.instance)?;
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        Busy::start(&client)?;
        client.submit(Work::fill(imported.at(0), SIZE as u64, 1))?;
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
    Ok(())
}

/// What the importer's device does to the buffer is in the buffer's fences, for anybody who asks.
fn sync_file_out(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Noncontiguous, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let busy = Busy::start(&client)?;
    let fill = Work::fill(imported.at(0), SIZE as u64, 0x4343_4343_4343_4343);
    let last = client.submit(fill)?;
    let fence = dma_buf::export_sync_file(&shared.fd, Access::Read)?;
    ensure!(!dma_buf::signalled(&fence, 0)?, "the fence of work under way has signalled");
    ensure!(dma_buf::signalled(&fence, WAIT_MS)?, "the fence of the work does not signal");
    shared.view.expect_all(0..SIZE, 0x43)?;
    busy.end(&client, &[last])
}

/// A fence put into the buffer from outside: the importer's work waits for it.
fn sync_file_in(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Noncontiguous, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let local = client.alloc(SIZE as u64, 1)?;
    // Work on something else, which the kernel cannot know to be about this buffer.
    let busy = Busy::start(&owner)?;
    let other = owner.alloc(SIZE as u64, 1)?;
    let (first, fence) = owner.submit_fenced(Work::fill(other.at(0), SIZE as u64, 1))?;
    dma_buf::import_sync_file(&shared.fd, Access::Write, fence.as_fd())?;
    ensure!(!dma_buf::signalled(&fence, 0)?, "the fence signalled before it could be waited for");
    must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
    ensure!(dma_buf::signalled(&fence, 0)?, "the importer did not wait for the buffer's fence");
    busy.end(&owner, &[first])?;
    // And by itself, given to the work.
    let busy = Busy::start(&owner)?;
    let (last, fence) = owner.submit_fenced(Work::fill(other.at(0), SIZE as u64, 2))?;
    let after = fence.as_fd();
    must(&client, Work::fill(local.at(0), 64, 3).after(after))?;
    ensure!(dma_buf::signalled(&fence, 0)?, "the work did not wait for the fence it was given");
    busy.end(&owner, &[last])
}

/// The importer's driver goes with mappings and work: the exporter keeps its buffers, and the next importer is welcome.
fn importer_unbinds(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut buffers = Vec::new();
    for exporter in [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages, Exporter::Migrating] {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        shared.store(0..SIZE, Pattern::new(33))?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        buffers.push(shared);
    }
    let function = client.function();
    let driver = unbind(&function)?;
    let counters = owner.counters()?;
    bind(&function, &driver, client.instance)?;
    ensure!(
        counters.exporter_maps == counters.exporter_unmaps,
        "the importer is gone, but {} of its mappings are not",
        counters.exporter_maps - counters.exporter_unmaps
    );
    drop(client);
    let client = Peer::open(1)?;
    let local = client.alloc(SIZE as u64, 1)?;
    for shared in &buffers {
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        client.view(local)?.expect(0..SIZE, Pattern::new(33), 0)?;
        client.close(imported)?;
    }
    Ok(())
}

/// The exporter's driver goes: who can be told has lost the buffer, and knows.
fn exporter_unbinds(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut imports = Vec::new();
    for exporter in
        [Exporter::ZoneDevice, Exporter::Noncontiguous, Exporter::Noncoherent, Exporter::Migrating]
    {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::PinnedRevocable.flags())?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        imports.push((exporter, imported, shared));
    }
    let function = owner.function();
    let driver = unbind(&function)?;
    let after: Vec<_> = imports
        .iter()
        .map(|(exporter, imported, _)| {
            let refused = client.submit(Work::checksum(imported.at(0), 64)).err();
            (*exporter, refused.map(|error| error.errno))
        })
        .collect();
    bind(&function, &driver, owner.instance)?;
    for (exporter, refused) in after {
        ensure!(
            refused == Some(Errno::NODEV),
            "{exporter:?}: work on a buffer whose exporter is gone: {refused:?} instead of ENODEV"
        );
    }
    for (_, imported, _) in imports {
        client.close(imported)?;
    }
    Ok(())
}

/// An importer that cannot be told holds memory of the exporter: unbinding waits until it lets go.
fn exporter_waits(bench: &mut Bench<'_>) -> Verdict {
    for (exporter, importer) in [
        (Exporter::ZoneDevice, Importer::PinnedNotRevocable),
        (Exporter::Noncoherent, Importer::Static),
    ] {
        let (owner, client) = bench.take_peers()?;
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, importer.flags())?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        let function = owner.function();
        let taken = function.clone();
        let unbinding = std::thread::spawn(move || unbind(&taken));
        let patience = Instant::now() + Duration::from_secs(10);
        while !matches!(owner.counters(), Err(error) if error.errno == Errno::NODEV) {
            ensure!(Instant::now() < patience, "the driver does not begin to go");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(100));
        let waited = !unbinding.is_finished();
        // It is still the importer's: also what it does now is right.
        let used = client.run(Work::checksum(imported.at(0), 64));
        client.close(imported)?;
        let driver = unbinding
            .join()
            .map_err(|_| Stop::Fail("the thread that unbinds has panicked".into()))??;
        bind(&function, &driver, owner.instance)?;
        ensure!(waited, "{exporter:?}: the driver went away under an importer's mapping");
        succeeded(&client, used?)?;
    }
    Ok(())
}

/// The system's pages do not need the device that asked for them.
fn pages_outlive(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Pages, SIZE as u64)?;
    shared.store(0..SIZE, Pattern::new(20))?;
    let imported = client.import(&shared.fd, Importer::Static.flags())?;
    let function = owner.function();
    let driver = unbind(&function)?;
    let local = client.alloc(SIZE as u64, 1)?;
    let copied = client.run(Work::copy(imported.at(0), local.at(0), SIZE as u64));
    bind(&function, &driver, owner.instance)?;
    succeeded(&client, copied?)?;
    client.view(local)?.expect(0..SIZE, Pattern::new(20), 0)?;
    shared.expect(0..SIZE, Pattern::new(20), 0)?;
    client.close(imported)?;
    Ok(())
}

/// The process that made the buffers is killed, with work of its own under way: what it has shared lives on.
fn exporter_killed(bench: &mut Bench<'_>) -> Verdict {
    let (watcher, client) = bench.take_peers()?;
    for exporter in [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages, Exporter::Migrating] {
        let owner = Peer::open(watcher.instance)?;
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        shared.store(0..SIZE, Pattern::new(21))?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        let local = client.alloc(SIZE as u64, 1)?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        Busy::start(&owner)?;
        // Another process has the only descriptor of the exporter's file from here on.
        let mut holder = std::process::Command::new("/bin/busybox")
            .args(["sleep", "1000"])
            .stdin(owner.into_stdio())
            .spawn()?;
        let busy = watcher.counters()?.live_work;
        holder.kill()?;
        holder.wait()?;
        // The kernel closes files after a process has ended, not before.
        let patience = Instant::now() + Duration::from_secs(10);
        while watcher.counters()?.live_work > 0 {
            ensure!(Instant::now() < patience, "a killed process leaves work behind");
            std::thread::sleep(Duration::from_millis(2));
        }
        ensure!(busy > 0, "{exporter:?}: the work had ended before the process was killed");
        must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        client.view(local)?.expect(0..SIZE, Pattern::new(21), 0)?;
        shared.expect(0..SIZE, Pattern::new(21), 0)?;
        client.close(imported)?;
        client.close(local)?;
        drop(shared);
    }
    Ok(())
}

/// A reset of the exporter's device takes mappings of its own memory away, and leaves those of RAM alone.
fn reset_takes_back(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut buffers = Vec::new();
    for exporter in
        [Exporter::ZoneDevice, Exporter::Migrating, Exporter::Pages, Exporter::Noncontiguous]
    {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        shared.store(0..SIZE, Pattern::new(22))?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        buffers.push((exporter, shared, imported));
    }
    reset(&owner.function())?;
    for (exporter, shared, imported) in buffers {
        let mappings = owner.buffer_state(shared.object)?.mappings;
        let inside = exporter.begins_inside();
        ensure!(
            mappings == u32::from(!inside),
            "{exporter:?}: {mappings} mappings have survived the reset"
        );
        // What was inside is lost, and can be used again.
        if inside {
            shared.store(0..SIZE, Pattern::new(22))?;
        }
        let local = client.alloc(SIZE as u64, 1)?;
        must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        client.view(local)?.expect(0..SIZE, Pattern::new(22), 0)?;
        client.close(local)?;
        client.close(imported)?;
    }
    Ok(())
}
