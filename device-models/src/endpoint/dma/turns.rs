//! Scheduling of a device's channels: each in turn, one access at a time, within a budget.

use crate::endpoint::Progress;

/// Bytes of data that a step may move: what others wait for at most.
const STEP_BYTES: usize = 64 << 10;
/// Accesses of a step.
const STEP_ACCESSES: usize = 64;
/// Descriptors and records are no longer than this: they count as accesses, not as data, so that a
/// copy of 64 KiB and what belongs to it fit one step.
const RECORD_BYTES: usize = 64;

/// What a step may still do.
#[derive(Debug)]
pub(in crate::endpoint) struct Budget {
    bytes: usize,
    accesses: usize,
}

impl Budget {
    /// Takes the cost of an access of `bytes`.
    ///
    /// # Errors
    /// [`Flow::Spent`] when it has to wait for the next step.
    #[inline]
    pub(in crate::endpoint) fn take(&mut self, bytes: usize) -> Result<(), Flow> {
        let data = if bytes <= RECORD_BYTES { 0 } else { bytes };
        let left = self.bytes.checked_sub(data).zip(self.accesses.checked_sub(1));
        let (bytes, accesses) = left.ok_or(Flow::Spent)?;
        *self = Self { bytes, accesses };
        Ok(())
    }
}

/// How a channel goes on after an advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum Flow {
    /// At once.
    More,
    /// In a later step: something holds it back that time resolves.
    Later,
    /// In the next step: the budget is used up.
    Spent,
    /// When a register is written or a completion arrives.
    Idle,
}

/// One step: `advance` is called for one of `count` channels after the other, beginning with
/// `first`, each as long as it goes on, until the budget is used up.
#[inline]
pub(in crate::endpoint) fn in_turn(
    count: usize,
    first: &mut usize,
    mut advance: impl FnMut(usize, &mut Budget) -> Flow,
) -> Progress {
    let mut budget = Budget { bytes: STEP_BYTES, accesses: STEP_ACCESSES };
    let mut progress = Progress::Idle;
    for turn in 0..count {
        let index = (*first + turn) % count;
        let mut advanced = false;
        loop {
            match advance(index, &mut budget) {
                Flow::More => advanced = true,
                Flow::Later => {
                    progress = Progress::Worked;
                    break;
                }
                Flow::Spent => {
                    // A channel that got nothing for lack of budget comes first next time, else its
                    // neighbour.
                    *first = if advanced { (index + 1) % count } else { index };
                    return Progress::Worked;
                }
                Flow::Idle => break,
            }
            progress = Progress::Worked;
        }
    }
    progress
}
