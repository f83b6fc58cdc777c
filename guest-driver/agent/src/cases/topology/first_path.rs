//! The path that most tests use: from the second peer device into the first one's memory.

use super::{PairResult, can_follow, expected};
use crate::cases::traffic::Traffic;
use crate::cases::{Bench, Stop, Verdict};
use crate::vmm::{Address, PathKind};

/// What the VMM expects of the second device's requests into the first one's memory.
#[derive(Clone, Debug)]
pub(in crate::cases) struct FirstPath {
    outcome: PairResult,
    /// The kind of address.
    address: Address,
    /// Whether there is a way, as far as the kernel knows.
    is_open: bool,
    /// Whether this kernel's driver takes it with memory that has no pages.
    follows: bool,
}

impl FirstPath {
    /// Asks the VMM.
    pub(in crate::cases) fn new(bench: &mut Bench<'_>) -> Result<Self, Stop> {
        let path = expected(bench)?
            .paths
            .into_iter()
            .find(|(client, owner, _)| (*client, *owner) == (1, 0));
        let (.., path) = path.ok_or_else(|| Stop::Skip("there is one peer device only".into()))?;
        let follows = can_follow(bench, &path)?;
        let is_open = path.way != PathKind::None;
        Ok(Self { outcome: PairResult::of(&path), address: path.address, is_open, follows })
    }

    /// Whether the kernel must find a path between the two.
    pub(in crate::cases) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether this kernel's driver takes it with memory that has no pages.
    pub(in crate::cases) fn follows(&self) -> bool {
        self.follows
    }

    /// The kind of DMA address that the kernel must give the second device.
    pub(in crate::cases) fn address(&self) -> Address {
        self.address
    }

    /// Nothing can be carried where the hardware does not take it, whatever the kernel thinks.
    ///
    /// # Errors
    /// A SKIP that says why.
    pub(in crate::cases) fn carries(&self) -> Verdict {
        match &self.outcome {
            PairResult::Moves { .. } | PairResult::NoAddress => Ok(()),
            PairResult::Lost(class) => Err(Stop::Skip(format!(
                "the kernel gives an address by which nothing arrives here: {class}"
            ))),
            PairResult::Untried(why) => Err(Stop::Skip((*why).into())),
        }
    }

    /// n bytes in each direction between the two by this path, and none by another. `read_back`: bytes that the driver
    /// reads back after it has written.
    pub(in crate::cases) fn expect(
        &self,
        traffic: &Traffic,
        length: u64,
        read_back: u64,
    ) -> Verdict {
        let PairResult::Moves { ahead, back } = self.outcome else {
            return Err(Stop::Fail(format!("nothing can be carried, but it was: {traffic}")));
        };
        let read = length + read_back;
        traffic.expect_read(back, read..=read)?;
        traffic.expect_written(ahead, length..=length)
    }
}
