//! Translation, as the fabric asks for it.

use super::super::{Access, Fault, FaultReason, Iommu, MappingKind, Translation};
use super::table::Mapping;
use super::{MapFlags, VirtioIommu};
use crate::AddressRange;
use crate::pci::Bdf;

impl Iommu for VirtioIommu {
    fn translate(
        &mut self,
        requester: Bdf,
        address: u64,
        length: u64,
        access: Access,
    ) -> Result<Translation, Fault> {
        if let Some(window) = self.msi_window().filter(|window| window.contains(address)) {
            return Ok(Translation::within(
                window,
                window.first,
                address,
                length,
                MappingKind::ReservedMsi,
            ));
        }
        let endpoint = self.endpoints.get(&requester).copied().unwrap_or_default();
        let fault = |reason| Fault { requester, address, access, reason, requests: self.requests };
        let Some((number, domain)) =
            endpoint.domain.and_then(|number| Some((number, self.domains.get(&number)?)))
        else {
            return if self.bypass {
                Ok(self.identity(address, length))
            } else {
                Err(fault(FaultReason::Domain { detached: endpoint.detached }))
            };
        };
        if domain.bypass {
            return Ok(self.identity(address, length));
        }
        let Some(mapping) = domain.table.find(address) else {
            return Err(fault(match domain.last_known(address) {
                Some(retired) => FaultReason::Stale { domain: number, retired: *retired },
                None => FaultReason::Unmapped { domain: number },
            }));
        };
        let kind = mapped(number, mapping);
        if kind.permits(access) {
            let range = mapping.range;
            return Ok(Translation::within(range, mapping.target, address, length, kind));
        }
        let flags = mapping.flags();
        Err(fault(FaultReason::Permission {
            domain: number,
            readable: flags.contains(MapFlags::READ),
            writable: flags.contains(MapFlags::WRITE),
            born: mapping.born(),
        }))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn report(&mut self, fault: &Fault) {
        self.queue_fault(fault);
    }

    fn as_virtio(&mut self) -> Option<&mut VirtioIommu> {
        Some(self)
    }
}

impl VirtioIommu {
    /// An address that stands for itself, as far as the interrupt window, which it does not lie in.
    fn identity(&self, address: u64, length: u64) -> Translation {
        let range = match self.msi_window() {
            Some(window) if address < window.first => {
                AddressRange { first: 0, last: window.first - 1 }
            }
            Some(window) if window.last < u64::MAX => {
                AddressRange { first: window.last + 1, last: u64::MAX }
            }
            _ => AddressRange::ALL,
        };
        Translation::within(range, range.first, address, length, MappingKind::Bypass)
    }
}

fn mapped(domain: u32, mapping: &Mapping) -> MappingKind {
    let flags = mapping.flags();
    MappingKind::Mapped {
        readable: flags.contains(MapFlags::READ),
        writable: flags.contains(MapFlags::WRITE),
        mmio: flags.contains(MapFlags::MMIO),
        domain,
        born: mapping.born(),
    }
}
