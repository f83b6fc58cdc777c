//! The engine as a third party: it carries data between the memories of two other devices, by dma-bufs that it knows
//! nothing of.

use super::client::{self, Channel, Location};
use super::{LETTING_GO, channels, engines};
use crate::cases::bench::must;
use crate::cases::faults::{IOMMU_FAULT, NEVER_MAPPED, PORT_ERROR, class};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, Work};
use crate::sys;
use crate::sys::dma_buf::{Access, import_sync_file};
use crate::sys::kernel_log::{KernelLog, Record};
use crate::sys::patience::await_that;
use crate::sys::pci::Function;
use crate::sys::sw_sync::Pending;
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Of a buffer in a device's memory.
pub(super) const SIZE: usize = 128 << 10;
/// Of a copy that is meant to fail; more than one payload, within a page.
const SHORT: u32 = 600;

/// A buffer in a device's memory, shared.
pub(super) struct Shared<'p> {
    pub(super) peer: &'p Peer,
    pub(super) object: Object,
    pub(super) buffer: OwnedFd,
}

impl<'p> Shared<'p> {
    pub(super) fn new(peer: &'p Peer) -> Result<Self, Stop> {
        let object = peer.alloc(SIZE as u64, 1)?;
        Ok(Self { peer, object, buffer: peer.export(object)? })
    }

    pub(super) fn at(&self, offset: u64) -> Location<'_> {
        Location::Buffer(&self.buffer, offset)
    }

    pub(super) fn close(self) -> Verdict {
        drop(self.buffer);
        Ok(self.peer.close(self.object)?)
    }
}

/// The first channel of every engine, in their order: its driver must have taken it.
pub(super) fn first_channels() -> Result<Vec<String>, Stop> {
    let channels = channels()?;
    let first = |engine: Function| {
        let own = channels.get(&engine.name).and_then(|own| own.first());
        own.cloned().ok_or_else(|| Stop::Fail(format!("{} has no channel", engine.name)))
    };
    engines()?.into_iter().map(first).collect()
}

/// Copies `length` bytes from one buffer to the other and looks at them.
pub(super) fn carry(
    channel: &Channel,
    from: &Shared<'_>,
    to: &Shared<'_>,
    seed: u64,
    length: usize,
) -> Verdict {
    let pattern = Pattern::new(seed);
    from.peer.view(from.object)?.store(1..1 + length, pattern);
    channel.must(from.at(1), to.at(3), u32::try_from(length)?)?;
    Ok(to.peer.view(to.object)?.expect(3..3 + length, pattern, 1)?)
}

/// A foreign fence in one of the buffers: the copy waits for it as long as its limit allows. The
/// engine was not asked for anything, so that its channel is there for the next one.
pub(super) fn gives_up(bench: &mut Bench<'_>) -> Verdict {
    let (peer0, peer1) = bench.take_peers()?;
    let (one, other) = (Shared::new(&peer0)?, Shared::new(&peer1)?);
    for (name, seed) in first_channels()?.iter().zip(70..) {
        let channel = Channel::new(name)?;
        // Taking an engine's channel, the first time, takes longer than a copy may.
        channel.address(&other.buffer)?;
        let pending = Pending::new()?;
        import_sync_file(&other.buffer, Access::Write, pending.fence.as_fd())?;
        let begun = Instant::now();
        let outcome = channel.attempt_within(100, one.at(0), other.at(0), SHORT);
        let waited = begun.elapsed();
        ensure!(
            outcome == Err(Errno::TIMEDOUT) && waited < client::PATIENCE / 2,
            "{name}: a copy that may take 100 ms, under a fence that does not signal: {outcome:?} after {waited:?}"
        );
        let second = Channel::new(name)?.address(&other.buffer);
        ensure!(
            second == Err(Errno::NODEV),
            "{name} was given back, though the engine had nothing to answer: {second:?}"
        );
        pending.signal()?;
        carry(&channel, &one, &other, seed, 300)?;
    }
    one.close()?;
    other.close()
}

/// The read completes with an error, the engine halts, its driver resets it and notifies the
/// client; the same channel then carries on.
pub(super) fn read_unmapped(bench: &mut Bench<'_>) -> Verdict {
    let names = first_channels()?;
    bench.expect(class::UNMAPPED, u32::try_from(names.len())?, None)?;
    bench.expect_messages(IOMMU_FAULT);
    let (peer0, peer1) = bench.take_peers()?;
    let (one, other) = (Shared::new(&peer0)?, Shared::new(&peer1)?);
    for (name, seed) in names.iter().zip(80..) {
        let channel = Channel::new(name)?;
        carry(&channel, &one, &other, seed, 300)?;
        let result = channel.copy(Location::Address(NEVER_MAPPED + 3), other.at(0), SHORT)?;
        ensure!(
            result == uapi::DMA_READ_FAILED,
            "{name}: a read of an unmapped address ended with {result}, not with DMA_TRANS_READ_FAILED"
        );
        // The driver reports the error before it throws away what is queued: what comes in between
        // goes with it.
        let again = channel.copy(one.at(0), other.at(0), SHORT)?;
        ensure!(
            matches!(again, uapi::DMA_DONE | uapi::DMA_ABORTED),
            "{name}: the copy after the one that failed ended with {again}"
        );
        carry(&channel, &one, &other, seed + 10, 5000)?;
    }
    one.close()?;
    other.close()
}

/// The write is posted: neither the engine nor its driver can know. The port above the engine
/// reports it to the kernel, whose driver takes the engine out of service and back, and resets
/// whatever else hangs below the port.
pub(super) fn write_unmapped(bench: &mut Bench<'_>) -> Verdict {
    let names = first_channels()?;
    bench.expect(class::UNMAPPED, u32::try_from(names.len())?, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    bench.expect_message(LETTING_GO);
    // Of a device that does not answer any more.
    bench.expect_message("Failed to reset");
    let (peer0, peer1) = bench.take_peers()?;
    let (one, other) = (Shared::new(&peer0)?, Shared::new(&peer1)?);
    for ((engine, name), seed) in engines()?.iter().zip(&names).zip(90..) {
        let mut log = KernelLog::open()?;
        log.drain();
        Channel::new(name)?.must(one.at(0), Location::Address(NEVER_MAPPED + 5), SHORT)?;
        if has_reporting_port(engine) {
            await_recovery(&mut log)?;
            // The driver restores the configuration of before it was bound, without Memory Space Enable where the
            // firmware left that to the kernel: it has lost its device, and gets it back with a new beginning only.
            engine.set_attribute("remove", "1")?;
            sys::write("/sys/bus/pci/rescan", "1")?;
        }
        carry(&Channel::new(name)?, &one, &other, seed, 5000)?;
        for own in [&one, &other] {
            must(own.peer, Work::fill(own.object.at(0), 64, seed))?;
        }
    }
    one.close()?;
    other.close()
}

/// Whether there is a port above it that reports lost writes to the kernel. On the root bus there
/// is none.
pub(super) fn has_reporting_port(engine: &Function) -> bool {
    let count = |port: Function| port.aer_count("aer_dev_nonfatal", "UnsupReq");
    engine.upstream().and_then(count).is_some()
}

/// Waits until the kernel has been through the error handlers of the drivers below the port.
pub(super) fn await_recovery(log: &mut KernelLog) -> Verdict {
    let recovered = |record: &Record| record.text.contains("device recovery successful");
    let over = await_that(Duration::from_secs(20), || -> Result<_, Stop> {
        Ok(log.drain().iter().any(recovered))
    })?;
    ensure!(over, "the kernel has not recovered from the error of the port");
    Ok(())
}
