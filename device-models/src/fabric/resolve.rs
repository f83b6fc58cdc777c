//! From a requester's address to its target: routing, translation and decoding in one
//! answer.

use super::acs;
use super::route::{self, Refusal, Routed, Target, Upward};
use super::{Fabric, FunctionId, INTERRUPT_WINDOW, Kind, RouteKind};
use crate::checker::FindingClass;
use crate::iommu::{Access, Fault, FaultReason, MappingKind};

/// What stands at an address for one requester, and for how many bytes that holds.
#[derive(Debug)]
pub(super) struct Resolution {
    pub(super) length: u64,
    pub(super) outcome: ResolveOutcome,
}

/// How resolving an address ended.
#[derive(Debug)]
pub(super) enum ResolveOutcome {
    /// Memory or registers.
    Reached { target: Target, address: u64, route: RouteKind, mmio_flag_on_ram: bool },
    /// The interrupt window (Intel SDM volume 3, 12.11.1; AMD and Intel platforms alike).
    InterruptWindow,
    /// The fabric refused it.
    Refused(Refusal),
    /// The IOMMU refused it.
    Faulted(Fault),
}

/// The class under which a translation fault is reported.
pub(super) fn fault_class(fault: &Fault) -> FindingClass {
    match fault.reason {
        FaultReason::Domain { .. } => FindingClass::NoDomain,
        FaultReason::Unmapped { .. } => FindingClass::Unmapped,
        FaultReason::Permission { .. } => FindingClass::Permission,
        FaultReason::Stale { .. } => FindingClass::Stale,
    }
}

impl Fabric {
    /// Resolves the bytes from `address` on, at most `length`, at least one.
    pub(super) fn resolve(
        &mut self,
        from: FunctionId,
        kind: Kind,
        address: u64,
        length: u64,
    ) -> Resolution {
        let request = self.resolve_request(from, kind, address, length);
        if kind == Kind::MemoryWrite {
            return request;
        }
        self.with_completions(from, address, request)
    }

    /// The data of a read travels in its completions, which are routed on their own.
    fn with_completions(&mut self, from: FunctionId, at: u64, request: Resolution) -> Resolution {
        let Resolution { length, outcome } = request;
        let outcome = match outcome {
            ResolveOutcome::Reached { target, address, mmio_flag_on_ram, route } => {
                let from_peer = target.owner().map(|owner| acs::completion(&self.map, owner, from));
                let back = from_peer.unwrap_or(Ok(route)).and_then(|back| match back {
                    RouteKind::BusAddress => Ok(back),
                    _ => acs::completion_from_root(&self.map, from).map(|()| back),
                });
                match back {
                    Ok(route) => {
                        ResolveOutcome::Reached { target, address, route, mmio_flag_on_ram }
                    }
                    Err(refusal) => {
                        let mapping = self.mapping_of(from, at, route);
                        let physical = mapping.map(|_| address);
                        ResolveOutcome::Refused(Refusal { physical, mapping, ..refusal })
                    }
                }
            }
            other => other,
        };
        Resolution { length, outcome }
    }

    fn resolve_request(
        &mut self,
        from: FunctionId,
        kind: Kind,
        address: u64,
        length: u64,
    ) -> Resolution {
        let length = length.clamp(1, (u64::MAX - address).saturating_add(1));
        let up = route::upward(&self.map, from, address, length);
        let length = up.length;
        match up.outcome {
            Err(refusal) => {
                return Resolution { length, outcome: ResolveOutcome::Refused(refusal) };
            }
            Ok(Upward::Direct(target)) => return reached(target, address, length, true, false),
            Ok(Upward::RootComplex) => {}
        }
        if INTERRUPT_WINDOW.contains(address) {
            let length = INTERRUPT_WINDOW.clip(address, length);
            return Resolution { length, outcome: ResolveOutcome::InterruptWindow };
        }
        let length = route::clip_before([&INTERRUPT_WINDOW].into_iter(), address, length);
        if self.exempt == Some(from) {
            return self.decode(from, address, length, false);
        }
        let requester = self.map.node(from).requester;
        let access = match kind {
            Kind::MemoryRead => Access::Read,
            Kind::MemoryWrite => Access::Write,
        };
        match self.iommu.translate(requester, address, length, access) {
            Ok(translation) => {
                let mmio = matches!(translation.mapping, MappingKind::Mapped { mmio: true, .. });
                let length = translation.length.clamp(1, length);
                let mut found = self.decode(from, translation.address, length, mmio);
                if let ResolveOutcome::Refused(refusal) = &mut found.outcome
                    && matches!(translation.mapping, MappingKind::Mapped { .. })
                {
                    refusal.physical = Some(translation.address);
                    refusal.mapping = self.mapping_of(from, address, RouteKind::ThroughHostBridge);
                }
                found
            }
            Err(fault) => Resolution {
                length: self.fault_reach(&fault, length),
                outcome: ResolveOutcome::Faulted(fault),
            },
        }
    }

    /// Resolves, if it ends in memory, as much as possible of the page of `address`, for the cache.
    pub(super) fn resolve_page(
        &mut self,
        from: FunctionId,
        kind: Kind,
        address: u64,
    ) -> Resolution {
        let page = address & !0xfff;
        if page != address {
            let mut whole = self.resolve(from, kind, page, u64::MAX);
            if let ResolveOutcome::Reached {
                target: Target::Memory { offset, .. },
                address: there,
                ..
            } = &mut whole.outcome
            {
                let skipped = address - page;
                if whole.length > skipped {
                    *offset += skipped;
                    *there = there.wrapping_add(skipped);
                    whole.length -= skipped;
                    return whole;
                }
            }
        }
        self.resolve(from, kind, address, u64::MAX)
    }

    /// Decodes a physical address. No mapping leads into the interrupt window: what a platform
    /// makes of one is not defined (Intel VT-d 5.1, 3.14, forbids it), and no BAR can be reached
    /// there.
    fn decode(&self, from: FunctionId, address: u64, length: u64, mmio: bool) -> Resolution {
        if INTERRUPT_WINDOW.contains(address) {
            let refusal = Refusal::new(FindingClass::NoTarget, None);
            let length = INTERRUPT_WINDOW.clip(address, length);
            return Resolution { length, outcome: ResolveOutcome::Refused(refusal) };
        }
        let length = route::clip_before([&INTERRUPT_WINDOW].into_iter(), address, length);
        let Routed { outcome, length } = route::at_root(&self.map, from, address, length);
        match outcome {
            Ok(target) => reached(target, address, length, false, mmio),
            Err(refusal) => Resolution { length, outcome: ResolveOutcome::Refused(refusal) },
        }
    }

    /// How far a fault holds: to the end of the page, and on over the following pages that fault in
    /// the same way, so that one mistake makes one finding. Bounded by the length of a step's work.
    fn fault_reach(&mut self, fault: &Fault, length: u64) -> u64 {
        let length = length.min(super::MAX_RUN);
        let class = fault_class(fault);
        let mut reach = (0x1000 - (fault.address & 0xfff)).min(length);
        while reach < length {
            let Some(next) = fault.address.checked_add(reach) else { break };
            match self.iommu.translate(fault.requester, next, 1, fault.access) {
                Err(next) if fault_class(&next) == class => {
                    reach = reach.saturating_add(0x1000).min(length)
                }
                _ => break,
            }
        }
        reach
    }
}

fn reached(target: Target, address: u64, length: u64, direct: bool, mmio: bool) -> Resolution {
    let route = route::kind_of(direct, &target);
    let mmio_flag_on_ram = mmio && matches!(target, Target::Memory { function: None, .. });
    Resolution {
        length,
        outcome: ResolveOutcome::Reached { target, address, route, mmio_flag_on_ram },
    }
}
