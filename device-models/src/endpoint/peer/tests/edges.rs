//! What a descriptor names, and where mappings end.

use super::bench::{Bench, DATA, FROM_LOCAL, TO_LOCAL, copy};
use crate::checker::FindingClass;
use crate::iommu::VirtioIommu;
use crate::iommu::virtio::VirtioIommuConfig;

/// Bytes of the mapping: two chunks.
const MAPPED: u64 = 128 << 10;

/// A copy is moved in chunks, and a chunk that begins with another mapping goes on from the one
/// before.
#[test]
fn a_descriptor_is_one_range_however_it_is_moved() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    iommu.add_endpoint(Bench::bdf(0));
    iommu.attach(1, Bench::bdf(0).0.into(), 0).unwrap();
    iommu.map(1, DATA + MAPPED, DATA + MAPPED + 0xfff, DATA + MAPPED, 3).unwrap();
    iommu.map(1, 0, DATA - 1, 0, 3).unwrap();
    iommu.map(1, DATA, DATA + MAPPED - 1, DATA, 3).unwrap();
    let mut bench = Bench::with_iommu(Box::new(iommu));
    let length = |bytes: u64| u32::try_from(bytes).unwrap();
    let mut ring = bench.open(0, 0);
    bench.succeed(&mut ring, copy(0, DATA, length(MAPPED), FROM_LOCAL));
    assert_eq!(bench.findings(), [], "to the end");
    bench.succeed(&mut ring, copy(0, DATA + MAPPED, 64, FROM_LOCAL));
    assert_eq!(bench.findings(), [], "another descriptor");
    bench.succeed(&mut ring, copy(0, DATA, length(MAPPED + 64), FROM_LOCAL));
    assert_eq!(bench.findings(), [FindingClass::MappingEdge]);
    bench.succeed(&mut ring, copy(DATA + 4096, 0, length(MAPPED), TO_LOCAL));
    assert_eq!(bench.findings(), [FindingClass::MappingEdge], "read");
}
