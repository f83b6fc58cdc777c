//! Routes of the presets, and of small trees that show one rule each.

use super::*;
use crate::assembly::IommuMode;
use crate::linux::Guest;
use crate::{Cpu, Plan, Topology};
use Arrival::{Elsewhere, Refused, RootComplex, Switch};

const UNMAPPED: Arrival = Refused(FindingClass::Unmapped);
const NOT_ROUTED: Arrival = Refused(FindingClass::PeerToPeerRefused);
const TURNED_BACK: Arrival = Refused(FindingClass::TurnedBack);
const LOST: Arrival = Refused(FindingClass::CompletionTimeout);

/// By bus address, by the CPUs', by IOVA; completions.
fn arrivals(text: &str, iommu: IommuMode, parameters: &[&str], ends: [&str; 2]) -> [Arrival; 4] {
    let topology = Topology::load(text).or_else(|_| Topology::parse("t", text)).unwrap();
    let parameters = parameters.iter().map(|text| (*text).to_owned()).collect();
    let guest = Guest { iommu, cpu: Cpu::Neutral, parameters };
    let plan = Plan::new(&topology, iommu.has_iommu()).unwrap();
    let [requester, owner] = ends.map(|name| plan.find(name).unwrap());
    let found = View::new(&plan, &guest).routes(requester, owner);
    [found.by_bus_address, found.by_cpu_address, found.by_iova, found.completions]
        .map(|route| route.arrival)
}

const PAIR: [&str; 2] = ["peer0", "peer1"];

#[test]
fn presets_do_what_they_are_there_for() {
    use IommuMode::{None, Passthrough, Strict};
    let of = |name, iommu| arrivals(name, iommu, &[], PAIR);
    assert_eq!(of("root-ports", Strict), [UNMAPPED, UNMAPPED, RootComplex, RootComplex]);
    assert_eq!(of("root-ports", Passthrough), [RootComplex; 4]);
    assert_eq!(
        of("root-ports+translated", Passthrough),
        [Elsewhere, RootComplex, RootComplex, RootComplex]
    );
    assert_eq!(of("switch", Strict), [Switch, Switch, RootComplex, Switch]);
    assert_eq!(of("switch+translated", Strict), [Switch, UNMAPPED, RootComplex, Switch]);
    assert_eq!(of("switch-acs", Strict), [UNMAPPED, UNMAPPED, RootComplex, RootComplex]);
    // Without an IOMMU Linux leaves ACS off.
    assert_eq!(of("switch-acs", None), [Switch, Switch, TURNED_BACK, Switch]);
    assert_eq!(of("refused", None), [NOT_ROUTED, NOT_ROUTED, NOT_ROUTED, RootComplex]);
}

#[test]
fn each_control_does_its_own_part() {
    let none = IommuMode::None;
    let of = |flags: &str| {
        let all = format!("pci=config_acs={flags}@02:00.0;{flags}@02:01.0;1xxxx@00:04.0");
        arrivals("switch-acs", none, &[&all], PAIR)
    };
    // Upstream Forwarding, Completion Redirect, Request Redirect.
    assert_eq!(of("000x0"), [Switch, Switch, RootComplex, Switch]);
    assert_eq!(of("001x0"), [RootComplex, RootComplex, RootComplex, Switch]);
    assert_eq!(of("010x0"), [Switch, Switch, RootComplex, RootComplex]);
    assert_eq!(of("111x0"), [RootComplex; 4]);
    // One port redirects, the other does not.
    let one = arrivals(
        "switch-acs",
        none,
        &["pci=config_acs=111x1@02:00.0,config_acs=1x1xx@02:00.0;1xxxx@00:04.0"],
        PAIR,
    );
    assert_eq!(one, [RootComplex, RootComplex, RootComplex, Switch]);
    let other = arrivals("switch-acs", none, &["pci=config_acs=1x1xx@02:01.0;1xxxx@00:04.0"], PAIR);
    assert_eq!(other, [Switch, Switch, RootComplex, Switch]);
}

/// A host bridge, one port, and two functions below it.
fn functions(id: &str, port: &str, routing: &str) -> String {
    format!(
        "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '{id}'\npeer-routing = '{routing}'\n[[root-port]]\nname = 'p'\n\
         on = 'h'\ndevice = 4\n[[switch]]\nname = 's'\nbelow = 'p'\n[[switch.port]]\nname = 'd'\ndevice = 0\n\
         acs = '{port}'\n[[peer]]\nname = 'peer0'\nbelow = 'd'\n[[peer]]\nname = 'peer1'\nbelow = 'd'\nfunction = 1\n"
    )
}

#[test]
fn functions_of_one_device_depend_on_upstream_forwarding() {
    let of = |port: &str, routing: &str, iommu| {
        arrivals(&functions("8086:2020", port, routing), iommu, &[], PAIR)
    };
    let strict = IommuMode::Strict;
    assert_eq!(
        of("standard", "everywhere", strict),
        [UNMAPPED, UNMAPPED, RootComplex, RootComplex]
    );
    assert_eq!(of("SV RR CR", "everywhere", strict), [TURNED_BACK, TURNED_BACK, RootComplex, LOST]);
    assert_eq!(of("standard", "nowhere", strict), [UNMAPPED, UNMAPPED, NOT_ROUTED, RootComplex]);
    // The port is not set to forward, and the root complex's port is not either.
    assert_eq!(
        of("standard", "everywhere", IommuMode::None),
        [TURNED_BACK, TURNED_BACK, TURNED_BACK, LOST]
    );
}

#[test]
fn linux_s_refusal_is_not_the_hardware_s() {
    let text = functions("8086:a700", "none", "everywhere")
        .replace("below = 'd'\nfunction = 1", "below = 'q'")
        + "[[root-port]]\nname = 'q'\non = 'h'\ndevice = 5\n";
    let found = arrivals(&text, IommuMode::Strict, &[], PAIR);
    assert_eq!(found, [UNMAPPED, UNMAPPED, RootComplex, RootComplex]);
}

#[test]
fn a_number_may_stand_for_two_things() {
    // The CPUs' address of the second bridge's memory is a bus address of the first bridge's.
    let text = "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '8086:2020'\ntranslation = 0x2000000000\n\
                prefetchable = { first = 0x1400000000, last = 0x1fffffffff }\n[[host-bridge]]\nname = 'g'\n\
                id = '8086:2020'\ntranslation = 0xf80000000\n\
                prefetchable = { first = 0x1000000000, last = 0x10ffffffff }\n\
                [[root-port]]\nname = 'p'\non = 'h'\ndevice = 4\n[[root-port]]\nname = 'q'\non = 'g'\ndevice = 4\n\
                [[peer]]\nname = 'peer0'\nbelow = 'p'\n[[peer]]\nname = 'peer1'\nbelow = 'q'\n";
    let found = arrivals(text, IommuMode::None, &[], PAIR);
    assert_eq!(found, [Elsewhere, Elsewhere, RootComplex, RootComplex]);
    let back = arrivals(text, IommuMode::None, &[], ["peer1", "peer0"]);
    assert_eq!(back, [Elsewhere, RootComplex, RootComplex, RootComplex]);
}
