//! The answers to `stat` and `traffic`: what the VMM has counted since power-on.
//!
//! Functions are named by bus, device and function number, without the segment: `01:00.0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of RAM among the targets of DMA, beside those of functions.
pub const RAM: &str = "ram";

/// Counters of the whole machine, by function where a function has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Mappings that the IOMMU holds now, over all domains.
    pub live_mappings: u64,
    /// Requests that the IOMMU has served.
    pub iommu_requests: u64,
    /// Request TLPs that all functions have issued, whatever became of them.
    pub transactions: u64,
    /// Request TLPs issued, by function.
    pub tlps: BTreeMap<String, u64>,
    /// Message-signalled interrupts delivered to a CPU, by function.
    pub msi: BTreeMap<String, u64>,
    /// Findings, by function; functions without one are left out.
    pub findings: BTreeMap<String, u64>,
    /// Bytes read, by function and route.
    pub read: BTreeMap<String, BTreeMap<String, u64>>,
    /// Bytes written, by function and route.
    pub written: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counters {
    /// The counter at a path such as `live_mappings`, `msi/01:00.0` or `read/01:00.0/ROUTE`: keys from the outside in,
    /// joined by `/`. `None` where there is no such counter.
    pub fn counter(&self, path: &str) -> Option<u64> {
        let mut keys = path.split('/');
        let first = keys.next()?;
        match (first, keys.next(), keys.next(), keys.next()) {
            ("live_mappings", None, ..) => Some(self.live_mappings),
            ("iommu_requests", None, ..) => Some(self.iommu_requests),
            ("transactions", None, ..) => Some(self.transactions),
            ("tlps" | "msi" | "findings", Some(function), None, _) => {
                self.by_function(first)?.get(function).copied()
            }
            ("read", Some(function), Some(route), None) => {
                self.read.get(function)?.get(route).copied()
            }
            ("written", Some(function), Some(route), None) => {
                self.written.get(function)?.get(route).copied()
            }
            _ => None,
        }
    }

    /// Counters by function: `tlps`, `msi` or `findings`.
    pub fn by_function(&self, kind: &str) -> Option<&BTreeMap<String, u64>> {
        match kind {
            "tlps" => Some(&self.tlps),
            "msi" => Some(&self.msi),
            "findings" => Some(&self.findings),
            _ => None,
        }
    }
}

/// Bytes moved, by target: [`RAM`], or the name of a function in the topology. Interrupts do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Bytes read from each target.
    pub read: BTreeMap<String, u64>,
    /// Bytes written to each target.
    pub written: BTreeMap<String, u64>,
}

/// What one function has moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionTraffic {
    /// The function's name in the topology.
    pub name: String,
    /// Bytes by target.
    #[serde(flatten)]
    pub traffic: Traffic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_path() {
        let text =
            r#"{"live_mappings":3,"msi":{"01:00.0":7},"read":{"01:00.0":{"ram":9}},"new":1}"#;
        let counters: Counters = serde_json::from_str(text).unwrap();
        assert_eq!(counters.counter("live_mappings"), Some(3));
        assert_eq!(counters.counter("msi/01:00.0"), Some(7));
        assert_eq!(counters.counter("read/01:00.0/ram"), Some(9));
        for none in ["msi/02:00.0", "msi", "", "live_mappings/x", "read/01:00.0", "nonsense"] {
            assert_eq!(counters.counter(none), None, "{none}");
        }
        assert!(serde_json::from_str::<Counters>("3").is_err());
    }

    #[test]
    fn traffic_lies_beside_the_function_s_name() {
        let text = r#"{"name":"peer0","read":{"ram":3},"written":{}}"#;
        let traffic: FunctionTraffic = serde_json::from_str(text).unwrap();
        assert_eq!((traffic.name.as_str(), traffic.traffic.read["ram"]), ("peer0", 3));
        assert_eq!(serde_json::to_string(&traffic).unwrap(), text);
    }
}
