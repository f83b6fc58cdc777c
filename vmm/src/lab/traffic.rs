//! Bytes by target: into whose memory or registers they went, by the names that the topology has for its functions.

use std::collections::BTreeMap;

use device_models::fabric::{FunctionId, Moved};
use device_models::lab::Lab;
use serde::Serialize;

/// What RAM is called beside functions.
pub const RAM: &str = "ram";
/// How the names of a report's counters begin.
const READ: &str = "bytes-read-from-";
const WRITTEN: &str = "bytes-written-to-";

/// Bytes that were moved, by the target's name: `ram`, or that of a function. Interrupts do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Read from it.
    pub read: BTreeMap<String, u64>,
    /// Written to it.
    pub written: BTreeMap<String, u64>,
}

/// What one function has moved. Its JSON form answers the guest's `traffic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionTraffic {
    /// The function's name in the topology.
    pub name: String,
    /// What it has moved.
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl Traffic {
    /// What a function has moved since power-on.
    pub fn of(lab: &Lab, function: FunctionId) -> Self {
        let map = lab.address_map();
        let mut traffic = Self::default();
        for (target, Moved { read, written }) in lab.stats().by_target(function) {
            let name = target.map_or(RAM, |target| &*map.node(target).name);
            for (bytes, by_target) in [(read, &mut traffic.read), (written, &mut traffic.written)] {
                if bytes > 0 {
                    by_target.insert(name.to_owned(), bytes);
                }
            }
        }
        traffic
    }

    /// Adds what somebody else has moved.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [(&mut self.read, &other.read), (&mut self.written, &other.written)] {
            for (name, bytes) in more {
                let total = sum.entry(name.clone()).or_default();
                *total = total.saturating_add(*bytes);
            }
        }
    }

    /// As counters of a report: at most two for each function and RAM.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let named = |begin: &'static str, by_target: &'_ BTreeMap<String, u64>| {
            let named =
                by_target.iter().map(move |(name, bytes)| (format!("{begin}{name}"), *bytes));
            named.collect::<Vec<_>>()
        };
        named(READ, &self.read).into_iter().chain(named(WRITTEN, &self.written))
    }

    /// The other way round: out of a report's counters.
    pub fn from_counters(counters: &BTreeMap<String, u64>) -> Self {
        let named = |begin: &str| {
            let named = counters.iter().filter_map(|(name, bytes)| {
                name.strip_prefix(begin).map(|target| (target.to_owned(), *bytes))
            });
            named.collect()
        };
        Self { read: named(READ), written: named(WRITTEN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_the_lab_counted() {
        let one = Traffic {
            read: [("peer0".to_owned(), 3), ("ram".to_owned(), 64)].into(),
            written: [("ram".to_owned(), 32)].into(),
        };
        let mut all = one.clone();
        all.add(&Traffic { written: [("peer1".to_owned(), 9)].into(), ..one });
        let counters: BTreeMap<_, _> = all.counters().collect();
        assert_eq!(counters["bytes-read-from-peer0"], 6);
        assert_eq!(counters["bytes-written-to-peer1"], 9);
        assert_eq!(counters.len(), 4);
        assert_eq!(Traffic::from_counters(&counters), all);
    }
}
