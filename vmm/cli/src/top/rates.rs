//! Rates from two readings of the counters, and what they come to on each link.

use std::collections::BTreeMap;

use peerdma_suite::control::message::{FunctionTraffic, Machine, Traffic};

/// What a function does, in a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) name: String,
    pub(super) requester: String,
    pub(super) tlps: f64,
    /// Bytes read and written, by route.
    pub(super) routes: BTreeMap<String, [f64; 2]>,
    /// Bytes read and written, by target.
    pub(super) targets: BTreeMap<String, [f64; 2]>,
    pub(super) interrupts: f64,
    /// Not a rate: mappings in force, and findings until now.
    pub(super) mappings: Option<u64>,
    pub(super) findings: u64,
}

impl Rate {
    /// Bytes read and written in all.
    pub(super) fn bytes(&self) -> [f64; 2] {
        self.targets
            .values()
            .fold([0.0; 2], |[read, written], more| [read + more[0], written + more[1]])
    }
}

/// Bytes on the link below a port in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Link {
    /// Towards the root.
    pub(super) up: f64,
    /// Away from it.
    pub(super) down: f64,
    /// There may be more: a function below has moved bytes to one beside it in both ways, and its counters do not say which
    /// went through here.
    pub(super) at_least: bool,
}

/// What happened between two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) functions: Vec<Rate>,
    pub(super) iommu_requests: f64,
    pub(super) iommu_faults: f64,
    pub(super) findings: f64,
}

/// `new` less `old`, a second. Counters of a function that was not there before began at 0.
pub(super) fn rates(old: &Traffic, new: &Traffic) -> Rates {
    let milliseconds = new.milliseconds.saturating_sub(old.milliseconds).max(1);
    let per_second =
        |new: u64, old: u64| new.saturating_sub(old) as f64 * 1000.0 / milliseconds as f64;
    let none = FunctionTraffic::default();
    let of = |new: &FunctionTraffic| {
        let old = old.functions.iter().find(|old| old.name == new.name).unwrap_or(&none);
        let both = |[new_read, old_read]: [&BTreeMap<String, u64>; 2],
                    [new_written, old_written]: [&BTreeMap<String, u64>; 2]| {
            let mut all: BTreeMap<String, [f64; 2]> = BTreeMap::new();
            for (place, new, old) in [(0, new_read, old_read), (1, new_written, old_written)] {
                for (name, bytes) in new {
                    let before = old.get(name).copied().unwrap_or_default();
                    all.entry(name.clone()).or_default()[place] = per_second(*bytes, before);
                }
            }
            all
        };
        Rate {
            name: new.name.clone(),
            requester: new.requester.clone(),
            tlps: per_second(new.tlps, old.tlps),
            routes: both([&new.read, &old.read], [&new.written, &old.written]),
            targets: both([&new.read_from, &old.read_from], [&new.written_to, &old.written_to]),
            interrupts: per_second(new.interrupts, old.interrupts),
            mappings: new.mappings,
            findings: new.findings,
        }
    };
    Rates {
        functions: new.functions.iter().map(of).collect(),
        iommu_requests: per_second(new.iommu_requests, old.iommu_requests),
        iommu_faults: per_second(new.iommu_faults, old.iommu_faults),
        findings: per_second(new.findings, old.findings),
    }
}

/// The bridges above `name`, from the nearest on.
fn above<'a>(machine: &'a Machine, name: &str) -> Vec<&'a str> {
    let parent = |name: &str| {
        let found = machine.functions.iter().find(|of| of.name == name)?;
        found.parent.as_deref()
    };
    // A machine has as many levels as it has functions, at most.
    std::iter::successors(parent(name), |name| parent(name)).take(machine.functions.len()).collect()
}

/// What is on the link below each port.
pub(super) fn links(machine: &Machine, rates: &Rates) -> BTreeMap<String, Link> {
    let mut all: BTreeMap<String, Link> = BTreeMap::new();
    for rate in &rates.functions {
        let own = above(machine, &rate.name);
        let by = |route: &str| rate.routes.get(route).is_some_and(|bytes| bytes != &[0.0; 2]);
        let (direct, through_root) = (by("bus-address"), by("through-host-bridge"));
        for (target, [read, written]) in &rate.targets {
            let its = above(machine, target);
            let mut add = |port: &str, up: f64, down: f64| {
                // Ports above both are passed only by what turns around at the root.
                let is_above_both = own.contains(&port) && its.contains(&port);
                if is_above_both && direct && !through_root {
                    return;
                }
                let link = all.entry(port.to_owned()).or_default();
                let unclear = is_above_both && direct && through_root;
                match unclear {
                    true => link.at_least |= up > 0.0 || down > 0.0,
                    false => {
                        link.up += up;
                        link.down += down;
                    }
                }
            };
            own.iter().for_each(|port| add(port, *written, *read));
            its.iter().for_each(|port| add(port, *read, *written));
        }
    }
    all
}

/// `12.3 M`, three digits at least where there are any.
pub(super) fn short(value: f64) -> String {
    if value < 0.5 {
        return "-".into();
    }
    let mut value = value;
    for unit in ["", " k", " M", " G"] {
        if value < 999.5 {
            return match value {
                _ if unit.is_empty() => format!("{value:.0}"),
                small if small < 9.995 => format!("{value:.2}{unit}"),
                middle if middle < 99.95 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.0} T")
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma_suite::control::message::Function;

    fn machine() -> Machine {
        let function = |name: &str, parent: Option<&str>| Function {
            name: name.into(),
            parent: parent.map(str::to_owned),
            ..Function::default()
        };
        Machine {
            functions: vec![
                function("root", None),
                function("up", Some("root")),
                function("down0", Some("up")),
                function("a", Some("down0")),
                function("down1", Some("up")),
                function("b", Some("down1")),
            ],
        }
    }

    fn traffic(milliseconds: u64, route: &str, bytes: u64) -> Traffic {
        let one = |name: &str| BTreeMap::from([(name.to_owned(), bytes)]);
        let function = FunctionTraffic {
            name: "a".into(),
            tlps: bytes / 100,
            written: one(route),
            written_to: one("b"),
            ..FunctionTraffic::default()
        };
        Traffic { milliseconds, functions: vec![function], ..Traffic::default() }
    }

    #[test]
    fn rates_are_what_happened_in_a_second() {
        let old = traffic(1000, "bus-address", 1000);
        let found = rates(&old, &traffic(3000, "bus-address", 5000));
        let rate = &found.functions[0];
        assert_eq!((rate.tlps, rate.bytes()), (20.0, [0.0, 2000.0]));
        // A function that is new, and a clock that stands still.
        assert_eq!(rates(&Traffic::default(), &old).functions[0].bytes(), [0.0, 1000.0]);
        assert_eq!(rates(&old, &old).functions[0].bytes(), [0.0; 2]);
    }

    #[test]
    fn a_request_that_turns_around_in_the_switch_is_not_on_the_link_above_it() {
        let link = |route: &str| {
            let found = rates(&Traffic::default(), &traffic(1000, route, 8));
            links(&machine(), &found)
        };
        let up_and_down = |all: &BTreeMap<String, Link>, name: &str| {
            all.get(name).map_or((0.0, 0.0), |link| (link.up, link.down))
        };
        let direct = link("bus-address");
        assert_eq!(up_and_down(&direct, "down0"), (8.0, 0.0));
        assert_eq!(up_and_down(&direct, "down1"), (0.0, 8.0));
        assert_eq!(up_and_down(&direct, "root"), (0.0, 0.0));
        let redirected = link("through-host-bridge");
        assert_eq!(up_and_down(&redirected, "down0"), (8.0, 0.0));
        assert_eq!(up_and_down(&redirected, "root"), (8.0, 8.0));
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 7.0, 999.0, 1234.0, 12_345.0, 999_600.0, 1e9, 5e15];
        let texts = all.map(short);
        assert_eq!(texts, ["-", "7", "999", "1.23 k", "12.3 k", "1.00 M", "1.00 G", "5000 T"]);
    }
}
