//! MAP and UNMAP of one page among many.

use device_models::iommu::VirtioIommu;
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::pci::Bdf;

use crate::clock::Stopwatch;
use crate::report::{Figure, Goal, Report, median};

const PAGE: u64 = 4096;
/// Above the interrupt window, which cannot be mapped.
const IOVA: u64 = 0x1_0000_0000;
const COUNT: u64 = 200_000;

pub fn run(report: &mut Report, rounds: usize) {
    for (name, live, goal) in [
        ("map + unmap of a page, 10^2 mappings live", 100, 3.0),
        ("map + unmap of a page, 10^6 mappings live", 1_000_000, 1.0),
    ] {
        let mut iommu = filled(live);
        let rates = (0..rounds).map(|_| round(&mut iommu, live)).collect();
        report.add(Figure {
            name,
            value: median(rates),
            unit: "million pairs/s",
            compared_with: "nothing: a rate",
            goal: Goal::AtLeast(goal),
            rate: None,
        });
    }
}

/// Every other page is mapped; the pages between are for the measurement.
fn filled(live: u64) -> VirtioIommu {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    let features = iommu.offered_features();
    iommu.accept_features(features.bits());
    iommu.add_endpoint(Bdf::new(1, 0, 0));
    iommu.attach(1, u32::from(Bdf::new(1, 0, 0).0), 0).expect("attached");
    for index in 0..live {
        let first = IOVA + 2 * index * PAGE;
        iommu.map(1, first, first + PAGE - 1, 0x1000, 3).expect("mapped");
    }
    iommu
}

fn round(iommu: &mut VirtioIommu, live: u64) -> f64 {
    let start = Stopwatch::start();
    for turn in 0..COUNT {
        let first = IOVA + (2 * (turn * 7919 % live) + 1) * PAGE;
        iommu.map(1, first, first + PAGE - 1, 0x1000, 3).expect("mapped");
        iommu.unmap(1, first, first + PAGE - 1).expect("unmapped");
    }
    COUNT as f64 / start.seconds() / 1e6
}
