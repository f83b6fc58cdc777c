//! Requests as a driver lays them out in memory.

use super::*;
use proptest::prelude::*;

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn attach(domain: u32, endpoint: u32) -> Vec<u8> {
    bytes(&[&[1, 0, 0, 0], &domain.to_le_bytes(), &endpoint.to_le_bytes(), &[0; 8]])
}

fn map(domain: u32, start: u64, end: u64, phys: u64, flags: u32) -> Vec<u8> {
    bytes(&[
        &[3, 9, 9, 9], // the reserved bytes of the head must be ignored
        &domain.to_le_bytes(),
        &start.to_le_bytes(),
        &end.to_le_bytes(),
        &phys.to_le_bytes(),
        &flags.to_le_bytes(),
    ])
}

fn unmap(domain: u32, start: u64, end: u64) -> Vec<u8> {
    bytes(&[
        &[4, 0, 0, 0],
        &domain.to_le_bytes(),
        &start.to_le_bytes(),
        &end.to_le_bytes(),
        &[0; 4],
    ])
}

/// The used length and the status.
fn send(iommu: &mut VirtioIommu, request: &[u8]) -> (usize, u8) {
    let mut reply = [0xee; 4];
    let used = iommu.request(request, &mut reply);
    if used == 4 {
        assert_eq!(reply[1..], [0; 3], "the reserved bytes of the tail are zero");
    }
    (used, reply[0])
}

#[test]
fn observers_see_what_the_driver_asked_for() {
    use super::super::Request;
    let words = |bytes: &[u8]| Request::of(bytes).map(|request| request.to_string());
    let of = |bytes: Vec<u8>| words(&bytes).unwrap();
    assert_eq!(of(attach(1, 0x100)), "ATTACH domain=1 endpoint=0x0100 flags=0x0");
    assert_eq!(
        of(map(2, 0x1000, 0x1fff, 0xa000, 3)),
        "MAP domain=2 virt=0x1000..=0x1fff phys=0xa000 flags=0x3"
    );
    assert_eq!(of(unmap(3, 0, u64::MAX)), "UNMAP domain=3 virt=0x0..=0xffffffffffffffff");
    // Too short, or of no type that there is.
    let whole = map(2, 0x1000, 0x1fff, 0xa000, 3);
    assert!((0..whole.len()).all(|length| words(&whole[..length]).is_none()));
    assert_eq!(words(&[9; 64]), None);
}

#[test]
fn requests_do_what_they_say() {
    let mut iommu = iommu(VirtioIommuConfig::default());
    assert_eq!(send(&mut iommu, &attach(1, id(A))), (4, 0));
    assert_eq!(send(&mut iommu, &map(1, 0x1000, 0x1fff, 0xa000, 1)), (4, 0));
    assert_eq!(target(iommu.translate(A, 0x1008, 8, Access::Read)), Some((0xa008, 8)));
    assert_eq!(send(&mut iommu, &map(1, 0x1000, 0x1fff, 0xa000, 1)), (4, 4));
    assert_eq!(send(&mut iommu, &unmap(1, 0x1000, 0x17ff)), (4, 5));
    assert_eq!(send(&mut iommu, &unmap(1, 0x1000, 0x1fff)), (4, 0));
    assert_eq!(send(&mut iommu, &unmap(2, 0x1000, 0x1fff)), (4, 6));
    let mut detach = bytes(&[&[2, 0, 0, 0], &1_u32.to_le_bytes(), &id(A).to_le_bytes(), &[7; 8]]);
    assert_eq!(send(&mut iommu, &detach), (4, 0), "the reserved bytes of a DETACH must be ignored");
    detach[8] = 0xff;
    assert_eq!(send(&mut iommu, &detach), (4, 6));
    assert_eq!(iommu.requests(), 8);
}

#[test]
fn reserved_fields_that_must_be_zero() {
    let mut iommu = attached();
    let mut request = attach(1, id(B));
    request[16] = 1;
    assert_eq!(send(&mut iommu, &request), (4, 4));
    let mut request = unmap(1, 0, 0xfff);
    request[24] = 1;
    assert_eq!(send(&mut iommu, &request), (4, 4));
    assert_eq!(reasons(&mut iommu).len(), 2);
}

#[test]
fn what_cannot_be_parsed_is_returned_unwritten_and_told() {
    let mut iommu = attached();
    for request in
        [&[][..], &[3], &[0; 20], &[9; 40], &map(1, 0, 0xfff, 0, 1)[..35], &attach(1, 1)[..19]]
    {
        assert_eq!(send(&mut iommu, request), (0, 0xee));
    }
    assert_eq!(iommu.request(&map(1, 0, 0xfff, 0, 1), &mut [0; 3]), 0, "no room for a tail");
    let reported = reasons(&mut iommu);
    assert_eq!(reported.len(), 7);
    assert!(reported[3].contains("type 9") && reported[4].contains("too short"), "{reported:?}");
    iommu.accept_features(0);
    assert_eq!(
        send(&mut iommu, &map(1, 0, 0xfff, 0, 1)),
        (0, 0xee),
        "MAP_UNMAP was not negotiated"
    );
    assert_eq!(iommu.request(&[5; 72], &mut [0; 68]), 0, "PROBE was not negotiated");
    assert_eq!(iommu.live_mappings(), 0);
}

#[test]
fn probe_tells_of_the_interrupt_window() {
    let mut iommu = iommu(VirtioIommuConfig::default());
    let request = bytes(&[&[5, 0, 0, 0], &id(A).to_le_bytes(), &[0; 64]]);
    let mut reply = [0; 68];
    assert_eq!(iommu.request(&request, &mut reply), 68);
    let mut expected = [0; 68];
    expected[0] = 1;
    expected[2] = 20;
    expected[4] = 1;
    expected[8..12].copy_from_slice(&0xfee0_0000_u32.to_le_bytes());
    expected[16..20].copy_from_slice(&0xfeef_ffff_u32.to_le_bytes());
    assert_eq!(reply, expected);

    let mut unknown = request.clone();
    unknown[4] = 0x77;
    let mut reply = [0; 68];
    assert_eq!(iommu.request(&unknown, &mut reply), 68);
    assert_eq!((reply[64], &reply[..64]), (6, &[0; 64][..]));

    let mut reply = [0; 20];
    assert_eq!(iommu.request(&request, &mut reply), 20, "the tail is where the driver put it");
    assert_eq!((reply[16], &reply[..16]), (4, &[0; 16][..]));
    assert_eq!(reasons(&mut iommu).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever arrives: no panic, no more written than there is room, one request counted, a
    /// status other than OK reported to the checker.
    #[test]
    fn hostile_bytes(
        requests in prop::collection::vec(
            (0_u8..7, prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..80), 0..80_usize),
            1..40,
        )
    ) {
        let mut iommu = attached();
        for (request_type, mut request, room) in requests {
            if let Some(first) = request.first_mut() {
                *first = request_type;
            }
            let (before, mut reply) = (iommu.requests(), vec![0; room]);
            let used = iommu.request(&request, &mut reply);
            prop_assert!(used <= room);
            prop_assert_eq!(iommu.requests(), before + 1);
            let refused = used == 0 || reply[used - 4] != 0;
            prop_assert_eq!(iommu.next_refusal().is_some(), refused);
            for address in [0, 0x1000, u64::MAX] {
                let _ = iommu.translate(A, address, u64::MAX, Access::Write);
            }
        }
    }
}
