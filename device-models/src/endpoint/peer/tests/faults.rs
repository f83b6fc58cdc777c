//! Misbehaviour on demand: one fault for each request.

use super::super::regs::{channel, control, device, fault, flags, status};
use super::bench::{Bench, DATA, ENTRIES, FROM_LOCAL, NOWHERE, Ring, TO_LOCAL, copy, pattern};
use crate::checker::FindingClass;
use crate::endpoint::Progress;

fn arm(bench: &mut Bench, ring: &Ring, kind: u32, argument: u32, address: u64) {
    bench.channel_write(ring, channel::FAULT_ARG, argument);
    bench.channel_write(ring, channel::FAULT_LO, (address & 0xffff_ffff) as u32);
    bench.channel_write(ring, channel::FAULT_HI, (address >> 32) as u32);
    bench.channel_write(ring, channel::FAULT, kind);
    assert_eq!(bench.channel_read(ring, channel::FAULT), kind);
}

/// The fault is over: an ordinary copy goes well.
fn over(bench: &mut Bench, ring: &mut Ring) {
    assert_eq!(bench.channel_read(ring, channel::FAULT), fault::NONE);
    bench.poke(DATA, &pattern(8, 100));
    bench.succeed(ring, copy(DATA, 0x10_0000, 100, TO_LOCAL));
    assert_eq!(bench.bytes(Bench::local(0) + 0x10_0000, 100), pattern(8, 100));
}

#[test]
fn a_refused_completion_never_comes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    arm(&mut bench, &ring, fault::REFUSE_COMPLETION, 0, 0);
    bench.poke(DATA, b"done");
    bench.put(&mut ring, copy(DATA, 0, 4, TO_LOCAL | flags::INTERRUPT));
    bench.doorbell(&ring);
    bench.run();
    assert_eq!(bench.bytes(Bench::local(0), 4), b"done", "the work itself is done");
    assert_eq!(bench.peek(&ring).sequence.get(), 0xaaaa_aaaa);
    assert!(bench.interrupts().is_empty());
    assert_eq!(bench.channel_read(&ring, channel::HEAD), 1);
    assert_eq!(bench.channel_read(&ring, channel::COMPLETED), 0);
    ring.sequence += 1;
    over(&mut bench, &mut ring);
}

#[test]
fn a_delayed_completion_comes_that_many_steps_later() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let mut steps = |delay| {
        arm(&mut bench, &ring, fault::DELAY_COMPLETION, delay, 0);
        bench.put(&mut ring, copy(DATA, 0, 4, TO_LOCAL));
        bench.doorbell(&ring);
        let mut steps = 0u32;
        while bench.system.step() == Progress::Worked {
            steps += 1;
        }
        bench.take(&mut ring);
        steps
    };
    let usual = steps(0);
    assert_eq!(steps(40), usual + 40);
    over(&mut bench, &mut ring);
}

#[test]
fn a_corrupt_cookie_is_inverted() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    arm(&mut bench, &ring, fault::CORRUPT_COOKIE, 0, 0);
    let descriptor = copy(DATA, 0, 4, TO_LOCAL);
    bench.put(&mut ring, descriptor);
    bench.doorbell(&ring);
    bench.run();
    assert_eq!(bench.take(&mut ring).cookie.get(), !descriptor.cookie.get());
    over(&mut bench, &mut ring);
}

#[test]
fn corrupt_data_differs_in_its_first_byte_wherever_it_goes() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let data = pattern(5, 100_000);
    for (source, destination, flags, cpu) in [
        (DATA, 0x10_0000, TO_LOCAL, Bench::local(0) + 0x10_0000),
        (0, DATA + 0x10_0000, FROM_LOCAL, DATA + 0x10_0000),
        (0, 0x10_0000, FROM_LOCAL | TO_LOCAL, Bench::local(0) + 0x10_0000),
        (DATA, Bench::local(1), 0, Bench::local(1)),
    ] {
        bench.poke(DATA, &data);
        bench.poke(Bench::local(0), &data);
        arm(&mut bench, &ring, fault::CORRUPT_DATA, 0x180, 0);
        bench.succeed(&mut ring, copy(source, destination, 100_000, flags));
        let moved = bench.bytes(cpu, 100_000);
        assert_eq!(moved[0], data[0] ^ 0x80);
        assert!(moved[1..] == data[1..]);
        over(&mut bench, &mut ring);
    }
}

#[test]
fn a_stray_write_goes_where_nobody_asked_for_it() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    bench.poke(DATA + 0x1000, &[0; 66]);
    arm(&mut bench, &ring, fault::STRAY_WRITE, 0x5c, DATA + 0x1001);
    bench.succeed(&mut ring, copy(DATA, 0, 4, TO_LOCAL));
    let bytes = bench.bytes(DATA + 0x1000, 66);
    assert_eq!((bytes[0], bytes[65]), (0, 0));
    assert_eq!(bytes[1..65], [0x5c; 64]);
    over(&mut bench, &mut ring);

    arm(&mut bench, &ring, fault::STRAY_WRITE, 0, NOWHERE);
    let record = bench.submit(&mut ring, copy(DATA, 0, 4, TO_LOCAL));
    assert_eq!(record.status.get(), status::SUCCESS, "the device does not know that it strayed");
    assert_eq!(bench.channel_read(&ring, channel::VERDICT), FindingClass::NoTarget.code());
    assert_eq!(bench.findings(), [FindingClass::NoTarget]);
    over(&mut bench, &mut ring);
    assert_ne!(ring.tail, ENTRIES);
}

#[test]
fn data_that_is_kept_arrives_after_its_completion() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let data = pattern(3, 5000);
    for target in [DATA + 0x10_0000, Bench::local(1)] {
        bench.poke(Bench::local(0), &data);
        bench.poke(target, &[0; 5000]);
        arm(&mut bench, &ring, fault::WRITE_BACK, 40, 0);
        bench.put(&mut ring, copy(0, target, 5000, FROM_LOCAL));
        bench.doorbell(&ring);
        let mut seen = false;
        let mut late = 0;
        while bench.system.step() == Progress::Worked {
            if bench.channel_read(&ring, channel::COMPLETED) == ring.sequence + 1 {
                seen = true;
                late += u32::from(bench.bytes(target, 5000) != data);
            }
        }
        assert!(seen && late >= 38, "{late} steps between the record and the data");
        assert_eq!(bench.take(&mut ring).status.get(), status::SUCCESS);
        assert!(bench.bytes(target, 5000) == data);
        over(&mut bench, &mut ring);
    }
}

#[test]
fn data_that_is_kept_waits_for_a_read_the_next_descriptor_or_a_sync() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let (data, target) = (pattern(4, 100_000), DATA + 0x10_0000);
    let write = |bench: &mut Bench, ring: &mut Ring, flags| {
        bench.poke(Bench::local(0), &data);
        bench.poke(target, &[0; 100_000]);
        arm(bench, ring, fault::WRITE_BACK, 0, 0);
        bench.succeed(ring, copy(0, target, 100_000, FROM_LOCAL | flags));
        let there = bench.bytes(target, 100_000);
        assert!(there[..65_536] == data[..65_536], "only the last chunk is kept");
        there == data
    };
    let arrived = |bench: &mut Bench| bench.bytes(target, 100_000) == pattern(4, 100_000);
    assert!(write(&mut bench, &mut ring, flags::FLUSH), "the flush's read brings it there");
    assert!(!write(&mut bench, &mut ring, 0));
    bench.run();
    assert!(!arrived(&mut bench), "nothing happens by itself");
    assert_eq!(bench.read32(Bench::registers(0) + device::CTRL), control::SYNC);
    bench.write32(Bench::registers(0) + device::CTRL, control::SYNC);
    bench.run();
    assert!(arrived(&mut bench));
    assert_eq!(bench.read32(Bench::registers(0) + device::CTRL), 0);
    assert!(!write(&mut bench, &mut ring, 0));
    over(&mut bench, &mut ring);
    assert!(arrived(&mut bench), "the next descriptor is read after it");
    // A reset forgets it, as it forgets everything that was not sent.
    assert!(!write(&mut bench, &mut ring, 0));
    bench.write32(Bench::registers(0) + device::CTRL, control::RESET);
    bench.run();
    assert!(!arrived(&mut bench));
}
