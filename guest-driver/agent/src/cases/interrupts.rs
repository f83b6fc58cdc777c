//! Interrupts, counted at both ends: by the driver that takes them and by the VMM that signals them.

use super::Kind::Positive;
use super::bench::must;
use super::need::Need;
use super::{Bench, Case, Verdict, ensure};
use crate::device::Work;
use crate::uapi;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "interrupts",
        "one-for-each-piece-of-work",
        Positive,
        &[Need::Peers, Need::Vmm, Need::Feature(uapi::FEATURE_MSIX, "CONFIG_PCI_MSI")],
        |bench| counted(bench, 0, ROUNDS),
    ),
    Case::new("interrupts", "none-when-polled", Positive, &[Need::Peers, Need::Vmm], |bench| {
        counted(bench, uapi::SUBMIT_POLL, 0)
    }),
];

const ROUNDS: u64 = 8;

/// Work on each channel of each device, one piece at a time, so that no two interrupts can merge.
fn counted(bench: &mut Bench<'_>, flags: u32, expected: u64) -> Verdict {
    for instance in 0..2 {
        for channel in 0..bench.peer(instance)?.info.channels.min(2) {
            let peer = bench.peer(instance)?;
            let path = signalled(peer.function().name.as_str());
            let object = peer.alloc(4096, 1)?;
            let taken = peer.counters()?.interrupts;
            let sent = bench.counter(&path)?;
            let peer = bench.peer(instance)?;
            for _ in 0..ROUNDS {
                must(peer, Work::fill(object.at(0), 64, 0).on(channel).with(flags))?;
            }
            let taken = peer.counters()?.interrupts - taken;
            let sent = bench.counter(&path)? - sent;
            ensure!(
                taken == expected && sent == expected,
                "{} channel {channel}: {ROUNDS} pieces of work, {expected} interrupts expected, \
                 {sent} signalled by the VMM, {taken} taken by the driver",
                bench.peer(instance)?.name()
            );
            bench.peer(instance)?.close(object)?;
        }
    }
    Ok(())
}

/// The VMM's counter of interrupts of the function with this name.
fn signalled(function: &str) -> String {
    // The VMM has one segment and names functions without it.
    format!("msi/{}", function.split_once(':').map_or(function, |(_, rest)| rest))
}
