//! What the device reports of errors, and what it cannot know.

use std::collections::BTreeSet;

use super::super::regs::{
    Descriptor, channel, channel_control, channel_status, flags, halt, opcode, state, status,
};
use super::bench::{
    Bench, DATA, ENTRIES, FROM_LOCAL, LOCAL_SIZE, NOWHERE, RAM_SIZE, Ring, TO_LOCAL, copy, pattern,
};
use crate::checker::FindingClass;

fn halted(bench: &mut Bench, ring: &Ring) -> u32 {
    let value = bench.channel_read(ring, channel::STATUS);
    assert_eq!(value & channel_status::STATE_MASK, state::HALTED);
    (value & channel_status::HALT_MASK) >> channel_status::HALT_SHIFT
}

fn error_address(bench: &mut Bench, ring: &Ring) -> u64 {
    u64::from(bench.channel_read(ring, channel::ERROR_HI)) << 32
        | u64::from(bench.channel_read(ring, channel::ERROR_LO))
}

#[test]
fn a_failed_read_has_a_status_and_the_exact_number_of_bytes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    // The last 70 001 bytes of RAM, and then nothing: more than one chunk.
    let source = RAM_SIZE - 70_001;
    let data = pattern(1, 70_001);
    bench.poke(source, &data);
    bench.poke(Bench::local(1), &data);
    for (opcode, destination, flags, cpu) in [
        (opcode::COPY, 0x100, TO_LOCAL, Some(Bench::local(0) + 0x100)),
        (opcode::COPY, DATA, 0, Some(DATA)),
        (opcode::CHECKSUM, 0, 0, None),
        (opcode::COMPARE, Bench::local(1), 0, None),
    ] {
        if let Some(cpu) = cpu {
            bench.poke(cpu, &[0x33; 100_000]);
        }
        let record = bench
            .submit(&mut ring, Descriptor { opcode, ..copy(source, destination, 100_000, flags) });
        assert_eq!(record.status.get(), status::UNSUPPORTED_REQUEST);
        assert_eq!((record.bytes.get(), record.result.get()), (70_001, 0));
        assert_eq!(error_address(&mut bench, &ring), RAM_SIZE);
        assert_eq!(bench.channel_read(&ring, channel::VERDICT), FindingClass::NoTarget.code());
        assert_eq!(bench.channel_read(&ring, channel::VERDICT_LO), RAM_SIZE as u32);
        assert_eq!(bench.findings(), [FindingClass::NoTarget]);
        if let Some(cpu) = cpu {
            let bytes = bench.bytes(cpu, 100_000);
            assert!(
                bytes[..70_001] == data[..],
                "what was read before the failure has been delivered"
            );
            assert!(bytes[70_001..].iter().all(|byte| *byte == 0x33));
        }
    }
    // The channel goes on.
    bench.succeed(&mut ring, copy(DATA, 0, 10, TO_LOCAL));
}

#[test]
fn a_failed_posted_write_is_known_to_the_lab_only() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let record = bench.submit(&mut ring, copy(0, NOWHERE, 0x2_0000, FROM_LOCAL));
    assert_eq!((record.status.get(), record.bytes.get()), (status::SUCCESS, 0x2_0000));
    assert_eq!(bench.channel_read(&ring, channel::VERDICT), FindingClass::NoTarget.code());
    assert_eq!(bench.channel_read(&ring, channel::VERDICT_COUNT), 2, "one per request of 64 KiB");
    assert_eq!(bench.channel_read(&ring, channel::VERDICT_LO), NOWHERE as u32);
    assert!(!bench.findings().is_empty());
    // The verdict is that of the last descriptor.
    bench.succeed(&mut ring, copy(0, DATA, 16, FROM_LOCAL));
}

#[test]
fn a_flush_finds_out_that_the_destination_is_not_there() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let record = bench.submit(&mut ring, copy(0, NOWHERE, 16, FROM_LOCAL | flags::FLUSH));
    assert_eq!((record.status.get(), record.bytes.get()), (status::UNSUPPORTED_REQUEST, 16));
    assert_eq!(error_address(&mut bench, &ring), NOWHERE + 15);
    assert_eq!(bench.findings(), [FindingClass::NoTarget; 2]);
    bench.succeed(&mut ring, copy(0, Bench::local(1) + 3, 16, FROM_LOCAL | flags::FLUSH));
}

#[test]
fn bad_descriptors_complete_as_such_and_move_nothing() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    bench.poke(DATA, &[0x5a; 64]);
    let good = copy(0, DATA, 64, FROM_LOCAL);
    for bad in [
        Descriptor { opcode: 0xff, ..good },
        Descriptor { flags: (FROM_LOCAL | 0x8000).into(), ..good },
        Descriptor { source: (LOCAL_SIZE - 63).into(), ..good },
        Descriptor { source: u64::MAX.into(), ..good },
        Descriptor { destination: (u64::MAX - 1).into(), ..good },
        Descriptor { length: u32::MAX.into(), ..good },
        Descriptor { reserved0: 1, ..good },
    ] {
        let record = bench.submit(&mut ring, bad);
        assert_eq!((record.status.get(), record.bytes.get()), (status::BAD_DESCRIPTOR, 0));
        assert_eq!(bench.channel_read(&ring, channel::VERDICT), FindingClass::BadDescriptor.code());
        assert_eq!(bench.findings(), [FindingClass::BadDescriptor]);
    }
    assert_eq!(bench.bytes(DATA, 64), [0x5a; 64]);
    // Interrupts of bad descriptors come too: their driver waits for them.
    bench.submit(&mut ring, Descriptor { opcode: 9, ..copy(0, 0, 0, flags::INTERRUPT) });
    assert_eq!(bench.interrupts(), [0]);
    assert_eq!(bench.findings(), [FindingClass::BadDescriptor]);
}

#[test]
fn different_mistakes_in_one_slot_have_different_causes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let good = copy(0, DATA, 64, FROM_LOCAL);
    // Once around the ring after each.
    let mut cause = |bad: Descriptor| {
        bench.submit(&mut ring, bad);
        for _ in 1..ENTRIES {
            bench.succeed(&mut ring, good);
        }
        let causes = bench.causes();
        assert_eq!(causes.len(), 1, "{causes:?}");
        causes[0].1
    };
    let mistakes = [
        Descriptor { opcode: 0xff, ..good },
        Descriptor { flags: (FROM_LOCAL | 0x8000).into(), ..good },
        Descriptor { source: (LOCAL_SIZE - 63).into(), ..good },
        Descriptor { destination: (u64::MAX - 1).into(), ..good },
        Descriptor { length: u32::MAX.into(), ..good },
        Descriptor { reserved0: 1, ..good },
    ];
    let causes: BTreeSet<_> = mistakes.iter().map(|bad| cause(*bad)).collect();
    assert_eq!(causes.len(), mistakes.len(), "{causes:?}");
    // The same once more is the same mistake.
    assert!(mistakes.iter().all(|bad| causes.contains(&cause(*bad))));
    assert!(causes.contains(&cause(Descriptor { opcode: 0xfe, ..good })));
}

#[test]
fn a_ring_that_cannot_be_used_halts_the_channel_when_it_is_enabled() {
    let mut bench = Bench::new();
    for (register, value) in [
        (channel::RING_LO, 0x1_0020),
        (channel::RECORD_LO, 0x1_0010),
        (channel::RING_SIZE, 0),
        (channel::RING_SIZE, 13),
        (channel::RING_SIZE, u32::MAX),
    ] {
        let ring = bench.open(0, 0);
        bench.channel_write(&ring, channel::CTRL, 0);
        bench.channel_write(&ring, register, value);
        bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
        assert_eq!(halted(&mut bench, &ring), halt::BAD_RING);
        assert_eq!(bench.channel_read(&ring, channel::CTRL), 0);
        // Only a reset helps.
        bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
        assert_eq!(halted(&mut bench, &ring), halt::BAD_RING);
    }
    // The end of the address space is not inside a ring.
    let ring = bench.open(0, 0);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RING_HI, u32::MAX);
    bench.channel_write(&ring, channel::RING_LO, u32::MAX - 63);
    bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
    assert_eq!(halted(&mut bench, &ring), halt::BAD_RING);
}

#[test]
fn setup_registers_do_not_change_while_the_channel_is_enabled() {
    let mut bench = Bench::new();
    let ring = bench.open(0, 0);
    for register in [
        channel::RING_LO,
        channel::RING_HI,
        channel::RING_SIZE,
        channel::RECORD_LO,
        channel::RECORD_HI,
        channel::VECTOR,
    ] {
        let before = bench.channel_read(&ring, register);
        bench.channel_write(&ring, register, !before);
        assert_eq!(bench.channel_read(&ring, register), before);
    }
}

#[test]
fn an_unreadable_descriptor_halts_the_channel() {
    let mut bench = Bench::new();
    let ring = bench.open(0, 0);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RING_LO, NOWHERE as u32);
    bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
    bench.channel_write(&ring, channel::TAIL, 3);
    bench.run();
    assert_eq!(halted(&mut bench, &ring), halt::FETCH_UNSUPPORTED);
    assert_eq!(error_address(&mut bench, &ring), NOWHERE);
    assert_eq!(bench.channel_read(&ring, channel::HEAD), 0);
    assert_eq!(bench.findings(), [FindingClass::NoTarget]);
    let mut ring = bench.open(0, 0);
    bench.succeed(&mut ring, copy(DATA, 0, 16, TO_LOCAL));
}

#[test]
fn without_bus_mastering_nothing_is_emitted_and_the_channel_halts() {
    let mut bench = Bench::new();
    for steps in [0, 1, 4] {
        let mut ring = bench.open(0, 0);
        bench.put(&mut ring, copy(0, DATA, 0x10_0000, FROM_LOCAL | flags::INTERRUPT));
        bench.doorbell(&ring);
        for _ in 0..steps {
            bench.system.step_function(bench.system.function("peer0").unwrap());
        }
        bench.system.config_write(Bench::bdf(0), 4, 2, 0x2);
        let issued = bench.system.transactions();
        bench.run();
        assert_eq!(bench.system.transactions(), issued, "nothing was emitted");
        assert!(bench.interrupts().is_empty());
        assert_eq!(bench.peek(&ring).sequence.get(), 0xaaaa_aaaa, "no record");
        assert_eq!(halted(&mut bench, &ring), halt::BUS_MASTER);
        assert_eq!(bench.findings(), [FindingClass::BusMasterOff]);
        bench.system.config_write(Bench::bdf(0), 4, 2, 0x6);
        bench.run();
        assert_eq!(
            bench.system.transactions(),
            issued,
            "the channel stays halted until it is reset"
        );
        let mut ring = bench.open(0, 0);
        bench.succeed(&mut ring, copy(0, DATA, 16, FROM_LOCAL));
    }
}

#[test]
fn the_record_of_a_ring_that_is_not_there_is_lost_like_any_posted_write() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RECORD_LO, NOWHERE as u32);
    bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
    bench.put(&mut ring, copy(0, DATA, 16, FROM_LOCAL | flags::INTERRUPT));
    bench.doorbell(&ring);
    bench.run();
    assert_eq!(bench.channel_read(&ring, channel::STATUS), state::IDLE);
    assert_eq!(bench.interrupts(), [0]);
    assert_eq!(bench.findings(), [FindingClass::NoTarget; 2]);
}

#[test]
fn a_vector_that_does_not_exist_is_not_an_interrupt() {
    let mut bench = Bench::new();
    for vector in [5, 0xffff, 0x1_0000, u32::MAX] {
        let mut ring = bench.open(0, 0);
        bench.channel_write(&ring, channel::CTRL, 0);
        bench.channel_write(&ring, channel::VECTOR, vector);
        bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
        bench.succeed(&mut ring, copy(0, DATA, 16, FROM_LOCAL | flags::INTERRUPT));
        assert!(bench.interrupts().is_empty());
    }
}
