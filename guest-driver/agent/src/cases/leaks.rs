//! Whatever is released must be gone from every counter.

use super::Kind::Positive;
use super::bench::must;
use super::lane::{Engine, Lane};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::Peer;
use crate::sys::leaks;
use crate::sys::patience::stretched;
use crate::uapi;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "leaks",
        "100-rounds",
        Positive,
        &[
            Need::Peers,
            Need::Vmm,
            Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
            Need::File("/sys/kernel/debug/dma_buf/bufinfo", "CONFIG_DEBUG_FS"),
        ],
        hundred_rounds,
    ),
    Case::new(
        "leaks",
        "file-closed-with-everything-in-it",
        Positive,
        &[Need::Peers, Need::Vmm, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")],
        closed_file,
    ),
    Case::new("leaks", "kmemleak", Positive, &[Need::Peers, Need::Kmemleak], lost_memory),
];

/// The VMM's counter of mappings that its IOMMU holds.
const LIVE_MAPPINGS: &str = "live_mappings";

/// Everything that must be the same before and after, or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    live_mappings: u64,
    dma_bufs: u64,
    /// For each device: free memory, then objects, then mappings not given back.
    peers: Vec<[u64; 7]>,
}

impl Account {
    pub(super) fn take(bench: &mut Bench<'_>) -> Result<Self, Stop> {
        let live_mappings = bench.counter(LIVE_MAPPINGS)?;
        let dma_bufs = leaks::dma_bufs().unwrap_or_default();
        let mut peers = Vec::new();
        for instance in 0..2 {
            let peer = bench.peer(instance)?;
            let counters = peer.counters()?;
            peers.push([
                peer.refreshed_info()?.memory_free,
                counters.live_memory,
                counters.live_dmabufs,
                counters.live_imports,
                counters.live_systems,
                counters.maps - counters.unmaps,
                counters.exporter_maps - counters.exporter_unmaps,
            ]);
        }
        Ok(Self { live_mappings, dma_bufs, peers })
    }
}

impl Account {
    /// Waits until everything is as it was. With lazy flushing the kernel unmaps some time later, and it frees some
    /// things from a worker; what is not back after a while is lost.
    pub(super) fn await_return(&self, bench: &mut Bench<'_>) -> Verdict {
        let end = Instant::now() + stretched(Duration::from_secs(10));
        loop {
            let now = Self::take(bench)?;
            // Fewer mappings in all are none of ours: virtio-rng has one as long as it waits for its device.
            let same = Self { live_mappings: self.live_mappings, ..now.clone() } == *self;
            if same && now.live_mappings <= self.live_mappings {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "something was not given back:\nbefore {self:?}\nafter  {now:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Export, import, transfer, free; both ways of moving and both directions. Now and then in pieces, and with system
/// memory besides: every mapping costs an exit, and a hundred rounds have many.
fn round(peer0: &Peer, peer1: &Peer, number: u32) -> Verdict {
    let engine = if number.is_multiple_of(2) { Engine::Source } else { Engine::Target };
    let (from, to) = if number.is_multiple_of(3) { (peer1, peer0) } else { (peer0, peer1) };
    let ranges = if number.is_multiple_of(10) { 3 } else { 1 };
    let lane = Lane::new(from, to, engine, 16 << 10, ranges)?;
    must(if engine == Engine::Source { from } else { to }, lane.work(1, 2, 9000))?;
    if number % 10 == 1 {
        let flags = if number % 20 == 1 { uapi::SYSTEM_COHERENT } else { 0 };
        from.close(from.system(4096, flags, uapi::BIDIRECTIONAL)?)?;
    }
    lane.close()
}

fn hundred_rounds(bench: &mut Bench<'_>) -> Verdict {
    let (peer0, peer1) = (Peer::open(0)?, Peer::open(1)?);
    // The kernel keeps a few things for the next user (IOVA magazines, page pools): the account starts after the first.
    (0..3).try_for_each(|number| round(&peer0, &peer1, number))?;
    let before = Account::take(bench)?;
    (0..100).try_for_each(|number| round(&peer0, &peer1, number))?;
    before.await_return(bench)
}

/// Nothing is given back in order: the file is closed with everything in it, as when a process is killed.
fn closed_file(bench: &mut Bench<'_>) -> Verdict {
    let before = Account::take(bench)?;
    let (peer0, peer1) = (Peer::open(0)?, Peer::open(1)?);
    let lane = Lane::new(&peer0, &peer1, Engine::Target, 16 << 10, 2)?;
    must(&peer1, lane.work(0, 0, 16 << 10))?;
    let _system = peer0.system(8192, 0, uapi::TO_DEVICE)?;
    drop((peer0, peer1));
    before.await_return(bench)
}

fn lost_memory(_bench: &mut Bench<'_>) -> Verdict {
    let lost = leaks::lost_objects("[peerdma]")?;
    ensure!(
        lost.is_empty(),
        "kmemleak: {} objects of the driver are lost, first: {}",
        lost.len(),
        lost[0]
    );
    Ok(())
}
