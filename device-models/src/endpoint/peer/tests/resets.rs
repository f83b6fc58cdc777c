//! Abort, channel reset, device reset, function level reset.

use super::super::regs::{channel, channel_control, control, device, flags, state, status};
use super::bench::{Bench, DATA, FROM_LOCAL, Ring, TO_LOCAL, copy, pattern};
use crate::endpoint::Progress;
use crate::pci::Bdf;

const LENGTH: u32 = 0x20_0000;

/// A long copy from local memory to RAM that has got some way.
fn begin(bench: &mut Bench, ring: &mut Ring) {
    bench.poke(Bench::local(0), &pattern(2, LENGTH as usize));
    bench.poke(DATA, &vec![0; LENGTH as usize]);
    bench.put(ring, copy(0, DATA, LENGTH, FROM_LOCAL | flags::INTERRUPT));
    bench.doorbell(ring);
    while bench.bytes(DATA + 0x4_0000, 8) == [0; 8] {
        assert_eq!(bench.system.step(), Progress::Worked);
    }
    assert_eq!(bench.channel_read(ring, channel::STATUS), state::BUSY);
    let busy = bench.read32(Bench::registers(0) + device::BUSY);
    assert_eq!(busy, 1 << ring.channel);
}

/// Runs to rest and makes sure that no byte of the copy moved meanwhile.
fn no_more_data(bench: &mut Bench) {
    let before = bench.bytes(DATA, LENGTH as usize);
    bench.run();
    assert!(bench.bytes(DATA, LENGTH as usize) == before);
}

#[test]
fn abort_ends_the_descriptor_with_a_record() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 1);
    begin(&mut bench, &mut ring);
    bench.put(&mut ring, copy(DATA, 0, 16, TO_LOCAL));
    bench.doorbell(&ring);
    bench.channel_write(&ring, channel::CTRL, channel_control::ABORT);
    no_more_data(&mut bench);
    let record = bench.take(&mut ring);
    assert_eq!(record.status.get(), status::ABORTED);
    let moved = usize::try_from(record.bytes.get()).unwrap();
    assert!(bench.bytes(DATA, moved) == pattern(2, LENGTH as usize)[..moved]);
    assert_eq!(bench.bytes(DATA + moved as u64, 1), [0]);
    assert_eq!(bench.interrupts(), [1]);
    assert_eq!(bench.channel_read(&ring, channel::STATUS), state::DISABLED);
    // What was still in the ring is taken when the channel is enabled again.
    bench.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
    bench.run();
    assert_eq!(bench.take(&mut ring).status.get(), status::SUCCESS);
}

#[test]
fn disabling_finishes_the_descriptor_and_takes_no_more() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    begin(&mut bench, &mut ring);
    bench.put(&mut ring, copy(DATA, 0, 16, TO_LOCAL));
    bench.doorbell(&ring);
    bench.channel_write(&ring, channel::CTRL, 0);
    bench.channel_write(&ring, channel::RECORD_LO, 0);
    assert_ne!(bench.channel_read(&ring, channel::RECORD_LO), 0, "its record still goes there");
    bench.run();
    assert_eq!(bench.take(&mut ring).bytes.get(), u64::from(LENGTH));
    assert_eq!(bench.peek(&ring).sequence.get(), 0xaaaa_aaaa);
    assert_eq!(bench.channel_read(&ring, channel::STATUS), state::DISABLED);
}

#[test]
fn a_channel_reset_forgets_the_descriptor_and_leaves_other_channels_alone() {
    let mut bench = Bench::new();
    let (mut ring, mut other) = (bench.open(0, 0), bench.open(0, 1));
    begin(&mut bench, &mut ring);
    bench.put(&mut other, copy(DATA + 0x80_0000, 0x30_0000, 16, TO_LOCAL));
    bench.doorbell(&other);
    bench.channel_write(&ring, channel::CTRL, channel_control::RESET | channel_control::ENABLE);
    for register in [
        channel::CTRL,
        channel::STATUS,
        channel::HEAD,
        channel::TAIL,
        channel::RING_LO,
        channel::COMPLETED,
    ] {
        assert_eq!(bench.channel_read(&ring, register), 0);
    }
    no_more_data(&mut bench);
    assert_eq!(bench.peek(&ring).sequence.get(), 0xaaaa_aaaa, "no record");
    assert!(bench.interrupts().is_empty());
    assert_eq!(bench.take(&mut other).status.get(), status::SUCCESS);
}

#[test]
fn a_device_reset_resets_all_channels_and_keeps_the_local_memory() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 3);
    begin(&mut bench, &mut ring);
    bench.write32(Bench::registers(0) + device::SCRATCH_HI, 0x1234);
    bench.write32(Bench::registers(0) + device::CTRL, control::RESET);
    no_more_data(&mut bench);
    assert_eq!(bench.channel_read(&ring, channel::STATUS), state::DISABLED);
    assert_eq!(bench.read32(Bench::registers(0) + device::BUSY), 0);
    assert_eq!(bench.read32(Bench::registers(0) + device::SCRATCH_HI), 0x1234);
    assert!(bench.bytes(Bench::local(0), 0x1000) == pattern(2, LENGTH as usize)[..0x1000]);
}

#[test]
fn a_function_level_reset_in_mid_transfer_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let mut ring = bench.open(0, 0);
    begin(&mut bench, &mut ring);
    bench.write32(Bench::registers(0) + device::SCRATCH_LO, 0x1234);
    let express = bench.capability(0, 0x10);
    bench.system.config_write(Bench::bdf(0), express + 8, 2, 0x8000);
    assert_eq!(bench.read32(Bench::registers(0) + device::MAGIC), u32::MAX, "nothing answers");
    no_more_data(&mut bench);
    assert!(bench.interrupts().is_empty());
    assert_eq!(bench.peek(&ring).sequence.get(), 0xaaaa_aaaa, "no record");
    assert_eq!(bench.system.config_read(Bench::bdf(0), 4, 2), 0, "the command register is clear");

    bench.assign_device(0);
    assert_eq!(bench.read32(Bench::registers(0) + device::MAGIC), 0x414d_4450);
    assert_eq!(bench.read32(Bench::registers(0) + device::SCRATCH_LO), 0);
    assert!(bench.bytes(Bench::local(0), LENGTH as usize).iter().all(|byte| *byte == 0));
    let mut ring = bench.open(0, 0);
    assert_eq!(bench.succeed(&mut ring, copy(0, DATA, 64, FROM_LOCAL)).bytes.get(), 64);
}

#[test]
fn a_reset_drops_the_completion_of_a_read_under_way() {
    let mut bench = Bench::new();
    for reset in [0, 1] {
        let mut ring = bench.open(0, 0);
        bench.write32(Bench::registers(1) + device::SCRATCH_LO, 0xfeed_f00d);
        bench.poke(Bench::local(0), &[0; 64]);
        bench.put(&mut ring, copy(Bench::registers(1), 0, 64, TO_LOCAL));
        bench.doorbell(&ring);
        // Step only peer 0: the read stays under way in peer 1's inbox.
        let peer0 = bench.system.function("peer0").unwrap();
        while bench.system.step_function(peer0) == Progress::Worked {}
        let express = bench.capability(0, 0x10);
        let pending = |bench: &mut Bench| {
            bench.system.config_read(Bench::bdf(0), express + 10, 2) & 0x20 != 0
        };
        assert!(pending(&mut bench), "Transactions Pending");
        if reset == 0 {
            bench.channel_write(&ring, channel::CTRL, channel_control::RESET);
        } else {
            bench.system.config_write(Bench::bdf(0), express + 8, 2, 0x8000);
        }
        bench.run();
        assert!(!pending(&mut bench));
        assert_eq!(bench.bytes(Bench::local(0), 64), [0; 64], "the late completion went nowhere");
        bench.assign_device(0);
        let mut ring = bench.open(0, 0);
        bench.succeed(&mut ring, copy(Bench::registers(1) + device::SCRATCH_LO, 0, 4, TO_LOCAL));
        assert_eq!(bench.bytes(Bench::local(0), 4), 0xfeed_f00du32.to_le_bytes());
    }
}

/// However late its turn comes, software that has waited as long as it has to finds a device that
/// is ready.
#[test]
fn whoever_configures_a_device_finds_its_reset_over() {
    let (port, device) = (Bdf::new(0, 4, 0), Bench::bdf(0));
    let bridge_control = |bench: &mut Bench, value| bench.system.config_write(port, 0x3e, 2, value);
    let answers =
        |bench: &mut Bench| bench.read32(Bench::registers(0) + device::MAGIC) == 0x414d_4450;
    let ready = |bench: &mut Bench| {
        bench.assign_device(0);
        answers(bench)
    };
    // As far as it goes.
    let held = |bench: &mut Bench| {
        bench.system.config_write(device, 4, 2, 6);
        !answers(bench)
    };
    let mut bench = Bench::new();
    let express = bench.capability(0, 0x10);

    bench.system.config_write(device, express + 8, 2, 0x8000);
    assert!(ready(&mut bench), "after a function level reset");

    bridge_control(&mut bench, 0x40);
    assert!(held(&mut bench), "in reset as long as its port says so");
    bridge_control(&mut bench, 0);
    assert!(ready(&mut bench), "after a hot reset");

    bench.system.unplug(port).unwrap();
    assert!(held(&mut bench), "not there");
    bench.system.plug(port).unwrap();
    assert!(ready(&mut bench), "plugged in again");

    let mut ring = bench.open(0, 0);
    bench.succeed(&mut ring, copy(0, DATA, 64, FROM_LOCAL));
}
