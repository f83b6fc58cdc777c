//! What the hardware makes of addresses that did not come from the kernel: between every two
//! devices, whether the kernel would let them share memory or not.

use super::{PairResult, expected, route::expect_refusals};
use crate::cases::bench::must;
use crate::cases::traffic::Traffic;
use crate::cases::{Bench, Verdict, ensure};
use crate::device::{Peer, Work, at_address, at_local};
use crate::vmm::{Arrival, Path, PathKind};
use std::collections::BTreeMap;

/// Bytes of each read: more than one payload, within a page.
const BYTES: u64 = 600;

/// Which number is taken for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What stands in the BAR.
    Bus,
    /// The CPUs' address.
    Cpu,
}

impl Kind {
    fn arrival(self, path: &Path) -> &Arrival {
        match self {
            Self::Bus => &path.by_bus,
            Self::Cpu => &path.by_cpu,
        }
    }
}

/// Every device reads a few bytes out of every other one's memory: they come, by the expected way, or they do not, for the
/// expected reason. Where they come it writes them back; nowhere else, since the port above would
/// report a write that is lost, and its driver reset what is below it.
pub(super) fn all(bench: &mut Bench<'_>, kind: Kind) -> Verdict {
    let all = expected(bench)?.paths;
    let outcome = |path: &Path| PairResult::by(kind.arrival(path), path);
    let mut refusals = BTreeMap::<String, u32>::new();
    for (.., path) in &all {
        if let PairResult::Lost(class) = outcome(path) {
            *refusals.entry(class).or_default() += 1;
        }
    }
    expect_refusals(bench, &refusals)?;
    // What arrives is a mistake all the same: the kernel has mapped nothing there.
    let reached = all.iter().filter(|(.., path)| matches!(outcome(path), PairResult::Moves { .. }));
    let reached = u32::try_from(reached.count()).unwrap_or(u32::MAX);
    if reached > 0 {
        bench.expect_witnessed("witness.unmapped", reached, None)?;
    }
    let (mut moved, mut refused, mut untried) = (0, 0, 0);
    for (client, owner, path) in &all {
        let (client, owner) = (Peer::open(*client)?, Peer::open(*owner)?);
        let what = format!("{} out of {}", client.name(), owner.name());
        let (ways, count) = match outcome(path) {
            PairResult::Moves { ahead, back } => (Some((ahead, back)), &mut moved),
            PairResult::Lost(_) => (None, &mut refused),
            PairResult::NoAddress | PairResult::Untried(_) => {
                untried += 1;
                continue;
            }
        };
        probe(bench, kind, &client, &owner, ways).map_err(|stop| stop.of(&what))?;
        *count += 1;
    }
    bench.note(format!(
        "{moved} pairs reach each other, {refused} reads refused, {untried} not tried"
    ));
    Ok(())
}

/// `ways`: of requests and of completions; none if a read must fail.
fn probe(
    bench: &mut Bench<'_>,
    kind: Kind,
    client: &Peer,
    owner: &Peer,
    ways: Option<(PathKind, PathKind)>,
) -> Verdict {
    // Nothing of ours is in the middle of the memory now.
    let there = owner.info.memory_size / 2;
    let base = match kind {
        Kind::Bus => owner.info.memory_bus,
        Kind::Cpu => owner.info.memory_phys,
    };
    let address = base + there;
    let seed = 0x5eed << 32 | u64::from(owner.info.bdf) << 8 | u64::from(client.info.bdf);
    must(owner, Work::fill(at_local(there), BYTES, seed))?;
    let here = client.alloc(4096, 1)?;
    must(client, Work::fill(here.at(0), BYTES, !seed))?;
    let before = must(client, Work::checksum(here.at(0), BYTES))?.result;
    let traffic = Traffic::during(bench, &client.function(), |_| {
        let result = client.run(Work::copy(at_address(address), here.at(0), BYTES))?;
        let arrived = result.error == 0;
        ensure!(
            arrived == ways.is_some() && (arrived || result.bytes == 0),
            "a read at {address:#x} ended with error {}, status {}, {} bytes",
            result.error,
            result.status,
            result.bytes
        );
        Ok(())
    })?;
    let after = must(client, Work::checksum(here.at(0), BYTES))?.result;
    if let Some((ahead, back)) = ways {
        traffic.expect_read(back, BYTES..=BYTES)?;
        let original = must(owner, Work::checksum(at_local(there), BYTES))?.result;
        ensure!(after == original, "other bytes than those at {address:#x} arrived");
        must(owner, Work::fill(at_local(there), BYTES, !seed))?;
        let traffic = Traffic::during(bench, &client.function(), |_| {
            must(client, Work::copy(here.at(0), at_address(address), BYTES)).map(drop)
        })?;
        // The last byte is read back.
        traffic.expect_read(back, 0..=64)?;
        traffic.expect_written(ahead, BYTES..=BYTES)?;
        let written = must(owner, Work::checksum(at_local(there), BYTES))?.result;
        ensure!(written == original, "what was written to {address:#x} did not arrive");
    } else {
        traffic.expect_none_between_devices()?;
        ensure!(after == before, "a read that was refused has written something");
    }
    Ok(client.close(here)?)
}
