//! An address of the wrong kind.

use super::{expected, mask_of, names};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Work, at_address};
use crate::lab::{Expected, Way};

/// A driver that takes the CPUs' address of another device's memory for a DMA address, or the bus address where a switch
/// does not route it: behind an IOMMU neither is one.
pub(super) fn is_caught(bench: &mut Bench<'_>) -> Verdict {
    const BYTES: u64 = 300;
    let Expected { paths, direct_requests, .. } = expected(bench)?;
    let direct = paths.iter().find(|(a, b, ..)| (*a, *b) == (0, 1)).map(|(.., way, _, _)| *way);
    if !matches!(direct, Some(Way::Bus | Way::Host)) {
        return Err(Stop::Skip("no two devices may share memory here".into()));
    }
    let (owner, client) = bench.take_peers()?;
    let mut wrong = vec![("the CPUs' address", owner.info.memory_phys)];
    if direct == Some(Way::Host) && !names(mask_of(&direct_requests, &client), owner.instance) {
        wrong.push(("the bus address", owner.info.memory_bus));
    } else if owner.info.memory_bus == owner.info.memory_phys {
        return Err(Stop::Skip("the host bridge does not translate: both are one number".into()));
    }
    bench.expect("iommu.unmapped", 1, None)?;
    bench.expect_message("fault from EP");
    let target = client.alloc(4096, 1)?;
    for (what, address) in wrong {
        let result = client.run(Work::copy(at_address(address), target.at(0), BYTES))?;
        ensure!(
            result.error != 0 && result.bytes == 0,
            "{what} of peer0's memory, {address:#x}, worked as a DMA address of peer1: {} bytes",
            result.bytes
        );
    }
    client.close(target)?;
    Ok(())
}
