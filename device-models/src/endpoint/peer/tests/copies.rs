//! What the engine moves when nothing goes wrong.

use proptest::prelude::*;

use super::super::regs::{Descriptor, channel, flags, opcode, status};
use super::bench::{Bench, DATA, ENTRIES, FROM_LOCAL, LOCAL_SIZE, TO_LOCAL, copy, pattern};

/// Where a side of a copy can be, from the point of view of peer 0.
#[derive(Debug, Clone, Copy)]
enum Side {
    Local,
    Ram,
    Peer,
}

const SIDES: [Side; 3] = [Side::Local, Side::Ram, Side::Peer];

impl Side {
    /// (what the descriptor says, what the CPU says)
    fn addresses(self, offset: u64) -> (u64, u64) {
        match self {
            Self::Local => (offset, Bench::local(0) + offset),
            Self::Ram => (DATA + offset, DATA + offset),
            Self::Peer => (Bench::local(1) + offset, Bench::local(1) + offset),
        }
    }
}

fn check(bench: &mut Bench, from: Side, to: Side, source: u64, destination: u64, length: usize) {
    let mut ring = bench.open(0, 0);
    let (source, source_cpu) = from.addresses(source);
    let (destination, destination_cpu) = to.addresses(destination);
    let data = pattern(length as u32, length);
    bench.poke(destination_cpu - 1, &vec![0x55; length + 2]);
    bench.poke(source_cpu, &data);
    let mut flags = 0;
    if matches!(from, Side::Local) {
        flags |= FROM_LOCAL;
    }
    if matches!(to, Side::Local) {
        flags |= TO_LOCAL;
    }
    let record = bench.succeed(&mut ring, copy(source, destination, length as u32, flags));
    assert_eq!(record.bytes.get(), length as u64);
    let around = bench.bytes(destination_cpu - 1, length + 2);
    assert!(around[1..=length] == data[..], "{from:?} to {to:?}: wrong bytes");
    assert_eq!(
        (around[0], around[length + 1]),
        (0x55, 0x55),
        "{from:?} to {to:?}: bytes beside the destination"
    );
}

#[test]
fn every_combination_of_places_moves_every_size() {
    let mut bench = Bench::new();
    for (from, to) in SIDES.into_iter().flat_map(|from| SIDES.map(|to| (from, to))) {
        for length in [1, 2, 7, 64, 255, 4096, 4097, 65_535, 65_536, 65_537, 200_001] {
            check(&mut bench, from, to, 0x10_0001, 0x20_0fff, length);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_offsets_and_sizes(
        from in 0usize..3, to in 0usize..3, source in 1u64..0x8000, destination in 1u64..0x8000, length in 1usize..150_000,
    ) {
        check(&mut Bench::new(), SIDES[from], SIDES[to], source, 0x10_0000 + destination, length);
    }
}

#[test]
fn all_of_the_local_memory_is_one_copy() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    bench.poke(Bench::local(0), &pattern(3, 0x1000));
    bench.poke(Bench::local(0) + LOCAL_SIZE - 8, b"the end.");
    let record =
        bench.succeed(&mut ring, copy(0, DATA, u32::try_from(LOCAL_SIZE).unwrap(), FROM_LOCAL));
    assert_eq!(record.bytes.get(), LOCAL_SIZE);
    assert_eq!(bench.bytes(DATA, 0x1000), pattern(3, 0x1000));
    assert_eq!(bench.bytes(DATA + LOCAL_SIZE - 8, 8), b"the end.");
}

#[test]
fn a_copy_of_nothing_completes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    for flags in [0, FROM_LOCAL, TO_LOCAL, flags::FLUSH] {
        assert_eq!(
            bench.succeed(&mut ring, copy(DATA, DATA, 0, flags & flags::FLUSH)).bytes.get(),
            0
        );
    }
    assert_eq!(
        bench
            .succeed(&mut ring, Descriptor { opcode: opcode::NOP, ..copy(1, 2, 3, 0) })
            .bytes
            .get(),
        0
    );
}

#[test]
fn overlapping_local_copies_downwards_are_right() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let data = pattern(9, 150_000);
    bench.poke(Bench::local(0) + 100, &data);
    bench.succeed(&mut ring, copy(100, 0, 150_000, FROM_LOCAL | TO_LOCAL));
    assert!(bench.bytes(Bench::local(0), 150_000) == data);
}

#[test]
fn fill_repeats_its_eight_bytes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    for (destination, cpu, flags) in [(DATA + 3, DATA + 3, 0), (3, Bench::local(0) + 3, TO_LOCAL)] {
        let fill = Descriptor {
            opcode: opcode::FILL,
            pattern: 0x0807_0605_0403_0201.into(),
            ..copy(u64::MAX, destination, 100_001, flags)
        };
        bench.poke(cpu, &vec![0x77; 100_002]);
        assert_eq!(bench.succeed(&mut ring, fill).bytes.get(), 100_001);
        let bytes = bench.bytes(cpu, 100_002);
        assert!(
            bytes[..100_001]
                .iter()
                .enumerate()
                .all(|(index, byte)| usize::from(*byte) == index % 8 + 1)
        );
        assert_eq!(bytes[100_001], 0x77);
    }
}

#[test]
fn checksum_is_crc32c_and_can_be_continued() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    // The check value of CRC-32C in every catalogue.
    bench.poke(DATA, b"123456789");
    let mut checksum = |source, length, flags, initial: u32| {
        let descriptor = Descriptor {
            opcode: opcode::CHECKSUM,
            pattern: u64::from(initial).into(),
            ..copy(source, 0, length, flags)
        };
        bench.succeed(&mut ring, descriptor).result.get() as u32
    };
    assert_eq!(checksum(DATA, 9, 0, 0), 0xe306_9283);
    let first = checksum(DATA, 4, 0, 0);
    assert_eq!(checksum(DATA + 4, 5, 0, first), 0xe306_9283);
    assert_eq!(checksum(DATA, 0, 0, first), first);

    let data = pattern(4, 200_003);
    bench.poke(Bench::local(0) + 5, &data);
    let descriptor = Descriptor { opcode: opcode::CHECKSUM, ..copy(5, 0, 200_003, FROM_LOCAL) };
    assert_eq!(bench.succeed(&mut ring, descriptor).result.get(), u64::from(crc32c::crc32c(&data)));
}

#[test]
fn compare_tells_the_first_difference() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let data = pattern(5, 100_000);
    bench.poke(DATA, &data);
    bench.poke(Bench::local(1), &data);
    let compare = Descriptor { opcode: opcode::COMPARE, ..copy(DATA, Bench::local(1), 100_000, 0) };
    assert_eq!(bench.succeed(&mut ring, compare).bytes.get(), 100_000);
    for difference in [0, 32_767, 32_768, 99_999] {
        let wrong = [!data[difference]];
        bench.poke(Bench::local(1) + difference as u64, &wrong);
        let record = bench.submit(&mut ring, compare);
        assert_eq!(record.status.get(), status::MISMATCH);
        assert_eq!(
            (record.result.get(), record.bytes.get()),
            (difference as u64, difference as u64)
        );
        bench.poke(Bench::local(1) + difference as u64, &data[difference..=difference]);
    }
}

#[test]
fn a_ring_wraps_and_stays_in_order() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 2);
    let mut submitted = 0u32;
    for round in 0..10 {
        // A full ring: one slot stays unused.
        let count = if round % 2 == 0 { ENTRIES - 1 } else { 3 };
        for _ in 0..count {
            submitted += 1;
            let mut descriptor = copy(DATA, u64::from(submitted), 1, TO_LOCAL);
            descriptor.cookie = u64::from(submitted).into();
            bench.put(&mut ring, descriptor);
        }
        bench.doorbell(&ring);
        bench.run();
        for _ in 0..count {
            let record = bench.take(&mut ring);
            assert_eq!(record.cookie.get(), u64::from(ring.sequence));
        }
    }
    assert_eq!(bench.channel_read(&ring, channel::COMPLETED), submitted);
    assert_eq!(bench.channel_read(&ring, channel::HEAD), submitted % ENTRIES);
}

#[test]
fn interrupts_come_where_asked_for_and_after_the_record() {
    let mut bench = Bench::new();
    let mut ring = bench.open(1, 3);
    for index in 0..7u16 {
        let flags = if index % 2 == 0 { flags::INTERRUPT } else { 0 };
        bench.put(&mut ring, copy(DATA, 0, 64, flags | TO_LOCAL));
    }
    bench.doorbell(&ring);
    let mut seen = 0;
    loop {
        let progress = bench.system.step();
        for data in bench.interrupts() {
            assert_eq!(data, 0x13, "vector 3 of peer 1");
            seen += 1;
            // Descriptors 0, 2, 4, 6 ask, so the n-th interrupt finds at least 2n - 1 records.
            assert!(bench.channel_read(&ring, channel::COMPLETED) >= 2 * seen - 1);
        }
        if progress == crate::endpoint::Progress::Idle {
            break;
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn scatter_through_several_descriptors_and_two_channels_at_once() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (bench.open(0, 0), bench.open(0, 1));
    let data = pattern(6, 7 * 0x3_0001);
    bench.poke(Bench::local(0), &data[..0x10_0000]);
    for index in 0..7u64 {
        let length = 0x3_0001;
        let scattered = DATA + 0x80_0000 + index * 0x10_0000 + index;
        bench.poke(DATA + index * 0x4_0000, &data[..length]);
        bench.put(&mut a, copy(index * 0x1_0003, scattered, 0x1_0003, FROM_LOCAL));
        bench.put(
            &mut b,
            copy(DATA + index * 0x4_0000, Bench::local(1) + index * 0x4_0000, length as u32, 0),
        );
    }
    bench.doorbell(&a);
    bench.doorbell(&b);
    // Neither channel waits for the other to finish.
    while bench.channel_read(&a, channel::COMPLETED) < 6 {
        bench.system.step();
    }
    assert!(bench.channel_read(&b, channel::HEAD) >= 1);
    assert!(bench.channel_read(&b, channel::COMPLETED) < 6);
    bench.run();
    for index in 0..7usize {
        assert_eq!(bench.take(&mut a).status.get(), status::SUCCESS);
        assert_eq!(bench.take(&mut b).status.get(), status::SUCCESS);
        let scattered = bench.bytes(DATA + 0x80_0000 + index as u64 * 0x10_0001, 0x1_0003);
        assert!(scattered == data[index * 0x1_0003..][..0x1_0003]);
        assert!(
            bench.bytes(Bench::local(1) + index as u64 * 0x4_0000, 0x3_0001) == data[..0x3_0001]
        );
    }
}

#[test]
fn a_descriptor_is_read_once() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    bench.poke(Bench::local(0), &pattern(7, 0x10_0000));
    bench.poke(DATA + 0x80_0000, &[0x11; 0x1000]);
    bench.put(&mut ring, copy(0, DATA, 0x10_0000, FROM_LOCAL));
    bench.doorbell(&ring);
    while bench.channel_read(&ring, channel::HEAD) == 0 {
        bench.system.step();
    }
    // The guest changes its mind while the copy is under way.
    bench.poke(
        ring.descriptors(),
        zerocopy::IntoBytes::as_bytes(&copy(0, DATA + 0x80_0000, 0x1000, FROM_LOCAL)),
    );
    bench.run();
    assert_eq!(bench.take(&mut ring).bytes.get(), 0x10_0000);
    assert!(bench.bytes(DATA, 0x10_0000) == pattern(7, 0x10_0000));
    assert_eq!(bench.bytes(DATA + 0x80_0000, 0x1000), [0x11; 0x1000]);
}
