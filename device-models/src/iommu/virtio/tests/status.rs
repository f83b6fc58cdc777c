//! Every status the specification names, for every request that can get it.

use super::*;

#[test]
fn attach_refuses_what_it_must() {
    let mut iommu =
        iommu(VirtioIommuConfig { domain_range: 1..=9, ..VirtioIommuConfig::default() });
    assert_eq!(iommu.attach(1, 0x999, 0), Err(Status::NoEnt));
    assert_eq!(
        iommu.attach(1, 0x1_0000 | id(A), 0),
        Err(Status::NoEnt),
        "an endpoint ID has 32 bits"
    );
    assert_eq!(iommu.attach(1, id(A), 2), Err(Status::Inval), "no such flag");
    assert_eq!(iommu.attach(0, id(A), 0), Err(Status::Range));
    assert_eq!(iommu.attach(10, id(A), 0), Err(Status::Range));
    assert_eq!(iommu.attach(1, id(A), 0), Ok(()));
    assert_eq!(iommu.attach(1, id(B), 1), Err(Status::Inval), "the domain is not a bypass domain");
    assert_eq!(iommu.attach(2, id(B), 1), Ok(()));
    assert_eq!(iommu.attach(2, id(A), 0), Err(Status::Inval), "the domain is a bypass domain");
    assert_eq!(
        reasons(&mut iommu).len(),
        7,
        "each refusal reaches the checker, and nothing else does"
    );
}

#[test]
fn a_flag_without_its_feature_does_not_exist() {
    let mut iommu = attached();
    iommu.accept_features(Features::MAP_UNMAP.bits());
    assert_eq!(iommu.attach(5, id(B), 1), Err(Status::Inval));
    assert_eq!(iommu.map(1, 0, 0xfff, 0, READ | MMIO), Err(Status::Inval));
    iommu.accept_features(u64::MAX);
    assert_eq!(iommu.map(1, 0, 0xfff, 0, READ | MMIO), Ok(()));
    assert_eq!(iommu.map(1, 0x1000, 0x1fff, 0, READ | 8), Err(Status::Inval));
}

#[test]
fn detach_refuses_what_it_must() {
    let mut iommu = attached();
    assert_eq!(iommu.detach(1, 0x999), Err(Status::NoEnt));
    assert_eq!(iommu.detach(1, id(B)), Err(Status::Inval));
    assert_eq!(iommu.detach(2, id(A)), Err(Status::Inval));
    assert_eq!(iommu.detach(1, id(A)), Ok(()));
    assert_eq!(iommu.detach(1, id(A)), Err(Status::Inval));
}

#[test]
fn map_refuses_what_it_must() {
    let config = VirtioIommuConfig {
        input_range: 0x1000..=0xffff_ffff_ffff,
        max_mappings: 2,
        ..Default::default()
    };
    let mut iommu = iommu(config);
    assert_eq!(iommu.map(1, 0x1000, 0x1fff, 0, READ), Err(Status::NoEnt));
    iommu.attach(1, id(A), 0).unwrap();
    iommu.attach(2, id(B), 1).unwrap();
    assert_eq!(iommu.map(2, 0x1000, 0x1fff, 0, READ), Err(Status::Inval), "bypass domain");
    assert_eq!(iommu.map(1, 0x1001, 0x1fff, 0, READ), Err(Status::Range));
    assert_eq!(iommu.map(1, 0x1000, 0x1ffe, 0, READ), Err(Status::Range));
    assert_eq!(iommu.map(1, 0x1000, 0x1fff, 8, READ), Err(Status::Range));
    assert_eq!(iommu.map(1, 0, 0xfff, 0, READ), Err(Status::Range), "below the input range");
    assert_eq!(
        iommu.map(1, 0x1000, u64::MAX, 0, READ),
        Err(Status::Range),
        "beyond the input range"
    );
    assert_eq!(iommu.map(1, 0x1000, 0xfff, 0, READ), Err(Status::Inval), "empty");
    assert_eq!(iommu.map(1, 0x2000, 0xfff, 0, READ), Err(Status::Inval), "backwards");
    assert_eq!(iommu.map(1, 0x1000, 0x2fff, !0xfff, READ), Err(Status::Range), "the target wraps");
    assert_eq!(
        iommu.map(1, 0xfedf_f000, 0xfee0_0fff, 0, READ),
        Err(Status::Inval),
        "interrupt window"
    );
    assert_eq!(iommu.live_mappings(), 0);
    assert_eq!(iommu.map(1, 0x4000, 0x7fff, 0, READ), Ok(()));
    for (start, end) in
        [(0x4000, 0x7fff), (0x3000, 0x4fff), (0x7000, 0x8fff), (0x5000, 0x5fff), (0x3000, 0x8fff)]
    {
        assert_eq!(
            iommu.map(1, start, end, 0, READ),
            Err(Status::Inval),
            "{start:#x}..={end:#x} overlaps"
        );
    }
    assert_eq!(
        iommu.map(1, 0x3000, 0x3fff, !0xfff, READ),
        Ok(()),
        "the target ends at the last address"
    );
    assert_eq!(iommu.map(1, 0x8000, 0x8fff, 0, READ), Err(Status::NoMem));
    iommu.unmap(1, 0x3000, 0x3fff).unwrap();
    assert_eq!(iommu.map(1, 0x8000, 0x8fff, 0, READ), Ok(()));
}

#[test]
fn unmap_does_what_the_examples_of_the_specification_say() {
    let mut iommu = iommu(VirtioIommuConfig { page_size_mask: 1, ..VirtioIommuConfig::default() });
    iommu.attach(1, id(A), 0).unwrap();
    let case = |iommu: &mut VirtioIommu, maps: &[(u64, u64)], unmap: (u64, u64)| {
        for (start, end) in maps {
            iommu.map(1, *start, *end, 0, READ).unwrap();
        }
        let outcome = iommu.unmap(1, unmap.0, unmap.1);
        let left = iommu.live_mappings();
        iommu.unmap(1, 0, 99).unwrap();
        (outcome, left)
    };
    assert_eq!(case(&mut iommu, &[], (0, 4)), (Ok(0), 0));
    assert_eq!(case(&mut iommu, &[(0, 9)], (0, 9)), (Ok(1), 0));
    assert_eq!(case(&mut iommu, &[(0, 4), (5, 9)], (0, 9)), (Ok(2), 0));
    assert_eq!(case(&mut iommu, &[(0, 9)], (0, 4)), (Err(Status::Range), 1));
    assert_eq!(case(&mut iommu, &[(0, 4), (5, 9)], (0, 4)), (Ok(1), 1));
    assert_eq!(case(&mut iommu, &[(0, 4)], (0, 9)), (Ok(1), 0));
    assert_eq!(case(&mut iommu, &[(0, 4), (10, 14)], (0, 14)), (Ok(2), 0));
    // Neither end may split, and a refusal removes nothing, not even what lies whole inside.
    assert_eq!(case(&mut iommu, &[(0, 4), (5, 9), (10, 14)], (0, 12)), (Err(Status::Range), 3));
    assert_eq!(case(&mut iommu, &[(0, 4), (5, 9), (10, 14)], (3, 14)), (Err(Status::Range), 3));
    assert_eq!(case(&mut iommu, &[(0, 9)], (3, 5)), (Err(Status::Range), 1));
}

#[test]
fn unmap_refuses_what_it_must() {
    let mut iommu = attached();
    assert_eq!(iommu.unmap(7, 0, 0xfff), Err(Status::NoEnt));
    assert_eq!(iommu.unmap(1, 0x1000, 0xfff), Err(Status::Inval));
    iommu.attach(2, id(B), 1).unwrap();
    assert_eq!(iommu.unmap(2, 0, 0xfff), Err(Status::Inval));
    assert_eq!(iommu.unmap(1, 0, u64::MAX), Ok(0));
}

#[test]
fn a_refusal_says_it_all() {
    let mut iommu = attached();
    iommu.map(1, 0x1000, 0x2fff, 0, READ).unwrap();
    iommu.unmap(1, 0x1000, 0x1fff).unwrap_err();
    assert_eq!(
        reasons(&mut iommu),
        ["request #3 UNMAP domain=1 virt=0x1000..=0x1fff answered VIRTIO_IOMMU_S_RANGE: \
          the range would split the mapping 0x1000..=0x2fff"]
    );
}

#[test]
fn refusals_are_bounded() {
    let mut iommu = attached();
    for _ in 0..1000 {
        iommu.detach(9, id(A)).unwrap_err();
    }
    let kept = reasons(&mut iommu).len() as u64;
    assert!(kept >= 100 && kept + iommu.dropped_refusals() == 1000);
}
