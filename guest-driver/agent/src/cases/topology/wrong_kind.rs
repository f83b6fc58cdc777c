//! An address of the wrong kind.

use super::expected;
use crate::cases::faults::class;
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Work, at_address};
use crate::vmm::{Arrival, PathKind};

/// A driver that takes the CPUs' address of another device's memory for a DMA address, or the bus address where a switch
/// does not route it: behind an IOMMU neither is one.
pub(super) fn is_caught(bench: &mut Bench<'_>) -> Verdict {
    const BYTES: u64 = 300;
    let path =
        expected(bench)?.paths.into_iter().find(|(client, owner, _)| (*client, *owner) == (1, 0));
    let Some((.., path)) = path.filter(|(.., path)| path.way != PathKind::None) else {
        return Err(Stop::Skip("no two devices may share memory here".into()));
    };
    let (owner, client) = bench.take_peers()?;
    let unmapped = |arrival: &Arrival| *arrival == Arrival::Refused(class::UNMAPPED.into());
    let mut wrong = Vec::new();
    if unmapped(&path.by_cpu) {
        wrong.push(("the CPUs' address", owner.info.memory_phys));
    }
    if unmapped(&path.by_bus) && owner.info.memory_bus != owner.info.memory_phys {
        wrong.push(("the bus address", owner.info.memory_bus));
    }
    if wrong.is_empty() {
        let reason =
            "both the CPUs' address and the bus address lead somewhere, or it is unknown where to";
        return Err(Stop::Skip(reason.into()));
    }
    bench.expect("iommu.unmapped", 1, None)?;
    bench.expect_message("fault from EP");
    let target = client.alloc(4096, 1)?;
    for (what, address) in wrong {
        let result = client.run(Work::copy(at_address(address), target.at(0), BYTES))?;
        ensure!(
            result.error != 0 && result.bytes == 0,
            "{what} of {}'s memory, {address:#x}, worked as a DMA address of {}: {} bytes",
            owner.name(),
            client.name(),
            result.bytes
        );
    }
    client.close(target)?;
    Ok(())
}
