//! Findings about requests that did not arrive as they should, in words.

use super::delayed::{Overtaken, Signal};
use super::map::Node;
use super::route::{self, Refusal};
use super::{CompletionStatus, Delivery, Fabric, FunctionId, Kind, Purpose, Transaction};
use crate::checker::FindingClass;
use crate::pci::AcsControl;

impl Fabric {
    /// A function with the name and number by which people know it.
    fn call(&self, function: FunctionId) -> String {
        let node = self.map.node(function);
        format!("{} ({})", node.name, node.requester)
    }

    pub(super) fn find_refused(&mut self, transaction: &Transaction, refusal: Refusal) {
        let by =
            refusal.detector.map_or("the root complex".to_owned(), |function| self.call(function));
        let near = refusal.near.map(|function| self.call(function)).unwrap_or_default();
        let explanation = match refusal.class {
            FindingClass::NoTarget => format!("nobody claims the address, says {by}"),
            FindingClass::BarEdge => {
                format!("a BAR of {near} ends just before this address, and nobody claims it")
            }
            FindingClass::MemoryDecodeOff => {
                format!("{near} would claim the address, but its Memory Space Enable is clear")
            }
            FindingClass::BusMasterOff => {
                format!("{by} forwards nothing upwards, its Bus Master Enable is clear")
            }
            FindingClass::NotInD0 if refusal.near.is_some() => {
                format!("{near} would claim the address, but is in reset or not in D0")
            }
            FindingClass::NotInD0 => format!("{by} is in reset or not in D0"),
            FindingClass::AcsViolation => self.acs_violation(transaction, refusal, &by),
            FindingClass::PeerToPeerRefused => {
                "the root complex does not route between these two functions".to_owned()
            }
            FindingClass::LinkDown => {
                format!("the link below {by} is down: nothing is in that slot, or it is disabled")
            }
            FindingClass::CompletionTimeout if !self.leads_to(refusal.detector, transaction) => {
                format!(
                    "the completions are lost: {by} does not have the requester's bus behind it"
                )
            }
            FindingClass::CompletionTimeout => {
                format!(
                    "the completions end at {by}, which would have to send them back to where they came from; {}",
                    self.no_forwarding(refusal.detector)
                )
            }
            FindingClass::TurnedBack => {
                format!(
                    "{by} would have to send it back to where it came from; {}",
                    self.no_forwarding(refusal.detector)
                )
            }
            _ => format!("refused by {by}"),
        };
        self.find(transaction.function, refusal.class, Some(*transaction), explanation);
    }

    /// Why `port` sends nothing back.
    fn no_forwarding(&self, port: Option<FunctionId>) -> &'static str {
        let is_on =
            |port| self.map.node(port).acs_without_effect.contains(AcsControl::UPSTREAM_FORWARDING);
        if port.is_some_and(is_on) {
            "ACS Upstream Forwarding is on there, without effect"
        } else {
            "ACS Upstream Forwarding is off there"
        }
    }

    /// Whether the requester's bus is behind `port`.
    fn leads_to(&self, port: Option<FunctionId>, transaction: &Transaction) -> bool {
        port.is_some_and(|port| self.map.node(port).leads_to(transaction.requester.bus()))
    }

    fn acs_violation(&self, transaction: &Transaction, refusal: Refusal, by: &str) -> String {
        if self.leads_to(refusal.detector, transaction) {
            format!("ACS P2P Egress Control at {by}: this peer may not be reached from there")
        } else {
            format!("ACS Source Validation at {by}: this requester ID is not below it")
        }
    }

    /// What an address without a mapping is in the other address spaces: drivers that hand out the wrong kind of
    /// address are the commonest mistake of all.
    pub(super) fn mistaken_for(&self, address: u64) -> String {
        if self.map.ram_at(address).is_some() {
            return "; it is the physical address of guest RAM".to_owned();
        }
        if let Ok(target) = route::for_cpu(&self.map, address, 1).outcome
            && let Some(owner) = target.owner()
        {
            return format!("; it is the physical address of a BAR of {}", self.call(owner));
        }
        let at = |(_, node): &(FunctionId, &Node)| node.bar_at(address).is_some();
        match self.map.functions().find(at) {
            Some((owner, _)) => format!("; it is the bus address of a BAR of {}", self.call(owner)),
            None => String::new(),
        }
    }

    /// A signal has been seen, and data for `target` that was issued before it was still under way.
    pub(super) fn tell_overtaken(&mut self, overtaken: &Overtaken, target: Option<FunctionId>) {
        let Overtaken { signal, first, bytes } = *overtaken;
        let (class, what) = match signal {
            Signal::Record => (FindingClass::RecordBeforeData, "the completion record has arrived"),
            Signal::Interrupt => (FindingClass::InterruptBeforeData, "the interrupt has arrived"),
            Signal::Fence => (FindingClass::FenceBeforeData, "the fence has signalled"),
        };
        let missing = match (signal, target) {
            (Signal::Fence, _) | (_, None) => "nothing has read from there since",
            _ => {
                "nothing has read from there since, neither the requester before it came to rest nor a CPU"
            }
        };
        let target = target.map_or("RAM".to_owned(), |target| self.call(target));
        let explanation = format!(
            "{what}, and {bytes} bytes written before it were still under way to {target}: {missing}"
        );
        self.find(first.function, class, Some(first), explanation);
    }

    /// `bytes` that were under way to `target` have been discarded.
    pub(super) fn tell_discarded(
        &mut self,
        first: &Transaction,
        target: FunctionId,
        bytes: usize,
        class: FindingClass,
    ) {
        let why = match class {
            FindingClass::LinkDown => "the link to it went down, or it was reset with its bus",
            _ => "it was reset",
        };
        let target = self.call(target);
        let explanation =
            format!("{bytes} bytes were still under way to {target} when {why}: they are lost");
        self.find(first.function, class, Some(*first), explanation);
    }

    pub(super) fn mmio_flag_on_ram(&mut self, transaction: &Transaction) -> FindingClass {
        let class = FindingClass::MmioFlagOnRam;
        let explanation = "mapped as MMIO, but guest RAM stands there".to_owned();
        self.find(transaction.function, class, Some(*transaction), explanation);
        class
    }

    /// The part of a run that would have to wrap around the end of the address space.
    pub(super) fn off_the_top(
        &mut self,
        from: FunctionId,
        kind: Kind,
        purpose: Purpose,
        left: u64,
    ) -> FindingClass {
        // What lies past the end has no address; it is told by its last one.
        let transaction = self.describe(from, kind, purpose, u64::MAX, 1);
        self.observe(&transaction, &Delivery::Failed(CompletionStatus::UnsupportedRequest), None);
        let explanation = format!("the last {left} bytes lie past the end of the address space");
        self.find(from, FindingClass::NoTarget, Some(transaction), explanation);
        FindingClass::NoTarget
    }
}
