//! Negotiation, registers, interrupts and the window.

use crate::checker::FindingClass;

use super::super::spec::{NO_VECTOR, Status, TransportFeatures, common};
use super::driver::{Driver, IOMMU, Machine, NEXT, RNG, needed};

#[test]
fn identity_is_that_of_a_modern_device() {
    let mut machine = Machine::new();
    let system = &mut machine.system;
    assert_eq!(system.config_read(IOMMU, 0, 4), 0x1057_1af4);
    assert_eq!(system.config_read(RNG, 0, 4), 0x1044_1af4);
    assert_eq!(system.config_read(IOMMU, 8, 4), 0x0806_0001);
    assert_eq!(system.config_read(RNG, 8, 4), 0x0880_0001);
}

#[test]
fn features_are_agreed_or_not() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, RNG);
    let offered = driver.offered(&mut machine);
    assert_eq!(offered, needed() | TransportFeatures::RING_RESET.bits());
    assert!(driver.negotiate(&mut machine, offered));
    assert!(driver.negotiate(&mut machine, needed()));
    assert!(!driver.negotiate(&mut machine, 0), "a legacy driver");
    assert!(
        !driver.negotiate(&mut machine, TransportFeatures::VERSION_1.bits()),
        "addresses would mean nothing"
    );
    assert!(!driver.negotiate(&mut machine, needed() | 1), "not offered");
    driver.reset(&mut machine);
    driver.write(&mut machine, common::DRIVER_FEATURE_SELECT, 4, 2);
    driver.write(&mut machine, common::DRIVER_FEATURE, 4, 1);
    assert!(
        !driver.set_status(&mut machine, Status::FEATURES_OK).contains(Status::FEATURES_OK),
        "not even a bit"
    );
    let status = driver.set_status(&mut machine, Status::DRIVER_OK);
    assert!(!status.contains(Status::DRIVER_OK), "not without features");
}

#[test]
fn features_are_settled_once() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, RNG);
    assert!(driver.negotiate(&mut machine, needed()));
    driver.write(&mut machine, common::DRIVER_FEATURE_SELECT, 4, 0);
    driver.write(&mut machine, common::DRIVER_FEATURE, 4, 0xffff_ffff);
    assert_eq!(driver.read(&mut machine, common::DRIVER_FEATURE, 4), 0);
    driver.write(&mut machine, common::DEVICE_STATUS, 1, Status::NEEDS_RESET.bits().into());
    assert!(
        !driver.status(&mut machine).contains(Status::NEEDS_RESET),
        "that is the device's to say"
    );
    assert!(
        driver.status(&mut machine).contains(Status::FEATURES_OK),
        "a bit is cleared by a reset only"
    );
}

#[test]
fn queue_registers_keep_to_the_rules() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    assert_eq!(driver.read(&mut machine, common::NUM_QUEUES, 2), 2);
    driver.write(&mut machine, common::QUEUE_SELECT, 2, 2);
    assert_eq!(driver.read(&mut machine, common::QUEUE_SIZE, 2), 0, "no such queue");
    driver.write(&mut machine, common::QUEUE_ENABLE, 2, 1);
    driver.write(&mut machine, common::QUEUE_SELECT, 2, 0);
    for size in [0, 3, 512] {
        driver.write(&mut machine, common::QUEUE_SIZE, 2, size);
        assert_eq!(driver.read(&mut machine, common::QUEUE_SIZE, 2), 256);
    }
    driver.write(&mut machine, common::QUEUE_MSIX_VECTOR, 2, 3);
    assert_eq!(
        driver.read(&mut machine, common::QUEUE_MSIX_VECTOR, 2),
        u64::from(NO_VECTOR),
        "there are three"
    );
    driver.write(&mut machine, common::QUEUE_DESC, 8, 0x1_2345_6780);
    assert_eq!(driver.read(&mut machine, common::QUEUE_DESC, 8), 0x1_2345_6780);
    driver.write(&mut machine, common::QUEUE_DESC, 4, 0x1008);
    driver.write(&mut machine, common::QUEUE_DRIVER, 4, 1);
    driver.write(&mut machine, common::QUEUE_DEVICE, 4, 2);
    assert_eq!(driver.read(&mut machine, common::QUEUE_DESC, 8), 0x1_2345_6780, "not aligned");
    assert_eq!(driver.read(&mut machine, common::QUEUE_DRIVER, 8), 0);
    assert_eq!(driver.read(&mut machine, common::QUEUE_DEVICE, 8), 0);
    driver.write(&mut machine, common::QUEUE_ENABLE, 2, 1);
    driver.write(&mut machine, common::QUEUE_DESC, 4, 0x1000);
    driver.write(&mut machine, common::QUEUE_SIZE, 2, 16);
    assert_eq!(
        driver.read(&mut machine, common::QUEUE_DESC, 8),
        0x1_2345_6780,
        "an enabled queue stays put"
    );
    assert_eq!(driver.read(&mut machine, common::QUEUE_SIZE, 2), 256);
    driver.reset(&mut machine);
    assert_eq!(driver.read(&mut machine, common::QUEUE_ENABLE, 2), 0);
}

#[test]
fn used_buffers_are_signalled_unless_the_driver_does_not_listen() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    machine.seen();
    ring.offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    ring.kick(&mut machine);
    let vector = u32::from(IOMMU.0) << 8 | 1;
    assert_eq!(machine.seen().interrupts, [(0xfee0_0000, vector)]);
    machine.poke(ring.base + 0x400, &[1, 0]);
    ring.offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    ring.kick(&mut machine);
    assert_eq!(machine.seen().interrupts, []);
    let mut isr = [0];
    machine.system.mmio_read(driver.isr, &mut isr);
    assert_eq!(isr, [1]);
    machine.system.mmio_read(driver.isr, &mut isr);
    assert_eq!(isr, [0], "reading it clears it");
}

#[test]
fn each_access_is_one_transaction_in_order() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    machine.poke(0x8000, &[1; 20]);
    machine.seen();
    ring.offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    ring.kick(&mut machine);
    let done: Vec<_> = machine
        .seen()
        .transactions
        .iter()
        .map(|transaction| (transaction.kind.to_string(), transaction.address, transaction.length))
        .collect();
    let base = ring.base;
    let expected = [
        ("MRd", base + 0x402, 2),
        ("MRd", base + 0x404, 2),
        ("MRd", base, 16),
        ("MRd", base + 16, 16),
        ("MRd", 0x8000, 20),
        ("MWr", 0x9000, 4),
        ("MWr", base + 0x804, 8),
        ("MWr", base + 0x802, 2),
        ("MRd", base + 0x400, 2),
        ("MWr", 0xfee0_0000, 4),
    ];
    assert_eq!(done, expected.map(|(kind, address, length)| (kind.to_owned(), address, length)));
}

#[test]
fn without_bus_mastering_nothing_happens_and_nothing_is_lost() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    machine.system.config_write(IOMMU, 4, 2, 0x0402);
    machine.seen();
    rings[0].offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    rings[0].kick(&mut machine);
    let seen = machine.seen();
    assert_eq!(seen.transactions, []);
    assert_eq!(seen.findings[0].class, FindingClass::BusMasterOff);
    assert!(!driver.status(&mut machine).contains(Status::NEEDS_RESET));
    machine.system.config_write(IOMMU, 4, 2, 0x0406);
    rings[0].kick(&mut machine);
    assert_eq!(rings[0].take(&machine), Some((0, 0)));
}

#[test]
fn a_queue_can_be_reset_alone() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    driver.write(&mut machine, common::QUEUE_SELECT, 2, 0);
    driver.write(&mut machine, common::QUEUE_RESET, 2, 1);
    assert_eq!(driver.read(&mut machine, common::QUEUE_RESET, 2), 0, "it is over already");
    assert_eq!(driver.read(&mut machine, common::QUEUE_ENABLE, 2), 0);
    rings[0].offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    rings[0].kick(&mut machine);
    assert_eq!(rings[0].take(&machine), None);
    machine.poke(0x20_0000, &[0; 0x1000]);
    let mut again = driver.queue(&mut machine, 0, 0x20_0000, 0x20_0000);
    again.offer_buffers(&machine, 3, &[(0x8000, 20)], &[(0x9000, 4)]);
    again.kick(&mut machine);
    assert_eq!(again.take(&machine), Some((3, 0)));
}

#[test]
fn the_window_reaches_the_registers() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let aim = |machine: &mut Machine, offset: u32, length: u32| {
        machine.system.config_write(IOMMU, driver.window + 4, 1, 0);
        machine.system.config_write(IOMMU, driver.window + 8, 4, offset);
        machine.system.config_write(IOMMU, driver.window + 12, 4, length);
    };
    aim(&mut machine, common::NUM_QUEUES as u32, 2);
    assert_eq!(machine.system.config_read(IOMMU, driver.window + 16, 4), 2);
    aim(&mut machine, common::DEVICE_STATUS as u32, 1);
    machine.system.config_write(IOMMU, driver.window + 16, 4, 1);
    assert_eq!(driver.status(&mut machine), Status::ACKNOWLEDGE);
    aim(&mut machine, 0x2000, 4);
    assert_eq!(
        machine.system.config_read(IOMMU, driver.window + 16, 4),
        0xffff_f000,
        "page_size_mask"
    );
}

/// Chains that no driver may make: each stops the device, says why, and a reset makes it work
/// again.
#[test]
fn what_is_not_a_chain_stops_the_device_until_reset() {
    type Spoil = fn(&Machine, &mut super::driver::Ring);
    let cases: [(&str, Spoil); 8] = [
        ("loops", |machine, ring| {
            ring.describe(machine, 0, (0x8000, 4), NEXT, 1);
            ring.describe(machine, 1, (0x8000, 4), NEXT, 0);
            ring.offer(machine, 0);
        }),
        ("leaves its table", |machine, ring| {
            ring.describe(machine, 0, (0x8000, 4), NEXT, 16);
            ring.offer(machine, 0);
        }),
        ("no descriptor", |machine, ring| ring.offer(machine, 16)),
        ("leaves its table", |machine, ring| {
            // 4 GiB and more.
            ring.describe(machine, 0, (0x8000, u32::MAX), NEXT, 1);
            ring.describe(machine, 1, (0x8000, u32::MAX), 0, 0);
            ring.offer(machine, 0);
        }),
        ("follows one to write", |machine, ring| {
            ring.describe(machine, 0, (0x8000, 4), NEXT | super::driver::WRITE, 1);
            ring.describe(machine, 1, (0x8000, 4), 0, 0);
            ring.offer(machine, 0);
        }),
        ("no descriptor", |machine, ring| {
            // A table in a table.
            ring.describe(machine, 0, (0x8000, 32), super::driver::INDIRECT, 0);
            super::driver::write_descriptor(
                machine,
                0x8000,
                (0xa000, 16),
                super::driver::INDIRECT,
                0,
            );
            ring.offer(machine, 0);
        }),
        ("longer than its queue", |machine, ring| {
            ring.describe(machine, 0, (0x8000, 64 * 16), super::driver::INDIRECT, 0);
            for index in 0..64 {
                let at = 0x8000 + 16 * u64::from(index);
                super::driver::write_descriptor(machine, at, (0xa000, 4), NEXT, index + 1);
            }
            ring.offer(machine, 0);
        }),
        ("more chains are available", |machine, ring| {
            machine.poke(ring.base + 0x402, &[0xff, 0xff])
        }),
    ];
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    for (why, spoil) in cases {
        let mut rings = driver.start(&mut machine);
        machine.seen();
        spoil(&machine, &mut rings[0]);
        rings[0].kick(&mut machine);
        let seen = machine.seen();
        let findings: Vec<_> = seen.findings.iter().map(ToString::to_string).collect();
        assert!(findings.len() == 1 && findings[0].contains(why), "{why}: {findings:?}");
        assert_eq!(seen.findings[0].class, FindingClass::BadQueue);
        assert!(driver.status(&mut machine).contains(Status::NEEDS_RESET), "{why}");
        assert_eq!(
            seen.interrupts,
            [(0xfee0_0000, u32::from(IOMMU.0) << 8)],
            "{why}: the driver learns of it"
        );
        assert_eq!(rings[0].take(&machine), None);
        rings[0].kick(&mut machine);
        assert_eq!(machine.seen().transactions, [], "{why}: it does nothing any more");
    }
    let mut rings = driver.start(&mut machine);
    rings[0].offer_buffers(&machine, 0, &[(0x8000, 20)], &[(0x9000, 4)]);
    rings[0].kick(&mut machine);
    assert!(rings[0].take(&machine).is_some());
}
