//! The IOMMU beside a model that is too simple to be wrong: what is at each page, by a plain table.

use super::*;
use crate::AddressRange;
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

/// Pages of 4 KiB to a page of the model: mappings inside one region of the table, over the edges
/// of regions, and as long as a region.
fn unit() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1_u64), Just(50), Just(128), Just(300)]
}

/// What a page is, and what it was last.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// The number of the MAP that made it, the page it leads to, its flags.
    now: Option<(u64, u64, u32)>,
    /// The number of the MAP and of the UNMAP of what was there last.
    before: Option<(u64, u64)>,
}

type Pages = [Page; ROOM];

fn expect_map(
    table: &mut Pages,
    number: u64,
    (start, pages): (usize, usize),
    target: u64,
    flags: u32,
) -> bool {
    let range = start..start + pages;
    if table[range.clone()].iter().any(|page| page.now.is_some()) {
        return false;
    }
    for (index, page) in table[range].iter_mut().enumerate() {
        page.now = Some((number, target + index as u64, flags));
    }
    true
}

fn expect_unmap(table: &mut Pages, number: u64, (start, pages): (usize, usize)) -> Option<usize> {
    let range = start..start + pages;
    let inside = mappings(&table[range.clone()]);
    let outside = |(index, page): (usize, &Page)| {
        !range.contains(&index) && page.now.is_some_and(|(born, ..)| inside.contains(&born))
    };
    if table.iter().enumerate().any(outside) {
        return None;
    }
    for page in &mut table[range] {
        if let Some((born, ..)) = page.now.take() {
            page.before = Some((born, number));
        }
    }
    Some(inside.len())
}

/// The numbers of the MAPs in force in a piece of the table.
fn mappings(pages: &[Page]) -> Vec<u64> {
    let mut born: Vec<u64> = pages.iter().filter_map(|page| Some(page.now?.0)).collect();
    born.dedup();
    born
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_same_as_a_table_of_pages(steps in prop::collection::vec(step(), 1..80), unit in unit()) {
        let mut iommu = attached();
        let mut table: Pages = [Page::default(); ROOM];
        let size = unit << 12;
        let range = |start: usize, pages: usize| AddressRange {
            first: start as u64 * size,
            last: (start + pages) as u64 * size - 1,
        };
        for step in steps {
            let number = iommu.requests() + 1;
            match step {
                Step::Map { start, pages, target, flags } => {
                    let expected = expect_map(&mut table, number, (start, pages), target, flags);
                    let range = range(start, pages);
                    let answer = iommu.map(1, range.first, range.last, target * size, flags);
                    prop_assert_eq!(answer, if expected { Ok(()) } else { Err(Status::Inval) });
                }
                Step::Unmap { start, pages } => {
                    let expected = expect_unmap(&mut table, number, (start, pages));
                    let range = range(start, pages);
                    let answer = iommu.unmap(1, range.first, range.last);
                    prop_assert_eq!(answer, expected.ok_or(Status::Range));
                }
            }
            prop_assert_eq!(iommu.live_mappings(), mappings(&table).len());
            prop_assert_eq!(iommu.mappings(1).count(), mappings(&table).len());
        }
        for (index, page) in table.iter().enumerate() {
            for offset in [0, 0x123, size - 1] {
                let address = index as u64 * size + offset;
                for (access, bit) in [(Access::Read, READ), (Access::Write, WRITE)] {
                    let answer = iommu.translate(A, address, 1, access);
                    match (page.now, page.before) {
                        (Some((_, target, flags)), _) if flags & bit != 0 => {
                            prop_assert_eq!(answer.unwrap().address, target * size + offset);
                        }
                        (Some((number, ..)), _) => {
                            let reason = answer.unwrap_err().reason;
                            let denied =
                                matches!(reason, FaultReason::Permission { born, .. } if born == number);
                            prop_assert!(denied, "{reason:?}");
                        }
                        (None, Some(before)) => match answer.unwrap_err().reason {
                            FaultReason::Stale { retired, .. } => {
                                prop_assert_eq!((retired.born, retired.died), before);
                            }
                            reason => prop_assert!(false, "{reason:?}"),
                        },
                        (None, None) => {
                            prop_assert_eq!(answer.unwrap_err().reason, FaultReason::Unmapped { domain: 1 });
                        }
                    }
                }
            }
        }
    }

    /// An answer is whole or ends at an edge: following it piece by piece reaches each byte's own
    /// page.
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
                    prop_assert!(answer.length > 0 && answer.range.contains(at));
                    prop_assert_eq!(answer.length, (end - at).min(answer.range.last + 1 - at));
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
