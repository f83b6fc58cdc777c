//! Addresses at the ends, and records that no kernel writes.

use proptest::prelude::*;

use super::*;
use crate::witness::Gap;

#[test]
fn mappings_at_the_ends_of_the_address_space() {
    for translated in [false, true] {
        let mut rig = Rig::new(translated);
        rig.hear(say(What::Map, 1).at(u64::MAX - 63, 64).to(Direction::ToDevice));
        rig.hear(say(What::Map, 2).at(0, 64).to(Direction::ToDevice));
        assert_eq!(rig.access(READ, u64::MAX - 63, 64), Judgement::Fine);
        assert_eq!(rig.access(READ, u64::MAX, 1), Judgement::Fine);
        assert_eq!(rig.access(READ, 0, 64), Judgement::Fine);
        assert_eq!(rig.class(READ, 0, 64, 1), "witness.past-end");
        assert_eq!(rig.class(READ, u64::MAX - 64, u64::MAX - 64, 2), "witness.unmapped");
        rig.hear(say(What::Unmap, 3).at(u64::MAX - 63, 64).to(Direction::ToDevice));
        assert_eq!(rig.class(READ, u64::MAX, u64::MAX, 1), "witness.stale");
    }
}

#[test]
fn lengths_that_make_no_sense_map_nothing() {
    let mut rig = Rig::new(false);
    rig.hear(say(What::Map, 1).at(0x1000, 0));
    rig.hear(say(What::Map, 2).at(u64::MAX, 2));
    rig.hear(say(What::Map, 3).at(0x1000, u64::MAX));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 1), "witness.unmapped");
    assert_eq!(rig.witness.counters().live, 0);
    rig.hear(say(What::Map, 4).at(1, u64::MAX));
    assert_eq!(rig.access(READ, u64::MAX, 1), Judgement::Fine);
}

#[test]
fn a_guest_that_maps_too_much_is_not_watched_any_more() {
    let mut rig = Rig::new(false);
    for ticket in 1..2000 {
        rig.hear(say(What::Map, ticket).at(0x1000, 4096).to(Direction::Both));
    }
    assert_eq!(rig.witness.coverage(A), Err(Gap::Lost));
    assert_eq!(rig.witness.coverage(B), Ok(()));
    assert_eq!(rig.access(READ, 0x9000, 8), Judgement::Fine);
    rig.hear(say(What::Bind, 3000));
    assert_eq!(rig.class(READ, 0x9000, 0x9000, 8), "witness.unmapped");
}

fn any_record() -> impl Strategy<Value = (u16, u64, u64, u8, u8, u64, u64)> {
    let address =
        prop_oneof![0..0x4000u64, (0..0x40u64).prop_map(|below| u64::MAX - below), any::<u64>()];
    let length = prop_oneof![0..0x2000u64, any::<u64>()];
    (0..30u16, address, length, 0..5u8, any::<u8>(), 0..4u64, 0..4u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_the_guest_says_nothing_breaks(
        records in proptest::collection::vec(any_record(), 0..80),
        translated in any::<bool>(),
    ) {
        let mut rig = Rig::new(translated);
        let mut ticket = 0;
        for (kind, address, length, direction, flags, group, buffer) in records {
            ticket += 1;
            let said = say(What::Map, ticket).at(address, length).flags(flags).group(group);
            let said = said.buffer(buffer).of(FunctionId((group % 2) as u16));
            let said = Said(said.0.put(record::KIND, &kind.to_le_bytes()));
            rig.hear(Said(said.0.put(record::DIRECTION, &[direction])));
            let range = AddressRange::new(address, length.clamp(1, 0x10000));
            if let Some(range) = range {
                for kind in [READ, WRITE] {
                    if let Judgement::Wrong(mistake) = rig.witness.judge(A, kind, address, range, 1) {
                        prop_assert!(range.first <= mistake.first);
                        prop_assert!(mistake.first <= mistake.last);
                        prop_assert!(mistake.last <= range.last);
                        rig.witness.explain(A, kind, address, &mistake, 5);
                    }
                }
            }
            let notices = rig.witness.take_notices();
            notices.iter().for_each(|notice| drop(notice.explain(0)));
        }
    }
}
