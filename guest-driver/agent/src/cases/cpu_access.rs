//! The CPU's access to shared buffers of every kind, by mmap and by the kernel's own mapping, beside that of devices.

use super::Kind::Positive;
use super::bench::must;
use super::busy::{Busy, Load};
use super::matrix::{Contract, Exporter, Importer, NEEDS, PATH, SIZE, Shared, contract};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, Work};
use crate::sys::dma_buf::{Access, begin_cpu_access, end_cpu_access};
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::AsFd;

pub(super) const CASES: &[Case] = &[
    Case::new("cpu-access", "kernel-mapping-of-every-kind", Positive, NEEDS, kernel_mapping),
    Case::new("cpu-access", "no-kernel-mapping-of-several-ranges", Positive, NEEDS, scattered),
    Case::new("cpu-access", "begin-waits-for-the-device", Positive, PATH, begin_waits),
    Case::new("cpu-access", "mmap-follows-a-move", Positive, NEEDS, mmap_follows),
    Case::new("cpu-access", "published-memory-from-user-space", Positive, NEEDS, published),
];

const LENGTH: usize = 5_000;

fn bytes(pattern: Pattern, positions: std::ops::Range<usize>) -> Vec<u8> {
    positions.map(|position| pattern.byte(position as u64)).collect()
}

/// Written by the kernel, read by the user's mapping, by the own device and by the other one, and the other way round.
fn kernel_mapping(bench: &mut Bench<'_>) -> Verdict {
    let (owner, other) = bench.take_peers()?;
    let reachable = owner.distance(&other)? >= 0;
    for (seed, exporter) in (70..).zip(Exporter::ALL) {
        if exporter == Exporter::Scattered {
            continue;
        }
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = match contract(exporter, Importer::Dynamic, reachable) {
            Contract::Refused(..) => None,
            _ => Some(other.import(&shared.fd, Importer::Dynamic.flags())?),
        };
        // The kernel's mapping: the driver of the other device makes it.
        let first = Pattern::new(seed);
        other.kernel_write(shared.fd.as_fd(), 9, &bytes(first, 0..LENGTH))?;
        shared.expect(9..9 + LENGTH, first, 0)?;
        both_ways(&owner, &other, (shared.object, &shared), (first, Pattern::new(seed + 100)))?;
        if let Some(imported) = imported {
            let (again, answer) = (Pattern::new(seed + 200), Pattern::new(seed + 300));
            other.kernel_write(shared.fd.as_fd(), 9, &bytes(again, 0..LENGTH))?;
            both_ways(&other, &owner, (imported, &shared), (again, answer))?;
            other.close(imported)?;
        }
        owner.close(shared.object)?;
    }
    Ok(())
}

/// The device reads what the kernel has written, and the kernel of `reader` what the device then writes.
fn both_ways(
    device: &Peer,
    reader: &Peer,
    (object, shared): (Object, &Shared),
    (written, answer): (Pattern, Pattern),
) -> Verdict {
    let local = device.alloc(SIZE as u64, 1)?;
    let view = device.view(local)?;
    must(device, Work::copy(object.at(9), local.at(0), LENGTH as u64))?;
    view.expect(0..LENGTH, written, 0)?;

    view.store(0..LENGTH, answer);
    must(device, Work::copy(local.at(0), object.at(5), LENGTH as u64))?;
    let mut found = vec![0; LENGTH];
    reader.kernel_read(shared.fd.as_fd(), 5, &mut found)?;
    ensure!(
        found == bytes(answer, 0..LENGTH),
        "the kernel does not find what {} wrote",
        device.name()
    );
    drop(view);
    Ok(device.close(local)?)
}

fn scattered(bench: &mut Bench<'_>) -> Verdict {
    let (owner, _) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Scattered, SIZE as u64)?;
    let refused = owner.kernel_read(shared.fd.as_fd(), 0, &mut [0; 8]).err().map(|e| e.errno);
    ensure!(refused == Some(Errno::INVAL), "mapping several ranges as one gave {refused:?}");
    // Page by page they are one all the same.
    shared.store(0..SIZE, Pattern::new(1))?;
    shared.expect(0..SIZE, Pattern::new(1), 0)
}

/// The CPU's access begins when the device's has ended: nothing else waits for it here.
fn begin_waits(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let mut load = Load::default();
    for exporter in [Exporter::ZoneDevice, Exporter::Noncoherent] {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, uapi::IMPORT_PEER2PEER)?;
        shared.store(0..SIZE, Pattern::new(5))?;
        let busy = Busy::start(&client)?;
        let write =
            client.submit(Work::fill(imported.at(0), SIZE as u64, 0x4141_4141_4141_4141))?;
        load.look(&busy, &client)?;
        begin_cpu_access(&shared.fd, Access::Read)?;
        let found = shared.view.expect_all(0..SIZE, 0x41);
        end_cpu_access(&shared.fd, Access::Read)?;
        found?;
        busy.end(&client, &[write])?;
        client.close(imported)?;
    }
    load.conclude(bench)
}

/// One mapping of the CPU's, before and after the memory behind it is another.
fn mmap_follows(bench: &mut Bench<'_>) -> Verdict {
    let (owner, _) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    for (seed, place) in (80..).zip([uapi::PLACE_SYSTEM, uapi::PLACE_LOCAL]) {
        let (before, after) = (Pattern::new(seed), Pattern::new(seed + 100));
        shared.store(0..SIZE, before)?;
        owner.move_buffer(shared.object, place, 0)?;
        shared.expect(0..SIZE, before, 0)?;
        // And it is the new place that the CPU writes to: the device finds it there.
        shared.store(0..SIZE, after)?;
        let local = owner.alloc(SIZE as u64, 1)?;
        must(&owner, Work::copy(shared.object.at(0), local.at(0), SIZE as u64))?;
        owner.view(local)?.expect(0..SIZE, after, 0)?;
        owner.close(local)?;
    }
    let moves = owner.buffer_state(shared.object)?.moves;
    ensure!(moves == 2, "two moves, the driver counts {moves}");
    Ok(())
}

/// Bytes of local memory with pages that are not in use.
pub(super) fn published_bytes(owner: &Peer) -> Result<usize, Stop> {
    let text = owner.function().attribute("p2pmem/available")?;
    text.parse().map_err(|_| Stop::Fail(format!("p2pmem/available reads {text:?}")))
}

/// Memory that p2pdma lends to user space: `p2pmem/allocate` in sysfs.
fn published(bench: &mut Bench<'_>) -> Verdict {
    const PIECE: usize = 64 << 10;
    let (owner, _) = bench.take_peers()?;
    // Skips where there is no such memory.
    let shared = Shared::new(&owner, Exporter::ZoneDevice, SIZE as u64)?;
    drop(shared);
    let function = owner.function();
    ensure!(function.attribute("p2pmem/published")? == "1", "the memory is not published");
    let before = published_bytes(&owner)?;
    let path = format!("/sys/bus/pci/devices/{}/p2pmem/allocate", function.name);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let view = crate::device::View::new(&file, PIECE, 0)?;
    let during = published_bytes(&owner)?;
    ensure!(before - during == PIECE, "{PIECE} bytes were mapped, {} are gone", before - during);
    view.store(0..PIECE, Pattern::new(77));
    view.expect(0..PIECE, Pattern::new(77), 0)?;
    drop(view);
    let after = published_bytes(&owner)?;
    ensure!(after == before, "{} bytes did not come back", before - after);
    Ok(())
}
