//! Users that go away: drivers that are unbound, processes that are killed, devices that are reset.

use crate::cases::bench::{must, succeeded};
use crate::cases::busy::{Busy, Load};
use crate::cases::lifecycle::{bind, reset, unbind};
use crate::cases::matrix::{Exporter, Importer, SIZE, Shared, check_optional_invalidate};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Pattern, Peer, Work};
use crate::sys::patience::await_that;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::Duration;

/// The importer's driver goes with mappings and work: the exporter keeps its buffers, and the next importer is welcome.
pub(super) fn importer_unbinds(bench: &mut Bench<'_>) -> Verdict {
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

/// What the kernel's own access to a dma-buf ends in.
fn kernel_reads(client: &Peer, shared: &Shared, data: &mut [u8]) -> Option<Errno> {
    client.kernel_read(shared.fd.as_fd(), 0, data).err().map(|error| error.errno)
}

/// The exporter's driver goes: an importer with a callback has lost the buffer, and knows; so has the kernel.
pub(super) fn exporter_unbinds(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut imports = Vec::new();
    for exporter in [
        Exporter::Local,
        Exporter::ZoneDevice,
        Exporter::Noncontiguous,
        Exporter::Noncoherent,
        Exporter::Migrating,
    ] {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::PinnedRevocable.flags())?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        imports.push((exporter, imported, shared));
    }
    let function = owner.function();
    let driver = unbind(&function)?;
    let after: Vec<_> = imports
        .iter()
        .map(|(exporter, imported, shared)| {
            let refused = client.submit(Work::checksum(imported.at(0), 64)).err();
            let read = kernel_reads(&client, shared, &mut [0; 64]);
            (*exporter, [refused.map(|error| error.errno), read])
        })
        .collect();
    bind(&function, &driver, owner.instance)?;
    for (exporter, refused) in after {
        ensure!(
            refused == [Some(Errno::NODEV); 2],
            "{exporter:?}: work on, and reading of, a buffer whose exporter is gone: {refused:?} instead of ENODEV"
        );
    }
    for (_, imported, _) in imports {
        client.close(imported)?;
    }
    Ok(())
}

/// An importer without a callback holds memory of the exporter: unbinding waits until it lets go.
pub(super) fn exporter_waits(bench: &mut Bench<'_>) -> Verdict {
    check_optional_invalidate(bench.peer(1)?)?;
    for (exporter, importer) in [
        (Exporter::ZoneDevice, Importer::PinnedNotRevocable),
        (Exporter::Noncoherent, Importer::Static),
    ] {
        let (owner, client) = bench.take_peers()?;
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let other = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, importer.flags())?;
        must(&client, Work::checksum(imported.at(0), 64))?;
        let function = owner.function();
        let taken = function.clone();
        let unbinding = std::thread::spawn(move || unbind(&taken));
        let goes = await_that(Duration::from_secs(10), || -> Result<_, Stop> {
            Ok(matches!(owner.counters(), Err(error) if error.errno == Errno::NODEV))
        })?;
        ensure!(goes, "the driver does not begin to go");
        std::thread::sleep(Duration::from_millis(100));
        let waited = !unbinding.is_finished();
        // No other device has to wait for that importer.
        drop(other);
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
pub(super) fn pages_outlive(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Pages, SIZE as u64)?;
    shared.store(0..SIZE, Pattern::new(20))?;
    let imported = client.import(&shared.fd, Importer::Static.flags())?;
    let function = owner.function();
    let driver = unbind(&function)?;
    let local = client.alloc(SIZE as u64, 1)?;
    let copied = client.run(Work::copy(imported.at(0), local.at(0), SIZE as u64));
    let mut data = [0; 64];
    let read = kernel_reads(&client, &shared, &mut data);
    bind(&function, &driver, owner.instance)?;
    succeeded(&client, copied?)?;
    client.view(local)?.expect(0..SIZE, Pattern::new(20), 0)?;
    let right = (0..).zip(data).all(|(at, byte)| byte == Pattern::new(20).byte(at));
    ensure!(read.is_none() && right, "what the kernel reads of the pages: {read:?}, {data:x?}");
    shared.expect(0..SIZE, Pattern::new(20), 0)?;
    client.close(imported)?;
    Ok(())
}

/// The process that made the buffers is killed, with work of its own under way: what it has shared lives on.
pub(super) fn exporter_killed(bench: &mut Bench<'_>) -> Verdict {
    let (watcher, client) = bench.take_peers()?;
    let mut load = Load::default();
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
        let ended = await_that(Duration::from_secs(10), || -> Result<_, Stop> {
            Ok(watcher.counters()?.live_work == 0)
        })?;
        ensure!(ended, "a killed process leaves work behind");
        // Starting a process takes a busy machine longer than the work does at times.
        load.count(busy > 0);
        must(&client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        client.view(local)?.expect(0..SIZE, Pattern::new(21), 0)?;
        shared.expect(0..SIZE, Pattern::new(21), 0)?;
        client.close(imported)?;
        client.close(local)?;
        drop(shared);
    }
    load.conclude(bench)
}

/// A reset of the exporter's device takes mappings of its own memory away, and leaves those of RAM alone.
pub(super) fn reset_takes_back(bench: &mut Bench<'_>) -> Verdict {
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
