//! Long random walks, for tests that a device survives whatever a guest does to it.
//!
//! A property test takes a failure apart, and for that it starts over and over again with little.
//! Here the number of steps counts, and chance has to be cheap: what a guest does next is drawn
//! from plain numbers, which a property test can draw as well.

#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use std::hash::{BuildHasher, RandomState};
use std::iter;

use proptest::prelude::*;

/// The seed of the first walk, as a failed test prints it.
const SEED: &str = "PEERDMA_WALK_SEED";

/// Numbers that one thing takes at most when a property test draws it; it makes do with zeros from
/// there on.
const NUMBERS: usize = 24;

/// Random numbers, and what can be made of one.
pub(super) struct Draw<'a>(&'a mut dyn Iterator<Item = u64>);

impl Draw<'_> {
    /// Any number.
    pub(super) fn any(&mut self) -> u64 {
        self.0.next().unwrap_or(0)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    /// One of these.
    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One to eight bytes.
    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let length = 1 + self.below(8) as usize;
        self.any().to_le_bytes()[..length].to_vec()
    }
}

/// What `make` draws, for a property test.
pub(super) fn drawn<T: std::fmt::Debug>(make: fn(&mut Draw<'_>) -> T) -> impl Strategy<Value = T> {
    any::<[u64; NUMBERS]>().prop_map(move |numbers| make(&mut Draw(&mut numbers.into_iter())))
}

/// A sequence of its own for each seed (SplitMix64).
fn numbers(mut seed: u64) -> impl Iterator<Item = u64> {
    iter::repeat_with(move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// Says how to go the walk again that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{SEED}={} makes this walk the first", self.0);
        }
    }
}

/// Goes one walk after the other, each with a seed of its own, until they have taken `steps` steps
/// together. `walk` returns the number that it took.
pub(super) fn for_steps(steps: u64, mut walk: impl FnMut(&mut Draw<'_>) -> u64) {
    let chosen = std::env::var(SEED).ok();
    let first = chosen.map_or_else(|| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    let (mut taken, mut walks) = (0, 0);
    while taken < steps {
        let seed = Seed(first.wrapping_add(walks));
        taken += walk(&mut Draw(&mut numbers(seed.0)));
        walks += 1;
        assert!(walks <= 1000 + taken, "the walks lead nowhere");
    }
    println!("{taken} steps in {walks} walks");
}
