//! The state against a slow model that is a plain list, over random sequences.

use super::*;

/// Steps of one run, unless the environment says otherwise.
const STEPS: u64 = 40_000;
/// Random sequences.
const RUNS: u64 = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    range: AddressRange,
    direction: Direction,
    group: u64,
    ticket: u64,
}

/// What is known, as a list.
#[derive(Debug, Default)]
struct Model {
    live: Vec<Entry>,
    dead: Vec<Entry>,
    expected: Vec<Entry>,
    unknown: u64,
}

impl Model {
    fn map(&mut self, entry: Entry, translated: bool) {
        if translated {
            let pages = |range: AddressRange| (range.first >> 12, range.last >> 12);
            let (first, last) = pages(entry.range);
            let (over, live) = std::mem::take(&mut self.live).into_iter().partition(|old| {
                let (its_first, its_last) = pages(old.range);
                its_first <= last && first <= its_last && old.group != entry.group
            });
            self.live = live;
            let over: Vec<Entry> = over;
            self.dead.extend(over.iter().copied());
            self.expected.extend(over);
        }
        self.live.push(entry);
    }

    fn unmap(&mut self, range: AddressRange, direction: Direction) {
        let alike = |entry: &Entry| entry.range == range && entry.direction == direction;
        let oldest = |list: &[Entry]| {
            let found = list.iter().enumerate().filter(|(_, entry)| alike(entry));
            found.min_by_key(|(_, entry)| entry.ticket).map(|(index, _)| index)
        };
        if let Some(index) = oldest(&self.expected) {
            self.expected.remove(index);
        } else if let Some(index) = oldest(&self.live) {
            self.dead.push(self.live.remove(index));
        } else {
            self.unknown += 1;
        }
    }

    fn covers(&self, address: u64, kind: Kind, group: Option<u64>) -> bool {
        self.live.iter().any(|entry| {
            entry.range.contains(address)
                && entry.direction.allows(kind)
                && group.is_none_or(|group| entry.group == group)
        })
    }

    /// Addresses between which nothing changes: it is enough to look at these.
    fn corners(&self, first: u64, last: u64) -> Vec<u64> {
        let ends = self.live.iter().flat_map(|entry| {
            [Some(entry.range.first), entry.range.last.checked_add(1)].into_iter().flatten()
        });
        let mut corners: Vec<_> = ends.filter(|at| (first..=last).contains(at)).collect();
        corners.push(first);
        corners.sort_unstable();
        corners
    }

    /// The first byte that is wrong; none if none is.
    fn first_wrong(&self, kind: Kind, begun: u64, at: u64, last: u64) -> Option<u64> {
        let byte = self.corners(at, last).into_iter().find(|&at| !self.covers(at, kind, None));
        if byte.is_some() {
            return byte;
        }
        let corners = self.corners(begun, last);
        let groups = self.live.iter().map(|entry| entry.group);
        // How far each group goes: the corner at which it ends.
        let ends = groups.filter(|&group| self.covers(begun, kind, Some(group))).map(|group| {
            corners.iter().copied().find(|&corner| !self.covers(corner, kind, Some(group)))
        });
        match ends.collect::<Vec<_>>() {
            // Nothing is known of where it began: certain only if that was mapped once.
            ends if ends.is_empty() => {
                self.dead.iter().any(|entry| entry.range.contains(begun)).then_some(at)
            }
            ends if ends.contains(&None) => None,
            ends => ends.into_iter().flatten().max().map(|end| end.max(at)),
        }
    }
}

/// Numbers that look random: `splitmix64`.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// An index below `below`, which is small.
    fn index(&mut self, below: u64) -> usize {
        usize::try_from(self.next(below)).unwrap_or(0)
    }

    /// An address near an end of a page, in few pages: at 0, at the end of all, and between.
    fn address(&mut self) -> u64 {
        let base = [0, 0x10_0000, u64::MAX - 0x3fff][self.index(3)];
        let page = self.next(4) << 12;
        base + page + [0, 1, 0x40, 0x800, 0xfc0, 0xfff][self.index(6)]
    }

    fn length(&mut self) -> u64 {
        [1, 2, 0x40, 0x41, 0x800, 0x1000, 0x1001, 0x2000, 0x3000][self.index(9)]
    }

    fn direction(&mut self) -> Direction {
        use Direction::{Both, FromDevice, ToDevice};
        [Both, ToDevice, FromDevice, Direction::None][self.index(4)]
    }
}

fn run(seed: u64, steps: u64, translated: bool) {
    println!("seed {seed:#x}, {steps} steps, translated: {translated}");
    let (mut rig, mut model, mut random) = (Rig::new(translated), Model::default(), Random(seed));
    let mut group = 0;
    for ticket in 1..=steps {
        match random.next(8) {
            0..=2 if model.live.len() < 40 => {
                let (address, length) = (random.address(), random.length());
                let Some(range) = AddressRange::new(address, length) else { continue };
                let direction = random.direction();
                if random.next(3) > 0 {
                    group = ticket;
                }
                // With an IOMMU the pieces of a group do not overlap.
                let mine = |entry: &Entry| {
                    entry.group == group
                        && entry.range.first >> 12 <= range.last >> 12
                        && range.first >> 12 <= entry.range.last >> 12
                };
                if translated && model.live.iter().any(mine) {
                    group = ticket;
                }
                let map = say(What::Map, ticket).at(address, length).to(direction).group(group);
                rig.hear(map);
                model.map(Entry { range, direction, group, ticket }, translated);
            }
            0..=3 => {
                let lists = [&model.live, &model.expected];
                let list = lists[random.index(2)];
                let Some(&entry) = list.get(random.index(40)) else { continue };
                let AddressRange { first, last } = entry.range;
                let unmap = say(What::Unmap, ticket).at(first, last - first + 1);
                rig.hear(unmap.to(entry.direction));
                model.unmap(entry.range, entry.direction);
            }
            _ => {
                let kind = if random.next(2) == 0 { READ } else { WRITE };
                let begun = random.address();
                let at = if random.next(2) == 0 { begun } else { begun.max(random.address()) };
                let Some(range) = AddressRange::new(at, random.length()) else { continue };
                let expected = model.first_wrong(kind, begun, at, range.last);
                let judged = rig.witness.judge(A, kind, begun, range, 1);
                let found = match &judged {
                    Judgement::Fine => None,
                    Judgement::Wrong(mistake) => Some(mistake.first),
                };
                assert_eq!(
                    found, expected,
                    "seed {seed:#x} step {ticket}: {kind} begun {begun:#x} {range} {judged:x?}\n\
                     {model:#x?}"
                );
            }
        }
        let counters = rig.witness.counters();
        assert_eq!(counters.live, model.live.len() as u64, "seed {seed:#x} step {ticket}");
        assert_eq!(counters.unknown_unmaps, model.unknown, "seed {seed:#x} step {ticket}");
        // The history is bounded; so is the model's, where that cannot be seen.
        if model.dead.len() > 4000 {
            (rig, model) = (Rig::new(translated), Model::default());
        }
    }
}

/// `PEERDMA_WITNESS_STEPS` steps of each random sequence, `PEERDMA_SEED` for the first.
#[test]
fn random_sequences_agree_with_a_plain_list() {
    let of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = of("PEERDMA_WITNESS_STEPS").unwrap_or(STEPS);
    let seed = of("PEERDMA_SEED").unwrap_or(0x5eed);
    for seed in seed..seed + RUNS {
        run(seed, steps, seed % 2 == 0);
    }
}
