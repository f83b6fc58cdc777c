//! virtio-rng, whose every access is translated.

use crate::checker::FindingClass;
use crate::endpoint::Progress;

use super::super::spec::Status;
use super::driver::{Driver, IOMMU, Machine, RNG, Ring};
use super::iommu::{attach, map, send, unmap};

const DOMAIN: u32 = 3;
/// Where the device sees what is at `HOME`.
const AWAY: u64 = 0xfff0_0000_0000 >> 4;
const HOME: u64 = 0x30_0000;

/// The IOMMU's request queue, and the source of entropy with its queue at `HOME`, seen at `AWAY`.
fn start(machine: &mut Machine) -> (Ring, Driver, Ring) {
    let mut requests = Driver::probe(machine, IOMMU).start(machine).remove(0);
    assert_eq!(send(machine, &mut requests, &attach(DOMAIN, RNG.0), 4), Some((4, 0)));
    let rings = map(DOMAIN, AWAY, AWAY + 0xfff, HOME, 3);
    assert_eq!(send(machine, &mut requests, &rings, 4), Some((4, 0)));
    let driver = Driver::probe(machine, RNG);
    let features = driver.offered(machine);
    assert!(driver.negotiate(machine, features));
    let ring = driver.queue(machine, 0, HOME, AWAY);
    driver.set_status(machine, Status::DRIVER_OK);
    machine.seen();
    (requests, driver, ring)
}

#[test]
fn entropy_arrives_where_the_mapping_leads() {
    let mut machine = Machine::new();
    let (mut requests, _, mut ring) = start(&mut machine);
    send(&mut machine, &mut requests, &map(DOMAIN, AWAY + 0x1000, AWAY + 0x1fff, 0x40_0000, 2), 4);
    ring.offer_buffers(&machine, 0, &[], &[(AWAY + 0x1010, 3), (AWAY + 0x1100, 5)]);
    assert_eq!(ring.kick(&mut machine), Progress::Worked);
    assert_eq!(ring.take(&machine), None, "it works in its own time, not in the exit");
    machine.run();
    assert_eq!(ring.take(&machine), Some((0, 8)));
    assert_eq!(machine.peek::<4>(0x40_0010), [0, 1, 2, 0]);
    assert_eq!(machine.peek::<5>(0x40_0100), [3, 4, 5, 6, 7]);
    let seen = machine.seen();
    assert_eq!(seen.findings, []);
    assert_eq!(seen.interrupts.last(), Some(&(0xfee0_0000, u32::from(RNG.0) << 8 | 1)));
    assert!(seen.transactions.iter().all(|transaction| {
        transaction.requester == IOMMU
            || transaction.address >= AWAY
            || transaction.address == 0xfee0_0000
    }));
}

#[test]
fn a_large_wish_is_granted_in_part() {
    let mut machine = Machine::new();
    let (mut requests, _, mut ring) = start(&mut machine);
    let target = map(DOMAIN, AWAY + 0x10_0000, AWAY + 0x1f_ffff, 0x40_0000, 2);
    send(&mut machine, &mut requests, &target, 4);
    ring.offer_buffers(&machine, 0, &[], &[(AWAY + 0x10_0000, 0xffff_ffff)]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(ring.take(&machine), Some((0, 4096)));
}

#[test]
fn a_posted_write_that_faults_goes_unnoticed_by_the_device() {
    let mut machine = Machine::new();
    let (mut requests, driver, mut ring) = start(&mut machine);
    let page = map(DOMAIN, AWAY + 0x1000, AWAY + 0x1fff, 0x40_0000, 1);
    send(&mut machine, &mut requests, &page, 4);
    ring.offer_buffers(&machine, 0, &[], &[(AWAY + 0x1000, 8)]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(machine.found(), [FindingClass::Permission]);
    assert_eq!(ring.take(&machine), Some((0, 8)), "the device cannot know");
    assert_eq!(machine.peek::<8>(0x40_0000), [0; 8], "nothing arrived");
    assert!(!driver.status(&mut machine).contains(Status::NEEDS_RESET));
    send(&mut machine, &mut requests, &unmap(DOMAIN, AWAY + 0x1000, AWAY + 0x1fff), 4);
    ring.offer_buffers(&machine, 0, &[], &[(AWAY + 0x1000, 8)]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(machine.found(), [FindingClass::Stale]);
}

#[test]
fn a_request_without_room_is_refused() {
    let mut machine = Machine::new();
    let (_, driver, mut ring) = start(&mut machine);
    ring.offer_buffers(&machine, 0, &[(AWAY + 0x900, 8)], &[]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(machine.found(), [FindingClass::BadQueue]);
    assert!(driver.status(&mut machine).contains(Status::NEEDS_RESET));
}

/// Entropy for the registers of another device, in more pieces than can be on their way at once.
#[test]
fn what_never_fits_is_given_up() {
    let mut machine = Machine::new();
    let iommu = Driver::probe(&mut machine, IOMMU);
    let (mut requests, driver, _) = start(&mut machine);
    // Its ISR register cannot be written, so writes there do no harm.
    let registers = map(DOMAIN, AWAY + 0x1000, AWAY + 0x1fff, iommu.isr, 2 | 4);
    assert_eq!(send(&mut machine, &mut requests, &registers, 4), Some((4, 0)));
    let features = driver.offered(&mut machine);
    assert!(driver.negotiate(&mut machine, features));
    machine.poke(HOME, &[0; 0x1000]);
    let mut ring = driver.queue_of(64, &mut machine, 0, HOME, AWAY);
    driver.set_status(&mut machine, Status::DRIVER_OK);
    // Over the edge of a TLP: two writes each.
    let piece = (AWAY + 0x1000 + 255, 60);
    ring.offer_buffers(&machine, 0, &[], &[piece; 30]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(ring.take(&machine), Some((0, 30 * 60)));
    assert_eq!(machine.found(), []);
    ring.offer_buffers(&machine, 0, &[], &[piece; 64]);
    ring.kick(&mut machine);
    machine.run();
    assert_eq!(ring.take(&machine), None);
    let findings = machine.seen().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].explanation.contains("more posted writes than fit"), "{findings:?}");
    assert!(driver.status(&mut machine).contains(Status::NEEDS_RESET));
}
