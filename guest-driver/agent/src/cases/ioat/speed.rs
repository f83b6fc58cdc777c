//! How fast the engine is in a guest, beside a peer device: the same sizes, from system memory to
//! system memory, one piece at a time, each mapped, submitted, waited for by interrupt and
//! unmapped. The figures are for the report: no test fails because something takes long.

use super::dmatest::Run;
use super::skylake;
use crate::cases::bench::must;
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Pattern, Peer, Work};
use crate::uapi;
use std::time::Instant;

/// Bytes of a piece, and how many pieces.
const SIZES: [(u32, u32); 3] = [(4 << 10, 20), (64 << 10, 10), (256 << 10, 4)];

pub(super) fn beside(bench: &mut Bench<'_>) -> Verdict {
    let engine = skylake(0)?;
    let (peer, _) = bench.take_peers()?;
    for (size, pieces) in SIZES {
        let run = Run { buffer: size, ..Run::of(pieces) };
        let outcome = run.run_alone(&engine.name)?;
        let [summary] = outcome.summaries.as_slice() else {
            return Err(Stop::Fail(format!("one thread of dmatest ran, and {outcome:?} is left")));
        };
        ensure!(
            summary.failures == 0 && summary.tests == u64::from(pieces),
            "dmatest: {summary:?}, not {pieces} operations: {:?}",
            outcome.failures
        );
        let (theirs, ours) = (summary.throughput, throughput(&peer, size, pieces)?);
        let figures = format!(
            "{} KiB at a time: I/OAT by dmatest {theirs} KiB/s, {} {ours} KiB/s",
            size >> 10,
            peer.name()
        );
        println!("  {figures}");
        bench.note(figures);
    }
    Ok(())
}

/// KiB a second, as dmatest counts: without the time for filling and looking.
fn throughput(peer: &Peer, size: u32, pieces: u32) -> Result<u64, Stop> {
    let bytes = u64::from(size);
    let make = || peer.system(bytes, 0, uapi::BIDIRECTIONAL);
    let (source, target) = (make()?, make()?);
    let pattern = Pattern::new(75);
    peer.view(source)?.store(0..size as usize, pattern);
    peer.unmap(source)?;
    peer.unmap(target)?;
    let begun = Instant::now();
    for _ in 0..pieces {
        peer.map(source, uapi::TO_DEVICE)?;
        peer.map(target, uapi::FROM_DEVICE)?;
        must(peer, Work::copy(source.at(0), target.at(0), bytes))?;
        peer.unmap(source)?;
        peer.unmap(target)?;
    }
    let took = begun.elapsed().as_micros().max(1);
    peer.view(target)?.expect(0..size as usize, pattern, 0)?;
    peer.close(source)?;
    peer.close(target)?;
    let moved = u128::from(bytes) * u128::from(pieces);
    Ok(u64::try_from((moved * 1_000_000 / took) >> 10).unwrap_or(u64::MAX))
}
