//! What an address that decodes to nothing would be in another address space: the hint in a
//! finding's sentence.
//!
//! A driver that hands out the wrong kind of address is the most common mistake. What is
//! looked up here is bounded by the topology's size, and where a flood of findings is about one
//! address, or one mapping of another requester, it is looked up once.

use std::sync::Arc;

use super::map::{AddressMap, MappedBar, Node};
use super::{Fabric, FunctionId, Transaction};
use crate::AddressRange;
use crate::checker::{Cause, FindingClass, Owner, RunKind, Said, SaidState, failed_mapping};
use crate::iommu::virtio::{Piece, VirtioIommu};
use crate::iommu::{Fault, FaultReason};
use crate::pci::Bdf;

const HALF: u64 = 1 << 32;

/// A BAR, by an address of it.
#[derive(Debug, Clone, Copy)]
struct Hit {
    owner: FunctionId,
    bar: u8,
    /// The address that the CPUs have for it; none where no window of the host bridge holds the
    /// BAR.
    physical: Option<u64>,
    /// The address that it has on the bus.
    bus: u64,
}

/// Why an address is not what it should be.
#[derive(Debug)]
pub(super) struct Hint {
    /// The end of the sentence: empty, or from a semicolon on.
    pub(super) text: String,
    pub(super) cause: Cause,
}

impl Fabric {
    /// Explains a request that leads nowhere, of the part that `transaction` is; its findings
    /// belong together as long as their addresses do. `begun` is where the addresses begin that the
    /// function was given.
    pub(super) fn explain(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        class: FindingClass,
    ) -> Hint {
        let (from, at) = (transaction.function, transaction.address);
        if let Some(text) = failed_mapping(begun) {
            return Hint {
                text: format!("; {text}"),
                cause: self.failed_cause(transaction.function, begun),
            };
        }
        let hit = self.hit(at);
        let requester = transaction.requester;
        let iommu = self.iommu.as_virtio();
        let domain = iommu.as_ref().and_then(|iommu| iommu.translating_domain(requester));
        let requests = iommu.as_ref().map_or(0, |iommu| iommu.requests());
        let range = AddressRange {
            first: at,
            last: at.saturating_add(transaction.length.saturating_sub(1)),
        };
        let changed = |range: AddressRange, since: u64, owner: Option<Owner>| {
            iommu.as_ref().is_some_and(|iommu| {
                let still = |(owner, request)| iommu.mapped_since(owner, at) == Some(request);
                iommu.changed_since(requester, range, since) || !owner.is_none_or(still)
            })
        };
        let target = hit.map(|hit| hit.owner);
        let kind = RunKind { function: from, class, domain, target };
        let run = self.runs.take(kind, range, requests, changed);
        let cause = Cause::Addresses { set: run.id };
        let state = self.state();
        let text = match run.known.filter(|said| said.holds(at, state)) {
            Some(said) => said.text,
            None => {
                let (text, owner) = self.meaning(from, begun, at, hit);
                let text: Arc<str> = text.into();
                let range = owner.map_or(only(at), |(_, range)| range);
                let said = Said { text: Arc::clone(&text), range, state };
                self.runs.explain(run.id, said, owner.map(|(owner, _)| owner));
                text
            }
        };
        Hint { text: text.to_string(), cause }
    }

    /// Adds a hint to a fault of the IOMMU.
    pub(super) fn explain_fault(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        fault: &Fault,
        class: FindingClass,
    ) -> Hint {
        let (from, at, requester) = (transaction.function, transaction.address, fault.requester);
        let iommu = self.iommu.as_virtio().map(|iommu| &*iommu);
        let cause = match fault.reason {
            FaultReason::Unmapped { .. } => return self.explain(begun, transaction, class),
            FaultReason::Domain { detached } => Cause::Detached { request: detached },
            FaultReason::Permission { born, .. } => {
                let first = iommu.and_then(|iommu| iommu.mapped_since(requester, at));
                Cause::Mapping { request: first.unwrap_or(born) }
            }
            FaultReason::Stale { retired, .. } => {
                let first = iommu.and_then(|iommu| iommu.unmapped_since(requester, at));
                Cause::Unmapping { request: first.unwrap_or(retired.died) }
            }
        };
        // Another requester's mapping explains a stale address if it was made after the unmap.
        let since = match fault.reason {
            FaultReason::Domain { .. } => 0,
            FaultReason::Stale { retired, .. } => retired.died,
            _ => return Hint { text: String::new(), cause },
        };
        let state = self.state();
        let known = self.last_fault.as_ref().filter(|(function, known, said)| {
            (*function, *known) == (from, cause) && said.holds(at, state)
        });
        if let Some((_, _, said)) = known {
            return Hint { text: said.text.to_string(), cause };
        }
        let map = Arc::clone(&self.map);
        let iommu = self.iommu.as_virtio().map(|iommu| &*iommu);
        let found = iommu.and_then(|iommu| {
            let ends = ends_before(iommu, requester, at).filter(|_| at > begun);
            let another = || mapped_for_another(&map, iommu, from, at, since);
            ends.map(|text| (text, only(at)))
                .or_else(|| another().map(|(text, _, range)| (text, range)))
        });
        let (text, range) = found.unwrap_or((String::new(), only(at)));
        let said = Said { text: text.as_str().into(), range, state };
        self.last_fault = Some((from, cause, said));
        Hint { text, cause }
    }

    /// What explanations depend on beside the address.
    fn state(&mut self) -> SaidState {
        let requests = self.iommu.as_virtio().map_or(0, |iommu| iommu.requests());
        (self.map.epoch, self.iommu.epoch(), requests)
    }

    /// What `at`, which leads nowhere for its requester, can be instead: the likeliest only. With
    /// the requester that maps it, and the mapping's addresses, if it is another requester's
    /// mapping.
    fn meaning(
        &mut self,
        from: FunctionId,
        begun: u64,
        at: u64,
        hit: Option<Hit>,
    ) -> (String, Option<(Owner, AddressRange)>) {
        let map = Arc::clone(&self.map);
        let requester = map.node(from).requester;
        let iommu = self.iommu.as_virtio().map(|iommu| &*iommu);
        let ends_here = iommu.and_then(|iommu| ends_before(iommu, requester, at));
        let low = u32::try_from(at).ok();
        let above = low.zip(iommu).and_then(|(low, iommu)| iommu.mapped_above(requester, low));
        let another = || iommu.and_then(|iommu| mapped_for_another(&map, iommu, from, at, 0));
        let text = if let Some(text) = ends_here.as_ref().filter(|_| at > begun) {
            text.clone()
        } else if let Some(whole) = above {
            format!("; it is the low half of {whole:#x}, which is mapped there")
        } else if let Some(hit) = hit {
            bar_meaning(&map, hit, at)
        } else if map.ram_at(at).is_some() {
            let or = low.and_then(|low| low_half_of_bar(&map, low));
            let or = or.map(|text| format!(", or {text}")).unwrap_or_default();
            format!("; it is the physical address of guest RAM{or}")
        } else if let Some((text, owner, range)) = another() {
            return (text, Some((owner, range)));
        } else if let Some(text) = low.and_then(|low| low_half(&map, low)) {
            format!("; it is {text}")
        } else {
            ends_here.unwrap_or_default()
        };
        (text, None)
    }

    /// Where the IOMMU led a refused request: `physical`, and what that is. Given where it helps:
    /// where no function is, or at a BAR by either of its addresses. With the function whose BAR it
    /// is.
    pub(super) fn mapped_to(
        &self,
        physical: u64,
        class: FindingClass,
    ) -> (Option<FunctionId>, String) {
        let to = format!("; it is mapped to {physical:#x}");
        match self.hit(physical) {
            Some(hit) => {
                let what = bar_meaning(&self.map, hit, physical);
                (Some(hit.owner), to + &what.replacen("; it is", ", which is", 1))
            }
            None if class == FindingClass::NoTarget => (None, to),
            None => (None, String::new()),
        }
    }

    /// What a request that a port or the root complex refused can have meant: given where the
    /// address is that of a BAR, and not just of `near`, which would have taken it; nor of
    /// `target`, which it was for, unless a BAR there has two addresses.
    pub(super) fn meant(
        &self,
        at: u64,
        near: Option<FunctionId>,
        target: Option<FunctionId>,
    ) -> Option<(FunctionId, String)> {
        let hit = self.hit(at).filter(|hit| near != Some(hit.owner))?;
        let known = target == Some(hit.owner) && hit.physical == Some(hit.bus);
        (!known).then(|| (hit.owner, bar_meaning(&self.map, hit, at)))
    }

    /// The BAR that has `address` for a CPU; failing that, the one that has it on the bus.
    fn hit(&self, address: u64) -> Option<Hit> {
        let mut on_bus = None;
        for (owner, node) in self.map.functions() {
            let root = self.map.root_of(owner);
            for bar in &node.bars {
                let physical = root.and_then(|root| root.seen_by_cpu(&bar.range));
                let hit = |offset: u64| Hit {
                    owner,
                    bar: bar.index,
                    physical: physical.map(|range| range.first + offset),
                    bus: bar.range.first + offset,
                };
                if let Some(range) = physical.filter(|range| range.contains(address)) {
                    return Some(hit(address - range.first));
                }
                if on_bus.is_none() && bar.range.contains(address) {
                    on_bus = Some(hit(address - bar.range.first));
                }
            }
        }
        on_bus
    }
}

/// A single address.
fn only(at: u64) -> AddressRange {
    AddressRange { first: at, last: at }
}

/// The other requester for which `at` is mapped, by a request after `since`, and the addresses of
/// that mapping.
fn mapped_for_another(
    map: &AddressMap,
    iommu: &VirtioIommu,
    from: FunctionId,
    at: u64,
    since: u64,
) -> Option<(String, Owner, AddressRange)> {
    let user = map.node(from);
    let own = iommu.translating_domain(user.requester);
    map.functions().find_map(|(function, node)| {
        let domain = iommu.translating_domain(node.requester)?;
        if function == from || own == Some(domain) {
            return None;
        }
        let Piece { request, range } = iommu.mapping_at(node.requester, at)?;
        let range = AddressRange { first: range.first, last: range.last };
        let text = format!(
            "; mapped for {} {} by request #{request}; used by {} {}",
            node.requester, node.name, user.requester, user.name
        );
        let first = iommu.mapped_since(node.requester, at)?;
        (request > since).then_some((text, (node.requester, first), range))
    })
}

/// Describes an address of a BAR.
fn bar_meaning(map: &AddressMap, hit: Hit, address: u64) -> String {
    let Hit { owner, bar, physical, bus } = hit;
    let owner = name(map, owner);
    match physical {
        Some(physical) if physical == bus => {
            format!("; it is the physical address of BAR {bar} of {owner}")
        }
        Some(physical) if physical == address => {
            let text = format!(
                "; it is the CPU physical address of BAR {bar} of {owner}, whose bus address is \
                 {bus:#x}"
            );
            // A bus address of one BAR may be the CPU address of another.
            let at = |(_, node): &(FunctionId, &Node)| node.bar_at(address).is_some();
            match map.functions().find(at) {
                Some((other, _)) => {
                    format!("{text}; on the bus it is that of a BAR of {}", name(map, other))
                }
                None => text,
            }
        }
        Some(physical) => format!(
            "; it is the bus address of BAR {bar} of {owner}, whose CPU physical address is \
             {physical:#x}"
        ),
        None => format!("; it is the bus address of BAR {bar} of {owner}"),
    }
}

/// A function as sentences name it: name and BDF.
fn name(map: &AddressMap, function: FunctionId) -> String {
    let node = map.node(function);
    format!("{} ({})", node.name, node.requester)
}

/// The address at or above 4 GiB in `range` whose lower half is `low`.
fn whole(range: &AddressRange, low: u32) -> Option<u64> {
    let first = range.first.max(HALF);
    let above = first & !(HALF - 1) | u64::from(low);
    let above = if above < first { above.checked_add(HALF)? } else { above };
    range.contains(above).then_some(above)
}

/// What `low` is the lower half of, if that is the address of RAM or a BAR.
fn low_half(map: &AddressMap, low: u32) -> Option<String> {
    match map.ram.iter().find_map(|range| whole(range, low)) {
        Some(whole) => {
            Some(format!("the low half of {whole:#x}, the physical address of guest RAM"))
        }
        None => low_half_of_bar(map, low),
    }
}

fn low_half_of_bar(map: &AddressMap, low: u32) -> Option<String> {
    map.functions().find_map(|(owner, node)| {
        let root = map.root_of(owner);
        let found = |bar: &MappedBar| {
            let physical = root.and_then(|root| root.seen_by_cpu(&bar.range));
            let mut ranges = physical.iter().chain([&bar.range]);
            Some((bar.index, ranges.find_map(|range| whole(range, low))?))
        };
        let (bar, whole) = node.bars.iter().find_map(found)?;
        let owner = name(map, owner);
        Some(format!("the low half of {whole:#x}, an address of BAR {bar} of {owner}"))
    })
}

/// Whether a mapping of the requester ends just before `at`.
fn ends_before(iommu: &VirtioIommu, requester: Bdf, at: u64) -> Option<String> {
    let piece = iommu.mapping_at(requester, at.checked_sub(1)?)?;
    Some(format!("; what request #{} mapped ends just before it", piece.request))
}
