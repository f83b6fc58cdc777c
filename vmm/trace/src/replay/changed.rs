//! What a what-if question found out, collected while the trace is replayed.

use std::collections::BTreeMap;

use device_models::checker::{Finding, FindingClass, Severity};
use device_models::fabric::{Alternative, Delivery, Fate, Kind, Transaction};

use crate::names::kind_name;
use crate::what_if::{STRICT, is_translated, words};

/// Changes that are kept; the others are counted.
const MAX_CHANGES: usize = 10_000;

/// More rows than functions, routes and classes make of any run.
const MAX_ROWS: usize = 10_000;

/// A part of a transaction that would have ended in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Number of the first TLP of the transaction.
    pub tlp: u64,
    /// The function that issued it.
    pub function: String,
    /// Read or write.
    pub kind: Kind,
    /// Address in the request, of the part.
    pub address: u64,
    /// Bytes of the part.
    pub length: u64,
    /// How it ended: the route and the target, or the status and the finding's class.
    pub was: String,
    /// How it would have ended.
    pub would_be: String,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tlp, function, kind, address, length, was, would_be } = self;
        let kind = kind_name(*kind);
        write!(f, "#{tlp} {function} {kind} addr={address:#x} len={length}: {was} -> {would_be}")
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The first 10 000.
    pub list: Vec<Changed>,
    /// How many there are.
    pub count: u64,
    /// How many, and how many bytes, by function, what was, and what would be.
    pub sums: BTreeMap<(String, String, String), (u64, u64)>,
}

/// Collects them.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) changes: Changes,
    pub(super) strict: bool,
    /// The guest's witness was there.
    pub(super) has_witness: bool,
    names: Vec<String>,
    /// The witness has called this transaction stale, and it has not ended yet.
    stale: Option<u64>,
}

impl Collector {
    pub(super) fn new(names: Vec<String>, strict: bool) -> Self {
        Self { names, strict, ..Self::default() }
    }

    pub(super) fn alternative(&mut self, transaction: &Transaction, it: &Alternative) {
        let at = transaction.address.wrapping_add(it.offset);
        self.add(transaction, at, it.length, &it.is, &it.would_be);
    }

    /// A finding of the witness comes in front of its transaction.
    pub(super) fn finding(&mut self, finding: &Finding) {
        if self.strict
            && finding.severity == Severity::Finding
            && finding.class == FindingClass::WitnessStale
        {
            self.stale = finding.transaction.map(|transaction| transaction.sequence);
        }
    }

    pub(super) fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery) {
        if self.stale.take() != Some(transaction.sequence) {
            return;
        }
        // A function that is let through untranslated has no addresses that could be taken away.
        if let Delivery::Delivered { route, target, address } = delivery
            && is_translated(*route)
            && *address != transaction.address
        {
            let owner = target.and_then(|target| match target {
                device_models::fabric::Target::Memory { function, .. } => function,
                device_models::fabric::Target::Registers { function, .. } => Some(function),
            });
            let was = Fate::Delivered { route: *route, owner };
            self.add(transaction, transaction.address, transaction.length, &was, &STRICT);
        }
    }

    fn add(
        &mut self,
        transaction: &Transaction,
        address: u64,
        length: u64,
        was: &Fate,
        then: &Fate,
    ) {
        let name = |index: usize| match self.names.get(index) {
            Some(name) => name.clone(),
            None => format!("function {index}"),
        };
        let changed = Changed {
            tlp: transaction.sequence,
            function: name(transaction.function.index()),
            kind: transaction.kind,
            address,
            length,
            was: words(was, |owner| name(owner.index())),
            would_be: words(then, |owner| name(owner.index())),
        };
        let Changes { list, count, sums } = &mut self.changes;
        *count += 1;
        let key = (changed.function.clone(), changed.was.clone(), changed.would_be.clone());
        if sums.len() < MAX_ROWS || sums.contains_key(&key) {
            let (transactions, bytes) = sums.entry(key).or_default();
            *transactions += 1;
            *bytes = bytes.saturating_add(length);
        }
        if list.len() < MAX_CHANGES {
            list.push(changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use device_models::checker::Cause;
    use device_models::fabric::{CompletionStatus, Purpose, RouteKind};

    use super::*;
    use crate::event::Header;
    use crate::replay::build;

    #[test]
    fn a_strict_iommu_refuses_what_the_witness_called_stale() {
        let header = Header { ram: vec![(0, 1 << 20)], ..Header::nothing() };
        let system = build(&header).unwrap();
        let (function, node) = system.address_map().functions().last().unwrap();
        let names: Vec<_> =
            system.address_map().functions().map(|(_, node)| node.name.to_string()).collect();
        let transaction = Transaction {
            sequence: 5,
            requester: node.requester,
            function,
            kind: Kind::MemoryWrite,
            purpose: Purpose::Data,
            address: 0xffff_0000,
            length: 64,
            tlp_limit: 256,
        };
        let finding = |class, severity| Finding {
            class,
            severity,
            cause: Cause::Function,
            transaction: Some(transaction),
            function: Arc::clone(&node.name),
            requester: node.requester,
            explanation: String::new(),
        };
        let stale = finding(FindingClass::WitnessStale, Severity::Finding);
        let at = |route, address| Delivery::Delivered { route, target: None, address };
        let memory = at(RouteKind::Memory, 0x3000);
        let later = Transaction { sequence: 6, ..transaction };
        for (strict, found, transaction, delivery, count) in [
            (true, &stale, transaction, memory, 1),
            (false, &stale, transaction, memory, 0),
            (true, &finding(FindingClass::WitnessStale, Severity::Note), transaction, memory, 0),
            (
                true,
                &finding(FindingClass::WitnessPastEnd, Severity::Finding),
                transaction,
                memory,
                0,
            ),
            (true, &stale, later, memory, 0),
            // Untranslated, by bus address, and refused as it is.
            (true, &stale, transaction, at(RouteKind::Memory, transaction.address), 0),
            (true, &stale, transaction, at(RouteKind::BusAddress, 0x3000), 0),
            (true, &stale, transaction, Delivery::Failed(CompletionStatus::UnsupportedRequest), 0),
        ] {
            let mut collector = Collector::new(names.clone(), strict);
            collector.finding(found);
            collector.transaction(&transaction, &delivery);
            collector.transaction(&transaction, &delivery);
            assert_eq!(collector.changes.count, count, "{found}, {delivery:?}");
        }
        let mut collector = Collector::new(names, true);
        collector.finding(&stale);
        collector.transaction(&transaction, &memory);
        let line = collector.changes.list[0].to_string();
        let name = &node.name;
        assert_eq!(
            line,
            format!("#5 {name} MWr addr=0xffff0000 len=64: memory -> UR (iommu.stale)")
        );
    }
}
