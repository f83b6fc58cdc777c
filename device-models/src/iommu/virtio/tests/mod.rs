//! What the specification asks of the device, case by case, and against a model that knows every
//! page.

use super::*;
use crate::iommu::{Access, FaultReason, Iommu, MappingKind, Translation};

mod bytes;
mod model;
mod status;
mod story;

const READ: u32 = 1;
const WRITE: u32 = 2;
const MMIO: u32 = 4;
const A: Bdf = Bdf::new(1, 0, 0);
const B: Bdf = Bdf::new(2, 0, 0);

fn id(bdf: Bdf) -> u32 {
    bdf.0.into()
}

/// An IOMMU whose driver accepted everything, serving A and B.
fn iommu(config: VirtioIommuConfig) -> VirtioIommu {
    let mut iommu = VirtioIommu::new(config);
    iommu.accept_features(u64::MAX);
    iommu.add_endpoint(A);
    iommu.add_endpoint(B);
    iommu
}

/// The same, with A attached to domain 1.
fn attached() -> VirtioIommu {
    let mut iommu = iommu(VirtioIommuConfig::default());
    iommu.attach(1, id(A), 0).unwrap();
    iommu
}

fn reasons(iommu: &mut VirtioIommu) -> Vec<String> {
    std::iter::from_fn(|| iommu.next_refusal()).map(|refusal| refusal.to_string()).collect()
}

fn target(answer: Result<Translation, Fault>) -> Option<(u64, u64)> {
    answer.ok().map(|answer| (answer.address, answer.length))
}
