//! The path that most tests use: from the second peer device into the first one's memory.

use super::{can_follow, expected, mask_of, ways};
use crate::cases::traffic::Traffic;
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::lab::{Address, Expected, Way};

/// What the monitor expects of `peer1`'s requests into `peer0`'s memory.
#[derive(Clone, Copy, Debug)]
pub(in crate::cases) struct FirstPath {
    /// The way of requests with data.
    ahead: Way,
    /// The way of completions with data.
    back: Way,
    /// The kind of DMA address.
    address: Address,
    /// Whether there is a way.
    is_open: bool,
    /// Whether this kernel's driver takes it with memory that has no pages.
    follows: bool,
}

impl FirstPath {
    /// Asks the monitor.
    pub(in crate::cases) fn new(bench: &mut Bench<'_>) -> Result<Self, Stop> {
        let Expected { paths, direct_requests, direct_completions, .. } = expected(bench)?;
        let path = paths.iter().find(|(a, b, ..)| (*a, *b) == (0, 1));
        let &(_, _, way, _, address) =
            path.ok_or_else(|| Stop::Skip("there is one peer device only".into()))?;
        let (owner, client) = bench.take_peers()?;
        let direct = (mask_of(&direct_requests, &client), mask_of(&direct_completions, &client));
        let (ahead, back) = ways(&owner, (way, address), direct);
        let follows = can_follow(bench, way, address)?;
        Ok(Self { ahead, back, address, is_open: way != Way::None, follows })
    }

    /// Whether the kernel must find a path between the two.
    pub(in crate::cases) fn is_open(self) -> bool {
        self.is_open
    }

    /// Whether this kernel's driver takes it with memory that has no pages.
    pub(in crate::cases) fn follows(self) -> bool {
        self.follows
    }

    /// The kind of DMA address that the kernel must give `peer1`.
    pub(in crate::cases) fn address(self) -> Address {
        self.address
    }

    /// So many bytes each way between the two by this path, and none by another. `read_back`: bytes that the driver
    /// reads back after it has written.
    pub(in crate::cases) fn expect(
        self,
        traffic: &Traffic,
        length: u64,
        read_back: u64,
    ) -> Verdict {
        ensure!(self.is_open, "there is no way, but it was: {traffic}");
        let read = length + read_back;
        traffic.expect_read(self.back, read..=read)?;
        traffic.expect_written(self.ahead, length..=length)
    }
}
