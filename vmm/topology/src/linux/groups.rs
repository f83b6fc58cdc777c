//! IOMMU groups: what Linux cannot keep apart shares one set of mappings (`pci_device_group()`).

use super::View;
use super::acs::STANDARD;
use super::trust::INTEL;
use crate::plan::Kind;

impl View<'_> {
    /// The IOMMU group of every function, by a number of ours; none without an IOMMU, and for the IOMMU itself.
    pub fn groups(&self) -> Vec<Option<usize>> {
        let mut groups = vec![None; self.plan.functions.len()];
        if !self.guest.iommu.has_iommu() {
            return groups;
        }
        let mut next = 0;
        for function in self.in_order() {
            if self.plan.functions[function].kind == Kind::Iommu {
                continue;
            }
            let group = self.existing(function, &groups).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            groups[function] = Some(group);
        }
        groups
    }

    /// The order in which Linux finds functions: a whole bus, then what is below its bridges.
    fn in_order(&self) -> Vec<usize> {
        fn bus(view: &View<'_>, functions: &[usize], order: &mut Vec<usize>) {
            order.extend(functions);
            for &function in functions {
                bus(view, &view.plan.functions[function].children, order);
            }
        }
        let mut order = Vec::new();
        for bridge in &self.plan.host_bridges {
            bus(self, &bridge.root, &mut order);
        }
        order
    }

    fn existing(&self, function: usize, groups: &[Option<usize>]) -> Option<usize> {
        // Upwards until everything above isolates; what does not shares its group with what is
        // below.
        let mut at = function;
        while let Some(above) = self.plan.functions[at].parent {
            if self.plan.path_up(above).all(|bridge| self.isolates(bridge)) {
                break;
            }
            at = above;
            if groups[at].is_some() {
                return groups[at];
            }
        }
        // Functions of one device that can reach each other inside of it.
        let own = &self.plan.functions[at];
        if !own.multi_function || self.isolates(at) {
            return None;
        }
        let beside = self.plan.functions.iter().enumerate().filter(|(index, other)| {
            let same_device =
                (other.bdf.bus(), other.bdf.device()) == (own.bdf.bus(), own.bdf.device());
            *index != at && same_device && !self.isolates(*index)
        });
        beside.filter_map(|(index, _)| groups[index]).next()
    }

    /// `pci_acs_enabled()` for the controls that a group's border needs.
    fn isolates(&self, function: usize) -> bool {
        let planned = &self.plan.functions[function];
        // Intel's integrated endpoints may not reach peers untranslated (`pci_quirk_rciep_acs()`).
        if let Kind::Endpoint(_, id) = planned.kind
            && id.vendor == INTEL
            && planned.parent.is_none()
        {
            return true;
        }
        let must = match planned.kind {
            Kind::RootPort | Kind::SwitchDownstream => true,
            Kind::SwitchUpstream | Kind::Peer(_) | Kind::Endpoint(..) | Kind::Device(_) => {
                planned.multi_function
            }
            // Not PCI Express functions: never isolated, which matters for devices with several functions only.
            Kind::HostBridge | Kind::Iommu | Kind::Rng | Kind::OtherBridge => return false,
        };
        match planned.acs {
            _ if !must => true,
            None => false,
            // What the capability lacks counts as always on.
            Some(capabilities) => self.controls[function].contains(STANDARD & capabilities),
        }
    }
}
