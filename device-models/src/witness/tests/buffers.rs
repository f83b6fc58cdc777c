//! dma-bufs.

use super::*;
use crate::witness::Notice;

const ATTACHMENT: u64 = 0xffff_8880_0000_1000;
const ALL: u8 = flags::DYNAMIC | flags::PEER2PEER;

fn attached(flags: u8) -> Rig {
    let mut rig = Rig::new(true);
    rig.hear(say(What::Export, 1).buffer(42).of(FunctionId(u16::MAX)));
    rig.hear(say(What::Attach, 2).buffer(42).group(ATTACHMENT).flags(flags));
    rig
}

fn map(ticket: u64, address: u64) -> Said {
    let map = say(What::BufferMap, ticket).at(address, 0x2000).to(Direction::Both);
    map.buffer(42).group(ATTACHMENT)
}

fn unmap(ticket: u64, address: u64) -> Said {
    say(What::BufferUnmap, ticket).at(address, 0x2000).buffer(42).group(ATTACHMENT)
}

fn fence(kind: What, ticket: u64, fence: u64) -> Said {
    say(kind, ticket).at(fence, 0).buffer(42)
}

#[test]
fn the_table_takes_the_place_of_what_the_exporter_mapped() {
    let mut rig = attached(ALL);
    rig.hear(say(What::Map, 3).at(0x1000, 0x1000).to(Direction::Both));
    rig.hear(say(What::Map, 4).at(0x2000, 0x1000).to(Direction::Both));
    rig.hear(map(5, 0x1000));
    assert_eq!(rig.access(READ, 0x1000, 0x2000), Judgement::Fine, "one table");
    rig.hear(unmap(6, 0x1000).pid(4));
    // The exporter may keep its own mapping: it is not the importer's any more.
    let (class, text) = rig.explain(READ, 0x1000, 0x1000, 8);
    assert_eq!(class, "witness.stale");
    assert!(text.contains("unmapped 994.0 us earlier by pid 4"), "{text}");
    rig.hear(map(7, 0x1000));
    assert_eq!(rig.access(WRITE, 0x1000, 0x2000), Judgement::Fine, "a cached mapping");
    rig.hear(unmap(8, 0x1000));
    for (ticket, address) in [(9, 0x1000), (10, 0x2000)] {
        rig.hear(say(What::Unmap, ticket).at(address, 0x1000).to(Direction::Both));
    }
    assert_eq!((rig.witness.counters().live, rig.witness.counters().unknown_unmaps), (0, 0));
}

#[test]
fn after_a_move_and_its_fences_writes_are_mistakes_and_reads_are_not() {
    let mut rig = attached(ALL);
    rig.hear(map(3, 0x1000));
    rig.hear(fence(What::FenceAdd, 4, 0xf1));
    rig.hear(fence(What::FenceAdd, 5, 0xf2));
    assert_eq!(rig.access(WRITE, 0x1000, 64), Judgement::Fine);
    rig.hear(say(What::Invalidate, 6).buffer(42).pid(812));
    rig.hear(fence(What::FenceSignaled, 7, 0xf1));
    assert_eq!(rig.access(WRITE, 0x1000, 64), Judgement::Fine, "a fence is outstanding");
    // One that was added later is none that the exporter waits for.
    rig.hear(fence(What::FenceAdd, 8, 0xf3));
    rig.hear(fence(What::FenceSignaled, 9, 0xf2));
    let (class, text) = rig.explain(WRITE, 0x1000, 0x1000, 64);
    assert_eq!(class, "buffer.write-after-invalidate");
    assert!(text.contains("invalidated 994.0 us earlier by pid 812 (insmod)"), "{text}");
    assert_eq!(rig.access(READ, 0x1000, 0x2000), Judgement::Fine);
    // Mapped anew before the old one is unmapped.
    rig.hear(map(10, 0x5000));
    assert_eq!(rig.access(WRITE, 0x5000, 64), Judgement::Fine);
    rig.hear(unmap(11, 0x1000));
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 8), "witness.stale");
    assert_eq!(rig.access(WRITE, 0x5000, 64), Judgement::Fine);
}

#[test]
fn a_signalled_fence_alone_bounds_nothing_and_a_static_importer_does_not_move() {
    let mut rig = attached(ALL);
    rig.hear(map(3, 0x1000));
    rig.hear(fence(What::FenceAdd, 4, 0xf1));
    rig.hear(fence(What::FenceSignaled, 5, 0xf1));
    assert_eq!(rig.access(WRITE, 0x1000, 64), Judgement::Fine);
    rig.hear(say(What::Invalidate, 6).buffer(42));
    assert_eq!(rig.class(WRITE, 0x1000, 0x1000, 64), "buffer.write-after-invalidate");

    let mut rig = attached(flags::PEER2PEER);
    rig.hear(map(3, 0x1000));
    rig.hear(say(What::Invalidate, 6).buffer(42));
    assert_eq!(rig.access(WRITE, 0x1000, 64), Judgement::Fine);
}

#[test]
fn an_importer_without_peer_to_peer_is_noticed_when_it_is_mapped() {
    let mut rig = attached(flags::DYNAMIC);
    rig.hear(map(3, 0x1000));
    let notices = rig.witness.take_notices();
    let is_from = |notice: &Notice, peer: bool| match notice {
        Notice::Placed(placed) => placed.function == A && placed.takes_peer_to_peer == peer,
        _ => false,
    };
    assert!(notices.len() == 1 && is_from(&notices[0], false), "{notices:?}");
    // Of others it is looked up once where they lead to.
    let mut rig = attached(ALL);
    rig.hear(map(3, 0x1000));
    let notices = rig.witness.take_notices();
    assert!(notices.len() == 1 && is_from(&notices[0], true), "{notices:?}");
    rig.witness.found_in_device(42);
    rig.hear(map(4, 0x3000));
    assert_eq!(rig.witness.take_notices(), []);
}

#[test]
fn a_buffer_that_is_freed_while_mapped_is_noticed() {
    let mut rig = attached(ALL);
    rig.hear(map(3, 0x1000));
    rig.hear(say(What::Release, 4).buffer(42).pid(6));
    let notices = rig.witness.take_notices();
    let [Notice::Placed(_), Notice::Freed { attachment: ATTACHMENT, .. }] = notices[..] else {
        panic!("{notices:?}");
    };
    assert_eq!(rig.class(READ, 0x1000, 0x1000, 8), "witness.stale");

    let mut rig = attached(ALL);
    rig.hear(map(3, 0x1000));
    rig.hear(unmap(4, 0x1000));
    rig.hear(say(What::Release, 5).buffer(42));
    let notices = rig.witness.take_notices();
    assert!(matches!(notices[..], [Notice::Placed(_)]), "{notices:?}");
}
