//! Mistakes on purpose, at a person's wish: each of the group `bugs`, as a mistake and not as a test.
//!
//! A test announces to the VMM what must be found. Here nothing is announced: the checker reports what it finds as it
//! would of any driver.

use super::bugs::bugs;
use super::{Announced, Bench, Case, Stop};
use crate::sys::patience;
use crate::vmm::Vmm;

/// A mistake that can be made.
#[derive(Clone, Copy, Debug)]
pub struct Misuse {
    case: Case,
    /// What goes wrong, in a sentence.
    pub about: &'static str,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provoked {
    /// What must have been found.
    pub announced: Vec<Announced>,
    /// Findings that the VMM has counted meanwhile, over all functions.
    pub found: u64,
}

/// The one that unbinds a driver.
const UNBINDS: &str = "leaked.by-unbinding";

/// What each of them does.
const ABOUT: &[(&str, &str)] = &[
    ("unmapped.made-up-address", "a device reads at an address that no mapping has ever had"),
    (
        "unmapped.mapping-of-another-device",
        "a device writes to a DMA address that the DMA API gave to another device",
    ),
    (
        "unmapped.cpu-address-of-a-bar",
        "a device writes to what /proc/iomem shows for the other's BAR",
    ),
    ("stale.use-after-unmap", "a device writes and reads through a mapping after dma_unmap"),
    ("stale.unmapped-under-work", "the driver unmaps while the device still works on it"),
    ("stale.coherent-memory-freed", "a device reads coherent memory after dma_free_coherent()"),
    ("stale.dma-buf-unmapped", "a device reads a dma-buf after dma_buf_unmap_attachment()"),
    ("direction.write-to-what-is-read", "a device writes to memory mapped DMA_TO_DEVICE"),
    ("direction.read-of-what-is-written", "a device reads memory mapped DMA_FROM_DEVICE"),
    ("direction.write-to-a-dma-buf", "a device writes to a dma-buf mapped DMA_TO_DEVICE"),
    ("past-end.within-the-page", "a device writes past the end of a mapping, within its page"),
    ("past-end.into-a-neighbour", "a device reads past the end of a mapping, into the next one"),
    ("leaked.by-unbinding", "a driver is unbound and leaves a mapping behind"),
    (
        "buffer.write-after-invalidate",
        "an importer ignores invalidate_mappings and writes after its fences have signalled",
    ),
    (
        "buffer.peer2peer-not-allowed",
        "an exporter gives device memory to an importer that did not set allow_peer2peer",
    ),
    ("buffer.freed-while-mapped", "the last reference to a dma-buf goes while it is mapped"),
    ("pci.bus-master-off", "a device is given work with Bus Master Enable clear"),
    ("pci.bar-edge", "a request crosses the end of the other device's BAR"),
    ("pci.no-target", "a mapping of an address where there is neither RAM nor a BAR"),
    ("pci.memory-decode-off", "the target's Memory Space Enable is clear"),
    ("pci.not-in-d0", "the target sleeps in D3hot"),
    ("pci.turned-back", "a device sends a request to its own BAR over the bus"),
    ("iommu.mmio-flag-on-ram", "RAM is mapped with DMA_ATTR_MMIO"),
    ("msi.not-a-vector", "a write into the interrupt window that names no vector"),
    ("msi.malformed", "a write into the interrupt window that is not one aligned dword"),
    ("device.bad-descriptor", "a descriptor names local memory that the device has not got"),
    ("order.record-before-data", "the completion record overtakes data on another path"),
    ("order.interrupt-before-data", "the interrupt overtakes data on another path"),
    ("order.fence-before-data", "a fence signals before the data has arrived"),
];

/// All mistakes, in the order of the tests.
pub fn all() -> Vec<Misuse> {
    let about = |name| ABOUT.iter().find(|(known, _)| *known == name).map(|(_, about)| *about);
    bugs()
        .into_iter()
        .map(|case| Misuse { about: about(case.name).unwrap_or_default(), case })
        .collect()
}

impl Misuse {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.case.name
    }

    /// Whether it unbinds a driver, which has to wait while a file of its devices is open.
    pub fn unbinds(&self) -> bool {
        self.case.name == UNBINDS
    }

    /// Makes it; gives what must have been found, and how much was.
    ///
    /// # Errors
    /// When this guest cannot make it (`Stop::Skip`), or something else went wrong.
    pub fn make(&self, vmm: &mut Vmm) -> Result<Provoked, Stop> {
        patience::stretch(vmm.hello()?.time_factor);
        let findings =
            |vmm: &mut Vmm| -> Result<u64, Stop> { Ok(vmm.stat()?.findings.values().sum()) };
        let before = findings(vmm)?;
        let mut bench = Bench::new(Some(vmm), &[]);
        bench.announced = Some(Vec::new());
        let made = self
            .case
            .needs
            .iter()
            .try_for_each(|need| need.check(&mut bench))
            .and_then(|()| (self.case.body)(&mut bench));
        let announced = bench.announced.take().unwrap_or_default();
        // Closes the devices: what that still does belongs to the mistake.
        drop(bench);
        made?;
        vmm.settle()?;
        Ok(Provoked { announced, found: findings(vmm)?.saturating_sub(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_explained_and_no_other() {
        let names: Vec<_> = all().iter().map(Misuse::name).collect();
        assert_eq!(names, ABOUT.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert!(ABOUT.iter().all(|(_, about)| about.len() > 20));
        assert_eq!(all().iter().filter(|misuse| misuse.unbinds()).count(), 1);
    }
}
