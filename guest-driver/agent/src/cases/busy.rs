//! Devices that are busy for a while, so that later work stays queued.

use super::bench::succeeded;
use super::{Bench, Stop, Verdict};
use crate::device::{Object, Peer, WAIT_MS, Work};

/// Fills to try it with, one after the other, where a test must have work under way: the devices are no part of the
/// guest, and whatever holds the guest up gives them time to finish.
pub(super) const LOADS: [u32; 3] = [6, 24, 96];

/// Work in a device's own memory, on channel 0: what is queued after it has not begun for long.
#[derive(Debug)]
pub(super) struct Busy {
    object: Object,
    cookies: Vec<u64>,
}

impl Busy {
    pub(super) fn start(peer: &Peer) -> Result<Self, Stop> {
        Self::start_of(peer, LOADS[0])
    }

    /// The number of fills; each takes some milliseconds.
    pub(super) fn start_of(peer: &Peer, fills: u32) -> Result<Self, Stop> {
        const LENGTH: u64 = 16 << 20;
        let object = peer.alloc(LENGTH, 1)?;
        let fill = || peer.submit(Work::fill(object.at(0), LENGTH, 1));
        Ok(Self { object, cookies: (0..fills).map(|_| fill()).collect::<Result<_, _>>()? })
    }

    /// How many fills there are.
    pub(super) fn fills(&self) -> usize {
        self.cookies.len()
    }

    /// Whether some of it is still to come, and so is all that was queued after it.
    pub(super) fn is_under_way(&self, peer: &Peer) -> Result<bool, Stop> {
        match self.cookies.last() {
            Some(last) => Ok(!peer.is_done(*last)?),
            None => Ok(false),
        }
    }

    /// Waits for its end, and for the work `after` it.
    pub(super) fn end(self, peer: &Peer, after: &[u64]) -> Verdict {
        for cookie in self.cookies.iter().chain(after) {
            succeeded(peer, peer.wait(*cookie, WAIT_MS)?)?;
        }
        Ok(peer.close(self.object)?)
    }
}

/// In how many rounds of a test there was work under way when it mattered: without, a round shows nothing.
#[derive(Debug, Default)]
pub(super) struct Load {
    rounds: u32,
    under_way: u32,
}

impl Load {
    /// The moment at which it matters.
    pub(super) fn look(&mut self, busy: &Busy, peer: &Peer) -> Verdict {
        self.count(busy.is_under_way(peer)?);
        Ok(())
    }

    /// The same, for a caller that knows it otherwise.
    pub(super) fn count(&mut self, under_way: bool) {
        self.rounds += 1;
        self.under_way += u32::from(under_way);
    }

    /// In how many rounds there was.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// A test that has passed without any load has not been one.
    pub(super) fn conclude(self, bench: &mut Bench<'_>) -> Verdict {
        let Self { rounds, under_way } = self;
        if under_way == 0 {
            return Err(too_busy());
        }
        if under_way < rounds {
            bench.note(format!("under load in {under_way} of {rounds} rounds"));
        }
        Ok(())
    }
}

/// Whether the last of what is `pending` has not even begun: the one before it is not done.
pub(super) fn is_to_come(peer: &Peer, pending: &[u64]) -> Result<bool, Stop> {
    match pending {
        [.., before, _] => Ok(!peer.is_done(*before)?),
        _ => Ok(false),
    }
}

/// What becomes of a test that never had work under way when it mattered.
pub(super) fn too_busy() -> Stop {
    Stop::Skip("all work was over each time before it mattered: this machine is too busy".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_without_load_fails() {
        let conclusion = |seen: &[bool]| {
            let mut bench = Bench::new(None, &[]);
            let mut load = Load::default();
            seen.iter().for_each(|under_way| load.count(*under_way));
            (load.conclude(&mut bench), bench.notes)
        };
        assert!(matches!(conclusion(&[false, false]).0, Err(Stop::Skip(_))));
        assert_eq!(conclusion(&[true, true]), (Ok(()), vec![]));
        let (verdict, notes) = conclusion(&[true, false, false]);
        assert_eq!(verdict, Ok(()));
        assert_eq!(notes, ["under load in 1 of 3 rounds"]);
    }
}
