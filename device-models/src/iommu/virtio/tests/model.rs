//! The IOMMU beside a model that is too simple to be wrong: what is at each page, by a plain table.

use super::*;
use proptest::prelude::*;

/// Where a range may start, in pages.
const PAGES: usize = 24;
/// What the table knows: no range reaches further.
const ROOM: usize = PAGES + 16;

#[derive(Clone, Debug)]
enum Step {
    Map { start: usize, pages: usize, target: u64, flags: u32 },
    Unmap { start: usize, pages: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pages = 1..6_usize;
    prop_oneof![
        (0..PAGES, pages.clone(), 0..64_u64, 0..4_u32)
            .prop_map(|(start, pages, target, flags)| Step::Map { start, pages, target, flags }),
        (0..PAGES, 1..9_usize).prop_map(|(start, pages)| Step::Unmap { start, pages }),
    ]
}

/// One entry a page: the number of the MAP that made it, the page it leads to, its flags.
type Table = [Option<(u64, u64, u32)>; ROOM];

fn expect_map(
    table: &mut Table,
    number: u64,
    start: usize,
    pages: usize,
    target: u64,
    flags: u32,
) -> bool {
    let range = start..start + pages;
    if table[range.clone()].iter().any(Option::is_some) {
        return false;
    }
    for (index, entry) in table[range].iter_mut().enumerate() {
        *entry = Some((number, target + index as u64, flags));
    }
    true
}

fn expect_unmap(table: &mut Table, start: usize, pages: usize) -> Option<usize> {
    let range = start..start + pages;
    let mut inside: Vec<u64> = table[range.clone()].iter().flatten().map(|entry| entry.0).collect();
    inside.dedup();
    let outside = |(index, entry): (usize, &Option<(u64, u64, u32)>)| {
        !range.contains(&index) && entry.is_some_and(|entry| inside.contains(&entry.0))
    };
    if table.iter().enumerate().any(outside) {
        return None;
    }
    table[range].fill(None);
    Some(inside.len())
}

proptest! {
    #[test]
    fn the_same_as_a_table_of_pages(steps in prop::collection::vec(step(), 1..80)) {
        let mut iommu = attached();
        let mut table: Table = [None; ROOM];
        for step in steps {
            let number = iommu.requests() + 1;
            match step {
                Step::Map { start, pages, target, flags } => {
                    let expected = expect_map(&mut table, number, start, pages, target, flags);
                    let extent = extent(start, pages);
                    let answer = iommu.map(1, extent.first, extent.last, target << 12, flags);
                    prop_assert_eq!(answer, if expected { Ok(()) } else { Err(Status::Inval) });
                }
                Step::Unmap { start, pages } => {
                    let expected = expect_unmap(&mut table, start, pages);
                    let extent = extent(start, pages);
                    let answer = iommu.unmap(1, extent.first, extent.last);
                    prop_assert_eq!(answer, expected.ok_or(Status::Range));
                }
            }
            let mut live: Vec<u64> = table.iter().flatten().map(|entry| entry.0).collect();
            live.dedup();
            prop_assert_eq!(iommu.live_mappings(), live.len());
            prop_assert_eq!(iommu.mappings(1).count(), live.len());
        }
        for (page, entry) in table.iter().enumerate() {
            let address = (page as u64) << 12 | 0x123;
            for (access, bit) in [(Access::Read, READ), (Access::Write, WRITE)] {
                let answer = iommu.translate(A, address, 0x10, access);
                match entry {
                    Some((_, target, flags)) if flags & bit != 0 => {
                        prop_assert_eq!(target_of(answer), Some(target << 12 | 0x123));
                    }
                    Some((number, ..)) => {
                        let reason = answer.unwrap_err().reason;
                        let denied = matches!(reason, FaultReason::Permission { born, .. } if born == *number);
                        prop_assert!(denied, "{reason:?}");
                    }
                    None => {
                        let reason = answer.unwrap_err().reason;
                        let absent = matches!(reason, FaultReason::Unmapped { .. } | FaultReason::Stale { .. });
                        prop_assert!(absent, "{reason:?}");
                    }
                }
            }
        }
    }

    /// An answer is whole or ends at an edge: following it piece by piece reaches each byte's own page.
    #[test]
    fn pieces_make_the_whole(sizes in prop::collection::vec(1..5_u64, 1..8), start in 0..0x4000_u64, length in 1..0x8000_u64) {
        let mut iommu = attached();
        let mut page = 0;
        for (index, pages) in sizes.iter().enumerate() {
            iommu.map(1, page << 12, ((page + pages) << 12) - 1, (1000 * (index as u64 + 1)) << 12, READ).unwrap();
            page += pages;
        }
        let (mut at, end) = (start, start + length);
        while at < end {
            match iommu.translate(A, at, end - at, Access::Read) {
                Ok(answer) => {
                    prop_assert!(answer.length > 0 && answer.extent.contains(at));
                    prop_assert_eq!(answer.length, (end - at).min(answer.extent.last + 1 - at));
                    let last = iommu.translate(A, at + answer.length - 1, 1, Access::Read).unwrap();
                    prop_assert_eq!(last.address, answer.address + answer.length - 1);
                    at += answer.length;
                }
                Err(fault) => {
                    prop_assert_eq!((fault.address, at >= page << 12), (at, true));
                    break;
                }
            }
        }
    }
}

fn extent(start: usize, pages: usize) -> Extent {
    let address = |page: usize| (page as u64) << 12;
    Extent { first: address(start), last: address(start + pages) - 1 }
}

fn target_of(answer: Result<Translation, Fault>) -> Option<u64> {
    answer.ok().map(|answer| answer.address)
}
