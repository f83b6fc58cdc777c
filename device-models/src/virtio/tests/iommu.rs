//! The virtio-iommu as Linux drives it.

use crate::checker::FindingClass;
use crate::endpoint::Progress;
use crate::fabric::PostedDelay;
use crate::iommu::{Access, FaultReason, Iommu};

use super::super::spec::Status;
use super::driver::{Driver, IOMMU, Machine, RNG, Ring};

const REQUEST: u64 = 0x8000;
const REPLY: u64 = 0x9000;

/// Sends a request as Linux does: two descriptors, a kick, and the answer must be there on return.
pub(super) fn send(
    machine: &mut Machine,
    ring: &mut Ring,
    request: &[u8],
    reply: u32,
) -> Option<(u32, u8)> {
    machine.poke(REQUEST, request);
    machine.poke(REPLY, &[0xee; 128]);
    ring.offer_buffers(machine, 0, &[(REQUEST, request.len() as u32)], &[(REPLY, reply)]);
    ring.kick(machine);
    let (_, length) = ring.take(machine)?;
    let status =
        u64::from(length).checked_sub(4).map_or(0xee, |at| machine.peek::<1>(REPLY + at)[0]);
    Some((length, status))
}

pub(super) fn attach(domain: u32, endpoint: u16) -> Vec<u8> {
    [&[1, 0, 0, 0][..], &domain.to_le_bytes(), &u32::from(endpoint).to_le_bytes(), &[0; 8]].concat()
}

pub(super) fn map(domain: u32, start: u64, end: u64, target: u64, flags: u32) -> Vec<u8> {
    [
        &[3, 0, 0, 0][..],
        &domain.to_le_bytes(),
        &start.to_le_bytes(),
        &end.to_le_bytes(),
        &target.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

pub(super) fn unmap(domain: u32, start: u64, end: u64) -> Vec<u8> {
    [&[4, 0, 0, 0][..], &domain.to_le_bytes(), &start.to_le_bytes(), &end.to_le_bytes(), &[0; 4]]
        .concat()
}

#[test]
fn requests_are_answered_before_the_kick_returns() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    let probe = [&[5, 0, 0, 0][..], &u32::from(RNG.0).to_le_bytes(), &[0; 64]].concat();
    assert_eq!(send(&mut machine, ring, &probe, 68), Some((68, 0)));
    assert_eq!(machine.peek::<2>(REPLY), [1, 0]);
    assert_eq!(send(&mut machine, ring, &attach(1, RNG.0), 4), Some((4, 0)));
    assert_eq!(send(&mut machine, ring, &map(1, 0x10000, 0x10fff, 0x5000, 3), 4), Some((4, 0)));
    let answer = machine.iommu().translate(RNG, 0x10010, 4, Access::Write).unwrap();
    assert_eq!(answer.address, 0x5010);
    assert_eq!(machine.found(), []);
}

#[test]
fn a_batch_is_served_by_one_kick() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    send(&mut machine, ring, &attach(1, RNG.0), 4);
    for index in 0..8_u64 {
        let request = map(1, index << 12, index << 12 | 0xfff, index << 12, 1);
        machine.poke(REQUEST + 64 * index, &request);
        ring.offer_buffers(
            &machine,
            index as u16 * 2,
            &[(REQUEST + 64 * index, 36)],
            &[(REPLY, 4)],
        );
    }
    assert_eq!(machine.iommu().live_mappings(), 0, "undefined of them yet");
    // All in the exit: no thread has to be woken for it.
    assert_eq!(ring.kick(&mut machine), Progress::Idle);
    assert_eq!(machine.iommu().live_mappings(), 8);
    assert_eq!(std::iter::from_fn(|| ring.take(&machine)).count(), 8);
}

#[test]
fn while_writes_are_held_back_a_request_leaves_steps_to_do() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    machine.system.delay_posted(RNG, None, PostedDelay::UntilPushed).unwrap();
    machine.poke(REQUEST, &attach(1, RNG.0));
    ring.offer_buffers(&machine, 0, &[(REQUEST, 20)], &[(REPLY, 4)]);
    assert_eq!(ring.kick(&mut machine), Progress::Worked);
    assert_eq!(ring.take(&machine), Some((0, 4)));
}

#[test]
fn a_refused_request_is_found() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let ring = &mut rings[0];
    machine.seen();
    assert_eq!(send(&mut machine, ring, &map(7, 0, 0xfff, 0, 3), 4), Some((4, 6)));
    let findings = machine.seen().findings;
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].class, FindingClass::RequestFailed);
    assert_eq!(
        findings[0].explanation,
        "request #1 MAP domain=7 virt=0x0..=0xfff phys=0x0 flags=0x3 answered \
         VIRTIO_IOMMU_S_NOENT: \
         no endpoint is attached to this domain, so it does not exist"
    );
    // Too short to be answered: used without a byte written, which Linux takes for an error.
    assert_eq!(send(&mut machine, ring, &[3, 0], 4), Some((0, 0xee)));
    assert_eq!(machine.found(), [FindingClass::RequestFailed]);
}

#[test]
fn buffers_may_be_in_pieces() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let request = attach(1, RNG.0);
    machine.poke(REQUEST, &request[..7]);
    machine.poke(REQUEST + 0x100, &request[7..]);
    let read = [(REQUEST, 7), (0, 0), (REQUEST + 0x100, 13)];
    rings[0].offer_buffers(&machine, 2, &read, &[(REPLY, 1), (REPLY + 8, 3)]);
    rings[0].kick(&mut machine);
    assert_eq!(rings[0].take(&machine), Some((2, 4)));
    assert_eq!(machine.iommu().endpoints().find(|entry| entry.0 == RNG), Some((RNG, Some(1))));
}

#[test]
fn its_own_function_is_not_an_endpoint() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    assert_eq!(send(&mut machine, &mut rings[0], &attach(1, IOMMU.0), 4), Some((4, 6)));
}

#[test]
fn configuration_is_shown_and_bypass_can_be_set() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    driver.start(&mut machine);
    let device = driver.device.unwrap();
    let mut data = [0; 8];
    machine.system.mmio_read(device + 16, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0xffff_ffff_ffff);
    machine.iommu().translate(RNG, 0x1000, 4, Access::Read).unwrap_err();
    machine.system.mmio_write(device + 36, &[1]);
    machine.iommu().translate(RNG, 0x1000, 4, Access::Read).unwrap();
    driver.reset(&mut machine);
    machine.iommu().translate(RNG, 0x1000, 4, Access::Read).unwrap();
    let mut bypass = [0];
    machine.system.mmio_read(device + 36, &mut bypass);
    assert_eq!(bypass, [1], "a device reset does not change it");
}

#[test]
fn a_reset_detaches_everyone() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    send(&mut machine, &mut rings[0], &attach(1, RNG.0), 4);
    send(&mut machine, &mut rings[0], &map(1, 0, 0xfff, 0, 3), 4);
    driver.reset(&mut machine);
    let fault = machine.iommu().translate(RNG, 0, 4, Access::Read).unwrap_err();
    assert!(matches!(fault.reason, FaultReason::Domain { detached: Some(_) }));
    assert_eq!(machine.iommu().live_mappings(), 0);
}

#[test]
fn faults_reach_the_event_queue() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    let rng = Driver::probe(&mut machine, RNG);
    let mut requests = rng.start(&mut machine);
    // A fault before there are buffers waits; Linux adds buffers without a kick, and the next fault
    // brings both.
    requests[0].offer_buffers(&machine, 0, &[], &[(0xa000, 16)]);
    requests[0].kick(&mut machine);
    machine.run();
    assert_eq!(machine.found(), [FindingClass::NoDomain, FindingClass::BadQueue]);
    assert!(rng.status(&mut machine).contains(Status::NEEDS_RESET), "its ring cannot be read");
    for index in 0..4_u16 {
        rings[1].offer_buffers(&machine, index, &[], &[(0xb000 + 32 * u64::from(index), 24)]);
    }
    machine.run();
    assert_eq!(rings[1].take(&machine), None);
    let requests = rng.start(&mut machine);
    requests[0].kick(&mut machine);
    machine.run();
    assert_eq!(rings[1].take(&machine), Some((0, 24)));
    assert_eq!(rings[1].take(&machine), Some((1, 24)));
    assert_eq!(rings[1].take(&machine), None);
    let report = machine.peek::<24>(0xb000);
    let address = requests[0].base + 0x402;
    assert_eq!(report[..12], [1, 0, 0, 0, 1, 1, 0, 0, RNG.0 as u8, 0, 0, 0]);
    assert_eq!(report[16..], address.to_le_bytes());
    let vector = u32::from(IOMMU.0) << 8 | 2;
    assert!(machine.seen().interrupts.contains(&(0xfee0_0000, vector)));
}

#[test]
fn a_short_event_buffer_is_given_back_empty() {
    let mut machine = Machine::new();
    let driver = Driver::probe(&mut machine, IOMMU);
    let mut rings = driver.start(&mut machine);
    rings[1].offer_buffers(&machine, 0, &[], &[(0xb000, 23)]);
    rings[1].kick(&mut machine);
    assert_eq!(rings[1].take(&machine), None, "no event, no buffer used");
    let fault = machine.iommu().translate(RNG, 0x1234, 4, Access::Write).unwrap_err();
    machine.iommu().report(&fault);
    machine.run();
    assert_eq!(rings[1].take(&machine), Some((0, 0)));
    assert!(!machine.iommu().has_event());
}
