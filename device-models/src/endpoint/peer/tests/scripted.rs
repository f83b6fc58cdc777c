//! The engine access by access: held back, completed late, failed, not emitted.

use super::super::regs::{
    Descriptor, channel, channel_control, channel_status, flags, halt, opcode, state, status,
};
use super::bench::{FROM_LOCAL, TO_LOCAL, copy, pattern};
use super::rig::{Call, DATA, RECORDS, Reply, Rig};
use crate::endpoint::Progress;
use crate::fabric::{CompletionStatus, Purpose, Tag};

/// A copy from one remote place to another, with flush and interrupt: it passes through every
/// phase.
fn long_copy() -> Descriptor {
    copy(DATA, DATA + 0x10_0000, 70_000, flags::FLUSH | flags::INTERRUPT)
}

#[test]
fn the_accesses_of_a_copy_are_these_in_this_order() {
    let mut rig = Rig::new();
    rig.submit(0, long_copy());
    rig.run();
    let call = |write, purpose, address, length| Call { write, purpose, address, length };
    assert_eq!(
        rig.bus.calls,
        [
            call(false, Purpose::DescriptorFetch, 0, 64),
            call(false, Purpose::Data, DATA, 65_536),
            call(true, Purpose::Data, DATA + 0x10_0000, 65_536),
            call(false, Purpose::Data, DATA + 65_536, 4464),
            call(true, Purpose::Data, DATA + 0x11_0000, 4464),
            call(false, Purpose::Data, DATA + 0x10_0000 + 69_999, 1),
            // The sequence number is in the second part: a reader that sees it sees the whole
            // record.
            call(true, Purpose::CompletionRecord, RECORDS, 24),
            call(true, Purpose::CompletionRecord, RECORDS + 24, 8),
            call(true, Purpose::Interrupt, 0, 4),
        ]
    );
}

#[test]
fn what_is_held_back_goes_on_where_it_stopped() {
    let data = pattern(1, 70_000);
    // The script's replies go to the accesses above, each of which may be held back several times.
    for bytes in [0, 1, 7, 23] {
        let mut rig = Rig::new();
        rig.bus.memory[DATA as usize..][..70_000].copy_from_slice(&data);
        rig.submit(0, long_copy());
        for _ in 0..9 {
            rig.bus.replies.extend([Reply::Retry(bytes.min(1)), Reply::Retry(0), Reply::Done]);
        }
        rig.run();
        assert!(rig.bus.memory[DATA as usize + 0x10_0000..][..70_000] == data[..]);
        let record = rig.record(0, 0);
        assert_eq!(
            (record.status.get(), record.bytes.get(), record.sequence.get()),
            (0, 70_000, 1)
        );
        assert_eq!(record.cookie, long_copy().cookie);
    }
}

#[test]
fn a_read_that_completes_in_pieces_is_put_together() {
    let data = pattern(2, 5000);
    for flags in [TO_LOCAL, 0] {
        let mut rig = Rig::new();
        let target = if flags == TO_LOCAL { 3 } else { DATA + 0x10_0000 };
        rig.submit(0, copy(DATA, target, 5000, flags));
        rig.bus.memory[DATA as usize..][..5000].copy_from_slice(&data);
        rig.bus.replies = [Reply::Done, Reply::Pending(7, 100)].into();
        rig.run();
        assert_eq!(rig.read(0, channel::STATUS), state::BUSY);
        rig.complete(8, CompletionStatus::Success, &[0xff; 64]);
        rig.run();
        assert_eq!(
            rig.read(0, channel::STATUS),
            state::BUSY,
            "that completion belongs to another request"
        );
        rig.complete(7, CompletionStatus::Success, &data[100..356]);
        rig.bus.replies = [Reply::Pending(9, 0)].into();
        rig.run();
        assert_eq!(
            rig.bus.calls.last().map(|call| (call.address, call.length)),
            Some((DATA + 356, 4644))
        );
        rig.complete(9, CompletionStatus::Success, &data[356..]);
        // A completion longer than what was asked for has no place to go.
        rig.complete(9, CompletionStatus::Success, &[0xee; 4096]);
        rig.run();
        assert_eq!(rig.record(0, 0).bytes.get(), 5000);
        let mut moved = vec![0; 5000];
        if flags == TO_LOCAL {
            rig.device.local_memory().slice(3, 5000).unwrap().copy_to(&mut moved[..]);
        } else {
            moved.copy_from_slice(&rig.bus.memory[target as usize..][..5000]);
        }
        assert!(moved == data);
    }
}

#[test]
fn every_way_a_read_can_fail_has_its_status() {
    for (failure, expected) in [
        (CompletionStatus::UnsupportedRequest, status::UNSUPPORTED_REQUEST),
        (CompletionStatus::CompleterAbort, status::COMPLETER_ABORT),
        (CompletionStatus::Timeout, status::TIMEOUT),
    ] {
        // At once.
        let mut rig = Rig::new();
        rig.submit(0, copy(DATA, 0, 5000, TO_LOCAL));
        rig.bus.replies = [Reply::Done, Reply::Fail(failure, 1234)].into();
        rig.run();
        assert_eq!((rig.record(0, 0).status.get(), rig.record(0, 0).bytes.get()), (expected, 1234));
        assert_eq!(rig.read(0, channel::ERROR_LO), DATA as u32 + 1234);
        // Later.
        rig.submit(0, copy(DATA, 0, 5000, TO_LOCAL));
        rig.bus.replies = [Reply::Done, Reply::Pending(1, 40)].into();
        rig.run();
        rig.complete(1, failure, &[]);
        rig.run();
        assert_eq!((rig.record(0, 1).status.get(), rig.record(0, 1).bytes.get()), (expected, 40));
        // In the second operand of a comparison whose first was cut short already.
        rig.submit(0, Descriptor { opcode: opcode::COMPARE, ..copy(DATA, DATA, 5000, 0) });
        rig.bus.replies = [
            Reply::Done,
            Reply::Fail(CompletionStatus::CompleterAbort, 200),
            Reply::Fail(failure, 100),
        ]
        .into();
        rig.run();
        assert_eq!((rig.record(0, 2).status.get(), rig.record(0, 2).bytes.get()), (expected, 100));
    }
}

#[test]
fn every_way_a_descriptor_cannot_be_read_halts_with_its_reason() {
    for (failure, expected) in [
        (CompletionStatus::UnsupportedRequest, halt::FETCH_UNSUPPORTED),
        (CompletionStatus::CompleterAbort, halt::FETCH_ABORT),
        (CompletionStatus::Timeout, halt::FETCH_TIMEOUT),
    ] {
        for later in [false, true] {
            let mut rig = Rig::new();
            rig.submit(1, long_copy());
            rig.bus.replies =
                [if later { Reply::Pending(3, 0) } else { Reply::Fail(failure, 0) }].into();
            rig.run();
            if later {
                rig.complete(3, failure, &[]);
                rig.run();
            }
            assert_eq!(
                rig.read(1, channel::STATUS),
                state::HALTED | expected << channel_status::HALT_SHIFT
            );
            assert_eq!(rig.bus.calls.len(), 1, "nothing more is emitted");
            assert_eq!(rig.read(1, channel::HEAD), 0);
        }
    }
}

#[test]
fn bus_mastering_may_end_before_any_access_and_nothing_follows() {
    for access in 0..9 {
        let mut rig = Rig::new();
        rig.submit(0, long_copy());
        rig.bus.replies =
            std::iter::repeat_n(Reply::Done, access).chain([Reply::NotEmitted]).collect();
        rig.run();
        assert_eq!(rig.bus.calls.len(), access + 1);
        let expected = state::HALTED | halt::BUS_MASTER << channel_status::HALT_SHIFT;
        assert_eq!(rig.read(0, channel::STATUS), expected);
        let failed = rig.bus.calls[access];
        let address = if failed.purpose == Purpose::Interrupt { 0 } else { failed.address as u32 };
        assert_eq!(rig.read(0, channel::ERROR_LO), address);
        // The ring's other channels and a later reset work.
        rig.write(0, channel::CTRL, channel_control::RESET);
        rig.open(0);
        rig.submit(0, copy(DATA, 0, 10, TO_LOCAL));
        rig.run();
        assert_eq!(rig.record(0, 0).bytes.get(), 10);
    }
}

#[test]
fn an_abort_while_a_read_is_under_way_gives_it_up() {
    let mut rig = Rig::new();
    rig.submit(0, copy(DATA, 0, 5000, TO_LOCAL));
    rig.bus.replies = [Reply::Done, Reply::Pending(5, 60)].into();
    rig.run();
    rig.write(0, channel::CTRL, channel_control::ABORT);
    rig.run();
    assert_eq!(rig.bus.abandoned, [Tag(5)]);
    assert_eq!(
        (rig.record(0, 0).status.get(), rig.record(0, 0).bytes.get()),
        (status::ABORTED, 60)
    );
    // The same with a reset; the late completion must not become the next read's data.
    rig.write(0, channel::CTRL, channel_control::RESET);
    rig.open(0);
    rig.submit(0, copy(DATA, 0, 5000, TO_LOCAL));
    rig.bus.replies = [Reply::Done, Reply::Pending(6, 0)].into();
    rig.run();
    rig.write(0, channel::CTRL, channel_control::RESET);
    rig.open(0);
    rig.submit(0, copy(DATA, 0x100, 16, TO_LOCAL));
    rig.complete(6, CompletionStatus::Success, &[0xdd; 256]);
    rig.run();
    assert_eq!(rig.bus.abandoned, [Tag(5), Tag(6)]);
    let mut bytes = [0xffu8; 16];
    rig.device.local_memory().slice(0x100, 16).unwrap().copy_to(&mut bytes[..]);
    assert_eq!(bytes, [0; 16]);
}

#[test]
fn an_abort_before_the_descriptor_is_read_leaves_it_in_the_ring() {
    let mut rig = Rig::new();
    rig.submit(0, copy(DATA, 0, 16, TO_LOCAL));
    rig.bus.replies = [Reply::Pending(1, 0)].into();
    rig.run();
    rig.write(0, channel::CTRL, channel_control::ABORT);
    rig.run();
    assert_eq!((rig.read(0, channel::HEAD), rig.read(0, channel::COMPLETED)), (0, 0));
    rig.write(0, channel::CTRL, channel_control::ENABLE);
    rig.run();
    assert_eq!(rig.record(0, 0).bytes.get(), 16);
}

#[test]
fn a_step_moves_at_most_64_kib_in_at_most_64_accesses_and_no_channel_starves() {
    let mut rig = Rig::new();
    for _ in 0..15 {
        rig.submit(0, copy(0, DATA, 0x8_0000, FROM_LOCAL));
        rig.submit(1, copy(DATA, 0, 1, TO_LOCAL));
        rig.submit(2, copy(DATA, 0x1_0000, 60_000, TO_LOCAL));
        rig.submit(3, copy(0, 100, 40_000, FROM_LOCAL | TO_LOCAL));
    }
    for steps in 1.. {
        let before = rig.bus.calls.len();
        let progress = rig.step();
        let calls = &rig.bus.calls[before..];
        assert!(calls.len() <= 64);
        let data = calls.iter().map(|call| call.length).filter(|&length| length > 64);
        assert!(data.sum::<usize>() <= 64 << 10);
        if progress == Progress::Idle {
            break;
        }
        if steps == 100 {
            let done = [0, 1, 2, 3].map(|channel| rig.read(channel, channel::COMPLETED));
            assert!(
                done[0] >= 2 && done[1] == 15 && done[2] >= 10 && done[3] >= 10,
                "unfair: {done:?}"
            );
        }
    }
    assert_eq!([0, 1, 2, 3].map(|channel| rig.read(channel, channel::COMPLETED)), [15; 4]);
}

#[test]
fn small_work_is_bounded_by_the_number_of_accesses() {
    let mut rig = Rig::new();
    for channel in (0..4).cycle().take(60) {
        rig.submit(channel, copy(DATA, 0, 1, TO_LOCAL | flags::INTERRUPT));
    }
    let mut most = 0;
    loop {
        let before = rig.bus.calls.len();
        if rig.step() == Progress::Idle {
            break;
        }
        most = most.max(rig.bus.calls.len() - before);
    }
    assert_eq!(most, 64);
}

#[test]
fn a_channel_that_always_has_a_little_to_do_does_not_starve_one_that_has_much() {
    let mut rig = Rig::new();
    rig.submit(1, copy(0, DATA, 0x8_0000, FROM_LOCAL));
    for _ in 0..40 {
        // Every step finds a new doorbell on channel 0.
        rig.submit(0, Descriptor { opcode: opcode::NOP, ..Descriptor::default() });
        rig.step();
    }
    assert_eq!(rig.read(1, channel::COMPLETED), 1);
    assert!(rig.read(0, channel::COMPLETED) >= 20);
}
