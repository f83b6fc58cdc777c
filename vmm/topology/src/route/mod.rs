//! The route that the hardware takes requests from one function to the memory of another, and
//! completions back, whatever Linux thinks of it: a second account of what
//! [`device_models::fabric`] does with the ACS controls that are on.

use device_models::AddressRange;
use device_models::checker::FindingClass;
use device_models::fabric::HostWindow;
use device_models::pci::AcsControl;

use super::addresses::Addresses;
use super::description::PeerRouting;
use super::linux::{AddressKind, MapType, View};
use super::plan::{Kind, Plan};

/// What becomes of a request, or of the completions of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A switch turns it around.
    Switch,
    /// It arrives through the root complex.
    RootComplex,
    /// It does not arrive, and this is the finding.
    Refused(FindingClass),
    /// The address, or part of the range, belongs, or may belong, to something else.
    Elsewhere,
}

/// A route as far as it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Whether it arrives.
    pub arrival: Arrival,
    /// The function that refuses it, or the last one that redirects it; none when that is the root
    /// complex, or nothing does.
    pub at: Option<usize>,
    /// The function that it reaches instead.
    pub instead: Option<usize>,
    /// The function whose address it carries, where that is another one, and the root complex does
    /// not take it there.
    pub meant: Option<usize>,
}

impl Route {
    const fn new(arrival: Arrival) -> Self {
        Self { arrival, at: None, instead: None, meant: None }
    }

    const fn refused(class: FindingClass, at: Option<usize>) -> Self {
        Self { arrival: Arrival::Refused(class), at, instead: None, meant: None }
    }

    /// Whether it leads where it should.
    pub fn arrives(&self) -> bool {
        matches!(self.arrival, Arrival::Switch | Arrival::RootComplex)
    }
}

/// The routes between two functions: of requests by each kind of address, and of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routes {
    /// Requests with the address that stands in the BAR.
    pub by_bus_address: Route,
    /// Requests with the CPUs' address.
    pub by_cpu_address: Route,
    /// Requests with an address that the IOMMU translates to that memory. Linux allocates none that
    /// the requester's host bridge forwards (`iova_reserve_pci_windows()`).
    pub by_iova: Route,
    /// Completions with data, which are routed by the requester ID.
    pub completions: Route,
}

impl Routes {
    /// Requests with the kind of address that Linux gives; none where it gives none.
    pub fn by(&self, address: AddressKind) -> Option<Route> {
        match address {
            AddressKind::Bus => Some(self.by_bus_address),
            AddressKind::Physical => Some(self.by_cpu_address),
            AddressKind::Iova => Some(self.by_iova),
            AddressKind::Refused => None,
        }
    }

    /// Whether data arrives, both ways, by the kind of address that Linux gives.
    pub fn carry(&self, address: AddressKind) -> bool {
        self.by(address).is_some_and(|route| route.arrives()) && self.completions.arrives()
    }
}

/// The address of a request.
#[derive(Debug, Clone, Copy)]
enum Destination {
    /// This address, on the requester's bus and, untranslated, at the root complex.
    Address(u64),
    /// The bus address of this function's memory, where the address is not known.
    MemoryOf(usize),
}

/// How far a request gets in the requester's own hierarchy.
enum Upward {
    /// A switch sent it down to this function, or to none.
    Delivered(Option<usize>),
    /// It reaches the root complex; the last port that redirected it.
    AtRoot(Option<usize>),
    Refused(FindingClass, usize),
}

/// Routes with one set of ACS controls.
struct Router<'v> {
    view: &'v View<'v>,
    plan: &'v Plan,
    addresses: Option<&'v Addresses>,
    controls: &'v [AcsControl],
}

impl View<'_> {
    /// Whether every bridge between the two is of a kind whose routing is modelled.
    pub fn models_routes(&self, a: usize, b: usize) -> bool {
        let (path, _) = self.between(a, b);
        path.into_iter().all(|at| self.plan.functions[at].kind != Kind::OtherBridge)
    }

    /// The routes between `requester` and the memory of `owner`, where every port does what its ACS
    /// controls say.
    pub fn routes(&self, requester: usize, owner: usize) -> Routes {
        self.router(&self.controls).routes(requester, owner)
    }

    /// The routes that the hardware takes, controls without effect included.
    pub fn routes_in_effect(&self, requester: usize, owner: usize) -> Routes {
        let effect: Vec<_> = (0..self.controls.len()).map(|at| self.in_effect(at)).collect();
        self.router(&effect).routes(requester, owner)
    }

    fn router<'v>(&'v self, controls: &'v [AcsControl]) -> Router<'v> {
        Router { view: self, plan: self.plan, addresses: self.plan.addresses.as_ref(), controls }
    }

    /// Lines that Linux writes into its log, at level warning, whenever it decides about one of these
    /// pairs: where ACS redirects, and a host bridge is not on its list
    /// (`__host_bridge_whitelist()`).
    pub fn warnings(&self, pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<String> {
        let mut lines = Vec::new();
        for (provider, client) in pairs {
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

impl Router<'_> {
    fn routes(&self, requester: usize, owner: usize) -> Routes {
        Routes {
            by_bus_address: self.by_address(requester, owner, AddressKind::Bus),
            by_cpu_address: self.by_address(requester, owner, AddressKind::Physical),
            by_iova: self.through_root(requester, owner),
            completions: self.completions(owner, requester),
        }
    }

    fn is_on(&self, port: usize, control: AcsControl) -> bool {
        self.controls[port].contains(control)
    }

    /// Requests with addresses of one kind to all of the owner's memory.
    fn by_address(&self, requester: usize, owner: usize, kind: AddressKind) -> Route {
        let offset = match kind {
            AddressKind::Physical => self.offset(owner),
            _ => 0,
        };
        let Some(points) = self.points(owner, offset) else {
            return self.without_numbers(requester, owner, offset);
        };
        let routes: Vec<_> = points
            .into_iter()
            .map(|point| self.request(requester, owner, Destination::Address(point)))
            .collect();
        let first = routes.first().copied().unwrap_or(Route::new(Arrival::Elsewhere));
        match routes.iter().find(|route| route.arrival != first.arrival) {
            None => first,
            // Parts of the memory are reached, or parts of something else.
            Some(other) => {
                let lost = if first.arrives() { other } else { &first };
                Route { arrival: Arrival::Elsewhere, ..*lost }
            }
        }
    }

    /// Where the route of requests to the owner's memory can change: its first byte, and each edge
    /// of a BAR or window inside of it, seen through `offset`. None where the addresses are unknown.
    fn points(&self, owner: usize, offset: u64) -> Option<Vec<u64>> {
        let all = &self.addresses?.0;
        let memory = all.get(owner)?.bars.iter().filter(|bar| bar.memory);
        let memory: Vec<_> = memory.map(|bar| shifted(bar.range, offset)).collect();
        if memory.is_empty() {
            return None;
        }
        let mut points: Vec<u64> = memory.iter().map(|range| range.first).collect();
        let ranges = all.iter().zip(&self.plan.functions).flat_map(|(claims, planned)| {
            let there = self.plan.host_bridges[planned.host_bridge].windows[1].offset;
            let bars = claims.bars.iter().map(|bar| bar.range);
            bars.chain(claims.windows.iter().copied())
                .flat_map(move |range| [range, shifted(range, there)])
        });
        let edges = ranges.flat_map(|range| [range.first, range.last.wrapping_add(1)]);
        points.extend(edges.filter(|edge| memory.iter().any(|range| range.contains(*edge))));
        points.sort_unstable();
        points.dedup();
        Some(points)
    }

    fn without_numbers(&self, requester: usize, owner: usize, offset: u64) -> Route {
        let same = self.same_bridge(requester, owner);
        // Another address than on the owner's bus, or another bus: it may be anything there.
        let range = shifted(self.memory_window(owner).bus, offset);
        if (offset != 0 || !same) && self.is_on_bus_of(requester, range) {
            return Route::new(Arrival::Elsewhere);
        }
        if offset != 0 || !same {
            // No bridge on the way up claims it.
            return match self.view.translates(requester) {
                true => Route::refused(FindingClass::Unmapped, None),
                false if offset == 0 && self.offset(owner) != 0 => Route::new(Arrival::Elsewhere),
                false => self.through_root(requester, owner),
            };
        }
        match self.upward(requester, Destination::MemoryOf(owner)) {
            Upward::AtRoot(_) if self.offset(owner) != 0 && !self.view.translates(requester) => {
                Route::new(Arrival::Elsewhere)
            }
            _ => self.request(requester, owner, Destination::MemoryOf(owner)),
        }
    }

    fn request(&self, requester: usize, owner: usize, to: Destination) -> Route {
        let reached = match self.upward(requester, to) {
            Upward::Refused(class, at) => return Route::refused(class, Some(at)),
            Upward::Delivered(reached) => return found(reached, owner, Arrival::Switch),
            Upward::AtRoot(at) if self.view.translates(requester) => {
                return Route::refused(FindingClass::Unmapped, at);
            }
            Upward::AtRoot(_) => match to {
                Destination::Address(address) => self.down_from_root(address),
                Destination::MemoryOf(owner) => Some(owner),
            },
        };
        let Some(target) = reached else { return found(None, owner, Arrival::RootComplex) };
        let route = self.through_root(requester, target);
        if route.arrives() {
            found(Some(target), owner, Arrival::RootComplex)
        } else {
            Route { meant: reached.filter(|target| *target != owner), ..route }
        }
    }

    /// Up from the requester (PCIe 6.0, 6.12.3), as far as its own hierarchy decides.
    fn upward(&self, requester: usize, to: Destination) -> Upward {
        let mut redirected = None;
        for port in self.plan.path_up(requester).skip(1) {
            let planned = &self.plan.functions[port];
            if planned.kind == Kind::SwitchUpstream {
                // For the link below, and no downstream port claimed it.
                if redirected.is_none() && self.forwards(port, to) {
                    return Upward::Refused(FindingClass::NoTarget, port);
                }
            }
            if planned.kind != Kind::SwitchDownstream {
                continue;
            }
            let beside = planned.parent.map(|up| self.plan.functions[up].children.as_slice());
            let beside = beside.unwrap_or_default().iter().filter(|beside| **beside != port);
            for &beside in beside {
                if !self.forwards(beside, to) {
                    continue;
                }
                // Egress Control goes first (table 6-11): its vector stays 0, so that it names
                // no port, and what it does not name it lets through.
                let egress = self.is_on(port, AcsControl::P2P_EGRESS_CONTROL);
                if egress || !self.is_on(port, AcsControl::P2P_REQUEST_REDIRECT) {
                    return Upward::Delivered(self.descend(beside, to));
                }
                redirected = Some(port);
            }
            if self.forwards(port, to) {
                if !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) {
                    return Upward::Refused(FindingClass::TurnedBack, port);
                }
                redirected = Some(port);
            }
        }
        Upward::AtRoot(redirected)
    }

    /// Whether a bridge claims the address for what is below it.
    fn forwards(&self, bridge: usize, to: Destination) -> bool {
        match to {
            Destination::Address(address) => {
                self.addresses.is_some_and(|all| all.0[bridge].forwards(address))
            }
            Destination::MemoryOf(owner) => self.plan.path_up(owner).skip(1).any(|at| at == bridge),
        }
    }

    /// The function that takes the request among those below a bridge.
    fn descend(&self, bridge: usize, to: Destination) -> Option<usize> {
        match to {
            Destination::Address(address) => {
                self.among(&self.plan.functions[bridge].children, address)
            }
            Destination::MemoryOf(owner) => Some(owner),
        }
    }

    fn among(&self, functions: &[usize], address: u64) -> Option<usize> {
        let all = &self.addresses?.0;
        functions.iter().find_map(|&function| {
            if all[function].has(address) {
                return Some(function);
            }
            if !all[function].forwards(address) {
                return None;
            }
            self.among(&self.plan.functions[function].children, address)
        })
    }

    /// The function whose BAR the CPUs find at this address.
    fn down_from_root(&self, physical: u64) -> Option<usize> {
        self.plan.host_bridges.iter().find_map(|bridge| {
            let holds = |window: &&HostWindow| window.seen_by_cpu().contains(physical);
            let window = bridge.windows.iter().find(holds)?;
            self.among(&bridge.root, physical.wrapping_sub(window.offset))
        })
    }

    /// From the root complex on, for a request that has the right address there.
    fn through_root(&self, requester: usize, owner: usize) -> Route {
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
            return Route::refused(FindingClass::PeerToPeerRefused, None);
        }
        let top = |function| self.plan.path_up(function).last();
        match top(requester).filter(|from| Some(*from) == top(owner)) {
            // Back to where it came from.
            Some(port)
                if self.plan.functions[port].kind == Kind::RootPort
                    && !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) =>
            {
                Route::refused(FindingClass::TurnedBack, Some(port))
            }
            _ => Route::new(Arrival::RootComplex),
        }
    }

    /// Completions of `completer` for `requester` (2.2.4.2 and 6.12.1.1).
    fn completions(&self, completer: usize, requester: usize) -> Route {
        let is_below =
            |function: usize, bridge| self.plan.path_up(function).skip(1).any(|at| at == bridge);
        for port in self.plan.path_up(completer).skip(1) {
            let planned = &self.plan.functions[port];
            if planned.kind == Kind::SwitchUpstream {
                continue;
            }
            if is_below(requester, port) {
                if !self.is_on(port, AcsControl::UPSTREAM_FORWARDING) {
                    return Route::refused(FindingClass::CompletionTimeout, Some(port));
                }
            } else if planned.kind == Kind::SwitchDownstream
                && planned.parent.is_some_and(|up| is_below(requester, up))
                && !self.is_on(port, AcsControl::P2P_COMPLETION_REDIRECT)
            {
                return Route::new(Arrival::Switch);
            }
        }
        Route::new(Arrival::RootComplex)
    }

    /// The window that the memory BARs of the host bridge above a function come from.
    fn memory_window(&self, owner: usize) -> HostWindow {
        let bridge = &self.plan.host_bridges[self.plan.functions[owner].host_bridge];
        let [_, prefetchable] = bridge.windows;
        prefetchable
    }

    fn offset(&self, owner: usize) -> u64 {
        self.memory_window(owner).offset
    }

    /// Whether some of these addresses are on `requester`'s bus, where a switch may find something
    /// at them.
    fn is_on_bus_of(&self, requester: usize, range: AddressRange) -> bool {
        let bridge = &self.plan.host_bridges[self.plan.functions[requester].host_bridge];
        bridge.windows.iter().any(|window| range.overlaps(&window.bus))
    }

    fn same_bridge(&self, one: usize, other: usize) -> bool {
        self.plan.functions[one].host_bridge == self.plan.functions[other].host_bridge
    }
}

fn found(reached: Option<usize>, owner: usize, arrival: Arrival) -> Route {
    match reached {
        Some(function) if function == owner => Route::new(arrival),
        Some(_) => Route { instead: reached, ..Route::new(Arrival::Elsewhere) },
        None => Route::refused(FindingClass::NoTarget, None),
    }
}

fn shifted(range: AddressRange, offset: u64) -> AddressRange {
    AddressRange { first: range.first.wrapping_add(offset), last: range.last.wrapping_add(offset) }
}

#[cfg(test)]
mod tests;
