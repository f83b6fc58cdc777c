//! DMA that lands in another device's registers.

use zerocopy::IntoBytes;

use super::super::regs::{channel, device, flags, status};
use super::bench::{Bench, DATA, ENTRIES, FROM_LOCAL, TO_LOCAL, copy};
use crate::checker::FindingClass;

#[test]
fn one_device_rings_the_others_doorbell() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (bench.open(0, 0), bench.open(1, 0));
    bench.poke(DATA, b"by way of a doorbell");
    bench.put(&mut b, copy(DATA, 0, 20, TO_LOCAL));
    bench.poke(Bench::local(0), &b.tail.to_le_bytes());
    bench.succeed(&mut a, copy(0, Bench::register(1, 0, channel::TAIL), 4, FROM_LOCAL));
    assert_eq!(bench.take(&mut b).status.get(), status::SUCCESS);
    assert_eq!(bench.bytes(Bench::local(1), 20), b"by way of a doorbell");
}

/// Every descriptor of each device rings the other's doorbell for one descriptor more.
#[test]
fn doorbells_that_ring_each_other_come_to_an_end() {
    let mut bench = Bench::new();
    let rings = [bench.open(0, 0), bench.open(1, 0)];
    for slot in 0..ENTRIES {
        bench.poke(DATA + u64::from(slot) * 4, &((slot + 2) % ENTRIES).to_le_bytes());
    }
    for (ring, other) in rings.iter().zip([1, 0]) {
        for slot in 0..u64::from(ENTRIES) {
            // Peer 1 lets peer 0 go one further; peer 0 lets peer 1 catch up.
            let value = if other == 1 {
                (slot + u64::from(ENTRIES) - 1) % u64::from(ENTRIES)
            } else {
                slot
            };
            let descriptor = copy(DATA + value * 4, Bench::register(other, 0, channel::TAIL), 4, 0);
            bench.poke(ring.descriptors() + slot * 64, descriptor.as_bytes());
        }
    }
    bench.channel_write(&rings[0], channel::TAIL, 1);
    bench.run();
    assert_eq!(bench.findings(), [FindingClass::HopLimit]);
    let done: Vec<u32> =
        rings.iter().map(|ring| bench.channel_read(ring, channel::COMPLETED)).collect();
    assert!(done.iter().all(|done| (20..=100).contains(done)), "the chain went some way: {done:?}");
    // The next one begins anew.
    bench.channel_write(&rings[0], channel::TAIL, done[0] % ENTRIES + 1);
    bench.run();
    assert!(bench.channel_read(&rings[0], channel::COMPLETED) > done[0]);
    assert_eq!(bench.findings(), [FindingClass::HopLimit]);
}

#[test]
fn a_device_cannot_ring_its_own_doorbell_through_its_root_port() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let record =
        bench.submit(&mut ring, copy(0, Bench::register(0, 0, channel::TAIL), 4, FROM_LOCAL));
    assert_eq!(record.status.get(), status::SUCCESS, "posted");
    assert_eq!(bench.channel_read(&ring, channel::VERDICT), FindingClass::TurnedBack.code());
    assert_eq!(bench.findings(), [FindingClass::TurnedBack]);
}

#[test]
fn devices_read_each_others_registers_at_once() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (bench.open(0, 0), bench.open(1, 1));
    for (peer, value) in [(0, 0x0a0a_0a0a), (1, 0x0b0b_0b0b)] {
        bench.write32(Bench::registers(peer) + device::SCRATCH_LO, value);
    }
    for _ in 0..ENTRIES - 1 {
        // More than one request, from an odd address, past registers that do not exist.
        bench.put(&mut a, copy(Bench::registers(1) + 1, 1, 0x1fff, TO_LOCAL));
        bench.put(&mut b, copy(Bench::registers(0) + 1, 1, 0x1fff, TO_LOCAL));
    }
    bench.doorbell(&a);
    bench.doorbell(&b);
    bench.run();
    for _ in 0..ENTRIES - 1 {
        assert_eq!(bench.take(&mut a).status.get(), status::SUCCESS);
        assert_eq!(bench.take(&mut b).status.get(), status::SUCCESS);
    }
    for (peer, value) in [(0, 0x0b0b_0b0bu32), (1, 0x0a0a_0a0a)] {
        let copied = bench.bytes(Bench::local(peer), 0x2000);
        assert_eq!(copied[0x28..0x2c], value.to_le_bytes());
        assert_eq!(copied[1..8], [0x44, 0x4d, 0x41, 0, 0, 1, 0]);
        assert_eq!(copied[0x100], 0xff, "no register");
    }
}

#[test]
fn a_read_does_not_pass_the_write_before_it() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let scratch = Bench::registers(1) + device::SCRATCH_LO;
    for round in 1u8..7 {
        bench.poke(Bench::local(0), &[round; 8]);
        bench.put(&mut ring, copy(0, scratch, 8, FROM_LOCAL));
        bench.put(&mut ring, copy(scratch, 64, 8, TO_LOCAL));
        bench.doorbell(&ring);
        bench.run();
        bench.take(&mut ring);
        bench.take(&mut ring);
        assert_eq!(bench.bytes(Bench::local(0) + 64, 8), [round; 8]);
    }
    // And so a flush of a register write waits until it has landed.
    bench.poke(Bench::local(0), &[0xee; 8]);
    bench.put(&mut ring, copy(0, scratch, 8, FROM_LOCAL | flags::FLUSH));
    bench.doorbell(&ring);
    while bench.peek(&ring).sequence.get() != ring.sequence + 1 {
        bench.system.step();
    }
    assert_eq!(bench.read32(scratch), 0xeeee_eeee);
}

#[test]
fn parts_of_registers_can_be_written() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    let scratch = Bench::registers(1) + device::SCRATCH_LO;
    bench.write32(scratch, 0x1111_1111);
    bench.write32(scratch + 4, 0x2222_2222);
    bench.poke(Bench::local(0), &[0xaa, 0xbb, 0xcc]);
    bench.succeed(&mut ring, copy(0, scratch + 3, 3, FROM_LOCAL));
    assert_eq!(bench.read32(scratch), 0xaa11_1111);
    assert_eq!(bench.read32(scratch + 4), 0x2222_ccbb);
}

#[test]
fn a_ring_of_descriptors_in_registers_or_in_the_others_memory_works_like_any_other() {
    let mut bench = Bench::new();
    // In the memory of peer 1.
    let mut ring = bench.open(0, 0);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RING_LO, (Bench::local(1) & 0xffff_ffff) as u32);
    bench.channel_write(&ring, channel::RING_HI, (Bench::local(1) >> 32) as u32);
    bench.channel_write(&ring, channel::CTRL, 1);
    bench.poke(DATA, b"ring in a peer");
    bench.poke(Bench::local(1), copy(DATA, 0, 14, TO_LOCAL).as_bytes());
    ring.tail = 1;
    bench.doorbell(&ring);
    bench.run();
    assert_eq!(bench.take(&mut ring).status.get(), status::SUCCESS);
    assert_eq!(bench.bytes(Bench::local(0), 14), b"ring in a peer");

    // In the registers of peer 1: nonsense, but it is read, and refused.
    let mut ring = bench.open(0, 0);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RING_LO, Bench::registers(1) as u32);
    bench.channel_write(&ring, channel::CTRL, 1);
    ring.tail = 1;
    bench.doorbell(&ring);
    bench.run();
    assert_eq!(bench.take(&mut ring).status.get(), status::BAD_DESCRIPTOR);
    assert_eq!(bench.findings(), [FindingClass::BadDescriptor]);
}
