//! What an endpoint can reach over the life of mappings, domains and the device.

use super::*;
use crate::AddressRange;

#[test]
fn permissions_are_enforced() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x1fff, 0xa000, READ).unwrap();
    iommu.map(1, 0x2000, 0x2fff, 0xb000, WRITE | MMIO).unwrap();
    iommu.map(1, 0x3000, 0x3fff, 0xc000, 0).unwrap();
    assert_eq!(target(iommu.translate(A, 0x1010, 16, Access::Read)), Some((0xa010, 16)));
    assert_eq!(target(iommu.translate(A, 0x2010, 16, Access::Write)), Some((0xb010, 16)));
    let denied = [
        (0x1010, Access::Write, (true, false, 2)),
        (0x2010, Access::Read, (false, true, 3)),
        (0x3010, Access::Read, (false, false, 4)),
        (0x3010, Access::Write, (false, false, 4)),
    ];
    for (address, access, (readable, writable, born)) in denied {
        let reason = iommu.translate(A, address, 16, access).unwrap_err().reason;
        assert_eq!(reason, FaultReason::Permission { domain: 1, readable, writable, born });
    }
    let registers = iommu.translate(A, 0x2000, 4, Access::Write).unwrap();
    assert!(matches!(registers.mapping, MappingKind::Mapped { mmio: true, born: 3, .. }));
}

#[test]
fn an_answer_ends_with_its_mapping() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x1fff, 0xa000, READ).unwrap();
    iommu.map(1, 0x2000, 0x2fff, 0xb000, READ).unwrap();
    let answer = iommu.translate(A, 0x1ff0, 0x20, Access::Read).unwrap();
    assert_eq!((answer.address, answer.length), (0xaff0, 0x10));
    assert_eq!(answer.range, AddressRange { first: 0x1000, last: 0x1fff });
}

#[test]
fn an_endpoint_that_is_not_attached_gets_nothing_but_interrupts() {
    let mut iommu = iommu(VirtioIommuConfig::default());
    let fault = iommu.translate(A, 0x1000, 4, Access::Read).unwrap_err();
    assert_eq!(fault.reason, FaultReason::Domain { detached: None });
    let stranger = iommu.translate(Bdf::new(9, 0, 0), 0x1000, 4, Access::Read).unwrap_err();
    assert_eq!(stranger.reason, FaultReason::Domain { detached: None });
    let interrupt = iommu.translate(A, 0xfee0_1000, 4, Access::Write).unwrap();
    assert_eq!((interrupt.address, interrupt.mapping), (0xfee0_1000, MappingKind::ReservedMsi));
    iommu.attach(1, id(A), 0).unwrap();
    iommu.detach(1, id(A)).unwrap();
    let fault = iommu.translate(A, 0x1000, 4, Access::Read).unwrap_err();
    assert_eq!(fault.reason, FaultReason::Domain { detached: Some(2) });
}

#[test]
fn domains_are_isolated_and_shared_as_attached() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x1fff, 0xa000, READ).unwrap();
    iommu.attach(2, id(B), 0).unwrap();
    assert_eq!(
        iommu.translate(B, 0x1000, 4, Access::Read).unwrap_err().reason,
        FaultReason::Unmapped { domain: 2 }
    );
    // Moving to another domain is a detach and an attach.
    iommu.attach(1, id(B), 0).unwrap();
    assert_eq!(target(iommu.translate(B, 0x1000, 4, Access::Read)), Some((0xa000, 4)));
    iommu.detach(1, id(A)).unwrap();
    assert_eq!(iommu.live_mappings(), 1, "B still holds the domain");
    iommu.detach(1, id(B)).unwrap();
    assert_eq!(iommu.live_mappings(), 0, "the domain ended with its last endpoint");
    assert_eq!(iommu.unmap(1, 0x1000, 0x1fff), Err(Status::NoEnt));
}

#[test]
fn attaching_again_changes_nothing() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x1fff, 0xa000, READ).unwrap();
    let epoch = iommu.epoch();
    iommu.attach(1, id(A), 0).unwrap();
    assert_eq!(iommu.live_mappings(), 1);
    assert_eq!(iommu.epoch(), epoch);
    iommu.detach(1, id(A)).unwrap();
    assert_eq!(iommu.live_mappings(), 0, "it was attached once, not twice");
}

#[test]
fn a_stale_address_knows_its_end() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x2fff, 0xa000, READ).unwrap();
    iommu.unmap(1, 0, 0xffff).unwrap();
    iommu.detach(7, id(A)).unwrap_err();
    let fault = iommu.translate(A, 0x2004, 4, Access::Write).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "stale mapping, unmapped by request #3, 1 request ago \
         (domain 1, 0x1000..=0x2fff mapped by request #2)"
    );
    iommu.map(1, 0x1000, 0x1fff, 0xb000, READ).unwrap();
    iommu.unmap(1, 0x1000, 0x1fff).unwrap();
    let FaultReason::Stale { retired, .. } =
        iommu.translate(A, 0x1000, 4, Access::Read).unwrap_err().reason
    else {
        panic!("the address was mapped before")
    };
    assert_eq!(
        (retired.born, retired.died, retired.target),
        (5, 6, 0xb000),
        "the latest of two lives"
    );
}

#[test]
fn history_is_bounded_and_forgets_the_oldest() {
    let mut iommu = attached();
    for page in 0..domain::HISTORY as u64 + 1 {
        iommu.map(1, page << 12, page << 12 | 0xfff, 0, READ).unwrap();
        iommu.unmap(1, page << 12, page << 12 | 0xfff).unwrap();
    }
    let reason = |iommu: &mut VirtioIommu, address| {
        iommu.translate(A, address, 1, Access::Read).unwrap_err().reason
    };
    assert_eq!(reason(&mut iommu, 0), FaultReason::Unmapped { domain: 1 });
    assert!(matches!(reason(&mut iommu, 0x1000), FaultReason::Stale { .. }));
}

#[test]
fn the_epoch_changes_when_an_answer_may_be_different() {
    let mut iommu = iommu(VirtioIommuConfig::default());
    let mut last = iommu.epoch();
    let mut changed =
        |iommu: &VirtioIommu| std::mem::replace(&mut last, iommu.epoch()) != iommu.epoch();
    iommu.attach(1, id(A), 0).unwrap();
    assert!(changed(&iommu), "it may have been in bypass before");
    iommu.map(1, 0x1000, 0x1fff, 0, READ).unwrap();
    assert!(!changed(&iommu), "only faults became successes");
    iommu.unmap(1, 0x8000, 0x8fff).unwrap();
    assert!(!changed(&iommu), "nothing was there");
    iommu.unmap(1, 0x1000, 0x1fff).unwrap();
    assert!(changed(&iommu));
    iommu.set_bypass(true);
    assert!(changed(&iommu));
    iommu.detach(1, id(A)).unwrap();
    assert!(changed(&iommu));
    iommu.remove_endpoint(B);
    assert!(changed(&iommu));
    iommu.device_reset();
    assert!(changed(&iommu));
}

#[test]
fn bypass_by_configuration_and_by_domain() {
    let mut iommu = iommu(VirtioIommuConfig { bypass: true, ..VirtioIommuConfig::default() });
    assert_eq!(target(iommu.translate(A, 0x5000, 4, Access::Write)), Some((0x5000, 4)));
    iommu.set_bypass(false);
    iommu.translate(A, 0x5000, 4, Access::Write).unwrap_err();
    iommu.attach(3, id(A), 1).unwrap();
    let answer = iommu.translate(A, 0xfedf_fff0, 0x20, Access::Write).unwrap();
    assert_eq!(
        (answer.mapping, answer.length),
        (MappingKind::Bypass, 0x10),
        "the window is not part of it"
    );
    assert_eq!(target(iommu.translate(A, u64::MAX, 1, Access::Read)), Some((u64::MAX, 1)));
    iommu.device_reset();
    iommu.translate(A, 0x5000, 4, Access::Write).unwrap_err();
    iommu.system_reset();
    assert_eq!(target(iommu.translate(A, 0x5000, 4, Access::Write)), Some((0x5000, 4)));
}

#[test]
fn the_configuration_is_as_laid_out() {
    let config = VirtioIommuConfig::default();
    let read = |offset, length: usize| {
        let mut data = [0xaa; 8];
        config.read(true, offset, &mut data[..length]);
        data[length..].fill(0);
        u64::from_le_bytes(data)
    };
    assert_eq!(read(0, 8), !0xfff);
    assert_eq!((read(8, 8), read(16, 8)), (0, 0xffff_ffff_ffff));
    assert_eq!((read(24, 4), read(28, 4)), (0, 0xffff));
    assert_eq!((read(32, 4), read(36, 4)), (64, 1));
    assert_eq!(read(u64::MAX, 8), 0);
}

#[test]
fn only_bypass_can_be_written() {
    let config = VirtioIommuConfig::default();
    let write = |offset, data: &[u8]| config.written_bypass(Features::all(), offset, data);
    assert_eq!((write(36, &[0]), write(36, &[1, 7])), (Some(false), Some(true)));
    assert_eq!(
        write(32, &[0, 0, 0, 0, 1, 0, 0, 0]),
        Some(true),
        "a wider write reaches the field too"
    );
    assert_eq!(write(36, &[2]), None);
    assert_eq!(write(0, &[1; 8]), None);
    assert_eq!(write(u64::MAX, &[1; 8]), None);
    assert_eq!(
        config.written_bypass(Features::MAP_UNMAP, 36, &[1]),
        None,
        "the field belongs to a feature"
    );
}

#[test]
fn faults_are_reported_in_order_and_bounded() {
    let mut iommu =
        iommu(VirtioIommuConfig { max_pending_faults: 2, ..VirtioIommuConfig::default() });
    iommu.attach(1, id(B), 0).unwrap();
    for (requester, address, access) in
        [(A, 0x1234, Access::Read), (B, u64::MAX, Access::Write), (B, 0, Access::Write)]
    {
        let fault = iommu.translate(requester, address, 1, access).unwrap_err();
        iommu.report(&fault);
    }
    let mut expected = [0; 24];
    expected[0] = 1;
    expected[4..8].copy_from_slice(&[1, 1, 0, 0]);
    expected[8..10].copy_from_slice(&[0, 1]);
    expected[16..18].copy_from_slice(&[0x34, 0x12]);
    assert_eq!(iommu.event(), Some(expected));
    assert_eq!(iommu.event(), Some(expected), "until it is delivered");
    iommu.event_delivered();
    let second = iommu.event().unwrap();
    assert_eq!((second[0], second[4], second[9], &second[16..]), (2, 2, 2, &[0xff; 8][..]));
    iommu.event_delivered();
    assert!(!iommu.has_event() && iommu.event().is_none());
    iommu.event_delivered();
    assert_eq!((iommu.reported_faults(), iommu.dropped_faults()), (3, 1));
}
