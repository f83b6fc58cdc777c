//! By which way the hardware takes requests from one function to the memory of another, whatever Linux thinks of it: a
//! second account of what `device_models::fabric` does with the ACS controls that Linux has switched on.
//!
//! Ports do what they say here: a control without effect is a fault that nobody knows of, and that a test must notice.

use device_models::AddressRange;
use device_models::checker::FindingClass;
use device_models::fabric::HostWindow;
use device_models::pci::AcsControl;

use super::description::PeerRouting;
use super::linux::{AddressKind, MapType, View};
use super::plan::Kind;

/// What becomes of a request, or of the completions of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A switch turns it around.
    Switch,
    /// It arrives through the root complex.
    RootComplex,
    /// It does not arrive, and this is what is found.
    Refused(FindingClass),
    /// The address is, or may be, one of something else.
    Elsewhere,
}

/// What becomes of requests with each kind of address, and of completions, between two functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrivals {
    /// With the address that stands in the BAR.
    pub by_bus_address: Arrival,
    /// With the CPUs' address.
    pub by_cpu_address: Arrival,
    /// With an address that the IOMMU translates to that memory, and that is on no bus.
    pub by_iova: Arrival,
    /// Completions with data, which are routed by the requester's number.
    pub completions: Arrival,
}

impl Arrivals {
    /// With the address that Linux gives; where it gives none, none.
    pub fn by(&self, address: AddressKind) -> Option<Arrival> {
        match address {
            AddressKind::Bus => Some(self.by_bus_address),
            AddressKind::Physical => Some(self.by_cpu_address),
            AddressKind::Iova => Some(self.by_iova),
            AddressKind::Refused => None,
        }
    }
}

/// On its way up.
enum Upward {
    Delivered,
    AtRoot,
    Refused(FindingClass),
}

impl View<'_> {
    /// For requests of `requester` to the memory of `owner`.
    pub fn arrivals(&self, requester: usize, owner: usize) -> Arrivals {
        let through_root = self.through_root(requester, owner);
        Arrivals {
            by_bus_address: self.by_bus_address(requester, owner, through_root),
            by_cpu_address: self.by_cpu_address(requester, owner, through_root),
            by_iova: through_root,
            completions: self.completions(owner, requester),
        }
    }

    /// Whether `function` is `bridge`, or below it.
    fn is_below(&self, function: usize, bridge: usize) -> bool {
        self.plan.path_up(function).any(|at| at == bridge)
    }

    /// The bridges above a function.
    fn bridges(&self, function: usize) -> impl Iterator<Item = usize> {
        self.plan.path_up(function).skip(1)
    }

    fn is_on(&self, port: usize, control: AcsControl) -> bool {
        self.controls[port].contains(control)
    }

    /// How far a request gets whose address is that of `owner` on the bus (PCIe 6.0, 6.12.3).
    fn upward(&self, requester: usize, owner: usize) -> Upward {
        for port in self.bridges(requester) {
            if self.plan.functions[port].kind != Kind::SwitchDownstream {
                continue;
            }
            if self.is_below(owner, port) {
                if !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) {
                    return Upward::Refused(FindingClass::TurnedBack);
                }
            } else if self.plan.functions[port].parent.is_some_and(|up| self.is_below(owner, up)) {
                // Egress Control goes first: it names nobody as long as nobody sets its vector, and whom it does not
                // name it lets through.
                let egress = self.is_on(port, AcsControl::P2P_EGRESS_CONTROL);
                if egress || !self.is_on(port, AcsControl::P2P_REQUEST_REDIRECT) {
                    return Upward::Delivered;
                }
            }
        }
        Upward::AtRoot
    }

    fn by_bus_address(&self, requester: usize, owner: usize, through_root: Arrival) -> Arrival {
        match self.upward(requester, owner) {
            Upward::Refused(class) => Arrival::Refused(class),
            Upward::Delivered => Arrival::Switch,
            // Below another host bridge the number may stand for something else.
            Upward::AtRoot
                if !self.same_bridge(requester, owner)
                    && self.is_on_bus_of(requester, self.memory(owner).bus) =>
            {
                Arrival::Elsewhere
            }
            Upward::AtRoot if self.guest.iommu.translates() => {
                Arrival::Refused(FindingClass::Unmapped)
            }
            Upward::AtRoot if self.memory(owner).offset != 0 => Arrival::Elsewhere,
            Upward::AtRoot => through_root,
        }
    }

    fn by_cpu_address(&self, requester: usize, owner: usize, through_root: Arrival) -> Arrival {
        let memory = self.memory(owner);
        if memory.offset == 0 {
            self.by_bus_address(requester, owner, through_root)
        } else if self.is_on_bus_of(requester, memory.seen_by_cpu()) {
            Arrival::Elsewhere
        } else if self.guest.iommu.translates() {
            Arrival::Refused(FindingClass::Unmapped)
        } else {
            through_root
        }
    }

    /// Where the host bridge above a device has its memory.
    fn memory(&self, owner: usize) -> HostWindow {
        let bridge = &self.plan.host_bridges[self.plan.functions[owner].host_bridge];
        let [_, prefetchable] = bridge.windows;
        prefetchable
    }

    /// Whether some of these addresses are on `requester`'s bus, where a switch may find something at them.
    fn is_on_bus_of(&self, requester: usize, range: AddressRange) -> bool {
        let bridge = &self.plan.host_bridges[self.plan.functions[requester].host_bridge];
        let meets = |bus: &AddressRange| range.first <= bus.last && bus.first <= range.last;
        bridge.windows.iter().any(|window| meets(&window.bus))
    }

    fn same_bridge(&self, one: usize, other: usize) -> bool {
        self.plan.functions[one].host_bridge == self.plan.functions[other].host_bridge
    }

    /// From the root complex on, where the address is the right one.
    fn through_root(&self, requester: usize, owner: usize) -> Arrival {
        let same = self.same_bridge(requester, owner);
        let routes = [requester, owner].into_iter().all(|function| {
            let bridge = self.plan.functions[function].host_bridge;
            match self.plan.host_bridges[bridge].peer_routing {
                PeerRouting::Everywhere => true,
                PeerRouting::SameBridge => same,
                PeerRouting::Nowhere => false,
            }
        });
        if !routes {
            return Arrival::Refused(FindingClass::PeerToPeerRefused);
        }
        let top = |function| self.plan.path_up(function).last();
        match top(requester).filter(|from| Some(*from) == top(owner)) {
            // Back to where it came from.
            Some(port)
                if self.plan.functions[port].kind == Kind::RootPort
                    && !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) =>
            {
                Arrival::Refused(FindingClass::TurnedBack)
            }
            _ => Arrival::RootComplex,
        }
    }

    /// Completions of `completer` for `requester` (2.2.4.2 and 6.12.1.1).
    fn completions(&self, completer: usize, requester: usize) -> Arrival {
        for port in self.bridges(completer) {
            let planned = &self.plan.functions[port];
            if planned.kind == Kind::SwitchUpstream {
                continue;
            }
            if self.is_below(requester, port) {
                if !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) {
                    return Arrival::Refused(FindingClass::CompletionTimeout);
                }
            } else if planned.kind == Kind::SwitchDownstream
                && planned.parent.is_some_and(|up| self.is_below(requester, up))
                && !self.is_on(port, AcsControl::P2P_COMPLETION_REDIRECT)
            {
                return Arrival::Switch;
            }
        }
        Arrival::RootComplex
    }

    /// Lines that Linux writes into its log, at level warning, whenever it decides about one of these paths: where ACS
    /// redirects, and a host bridge is not on its list (`__host_bridge_whitelist()`).
    pub fn warnings(&self, paths: impl IntoIterator<Item = (usize, usize)>) -> Vec<String> {
        let mut lines = Vec::new();
        for (provider, client) in paths {
            let decision = self.decide(provider, client);
            if decision.map != MapType::NotSupported || decision.redirects.is_empty() {
                continue;
            }
            if let super::linux::Reason::NotListed(id) = decision.reason {
                lines.push(format!("Host bridge not in P2PDMA whitelist: {id}"));
            }
        }
        lines.sort();
        lines.dedup();
        lines
    }
}

#[cfg(test)]
mod tests {
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
    fn arrivals(
        text: &str,
        iommu: IommuMode,
        parameters: &[&str],
        ends: [&str; 2],
    ) -> [Arrival; 4] {
        let topology = Topology::load(text).or_else(|_| Topology::parse("t", text)).unwrap();
        let parameters = parameters.iter().map(|text| (*text).to_owned()).collect();
        let guest = Guest { iommu, cpu: Cpu::Neutral, parameters };
        let plan = Plan::new(&topology, iommu.has_iommu()).unwrap();
        let [requester, owner] = ends.map(|name| plan.find(name).unwrap());
        let found = View::new(&plan, &guest).arrivals(requester, owner);
        [found.by_bus_address, found.by_cpu_address, found.by_iova, found.completions]
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
        let other =
            arrivals("switch-acs", none, &["pci=config_acs=1x1xx@02:01.0;1xxxx@00:04.0"], PAIR);
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
        assert_eq!(
            of("SV RR CR", "everywhere", strict),
            [TURNED_BACK, TURNED_BACK, RootComplex, LOST]
        );
        assert_eq!(
            of("standard", "nowhere", strict),
            [UNMAPPED, UNMAPPED, NOT_ROUTED, RootComplex]
        );
        // The port is not told to forward, and the root complex's port is not either.
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
}
