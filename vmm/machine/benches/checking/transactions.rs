//! Small transactions: what one lookup costs.

use device_models::fabric::{Purpose, WriteOutcome};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::clock::Stopwatch;
use crate::report::{Figure, Goal, Report, median};
use crate::rig::{Rig, iova, physical, to_usize};

pub const PAGE: u64 = 4096;
const SIZE: usize = 64;
pub const COUNT: usize = 1 << 20;
pub const MAPPINGS: u64 = 16 << 10;

pub fn run(report: &mut Report, rounds: usize) {
    let mut rig = Rig::new(MAPPINGS, PAGE);
    // Sixteen pages fit any cache; the other run takes a page at random out of all.
    let few = offsets(16);
    let many = offsets(MAPPINGS);
    for (name, offsets, goal) in [
        ("64-byte writes, translation cached", few, 20.0),
        ("64-byte writes, random over 16 Ki mappings", many, 6.0),
    ] {
        let mut rates = Vec::new();
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let checked = checked(&mut rig, &offsets);
            let plain = plain(&rig, &offsets);
            rates.push(COUNT as f64 / checked / 1e6);
            ratios.push(plain / checked);
        }
        report.add(Figure {
            name,
            value: median(rates),
            unit: "million/s",
            compared_with: "plain 64-byte copies to the same places",
            goal: Goal::AtLeast(goal),
            rate: Some((median(ratios), "of a plain copy's rate")),
        });
    }
}

/// All writes by the device, in seconds.
pub fn checked(rig: &mut Rig, offsets: &[(u64, u64)]) -> f64 {
    let addresses: Vec<u64> =
        offsets.iter().map(|&(page, offset)| iova(page, PAGE) + offset).collect();
    rig.issue(move |port| {
        let mut data = [0x5a_u8; SIZE];
        let data = vm_memory::VolatileSlice::from(&mut data[..]);
        let start = Stopwatch::start();
        for &address in &addresses {
            let outcome = port.write(Purpose::Data, address, &data);
            assert!(matches!(outcome, WriteOutcome::Posted { verdict: None }));
        }
        start.seconds()
    })
}

/// Pages and offsets in them, the same in every run.
pub fn offsets(pages: u64) -> Vec<(u64, u64)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..COUNT).map(|_| (next() % pages, next() % (PAGE / SIZE as u64) * SIZE as u64)).collect()
}

fn plain(rig: &Rig, offsets: &[(u64, u64)]) -> f64 {
    let data = [0x5a_u8; SIZE];
    let whole =
        rig.ram.get_slice(GuestAddress(0), to_usize(crate::rig::RAM)).expect("RAM is one piece");
    let start = Stopwatch::start();
    for &(page, offset) in offsets {
        let at = to_usize(physical(page, PAGE) + offset);
        whole.write_slice(&data, at).expect("inside");
    }
    start.seconds()
}
