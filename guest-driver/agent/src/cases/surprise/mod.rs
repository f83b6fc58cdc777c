//! Devices that are pulled out of their slots while they work and are in use.
//!
//! In a slot with hot-plug the kernel's own driver for it (pciehp) notices and takes the device
//! away; in a plain one nothing does, until the test asks the kernel to remove what is gone.

mod slot;

use super::Kind::Negative;
use super::bench::{must, succeeded};
use super::busy::{is_to_come, too_busy};
use super::faults::class;
use super::lane::{Engine, Lane};
use super::leaks::Account;
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Pattern, Peer, View, WAIT_MS, Work};
use crate::uapi;
use rustix::io::Errno;
use slot::Slot;
use std::os::fd::AsFd as _;

const NEEDS: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Path, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new("surprise", "exporter-is-pulled-under-load", Negative, NEEDS, exporter_pulled),
    Case::new("surprise", "importer-is-pulled-under-load", Negative, NEEDS, importer_pulled),
    Case::new("surprise", "idle-device-is-pulled", Negative, NEEDS, idle_pulled),
];

/// Bytes of each piece of work.
const LENGTH: u64 = 8 << 20;
/// How many are queued on each channel: more than can be done before the device is gone. If the last of them is done
/// before the device is pulled, the next number is queued behind.
const PIECES: [u32; 3] = [32, 128, 256];

/// Waits for all of it; how much failed. It may end in any way, but it must end.
pub(super) fn failures(peer: &Peer, pending: Vec<u64>) -> Result<usize, Stop> {
    let mut failed = 0;
    for cookie in pending {
        let error = peer.wait(cookie, WAIT_MS)?.error;
        ensure!(
            error != -Errno::TIMEDOUT.raw_os_error(),
            "{}: work that cannot be done does not end by itself",
            peer.name()
        );
        failed += usize::from(error != 0);
    }
    Ok(failed)
}

/// That work failed because a device was gone; `to_come`: there was some to come when it had just been pulled.
fn ensure_failed(failed: usize, to_come: bool, otherwise: &str) -> Verdict {
    match (failed, to_come) {
        (0, true) => Err(Stop::Fail(otherwise.into())),
        (0, false) => Err(too_busy()),
        _ => Ok(()),
    }
}

/// A call to a device that is gone.
fn ensure_gone(peer: &Peer) -> Verdict {
    let refused = peer.alloc(4096, 1).err().map(|error| error.errno);
    ensure!(refused == Some(Errno::NODEV), "a call to a device that is gone gave {refused:?}");
    Ok(())
}

/// A device goes while the other one reads and writes its memory, and while it works itself.
fn exporter_pulled(bench: &mut Bench<'_>) -> Verdict {
    let before = Account::take(bench)?;
    let (peer0, peer1) = bench.take_peers()?;
    let slot = Slot::of(&peer0)?;
    bench.expect(class::LINK_DOWN, 1, None)?;
    let pull = Lane::new(&peer0, &peer1, Engine::Target, LENGTH, 1)?;
    let push = Lane::new(&peer1, &peer0, Engine::Source, LENGTH, 1)?;
    let fd = peer0.export(pull.source)?;
    let own = peer0.system(LENGTH, 0, uapi::BIDIRECTIONAL)?;
    let (mut reads, mut writes, mut owns) = (Vec::new(), Vec::new(), Vec::new());
    for pieces in PIECES {
        for _ in 0..pieces {
            reads.push(peer1.submit(pull.work(0, 0, LENGTH).on(0))?);
            writes.push(peer1.submit(push.work(0, 0, LENGTH).on(1))?);
            owns.push(peer0.submit(Work::copy(pull.source.at(0), own.at(0), LENGTH))?);
        }
        succeeded(&peer1, peer1.wait(reads.remove(0), WAIT_MS)?)?;
        if is_to_come(&peer1, &reads)? && is_to_come(&peer0, &owns)? {
            break;
        }
    }
    let pieces = owns.len();
    slot.while_gone(bench, |bench| {
    let to_come = (is_to_come(&peer1, &reads)?, is_to_come(&peer0, &owns)?);
    let reads = failures(&peer1, reads)?;
    let writes = failures(&peer1, writes)?;
    slot.await_removal()?;
    let owns = failures(&peer0, owns)?;
    ensure_failed(reads, to_come.0, "the importer read a device that is gone and did not notice")?;
    ensure_failed(owns, to_come.1, "a device that is gone has done all its work")?;
    bench.note(format!(
        "pulled after the first of {pieces} each: {reads} reads, {writes} writes, {owns} pieces of the device's own work failed; removal by {}",
        if slot.watched { "pciehp" } else { "sysfs" }
    ));
    ensure_gone(&peer0)?;
    ensure!(
        peer1.run(pull.work(0, 0, 64)).is_err(),
        "work on a buffer of a device that is gone was accepted"
    );
    let read = peer1.kernel_read(fd.as_fd(), 0, &mut [0; 64]).err().map(|error| error.errno);
    ensure!(read == Some(Errno::NODEV), "the kernel reads a buffer of a device that is gone: {read:?}");
    // The other one is alive, and can give its part back.
    alone(&peer1)?;
    pull.close_import()?;
    push.close_import()
    })?;
    drop((peer0, peer1, fd));
    before.await_return(bench)
}

/// A device goes while its engine works on the memory of the other: that one keeps its buffers, and
/// no device has them mapped any more.
fn importer_pulled(bench: &mut Bench<'_>) -> Verdict {
    let before = Account::take(bench)?;
    let (peer0, peer1) = bench.take_peers()?;
    let slot = Slot::of(&peer1)?;
    let pull = Lane::new(&peer0, &peer1, Engine::Target, LENGTH, 1)?;
    let push = Lane::new(&peer1, &peer0, Engine::Source, LENGTH, 1)?;
    let pattern = Pattern::new(61);
    peer0.view(pull.source)?.store(0..4096, pattern);
    let mut pending = Vec::new();
    for pieces in PIECES {
        for _ in 0..pieces {
            pending.push(peer1.submit(pull.work(0, 0, LENGTH).on(0))?);
            pending.push(peer1.submit(push.work(0, 0, LENGTH).on(1))?);
        }
        succeeded(&peer1, peer1.wait(pending.remove(0), WAIT_MS)?)?;
        if is_to_come(&peer1, &pending)? {
            break;
        }
    }
    slot.while_gone(bench, |_| {
        let to_come = is_to_come(&peer1, &pending)?;
        slot.await_removal()?;
        let failed = failures(&peer1, pending)?;
        ensure_failed(failed, to_come, "a device that is gone has done all its work")?;
        ensure_gone(&peer1)?;
        let counters = peer0.counters()?;
        ensure!(
            counters.exporter_maps == counters.exporter_unmaps,
            "the importer is gone, but {} of its mappings are not",
            counters.exporter_maps - counters.exporter_unmaps
        );
        peer0.view(pull.source)?.expect(0..4096, pattern, 0)?;
        alone(&peer0)
    })?;
    drop((peer0, peer1));
    before.await_return(bench)
}

/// What the CPU and the other device see of a device that is gone, as long as the kernel does not know. In a slot that
/// is watched this is over at once, so that only a plain one can show it.
fn idle_pulled(bench: &mut Bench<'_>) -> Verdict {
    let before = Account::take(bench)?;
    let (peer0, peer1) = bench.take_peers()?;
    let slot = Slot::of(&peer0)?;
    let lane = Lane::new(&peer0, &peer1, Engine::Target, 4096, 1)?;
    let push = Lane::new(&peer1, &peer0, Engine::Source, 4096, 1)?;
    must(&peer1, lane.work(0, 0, 4096))?;
    must(&peer1, push.work(0, 0, 4096))?;
    let local = peer0.view(lane.source)?;
    if !slot.watched {
        bench.expect(class::LINK_DOWN, 2, None)?;
    }
    slot.while_gone(bench, |_| {
        if !slot.watched {
            unnoticed(&slot, &local, &peer1, [&lane, &push])?;
        }
        slot.await_removal()?;
        ensure_gone(&peer0)?;
        lane.close_import()?;
        push.close_import()
    })?;
    drop((peer0, peer1, local));
    before.await_return(bench)
}

/// What there is to see of a device that is gone: ones, refused reads, and nothing at all.
fn unnoticed(slot: &Slot, memory: &View, peer: &Peer, [pull, push]: [&Lane<'_>; 2]) -> Verdict {
    let word = memory.word(0);
    ensure!(word == u64::MAX, "memory of a device that is gone holds {word:#x}");
    let id = slot.device.config_space()?.u32(0);
    ensure!(id == u32::MAX, "a device that is gone is called {id:#010x}");
    let read = peer.run(pull.work(0, 0, 64))?;
    ensure!(
        read.status == uapi::STATUS_UNSUPPORTED_REQUEST && read.bytes == 0,
        "a read of a device that is gone gave {} bytes, status {}",
        read.bytes,
        read.status
    );
    let flags = uapi::SUBMIT_VERDICT | uapi::SUBMIT_NO_FLUSH;
    let write = peer.run(push.work(0, 0, 64).with(flags))?;
    ensure!(
        write.error == 0 && write.verdict != 0,
        "a posted write to a device that is gone: error {}, verdict {}",
        write.error,
        write.verdict
    );
    let flushed = peer.run(push.work(0, 0, 64))?;
    ensure!(flushed.error != 0, "reading back from a device that is gone shows nothing");
    Ok(())
}

/// A device works although the other one is not there.
fn alone(peer: &Peer) -> Verdict {
    let local = peer.alloc(4096, 1)?;
    let system = peer.system(4096, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL)?;
    let pattern = Pattern::new(62);
    peer.view(local)?.store(0..2048, pattern);
    must(peer, Work::copy(local.at(0), system.at(0), 2048))?;
    must(peer, Work::copy(system.at(0), local.at(2048), 2048))?;
    peer.view(local)?.expect(2048..4096, pattern, 0)?;
    peer.close(system)?;
    Ok(peer.close(local)?)
}
