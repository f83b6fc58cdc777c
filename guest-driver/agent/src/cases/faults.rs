//! Rules broken on purpose. Each test says which class of finding it must cause, looks at what hardware would show, and
//! afterwards small copies must work again ([`Kind::Negative`](super::Kind)).

use super::Kind::Negative;
use super::bench::must;
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, Work, at_address};
use crate::sys::patience::await_that;
use crate::sys::pci::Function;
use crate::uapi;
use std::time::Duration;

const TRANSLATED: &[Need] = &[Need::Vmm, Need::Peers, Need::Translated];

pub(super) const CASES: &[Case] = &[
    Case::new("faults", "read-of-an-unmapped-address", Negative, TRANSLATED, read_unmapped),
    Case::new("faults", "write-to-an-unmapped-address", Negative, TRANSLATED, write_unmapped),
    Case::new(
        "faults",
        "use-after-unmap",
        Negative,
        &[Need::Vmm, Need::Peers, Need::Translated, Need::Strict],
        use_after_unmap,
    ),
    Case::new("faults", "write-through-a-read-only-mapping", Negative, TRANSLATED, write_read_only),
    Case::new(
        "faults",
        "bus-mastering-off",
        Negative,
        &[Need::Vmm, Need::Peers],
        bus_mastering_off,
    ),
    Case::new("faults", "past-the-end-of-a-bar", Negative, &[Need::Vmm, Need::Peers], past_the_bar),
    Case::new(
        "faults",
        "interrupt-window-not-a-vector",
        Negative,
        &[Need::Vmm, Need::Peers],
        not_a_vector,
    ),
];

/// Classes of findings, by the names that the checker uses.
pub(super) mod class {
    pub(in crate::cases) const UNMAPPED: &str = "iommu.unmapped";
    pub(in crate::cases) const STALE: &str = "iommu.stale";
    pub(in crate::cases) const PERMISSION: &str = "iommu.permission";
    pub(in crate::cases) const BUS_MASTER_OFF: &str = "pci.bus-master-off";
    pub(in crate::cases) const BAR_EDGE: &str = "pci.bar-edge";
    pub(in crate::cases) const NOT_A_VECTOR: &str = "msi.not-a-vector";
    pub(in crate::cases) const NO_TARGET: &str = "pci.no-target";
    pub(in crate::cases) const ACS_VIOLATION: &str = "pci.acs-violation";
    pub(in crate::cases) const COMPLETION_TIMEOUT: &str = "fabric.completion-timeout";
    pub(in crate::cases) const PEER_TO_PEER_REFUSED: &str = "pci.peer-to-peer-refused";
    pub(in crate::cases) const LINK_DOWN: &str = "pci.link-down";
    pub(in crate::cases) const RECORD_BEFORE_DATA: &str = "order.record-before-data";
    pub(in crate::cases) const INTERRUPT_BEFORE_DATA: &str = "order.interrupt-before-data";
    pub(in crate::cases) const FENCE_BEFORE_DATA: &str = "order.fence-before-data";
    pub(in crate::cases) const MEMORY_DECODE_OFF: &str = "pci.memory-decode-off";
    pub(in crate::cases) const NOT_IN_D0: &str = "pci.not-in-d0";
    pub(in crate::cases) const TURNED_BACK: &str = "pci.turned-back";
    pub(in crate::cases) const MMIO_FLAG_ON_RAM: &str = "iommu.mmio-flag-on-ram";
    pub(in crate::cases) const MALFORMED: &str = "msi.malformed";
    pub(in crate::cases) const BAD_DESCRIPTOR: &str = "device.bad-descriptor";
    pub(in crate::cases) const WITNESS_UNMAPPED: &str = "witness.unmapped";
    pub(in crate::cases) const WITNESS_STALE: &str = "witness.stale";
    pub(in crate::cases) const WITNESS_DIRECTION: &str = "witness.direction";
    pub(in crate::cases) const WITNESS_PAST_END: &str = "witness.past-end";
    pub(in crate::cases) const WITNESS_LEAKED: &str = "witness.leaked";
    pub(in crate::cases) const WRITE_AFTER_INVALIDATE: &str = "buffer.write-after-invalidate";
    pub(in crate::cases) const PEER2PEER_NOT_ALLOWED: &str = "buffer.peer2peer-not-allowed";
    pub(in crate::cases) const BUFFER_FREED: &str = "buffer.freed";
    #[cfg(test)]
    pub(in crate::cases) const ALL: &[&str] = &[
        UNMAPPED,
        STALE,
        PERMISSION,
        BUS_MASTER_OFF,
        BAR_EDGE,
        NOT_A_VECTOR,
        NO_TARGET,
        ACS_VIOLATION,
        COMPLETION_TIMEOUT,
        PEER_TO_PEER_REFUSED,
        LINK_DOWN,
        RECORD_BEFORE_DATA,
        INTERRUPT_BEFORE_DATA,
        FENCE_BEFORE_DATA,
        MEMORY_DECODE_OFF,
        NOT_IN_D0,
        TURNED_BACK,
        MMIO_FLAG_ON_RAM,
        MALFORMED,
        BAD_DESCRIPTOR,
        WITNESS_UNMAPPED,
        WITNESS_STALE,
        WITNESS_DIRECTION,
        WITNESS_PAST_END,
        WITNESS_LEAKED,
        WRITE_AFTER_INVALIDATE,
        PEER2PEER_NOT_ALLOWED,
        BUFFER_FREED,
    ];
}

/// What the kernel says of an IOMMU fault (its virtio-iommu driver) and of an error that a port reports (AER).
///
/// The driver prints ten faults in five seconds; at the first one after a pause its rate limit says how many it kept
/// back. Nothing is lost by that: each fault is a finding as well, and those are counted.
pub(super) const IOMMU_FAULT: &[&str] = &["fault from EP", "viommu_fault_handler: "];
pub(super) const PORT_ERROR: &[&str] =
    &["pcieport", "AER", "PCIe Bus Error", "error status/mask=", "[20] UnsupReq"];

/// An address that Linux never hands out: it gives out DMA addresses from the top of the lower 4 GiB downwards, and our
/// tests never map that much.
pub(super) const NEVER_MAPPED: u64 = 0x0030_0000;
/// Bytes of the forbidden accesses: several maximum payloads, within one page.
const LENGTH: u64 = 600;

/// A buffer in the device's memory with known content.
fn known(peer: &Peer, pattern: Pattern) -> Result<Object, Stop> {
    let object = peer.alloc(8192, 1)?;
    peer.view(object)?.store(0..8192, pattern);
    Ok(object)
}

/// Errors that a function has logged and the kernel has counted: unsupported requests, and not fatal. `None` when the
/// kernel does not count (`CONFIG_PCIEAER`).
fn unsupported_requests(function: &Function) -> Option<u64> {
    function.aer_count("aer_dev_nonfatal", "UnsupReq")
}

/// Waits until the kernel has counted one more error than `before` at `function`.
fn await_port_error(function: &Function, before: Option<u64>) -> Verdict {
    let Some(before) = before else {
        return Err(Stop::Skip("this kernel does not count PCIe errors (CONFIG_PCIEAER)".into()));
    };
    let reported = await_that(Duration::from_secs(10), || -> Result<_, Stop> {
        Ok(unsupported_requests(function) != Some(before))
    })?;
    ensure!(
        reported,
        "{}: a posted write failed, but no unsupported request was reported (AER)",
        function.name
    );
    Ok(())
}

/// The port that a device's requests enter the root complex by: it logs what the root complex refuses.
fn root_port(peer: &Peer) -> Result<Function, Stop> {
    peer.function()
        .upstream()
        .ok_or_else(|| Stop::Fail(format!("{} has no port above it", peer.function().name)))
}

/// A posted write that fails: the device must not notice, the verdict register and the port must.
fn forbidden_write(peer: &Peer, work: Work, detector: &Function) -> Result<uapi::Wait, Stop> {
    let before = unsupported_requests(detector);
    let result = peer.run(work.with(uapi::SUBMIT_VERDICT))?;
    ensure!(
        result.error == 0 && result.status == uapi::STATUS_SUCCESS,
        "a posted write failed and the device knows: error {}, status {}",
        result.error,
        result.status
    );
    ensure!(
        peer.info.features & uapi::FEATURE_VERDICT == 0 || result.verdict != 0,
        "the device's verdict register has nothing against a write that must fail"
    );
    await_port_error(detector, before)?;
    Ok(result)
}

fn read_unmapped(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::UNMAPPED, 1, None)?;
    bench.expect_messages(IOMMU_FAULT);
    let peer = bench.peer(1)?;
    let pattern = Pattern::new(41);
    let object = known(peer, pattern)?;
    let result = peer.run(Work::copy(at_address(NEVER_MAPPED + 3), object.at(0), LENGTH))?;
    ensure!(
        matches!(result.status, uapi::STATUS_UNSUPPORTED_REQUEST | uapi::STATUS_COMPLETER_ABORT),
        "a read of an unmapped address completed with status {} (error {})",
        result.status,
        result.error
    );
    ensure!(result.bytes == 0, "{} bytes were read from an unmapped address", result.bytes);
    peer.view(object)?.expect(0..8192, pattern, 0)?;
    Ok(())
}

fn write_unmapped(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::UNMAPPED, 1, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    let peer = bench.peer(0)?;
    let object = known(peer, Pattern::new(42))?;
    let result = forbidden_write(
        peer,
        Work::copy(object.at(0), at_address(NEVER_MAPPED + 5), LENGTH),
        &root_port(peer)?,
    )?;
    ensure!(
        result.verdict_address & !0xfff == NEVER_MAPPED,
        "the verdict is about {:#x}, the write went to {:#x}",
        result.verdict_address,
        NEVER_MAPPED + 5
    );
    Ok(())
}

/// The driver gives a mapping back and uses the address all the same, for reading and for writing.
fn use_after_unmap(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::STALE, 2, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    let peer = bench.peer(0)?;
    let object = known(peer, Pattern::new(43))?;
    let pages = peer.system(4096, 0, uapi::BIDIRECTIONAL)?;
    let (segments, _) = peer.segments(pages)?;
    let address = segments
        .first()
        .ok_or_else(|| Stop::Fail("mapped memory has no DMA address".into()))?
        .address;
    must(peer, Work::copy(object.at(0), at_address(address), LENGTH))?;
    peer.unmap(pages)?;

    let result = peer.run(Work::copy(at_address(address), object.at(0), LENGTH))?;
    ensure!(
        result.error != 0 && result.bytes == 0,
        "a read after the unmapping gave {} bytes",
        result.bytes
    );
    forbidden_write(
        peer,
        Work::copy(object.at(4096), at_address(address), LENGTH),
        &root_port(peer)?,
    )?;
    // The page must still hold what was written while that was allowed.
    peer.view(pages)?.expect(0..600, Pattern::new(43), 0)?;
    Ok(())
}

fn write_read_only(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::PERMISSION, 1, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    let peer = bench.peer(1)?;
    let object = known(peer, Pattern::new(44))?;
    let pages = peer.system(4096, 0, uapi::TO_DEVICE)?;
    let (segments, _) = peer.segments(pages)?;
    let address = segments
        .first()
        .ok_or_else(|| Stop::Fail("mapped memory has no DMA address".into()))?
        .address;
    // Reading is what the mapping is for.
    must(peer, Work::copy(at_address(address), object.at(4096), LENGTH))?;
    peer.view(object)?.expect_all(4096..4096 + 600, 0)?;
    forbidden_write(
        peer,
        Work::copy(object.at(0), at_address(address), LENGTH),
        &root_port(peer)?,
    )?;
    peer.view(pages)?.expect_all(0..4096, 0)?;
    Ok(())
}

/// With bus mastering off nothing leaves the device: no data, no completion record, no interrupt.
pub(super) fn bus_mastering_off(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::BUS_MASTER_OFF, 1, None)?;
    bench.expect_message("peerdma");
    let (peer, other) = bench.take_peers()?;
    let function = peer.function().name;
    let path =
        format!("tlps/{}", function.split_once(':').map_or(function.as_str(), |(_, rest)| rest));
    let object = known(&peer, Pattern::new(45))?;
    let pages = peer.system(4096, 0, uapi::BIDIRECTIONAL)?;
    ensure!(peer.set_bus_master(false)?, "bus mastering was off before the test");
    let before = bench.counter(&path)?;
    let interrupts = peer.counters()?.interrupts;
    // The driver rings the doorbell; the device cannot even fetch the descriptor, and cannot report
    // that: the driver looks after it now and then, and finds it halted.
    let outcome = peer.run(Work::copy(object.at(0), pages.at(0), LENGTH));
    let emitted = bench.counter(&path)? - before;
    let taken = peer.counters()?.interrupts - interrupts;
    peer.set_bus_master(true)?;
    let result = outcome?;
    ensure!(result.error != 0, "work succeeded although the device must not issue anything");
    ensure!(result.bytes == 0, "{} bytes were moved", result.bytes);
    ensure!(
        emitted == 0 && taken == 0,
        "the device emitted {emitted} requests and {taken} interrupts"
    );
    peer.view(pages)?.expect_all(0..4096, 0)?;
    drop((peer, other));
    Ok(())
}

/// A mapping that is longer than the BAR it is of: the bytes before the end arrive, those after it
/// reach no BAR.
pub(super) fn past_the_bar(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::BAR_EDGE, 2, None)?;
    bench.expect_messages(PORT_ERROR);
    let (owner, peer) = bench.take_peers()?;
    let end = bar_with_nothing_behind(&owner)?;
    let (object, address) = peer.map_physical(end - 4096, 8192, uapi::BIDIRECTIONAL)?;
    let data = known(&peer, Pattern::new(46))?;
    // The device that owns the BAR is the one that sees a request for no BAR on its link, and logs
    // it.
    let write = Work::copy(data.at(0), at_address(address + 4096), 256);
    forbidden_write(&peer, write, &owner.function())?;
    let result = peer.run(Work::copy(at_address(address + 4096), data.at(0), 256))?;
    ensure!(
        result.status == uapi::STATUS_UNSUPPORTED_REQUEST && result.bytes == 0,
        "a read past the end of a BAR gave {} bytes, status {}",
        result.bytes,
        result.status
    );
    peer.close(object)?;
    Ok(())
}

/// The first address after a BAR of `peer` that lies within the port's window but in no other BAR, so that a request for
/// it reaches the device's link and no BAR there.
fn bar_with_nothing_behind(peer: &Peer) -> Result<u64, Stop> {
    let (function, port) = (peer.function(), root_port(peer)?);
    let (bars, windows) = (function.resources()?, port.resources()?);
    bars.iter()
        .map(|bar| bar.last.saturating_add(1))
        .filter(|end| end % 4096 == 0)
        .find(|end| {
            bars.iter().all(|bar| !(bar.first..=bar.last).contains(end))
                && windows.iter().any(|window| (window.first..=window.last).contains(end))
        })
        .ok_or_else(|| {
            Stop::Fail(format!("every BAR of {} ends where something else begins", function.name))
        })
}

/// A device writes a dword into the interrupt window that none of its vectors is.
pub(super) fn not_a_vector(bench: &mut Bench<'_>) -> Verdict {
    /// The window with a destination that no CPU has: whatever the VMM does with the write, no CPU
    /// is interrupted.
    const NO_CPU: u64 = 0xfee0_0000 | 0xfe << 12;
    bench.expect(class::NOT_A_VECTOR, 1, Some(1))?;
    let peer = bench.peer(0)?;
    let object = peer.alloc(4096, 1)?;
    peer.view(object)?.set_word(0, 0x40);
    let result =
        peer.run(Work::copy(object.at(0), at_address(NO_CPU), 4).with(uapi::SUBMIT_VERDICT))?;
    ensure!(
        result.error == 0,
        "a write into the interrupt window is posted, but it ended with error {}",
        result.error
    );
    ensure!(result.verdict != 0, "the device's verdict register has nothing against it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::class;
    use device_models::checker::FindingClass;

    #[test]
    fn the_checker_knows_every_class_that_a_test_expects() {
        for name in class::ALL {
            assert!(name.parse::<FindingClass>().is_ok(), "{name}");
        }
    }
}
