//! Sentences and causes of findings about requests that did not arrive as they should.

use super::delayed::{Held, Overtaken, Signal};
use super::request::Request;
use super::route::Refusal;
use super::{CompletionStatus, Delivery, Fabric, FunctionId, RouteKind, Transaction};
use crate::checker::{Cause, FindingClass, Severity, failed_mapping};
use crate::pci::AcsControl;

impl Fabric {
    /// A function's name and BDF, as sentences have them.
    pub(super) fn call(&self, function: FunctionId) -> String {
        let node = self.map.node(function);
        format!("{} ({})", node.name, node.requester)
    }

    /// Whether a function has no BARs any more.
    fn has_lost_bars(&self, function: Option<FunctionId>) -> bool {
        function.is_some_and(|function| !self.map.node(function).lost.is_empty())
    }

    /// Reports a request that a port or the root complex refused; `begun` is where the addresses
    /// begin that the function was given.
    pub(super) fn report_refused(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        refusal: Refusal,
    ) {
        let by =
            refusal.detector.map_or("the root complex".to_owned(), |function| self.call(function));
        let near = refusal.near.map(|function| self.call(function)).unwrap_or_default();
        let explanation = match refusal.class {
            FindingClass::NoTarget => format!("nothing claims the address at {by}"),
            FindingClass::BarEdge => {
                format!("a BAR of {near} ends just before this address, and nothing claims it")
            }
            FindingClass::MemoryDecodeOff if self.has_lost_bars(refusal.near) => {
                format!(
                    "{near} claimed the address until its BARs and Memory Space Enable were \
                     cleared, as a reset does"
                )
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
                    "the completions end at {by}, which would have to send them back to where \
                     they came from; {}",
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
        let (meaning, cause) = self.refused_meaning(begun, transaction, refusal);
        let explanation = explanation + &meaning + &self.witness_hint(begun, transaction);
        self.report(transaction.function, refusal.class, cause, Some(*transaction), explanation);
    }

    /// What the address of a refused request can have meant, and what the finding comes from.
    fn refused_meaning(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        refusal: Refusal,
    ) -> (String, Cause) {
        let Refusal { class, detector, near, target, physical, mapping } = refusal;
        if class == FindingClass::NoTarget && physical.is_none() {
            let hint = self.explain(begun, transaction, class);
            return (hint.text, hint.cause);
        }
        if let Some(text) = failed_mapping(begun).filter(|_| physical.is_none()) {
            return (format!("; {text}"), self.failed_cause(transaction.function, begun));
        }
        let (meant, text) = match physical {
            Some(_) if near.or(target).is_some() => (None, String::new()),
            Some(physical) => self.mapped_to(physical, class),
            None => match self.meant(transaction.address, near, target) {
                Some((owner, text)) => (Some(owner), text),
                None => (None, String::new()),
            },
        };
        let cause = match (class, near, meant) {
            (_, Some(function), _) | (FindingClass::NoTarget, None, Some(function)) => {
                Cause::Target { function, mapping }
            }
            (FindingClass::NoTarget, None, None) => mapping_or_function(mapping),
            (_, None, _) => Cause::Port { port: detector, target: target.or(meant), mapping },
        };
        (text, cause)
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

    /// A signal has been seen, and data for `target` that was issued before it was still under way.
    pub(super) fn report_overtaken(&mut self, overtaken: &Overtaken, target: Option<FunctionId>) {
        let Overtaken { signal, first, mapping, bytes } = *overtaken;
        let (class, what) = match signal {
            Signal::Record => (FindingClass::RecordBeforeData, "the completion record has arrived"),
            Signal::Interrupt => (FindingClass::InterruptBeforeData, "the interrupt has arrived"),
            Signal::Fence => (FindingClass::FenceBeforeData, "the fence has signalled"),
        };
        let missing = match (signal, target) {
            (Signal::Fence, _) | (_, None) => "nothing has read from there since",
            _ => {
                "nothing has read from there since, neither the requester before it came to rest \
                 nor a CPU"
            }
        };
        let cause = match target {
            Some(function) => Cause::Target { function, mapping },
            None => mapping_or_function(mapping),
        };
        let target = target.map_or("RAM".to_owned(), |target| self.call(target));
        let explanation = format!(
            "{what}, and {bytes} bytes written before it were still under way to {target}: \
             {missing}"
        );
        self.report(first.function, class, cause, Some(first), explanation);
    }

    /// `bytes` that were under way to `target` have been discarded.
    pub(super) fn report_discarded(
        &mut self,
        first: &Held,
        target: FunctionId,
        bytes: usize,
        class: FindingClass,
    ) {
        let why = match class {
            FindingClass::LinkDown => "the link to it went down, or it was reset with its bus",
            _ => "it was reset",
        };
        let Held { transaction, mapping, .. } = *first;
        let cause = Cause::Target { function: target, mapping };
        let target = self.call(target);
        let explanation =
            format!("{bytes} bytes were still under way to {target} when {why}: they are lost");
        self.report(transaction.function, class, cause, Some(transaction), explanation);
    }

    pub(super) fn mmio_flag_on_ram(&mut self, transaction: &Transaction) -> FindingClass {
        let class = FindingClass::MmioFlagOnRam;
        let explanation = "mapped as MMIO, but guest RAM stands there".to_owned();
        let mapping = self.mapping_of(transaction.function, transaction.address, RouteKind::Memory);
        let cause = mapping_or_function(mapping);
        self.report(transaction.function, class, cause, Some(*transaction), explanation);
        class
    }

    /// The mapping that translates `address` now for requests of `from` that take `route`: the MAP
    /// request of its first piece. None where nothing is translated.
    pub(super) fn mapping_of(
        &mut self,
        from: FunctionId,
        address: u64,
        route: RouteKind,
    ) -> Option<u64> {
        let translated = matches!(route, RouteKind::Memory | RouteKind::ThroughHostBridge);
        if !translated || self.exempt == Some(from) {
            return None;
        }
        let requester = self.map.node(from).requester;
        self.iommu.as_virtio()?.mapped_since(requester, address)
    }

    /// What an address that stands for a failed mapping comes from.
    pub(super) fn failed_cause(&mut self, from: FunctionId, address: u64) -> Cause {
        let requester = self.map.node(from).requester;
        let request = self.iommu.as_virtio().and_then(|iommu| {
            let mapped = iommu.mapped_since(requester, address);
            mapped.or_else(|| iommu.unmapped_since(requester, address))
        });
        Cause::MappingFailed { request }
    }

    /// The part of a run that would have to wrap around the end of the address space: the last
    /// `left` bytes.
    pub(super) fn off_the_top(&mut self, request: &Request<'_>, left: u64) -> FindingClass {
        let Request { from, kind, purpose, begun, .. } = *request;
        // What lies past the end has no address; the finding has the last one.
        let transaction = self.describe(from, kind, purpose, u64::MAX, 1);
        self.observe(&transaction, &Delivery::Failed(CompletionStatus::UnsupportedRequest), None);
        let hint = self.explain(begun, &transaction, FindingClass::NoTarget);
        let mistake = failed_mapping(begun).map(|_| hint.text).unwrap_or_default();
        let explanation =
            format!("the last {left} bytes lie past the end of the address space{mistake}");
        self.report(from, FindingClass::NoTarget, hint.cause, Some(transaction), explanation);
        FindingClass::NoTarget
    }

    /// The bytes of `request` behind the first `done`, and before the next `run`, begin with a
    /// page. Data that runs from one mapping into another there is noted if the two were not mapped
    /// in one go: most likely it was to end where the first one does, and hits whatever happens to
    /// be mapped behind.
    #[cold]
    pub(super) fn note_edge(&mut self, request: &Request<'_>, done: u64) {
        let Request { from, kind, purpose, address, buffer, .. } = *request;
        let at = address.saturating_add(done);
        let requester = self.map.node(from).requester;
        let edge = self.iommu.as_virtio().and_then(|iommu| iommu.edge_at(requester, at));
        let Some((first, second)) = edge else { return };
        let left = (buffer.len() as u64).saturating_sub(done);
        let transaction = self.describe(from, kind, purpose, at, left);
        let explanation = format!(
            "runs on from {}, mapped by request #{}, into {}, mapped separately by request #{}",
            first.range, first.request, second.range, second.request
        );
        let cause = Cause::Neighbours { first: first.request, second: second.request };
        let class = FindingClass::MappingEdge;
        self.report_as(Severity::Note, from, class, cause, Some(transaction), explanation);
    }
}

/// What a finding about a translated request comes from, if nothing but its mapping is to blame.
fn mapping_or_function(mapping: Option<u64>) -> Cause {
    mapping.map_or(Cause::Function, |request| Cause::Mapping { request })
}
