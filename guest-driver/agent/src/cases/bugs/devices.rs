//! What PCIe, the IOMMU and the device itself notice, whatever the kernel has mapped.

use super::{LENGTH, Mode, NEEDS, Pages, address_of, expect, read_at};
use crate::cases::Kind::Negative;
use crate::cases::faults::{self, class};
use crate::cases::matrix::FENCED_PATH;
use crate::cases::need::Need;
use crate::cases::ordering::{self, Signal};
use crate::cases::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Peer, Work, at_address, at_local};
use crate::sys;
use crate::uapi;

/// A mapping of a BAR by `dma_map_phys()`, blind to topology: it is good in every mode of this
/// group's scenarios.
const TRANSLATED: &[Need] = &[Need::Vmm, Need::Peers, Need::Translated];

pub(super) const CASES: &[Case] = &[
    Case::new("bugs", "pci.bus-master-off", Negative, NEEDS, faults::bus_mastering_off),
    Case::new("bugs", "pci.bar-edge", Negative, NEEDS, faults::past_the_bar),
    Case::new("bugs", "pci.no-target", Negative, NEEDS, no_target),
    Case::new("bugs", "pci.memory-decode-off", Negative, NEEDS, decode_off),
    Case::new("bugs", "pci.not-in-d0", Negative, NEEDS, asleep),
    Case::new("bugs", "pci.turned-back", Negative, NEEDS, turned_back),
    Case::new("bugs", "iommu.mmio-flag-on-ram", Negative, TRANSLATED, mmio_flag),
    Case::new("bugs", "msi.not-a-vector", Negative, NEEDS, faults::not_a_vector),
    Case::new("bugs", "msi.malformed", Negative, NEEDS, malformed),
    Case::new("bugs", "device.bad-descriptor", Negative, NEEDS, bad_descriptor),
    Case::new("bugs", "order.record-before-data", Negative, FENCED_PATH, |bench| {
        ordering::without_flush(bench, Signal::Record)
    }),
    Case::new("bugs", "order.interrupt-before-data", Negative, FENCED_PATH, |bench| {
        ordering::without_flush(bench, Signal::Interrupt)
    }),
    Case::new("bugs", "order.fence-before-data", Negative, FENCED_PATH, |bench| {
        ordering::without_flush(bench, Signal::Fence)
    }),
];

/// Where `/proc/iomem` has nothing, above RAM and below the interrupt window: a MiB.
fn hole() -> Result<u64, Stop> {
    const MIB: u64 = 1 << 20;
    let map = sys::read("/proc/iomem")?;
    let taken: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let (range, _) = line.trim_start().split_once(" : ")?;
            let (first, last) = range.split_once('-')?;
            Some((u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(last, 16).ok()?))
        })
        .collect();
    // The windows of the host bridges are in the list, too, with nothing in most of them.
    (0x400..0xfe0u64)
        .rev()
        .map(|mib| mib * MIB)
        .find(|at| taken.iter().all(|(first, last)| *last < *at || *first >= *at + MIB))
        .ok_or_else(|| Stop::Skip("every address below 4 GiB is taken".into()))
}

/// A mapping of what is not there, made with the attribute for device memory.
fn no_target(bench: &mut Bench<'_>) -> Verdict {
    let hole = hole()?;
    expect(bench, class::NO_TARGET, 1)?;
    let peer = bench.peer(0)?;
    let (object, address) = peer.map_physical(hole, 4096, uapi::BIDIRECTIONAL)?;
    read_at(peer, address)?;
    Ok(peer.close(object)?)
}

/// The peer is disabled under a mapping of its BAR.
fn decode_off(bench: &mut Bench<'_>) -> Verdict {
    const COMMAND: u16 = 4;
    const MEMORY_SPACE: u32 = 2;
    expect(bench, class::MEMORY_DECODE_OFF, 1)?;
    let (owner, client) = bench.take_peers()?;
    let (object, address) =
        client.map_physical(owner.info.memory_phys, 4096, uapi::BIDIRECTIONAL)?;
    read_at(&client, address)?;
    let function = owner.function();
    let command = u32::from(function.config_space()?.u16(COMMAND.into()));
    ensure!(command & MEMORY_SPACE != 0, "Memory Space Enable was clear before the test");
    function.write_config(COMMAND, command & !MEMORY_SPACE)?;
    let outcome = read_at(&client, address);
    function.write_config(COMMAND, command)?;
    outcome?;
    Ok(client.close(object)?)
}

/// The peer is put to sleep under a mapping of its BAR.
fn asleep(bench: &mut Bench<'_>) -> Verdict {
    const POWER_MANAGEMENT: u8 = 1;
    const D3_HOT: u32 = 3;
    expect(bench, class::NOT_IN_D0, 1)?;
    let (owner, client) = bench.take_peers()?;
    let (object, address) =
        client.map_physical(owner.info.memory_phys, 4096, uapi::BIDIRECTIONAL)?;
    read_at(&client, address)?;
    let function = owner.function();
    let space = function.config_space()?;
    let capability = space
        .find(POWER_MANAGEMENT)
        .ok_or_else(|| Stop::Skip("the device has no power management".into()))?;
    let control = u16::try_from(capability + 4)?;
    let state = space.u32(control.into());
    ensure!(state & D3_HOT == 0, "the device was not in D0 before the test");
    function.write_config(control, state | D3_HOT)?;
    let outcome = read_at(&client, address);
    function.write_config(control, state)?;
    // PCIe 6.0, 5.9: a function may take 10 ms from D3hot to D0.
    std::thread::sleep(std::time::Duration::from_millis(10));
    outcome?;
    read_at(&client, address)?;
    Ok(client.close(object)?)
}

/// A device maps its own BAR and addresses itself over the bus.
fn turned_back(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    if peer.function().iommu_group().is_some() {
        return Err(Stop::Skip(
            "with an IOMMU the kernel has the port redirect requests upwards (ACS)".into(),
        ));
    }
    let (object, address) = peer.map_physical(peer.info.memory_phys, 4096, uapi::BIDIRECTIONAL)?;
    expect(bench, class::TURNED_BACK, 1)?;
    let peer = bench.peer(0)?;
    read_at(peer, address)?;
    Ok(peer.close(object)?)
}

/// RAM, mapped as if it were device memory.
fn mmio_flag(bench: &mut Bench<'_>) -> Verdict {
    expect(bench, class::MMIO_FLAG_ON_RAM, 1)?;
    let (peer, other) = bench.take_peers()?;
    ensure!(Mode::of(&peer) != Mode::Direct, "nothing translates");
    let pages = Pages::new(&other, &peer)?;
    let (object, address) = peer.map_physical(pages.phys, 4096, uapi::BIDIRECTIONAL)?;
    read_at(&peer, address)?;
    Ok(peer.close(object)?)
}

/// A doorbell that is not one aligned dword.
fn malformed(bench: &mut Bench<'_>) -> Verdict {
    const NO_CPU: u64 = 0xfee0_0000 | 0xfe << 12;
    expect(bench, class::MALFORMED, 1)?;
    let peer = bench.peer(0)?;
    peer.run(Work::fill(at_address(NO_CPU), 8, 0))?;
    Ok(())
}

/// A descriptor that names local memory which the device has not got.
fn bad_descriptor(bench: &mut Bench<'_>) -> Verdict {
    expect(bench, class::BAD_DESCRIPTOR, 1)?;
    let peer: &Peer = bench.peer(0)?;
    let pages = peer.system(4096, 0, uapi::TO_DEVICE)?;
    let source = at_address(address_of(peer, pages)?);
    let end = at_local(peer.info.memory_size - LENGTH / 2);
    let result = peer.run(Work::copy(source, end, LENGTH))?;
    ensure!(result.error != 0, "the device has carried out a descriptor that it cannot");
    Ok(())
}
