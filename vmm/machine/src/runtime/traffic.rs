//! Bytes by target: into whose memory or registers they went, by the names that the topology has for its functions.

use std::collections::BTreeMap;

use device_models::fabric::{FunctionId, Moved, RouteKind};
use device_models::system::System;
use guest_protocol::{RAM, Traffic};

/// How the names of a report's counters begin.
const READ: &str = "bytes-read-from-";
const WRITTEN: &str = "bytes-written-to-";

/// What a function has moved since power-on.
pub fn of(system: &System, function: FunctionId) -> Traffic {
    let map = system.address_map();
    let mut traffic = Traffic::default();
    for (target, Moved { read, written }) in system.stats().by_target(function) {
        let name = target.map_or(RAM, |target| &*map.node(target).name);
        for (bytes, by_target) in [(read, &mut traffic.read), (written, &mut traffic.written)] {
            if bytes > 0 {
                by_target.insert(name.to_owned(), bytes);
            }
        }
    }
    traffic
}

/// Bytes by the names of their routes, as far as there are any.
pub fn by_route(bytes: &[u64; 4]) -> BTreeMap<String, u64> {
    let named = RouteKind::ALL.iter().zip(bytes).filter(|(_, bytes)| **bytes > 0);
    named.map(|(route, bytes)| (route.name().to_owned(), *bytes)).collect()
}

/// Adds to `sum` what another function has moved.
pub fn add(sum: &mut Traffic, other: &Traffic) {
    for (sum, more) in [(&mut sum.read, &other.read), (&mut sum.written, &other.written)] {
        for (name, bytes) in more {
            let total = sum.entry(name.clone()).or_default();
            *total = total.saturating_add(*bytes);
        }
    }
}

/// As counters of a report: at most two for each function and RAM.
pub fn counters(traffic: &Traffic) -> impl Iterator<Item = (String, u64)> + '_ {
    let named = |begin: &'static str, by_target: &'_ BTreeMap<String, u64>| {
        let named = by_target.iter().map(move |(name, bytes)| (format!("{begin}{name}"), *bytes));
        named.collect::<Vec<_>>()
    };
    named(READ, &traffic.read).into_iter().chain(named(WRITTEN, &traffic.written))
}

/// The other way round: out of a report's counters.
pub fn from_counters(counters: &BTreeMap<String, u64>) -> Traffic {
    let named = |begin: &str| {
        let named = counters.iter().filter_map(|(name, bytes)| {
            name.strip_prefix(begin).map(|target| (target.to_owned(), *bytes))
        });
        named.collect()
    };
    Traffic { read: named(READ), written: named(WRITTEN) }
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
        add(&mut all, &Traffic { written: [("peer1".to_owned(), 9)].into(), ..one });
        let counters: BTreeMap<_, _> = super::counters(&all).collect();
        assert_eq!(counters["bytes-read-from-peer0"], 6);
        assert_eq!(counters["bytes-written-to-peer1"], 9);
        assert_eq!(counters.len(), 4);
        assert_eq!(from_counters(&counters), all);
    }
}
