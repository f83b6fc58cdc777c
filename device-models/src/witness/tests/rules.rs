//! What is allowed, and what is said of what is not.

use super::*;
use crate::witness::{Gap, Notice};

#[test]
fn each_byte_has_to_be_mapped_for_the_direction() {
    for translated in [false, true] {
        let mut rig = Rig::new(translated);
        rig.hear(say(What::Map, 1).at(0x1000, 4096).to(Direction::ToDevice).pid(812));
        assert_eq!(rig.access(READ, 0x1000, 4096), Judgement::Fine);
        assert_eq!(rig.access(READ, 0x1fff, 1), Judgement::Fine, "DMA to the last byte");
        assert_eq!(rig.class(READ, 0x1000, 0x1000, 4160), "witness.past-end");
        assert_eq!(rig.class(READ, 0xfff, 0xfff, 1), "witness.unmapped");
        let (class, text) = rig.explain(WRITE, 0x1000, 0x1000, 64);
        assert_eq!(class, "witness.direction");
        assert_eq!(
            text,
            "4096 bytes at 0x1000 (DMA_TO_DEVICE), mapped 999.0 us earlier by pid 812 (insmod): the \
             device may not write it"
        );
    }
}

#[test]
fn what_lies_behind_a_mapping_does_not_matter() {
    let mut rig = Rig::new(true);
    rig.hear(say(What::Map, 1).at(0x1000, 4096).to(Direction::FromDevice).pid(7));
    rig.hear(say(What::Map, 2).at(0x2000, 4096).to(Direction::Both));
    // Piece by piece, as a device writes: only what leaves the mapping is wrong.
    assert_eq!(rig.judge(WRITE, 0x1000, 0x1000, 4096), Judgement::Fine);
    let Judgement::Wrong(mistake) = rig.judge(WRITE, 0x1000, 0x2000, 64) else { panic!() };
    assert_eq!((mistake.first, mistake.last), (0x2000, 0x203f));
    let (class, text) = rig.explain(WRITE, 0x1000, 0x1f00, 0x200);
    assert_eq!(class, "witness.past-end");
    assert!(
        text.starts_with("byte 4096 of the transfer is behind the end of 4096 bytes at"),
        "{text}"
    );
    // What begins there is in its own mapping.
    assert_eq!(rig.access(WRITE, 0x2000, 64), Judgement::Fine);
}

#[test]
fn what_was_mapped_in_one_go_may_be_used_in_one_go() {
    let mut rig = Rig::new(true);
    for page in 1..5 {
        let map = say(What::Map, page).at(page << 12, 4096).to(Direction::ToDevice).group(1);
        rig.hear(map);
    }
    assert_eq!(rig.access(READ, 0x1000, 0x4000), Judgement::Fine);
    for piece in 1..5 {
        assert_eq!(rig.judge(READ, 0x1000, piece << 12, 4096), Judgement::Fine);
    }
    assert_eq!(rig.class(READ, 0x1000, 0x4fff, 2), "witness.past-end");
    rig.hear(say(What::Unmap, 9).at(0x3000, 4096).to(Direction::ToDevice).pid(3));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 0x4000), "witness.stale");
    assert_eq!(rig.judge(READ, 0x1000, 0x1000, 0x2000), Judgement::Fine);
}

#[test]
fn a_late_access_is_told_who_unmapped() {
    for translated in [false, true] {
        let mut rig = Rig::new(translated);
        rig.hear(say(What::Map, 1).at(0x1000, 64).to(Direction::FromDevice));
        assert_eq!(rig.access(WRITE, 0x1000, 64), Judgement::Fine);
        rig.hear(say(What::Unmap, 500).at(0x1000, 64).to(Direction::FromDevice).pid(812));
        let (class, text) = rig.explain(WRITE, 0x1000, 0x1000, 64);
        assert_eq!(class, "witness.stale");
        assert_eq!(
            text,
            "64 bytes at 0x1000 (DMA_FROM_DEVICE), unmapped 500.0 us earlier by pid 812 (insmod)"
        );
        assert_eq!(rig.witness.counters().live, 0);
    }
}

#[test]
fn without_an_iommu_the_same_memory_may_be_mapped_often() {
    let mut rig = Rig::new(false);
    let page = |ticket, kind| say(kind, ticket).at(0x1000, 4096).to(Direction::ToDevice);
    rig.hear(page(1, What::Map));
    rig.hear(page(2, What::Map));
    rig.hear(say(What::Map, 3).at(0x1800, 4096).to(Direction::FromDevice));
    rig.hear(page(4, What::Unmap));
    assert_eq!(rig.access(READ, 0x1000, 4096), Judgement::Fine);
    assert_eq!(rig.access(WRITE, 0x1800, 4096), Judgement::Fine);
    rig.hear(page(5, What::Unmap));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 64), "witness.stale");
    assert_eq!(rig.access(WRITE, 0x1800, 4096), Judgement::Fine);
}

#[test]
fn a_map_of_the_same_address_ends_the_older_one_in_its_domain() {
    let mut rig = Rig::new(true);
    rig.hear(say(What::Map, 1).at(0x1000, 4096).to(Direction::ToDevice));
    rig.hear(say(What::Map, 2).at(0x1000, 4096).to(Direction::ToDevice));
    // The late unmap of the first.
    rig.hear(say(What::Unmap, 3).at(0x1000, 4096).to(Direction::ToDevice));
    assert_eq!(rig.access(READ, 0x1000, 4096), Judgement::Fine);
    rig.hear(say(What::Unmap, 4).at(0x1000, 4096).to(Direction::ToDevice));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 1), "witness.stale");
    assert_eq!(rig.witness.counters().unknown_unmaps, 0);

    // Another function of the domain gets the address.
    rig.together = true;
    rig.hear(say(What::Map, 5).at(0x8000, 64).to(Direction::ToDevice));
    rig.hear(say(What::Map, 6).at(0x8040, 64).to(Direction::ToDevice).of(B).pid(9));
    let (class, text) = rig.explain(READ, 0x8000, 0x8000, 64);
    assert_eq!(class, "witness.stale");
    assert!(text.ends_with("mapped anew 994.0 us earlier by pid 9 (insmod)"), "{text}");
}

#[test]
fn what_the_iommu_does_not_translate_any_more_is_over_at_once() {
    let mut rig = Rig::new(true);
    rig.hear(say(What::Map, 1).at(0x1010, 64).to(Direction::ToDevice));
    let page = AddressRange::new(0x1000, 0x1000).unwrap();
    rig.witness.translation_ended(page, |function| function == A);
    assert_eq!(rig.class(READ, 0x1010, 0x1010, 64), "witness.stale");
    rig.hear(say(What::Map, 2).at(0x1010, 64).to(Direction::ToDevice));
    rig.hear(say(What::Unmap, 3).at(0x1010, 64).to(Direction::ToDevice));
    assert_eq!(rig.access(READ, 0x1010, 64), Judgement::Fine);
}

#[test]
fn pieces_that_were_linked_are_unlinked_together() {
    let mut rig = Rig::new(true);
    for page in 1..4 {
        rig.hear(say(What::Map, page).at(page << 12, 4096).to(Direction::Both).group(77));
    }
    rig.hear(say(What::Unmap, 9).at(0x1000, 0x3000).to(Direction::Both));
    assert_eq!(rig.class(READ, 0x2000, 0x2000, 8), "witness.stale");
    assert_eq!((rig.witness.counters().live, rig.witness.counters().unknown_unmaps), (0, 0));
}

#[test]
fn nothing_is_held_against_a_function_of_which_not_all_is_known() {
    let gap = |rig: &mut Rig, said: Said, expected: Gap| {
        rig.hear(said);
        assert_eq!(rig.access(READ, 0x9000, 8), Judgement::Fine);
        assert_eq!(rig.witness.counters().not_witnessed[expected as usize], 1, "{expected:?}");
        assert!(rig.witness.look(A, READ, 0x9000, 0x9000).is_none());
    };
    let mut rig = Rig::new(false);
    gap(&mut rig, say(What::Unbind, 1), Gap::NoDriver);
    gap(&mut rig, say(What::Bind, 2).flags(flags::UNSEEN), Gap::Unseen);
    gap(&mut rig, say(What::Gone, 3), Gap::BoundBefore);
    rig.hear(say(What::Bind, 4));
    assert_eq!(rig.class(READ, 0x9000, 0x9000, 8), "witness.unmapped");
    gap(&mut rig, say(What::Missed, 5).at(0, 1).of(FunctionId(u16::MAX)), Gap::Lost);
    rig.hear(say(What::Bind, 6));
    assert_eq!(rig.class(READ, 0x9000, 0x9000, 8), "witness.unmapped");
    rig.witness.set_physical(A, true);
    gap(&mut rig, say(What::Loaded, 7), Gap::Physical);
    rig.witness.detach();
    gap(&mut rig, say(What::Loaded, 8), Gap::NoWitness);
}

#[test]
fn mappings_that_are_left_behind_are_told_once() {
    let mut rig = Rig::new(false);
    rig.hear(say(What::Map, 1).at(0x1000, 64).to(Direction::ToDevice).pid(5));
    rig.hear(say(What::Map, 2).at(0x2000, 64).to(Direction::ToDevice));
    rig.hear(say(What::Unbind, 3));
    let notices = rig.witness.take_notices();
    assert!(
        matches!(notices[..], [Notice::Leaked { count: 2, bytes: 128, gone: false, .. }]),
        "{notices:?}"
    );
    let (_, _, explained) = notices[0].explain(1_000_000);
    assert_eq!(
        explained.text,
        "the driver left 2 mappings of 128 bytes behind, among them 64 bytes at 0x1000 \
         (DMA_TO_DEVICE), mapped 999.0 us earlier by pid 5 (insmod)"
    );
    rig.hear(say(What::Bind, 4));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 8), "witness.stale");
    rig.hear(say(What::Gone, 5));
    assert_eq!(rig.witness.take_notices(), []);
}

#[test]
fn a_mapping_for_another_function_is_named() {
    let mut rig = Rig::new(false);
    rig.hear(say(What::Map, 1).at(0x1000, 64).to(Direction::ToDevice).of(B).pid(5));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 8), "witness.unmapped");
    let (other, mapping) = rig.witness.mapped_for_another(A, 0x1020).unwrap();
    assert_eq!((other, mapping.event.pid), (B, 5));
    // A device without a PCI function.
    rig.hear(say(What::Map, 2).at(0x3000, 64).of(FunctionId(99)));
    assert_eq!(rig.witness.counters().elsewhere, 1);
}
