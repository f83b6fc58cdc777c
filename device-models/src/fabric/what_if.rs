//! What would have become of a request if some ports or host bridges were set differently: another
//! address map, at the same moment and with the same mappings of the IOMMU.

use std::sync::Arc;

use super::resolve::{ResolveOutcome, fault_class};
use super::{AddressMap, CompletionStatus, Fabric, FunctionId, RouteKind, Transaction};
use crate::checker::FindingClass;

/// Sets something differently in an address map. Numbers and addresses have to stay as they are.
pub type MapChange = Box<dyn Fn(&mut AddressMap) + Send>;

/// How a part of a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Delivered {
        /// By which route.
        route: RouteKind,
        /// At a BAR of this function; none for RAM and the interrupt window.
        owner: Option<FunctionId>,
    },
    /// It does not.
    Failed {
        /// The status that its requester gets, if it is a read.
        status: CompletionStatus,
        /// What the checker calls it.
        class: FindingClass,
    },
}

/// A part of a transaction that would have ended in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative {
    /// Where the part begins, in bytes behind the transaction's address.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// How it ends.
    pub is: Fate,
    /// How it would have ended.
    pub would_be: Fate,
}

/// A question, and the map that answers it.
pub(super) struct WhatIf {
    change: MapChange,
    /// The map of this epoch, changed.
    changed: Option<(u64, Arc<AddressMap>)>,
}

impl WhatIf {
    pub(super) fn new(change: MapChange) -> Self {
        Self { change, changed: None }
    }

    fn map(&mut self, now: &Arc<AddressMap>) -> Arc<AddressMap> {
        match &self.changed {
            Some((epoch, map)) if *epoch == now.epoch => Arc::clone(map),
            _ => {
                let mut map = AddressMap::clone(now);
                (self.change)(&mut map);
                let map = Arc::new(map);
                self.changed = Some((now.epoch, Arc::clone(&map)));
                map
            }
        }
    }
}

impl Fabric {
    /// Asks what would become of each transaction with a changed map.
    pub(crate) fn set_what_if(&mut self, change: MapChange) {
        self.what_if = Some(WhatIf::new(change));
    }

    /// Tells the observers which parts of a transaction would have ended in another way.
    #[cold]
    pub(super) fn observe_alternatives(&mut self, transaction: &Transaction) {
        let Some(mut what_if) = self.what_if.take() else { return };
        let other = what_if.map(&self.map);
        self.what_if = Some(what_if);
        let mut offset = 0;
        while offset < transaction.length {
            let Some(at) = transaction.address.checked_add(offset) else { break };
            let left = transaction.length - offset;
            let (is, room) = self.fate(transaction, at, left);
            let now = std::mem::replace(&mut self.map, Arc::clone(&other));
            let (would_be, reach) = self.fate(transaction, at, room);
            self.map = now;
            let length = room.min(reach).clamp(1, left);
            if is != would_be
                && let Some(observer) = self.watch.observer()
            {
                let alternative = Alternative { offset, length, is, would_be };
                observer.alternative(transaction, &alternative);
            }
            offset += length;
        }
    }

    /// How the next bytes of a transaction end, and for how many of `left` that holds.
    fn fate(&mut self, transaction: &Transaction, at: u64, left: u64) -> (Fate, u64) {
        let resolution = self.resolve(transaction.function, transaction.kind, at, left);
        let fate = match resolution.outcome {
            ResolveOutcome::Reached { target, route, .. } => {
                Fate::Delivered { route, owner: target.owner() }
            }
            ResolveOutcome::InterruptWindow => {
                Fate::Delivered { route: RouteKind::Interrupt, owner: None }
            }
            ResolveOutcome::Refused(refusal) => {
                Fate::Failed { status: refusal.status(), class: refusal.class }
            }
            ResolveOutcome::Faulted(fault) => Fate::Failed {
                status: CompletionStatus::UnsupportedRequest,
                class: fault_class(&fault),
            },
        };
        (fate, resolution.length)
    }
}
