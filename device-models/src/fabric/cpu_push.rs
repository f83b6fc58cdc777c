//! CPUs' requests for a function, behind the posted writes that stay under way to it.
//!
//! Those wait in front of the target's link, where everything for it comes together. A read does
//! not pass a posted write there, nor does another posted write (PCIe 6.0, 2.4.1, table 2-42, rules
//! A2a and B2a).

use super::{Fabric, FunctionId};
use crate::pci::Bdf;

impl Fabric {
    /// Whether CPUs' requests for `target` have to come to the system: there is a path to it on
    /// which writes may be under way.
    pub(crate) fn is_delayed_to(&self, target: FunctionId) -> bool {
        self.delayed.leads_to(target)
    }

    /// Whether a CPU's request for `target` has anything to push.
    #[inline]
    pub(crate) fn cpu_request_pushes(&self, target: FunctionId) -> bool {
        !self.delayed.is_off() && self.delayed.holds_for(target)
    }

    /// A CPU's request for `target` comes this way: what has been posted to it goes before it.
    /// False: not everything found room.
    pub(crate) fn push_for_cpu(&mut self, target: FunctionId) -> bool {
        let mut all = true;
        for index in self.delayed.to(target) {
            all &= self.push_path_for_cpu(index);
        }
        self.delayed.clear_up();
        all
    }

    /// Grows whenever a path comes or goes.
    pub(crate) fn delayed_generation(&self) -> u64 {
        self.delayed.generation()
    }

    /// The BDFs by which the delayed paths were armed, as requester and target.
    pub(crate) fn delayed_paths(&self) -> Vec<(Bdf, Option<Bdf>)> {
        self.delayed.armed()
    }
}
