//! From the description to the tree: every function with its BDF, every host bridge with its buses
//! and windows.
//!
//! Numbers are those that the firmware will give: depth first, in the order of device and function numbers.

use device_models::AddressRange;
use device_models::fabric::HostWindow;
use device_models::pci::firmware::HostResources;
use device_models::pci::{AcsControl, Bdf};

use super::acs::{self, Acs};
use super::addresses::Addresses;
use super::description::{HostBridge, PciId, PeerRouting, Topology, Window};
use super::linux::Version;
use super::names::{Names, limits, names};
use super::problem::{Item, Problem};
use super::windows;

/// Most peer devices in a topology.
pub const MAX_PEERS: usize = 16;
/// Most devices of other kinds.
pub const MAX_ENDPOINTS: usize = 16;

/// BARs of an endpoint function (PCIe 6.0, 7.5.1.2.1).
const BARS: u8 = 6;

/// Where the virtio-iommu sits; ACPI's VIOT names it.
pub const IOMMU: Bdf = Bdf::new(0, 1, 0);
/// Where the virtio-rng sits.
pub const RNG: Bdf = Bdf::new(0, 2, 0);

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host bridge's own function.
    HostBridge,
    /// The lab's virtio-iommu.
    Iommu,
    /// The lab's virtio-rng.
    Rng,
    /// A root port.
    RootPort,
    /// The upstream port of a switch.
    SwitchUpstream,
    /// A downstream port of a switch.
    SwitchDownstream,
    /// A peer device: its place in the description.
    Peer(usize),
    /// A device of another kind: its place in the description, and what it calls itself.
    Endpoint(usize, PciId),
    /// A device of a real machine.
    Device(PciId),
    /// A bridge of a real machine to or from conventional PCI, or one of a kind that is not known:
    /// how it routes is not modelled.
    OtherBridge,
}

/// A function of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The bridge above it, as an index into [`Plan::functions`]; none on a root bus.
    pub parent: Option<usize>,
    /// The functions below it, likewise.
    pub children: Vec<usize>,
    /// Its host bridge, as an index into [`Plan::host_bridges`].
    pub host_bridge: usize,
    /// Its BDF.
    pub bdf: Bdf,
    /// Secondary and subordinate bus of a bridge.
    pub buses: Option<(u8, u8)>,
    /// Its ACS capability.
    pub acs: Option<AcsControl>,
    /// Controls that can be switched on and do nothing: part of [`acs`](Self::acs).
    pub acs_without_effect: AcsControl,
    /// A port whose slot has hot-plug.
    pub hot_plug: bool,
    /// A device with memory behind a BAR, which others can reach.
    pub has_memory: bool,
    /// Whether its device has several functions.
    pub multi_function: bool,
    /// Where the description says so.
    pub item: Item,
    /// What is known of a function of a real machine besides.
    pub found: Option<Found>,
}

/// What a real machine's function showed, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The ACS controls that were on, by firmware or by Linux.
    pub controls: AcsControl,
    /// Those that would be on without any kernel parameter about ACS.
    pub default: AcsControl,
    /// Those that the firmware left on for Linux.
    pub firmware: AcsControl,
    /// Whether the record lacks the function, and only what is below it shows that it is there.
    pub missing: bool,
    /// Vendor, device, subsystem vendor and subsystem ID, as far as they are known.
    pub ids: [Option<u16>; 4],
}

/// A host bridge of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBridge {
    /// Its name.
    pub name: String,
    /// Identity of its own function: `ffff:ffff` where Linux finds no function to go by
    /// (`pci_host_bridge_dev()`).
    pub id: PciId,
    /// PCI segment group.
    pub segment: u32,
    /// First and last bus.
    pub buses: (u8, u8),
    /// Memory and prefetchable window.
    pub windows: [HostWindow; 2],
    /// How far it takes peer-to-peer requests.
    pub peer_routing: PeerRouting,
    /// The functions on its root bus, as indices into [`Plan::functions`].
    pub root: Vec<usize>,
}

impl PlannedBridge {
    /// What the bridge forwards: what its firmware programs, and what ACPI's `_CRS` describes to
    /// the guest.
    pub fn resources(&self) -> HostResources {
        let [memory, prefetchable] = self.windows.map(|window| window.bus.first..=window.bus.last);
        HostResources { buses: self.buses.0..=self.buses.1, memory, prefetchable }
    }
}

/// The tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The topology's name.
    pub name: String,
    /// Every function, a bridge before what is below it.
    pub functions: Vec<Planned>,
    /// The host bridges.
    pub host_bridges: Vec<PlannedBridge>,
    /// The kernel by whose rules decisions are made.
    pub linux: Version,
    /// Whether it is a real machine's, which no topology file can change.
    pub real: bool,
    /// A real machine's kernel parameters, with which its ACS controls were found as they are.
    pub found_with: Vec<String>,
    /// Where BARs and windows lie, if that is known.
    pub addresses: Option<Addresses>,
}

impl Plan {
    /// Plans `topology`; `iommu` says whether there is a virtio-iommu.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn new(topology: &Topology, iommu: bool) -> Result<Self, Problem> {
        let names = names(topology)?;
        limits(topology)?;
        let windows = windows::share_out(topology)?;
        let mut planner = Planner {
            topology,
            names: &names,
            plan: Self {
                name: topology.name.clone(),
                functions: Vec::new(),
                host_bridges: Vec::new(),
                linux: Version::default(),
                real: false,
                found_with: Vec::new(),
                addresses: None,
            },
        };
        let mut next = 0;
        for (index, bridge) in topology.host_bridges.iter().enumerate() {
            let buses = planner.host_bridge(index, bridge, next, iommu)?;
            planner.plan.host_bridges[index].windows = windows[index];
            next = u16::from(buses.1) + 1;
        }
        planner.everything_is_reached()?;
        Ok(planner.plan)
    }

    /// The function called `name`, or with this BDF.
    pub fn find(&self, name: &str) -> Option<usize> {
        let bdf = name.parse::<Bdf>().ok();
        self.functions
            .iter()
            .position(|function| function.name == name || Some(function.bdf) == bdf)
    }

    /// The peer devices as Linux numbers them: by address.
    pub fn peers(&self) -> Vec<usize> {
        let is_peer = |index: &usize| matches!(self.functions[*index].kind, Kind::Peer(_));
        let mut peers: Vec<_> = (0..self.functions.len()).filter(is_peer).collect();
        peers.sort_by_key(|index| self.functions[*index].bdf);
        peers
    }

    /// Name and address of every function, as the firmware numbers them.
    pub fn addresses(&self) -> Vec<(String, Bdf)> {
        self.functions.iter().map(|function| (function.name.clone(), function.bdf)).collect()
    }

    /// The names of the peer devices, by their instance N of `/dev/peerdmaN`.
    pub fn peer_names(&self) -> Vec<String> {
        self.peers().into_iter().map(|peer| self.functions[peer].name.clone()).collect()
    }

    /// The function, and the bridges above it up to the root bus.
    pub fn path_up(&self, function: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(function), |&index| self.functions[index].parent)
    }

    /// The highest bus there is.
    pub fn last_bus(&self) -> u8 {
        self.host_bridges.iter().map(|bridge| bridge.buses.1).max().unwrap_or(0)
    }
}

struct Planner<'t> {
    topology: &'t Topology,
    names: &'t Names<'t>,
    plan: Plan,
}

/// What the description says of a function.
struct Described {
    name: String,
    kind: Kind,
    acs: Option<AcsControl>,
    has_memory: bool,
}

/// Something that will hang on a bus.
struct Candidate {
    device: u8,
    function: u8,
    item: Item,
}

impl Planner<'_> {
    fn host_bridge(
        &mut self,
        index: usize,
        bridge: &HostBridge,
        next: u16,
        iommu: bool,
    ) -> Result<(u8, u8), Problem> {
        let item = Item::HostBridge(index);
        let wrong = |key, what| Err(Problem::new(item, key, what));
        let Some(first) = bridge.first_bus.or_else(|| u8::try_from(next).ok()) else {
            return wrong("name", "no bus number is left for it, 255 is the last".into());
        };
        if index == 0 && first != 0 {
            return wrong("first-bus", "the first host bridge has bus 0".into());
        }
        if u16::from(first) < next {
            let what =
                format!("bus {first} is taken by the host bridge before; take {next} or more");
            return wrong("first-bus", what);
        }
        self.plan.host_bridges.push(PlannedBridge {
            name: bridge.name.clone(),
            id: bridge.id,
            segment: 0,
            buses: (first, first),
            windows: [HostWindow { bus: AddressRange { first: 0, last: 0 }, offset: 0 }; 2],
            peer_routing: bridge.peer_routing,
            root: Vec::new(),
        });
        let mut root = vec![self.push(
            &bridge.name,
            Kind::HostBridge,
            None,
            index,
            Bdf::new(first, 0, 0),
            item,
        )];
        if index == 0 {
            let mut own =
                |bdf, name, kind| root.push(self.push(name, kind, None, 0, bdf, Item::Whole));
            if iommu {
                own(IOMMU, "virtio-iommu", Kind::Iommu);
            }
            own(RNG, "virtio-rng", Kind::Rng);
        }
        let mut last = first;
        let below = self.candidates(&bridge.name, item)?;
        root.extend(self.bus(index, None, first, &below, &mut last)?);
        if let Some(wanted) = bridge.last_bus {
            if wanted < last {
                return wrong("last-bus", format!("there are buses up to {last} below it"));
            }
            last = wanted;
        }
        let planned = &mut self.plan.host_bridges[index];
        planned.root = root;
        planned.buses = (first, last);
        Ok((first, last))
    }

    fn push(
        &mut self,
        name: &str,
        kind: Kind,
        parent: Option<usize>,
        host_bridge: usize,
        bdf: Bdf,
        item: Item,
    ) -> usize {
        self.plan.functions.push(Planned {
            name: name.to_owned(),
            kind,
            parent,
            children: Vec::new(),
            host_bridge,
            bdf,
            buses: None,
            acs: None,
            acs_without_effect: AcsControl::empty(),
            hot_plug: false,
            has_memory: false,
            multi_function: false,
            item,
            found: None,
        });
        self.plan.functions.len() - 1
    }

    /// What the description hangs below `name`, in the order of the bus.
    fn candidates(&self, name: &str, above: Item) -> Result<Vec<Candidate>, Problem> {
        let Topology { root_ports, switches, peers, endpoints, .. } = self.topology;
        let mut all = Vec::new();
        for (index, port) in root_ports.iter().enumerate().filter(|(_, port)| port.on == name) {
            let item = Item::RootPort(index);
            if !matches!(above, Item::HostBridge(_)) {
                return Err(Problem::new(item, "on", format!("{name:?} is not a host bridge")));
            }
            all.push(Candidate { device: port.device, function: port.function, item });
        }
        for (index, _) in switches.iter().enumerate().filter(|(_, switch)| switch.below == name) {
            all.push(Candidate { device: 0, function: 0, item: Item::Switch(index) });
        }
        if let Item::Switch(switch) = above {
            for (port, down) in switches[switch].ports.iter().enumerate() {
                let item = Item::SwitchPort(switch, port);
                all.push(Candidate { device: down.device, function: 0, item });
            }
        }
        for (index, peer) in peers.iter().enumerate().filter(|(_, peer)| peer.below == name) {
            let item = Item::Peer(index);
            all.push(Candidate { device: peer.device, function: peer.function, item });
        }
        for (index, endpoint) in endpoints.iter().enumerate().filter(|(_, e)| e.below == name) {
            let item = Item::Endpoint(index);
            all.push(Candidate { device: endpoint.device, function: endpoint.function, item });
        }
        self.check_bus(name, above, &all)?;
        all.sort_by_key(|candidate| (candidate.device, candidate.function));
        Ok(all)
    }

    fn check_bus(&self, name: &str, above: Item, all: &[Candidate]) -> Result<(), Problem> {
        let on_link = matches!(above, Item::RootPort(_) | Item::SwitchPort(..));
        let on_root = matches!(above, Item::HostBridge(_));
        // The host bridge's own function, and the lab's.
        let own = if above == Item::HostBridge(0) { 3 } else { 1 };
        let instead = match above {
            Item::Switch(_) => ": it is a switch, name one of its ports",
            _ => "",
        };
        for (index, &Candidate { device, function, item }) in all.iter().enumerate() {
            let wrong = |key, what| Err(Problem::new(item, key, what));
            match item {
                Item::Switch(_) if !on_link => {
                    return wrong(
                        "below",
                        format!("{name:?} is not a port, and a switch hangs below one{instead}"),
                    );
                }
                Item::Peer(_) | Item::Endpoint(_) if !on_link && !on_root => {
                    let what = format!("{name:?} is neither a port nor a host bridge{instead}");
                    return wrong("below", what);
                }
                _ => {}
            }
            if device > 31 || function > 7 {
                let key = if device > 31 { "device" } else { "function" };
                return wrong(key, "device numbers end at 31, function numbers at 7".into());
            }
            if on_link && device != 0 {
                return wrong("device", "below a port there is device 0 and no other".into());
            }
            if on_root && device < own {
                let what = match own {
                    1 => "device 0 of this bus is the host bridge's own".to_owned(),
                    _ => format!("devices 0 to {} of this bus are the lab's own", own - 1),
                };
                return wrong("device", what);
            }
            let taken = all[..index].iter().find(|other| {
                (other.device, other.function) == (device, function)
                    || on_link
                        && (matches!(other.item, Item::Switch(_))
                            || matches!(item, Item::Switch(_)))
            });
            if let Some(other) = taken {
                let is_switch = |item| matches!(item, Item::Switch(_));
                let key = if is_switch(item) { "below" } else { "name" };
                let there = (other.device, other.function) == (device, function);
                let what = match (is_switch(item), is_switch(other.item)) {
                    (false, true) if !there => format!(
                        "a switch hangs below {name:?}, and its upstream port takes the whole \
                         device: there are no functions beside it"
                    ),
                    (true, false) if !there => format!(
                        "{name:?} has functions of another device already, and the upstream port \
                         of a switch takes a whole device"
                    ),
                    _ => format!(
                        "{name:?} has something at device {device} function {function} already"
                    ),
                };
                return wrong(key, what);
            }
        }
        // Function 0 is always there (PCIe 6.0, 7.5.1.1.9): software looks for no other without it.
        let headless = all.iter().find(|candidate| {
            !all.iter().any(|other| other.device == candidate.device && other.function == 0)
        });
        match headless {
            Some(candidate) => {
                let what = format!("device {} of {name:?} has no function 0", candidate.device);
                Err(Problem::new(candidate.item, "function", what))
            }
            None => Ok(()),
        }
    }

    /// Plans one bus; gives the functions on it.
    fn bus(
        &mut self,
        host_bridge: usize,
        parent: Option<usize>,
        bus: u8,
        candidates: &[Candidate],
        last: &mut u8,
    ) -> Result<Vec<usize>, Problem> {
        let mut functions = Vec::new();
        for &Candidate { device, function, item } in candidates {
            let Described { name, kind, acs, has_memory } = self.describe(item, parent)?;
            let bdf = Bdf::new(bus, device, function);
            let index = self.push(&name, kind, parent, host_bridge, bdf, item);
            let others = |other: &Candidate| other.device == device && other.function != function;
            self.plan.functions[index].multi_function = candidates.iter().any(others);
            self.plan.functions[index].acs = acs;
            self.plan.functions[index].acs_without_effect = self.acs_without_effect(item, acs)?;
            self.plan.functions[index].hot_plug = self.has_hot_plug(item);
            self.plan.functions[index].has_memory = has_memory;
            functions.push(index);
            if matches!(kind, Kind::Peer(_) | Kind::Endpoint(..)) {
                continue;
            }
            let Some(secondary) = last.checked_add(1) else {
                return Err(Problem::new(item, "name", "no bus number is left below it".into()));
            };
            *last = secondary;
            let below = self.candidates(&name, item)?;
            let children = self.bus(host_bridge, Some(index), secondary, &below, last)?;
            self.plan.functions[index].children = children;
            self.plan.functions[index].buses = Some((secondary, *last));
        }
        Ok(functions)
    }

    fn describe(&self, item: Item, parent: Option<usize>) -> Result<Described, Problem> {
        let Topology { root_ports, switches, peers, endpoints, .. } = self.topology;
        let described = |name: &str, kind, acs, has_memory| Described {
            name: name.to_owned(),
            kind,
            acs,
            has_memory,
        };
        Ok(match item {
            Item::RootPort(index) => {
                let port = &root_ports[index];
                described(&port.name, Kind::RootPort, port.acs.0, false)
            }
            Item::Switch(index) => {
                described(&switches[index].name, Kind::SwitchUpstream, None, false)
            }
            Item::SwitchPort(switch, port) => {
                let port = &switches[switch].ports[port];
                described(&port.name, Kind::SwitchDownstream, port.acs.0, false)
            }
            Item::Peer(index) => {
                described(&peers[index].name, Kind::Peer(index), peers[index].acs.0, true)
            }
            Item::Endpoint(index) => {
                let endpoint = &endpoints[index];
                let model = endpoint.make(parent.is_some(), item)?;
                let description = model.description();
                let id = PciId { vendor: description.vendor, device: description.device };
                let has_memory = (0..BARS).any(|bar| model.memory(bar).is_some());
                described(&endpoint.name, Kind::Endpoint(index, id), endpoint.acs.0, has_memory)
            }
            Item::HostBridge(_) | Item::Whole => described("", Kind::HostBridge, None, false),
        })
    }

    /// What the ports' descriptions have under `acs-without-effect`, each of which must be among their `acs`.
    fn acs_without_effect(
        &self,
        item: Item,
        acs: Option<AcsControl>,
    ) -> Result<AcsControl, Problem> {
        let defects = match item {
            Item::RootPort(index) => self.topology.root_ports[index].acs_without_effect,
            Item::SwitchPort(switch, port) => {
                self.topology.switches[switch].ports[port].acs_without_effect
            }
            _ => Acs::NONE,
        };
        let defects = defects.0.unwrap_or_default();
        let missing = defects - acs.unwrap_or_default();
        if missing.is_empty() {
            return Ok(defects);
        }
        let what = format!("the port does not have {} under `acs`", acs::names(missing));
        Err(Problem::new(item, "acs-without-effect", what))
    }

    fn has_hot_plug(&self, item: Item) -> bool {
        match item {
            Item::RootPort(index) => self.topology.root_ports[index].hot_plug,
            Item::SwitchPort(switch, port) => self.topology.switches[switch].ports[port].hot_plug,
            _ => false,
        }
    }

    /// What was not planned hangs below nothing, below something impossible, or below itself.
    fn everything_is_reached(&self) -> Result<(), Problem> {
        let planned = |item| self.plan.functions.iter().any(|function| function.item == item);
        let Topology { root_ports, switches, peers, endpoints, .. } = self.topology;
        let mut hung: Vec<(Item, &'static str, &str)> = Vec::new();
        hung.extend(
            (0..).map(Item::RootPort).zip(root_ports).map(|(i, port)| (i, "on", port.on.as_str())),
        );
        hung.extend(
            (0..).map(Item::Switch).zip(switches).map(|(i, s)| (i, "below", s.below.as_str())),
        );
        hung.extend(
            (0..).map(Item::Peer).zip(peers).map(|(i, peer)| (i, "below", peer.below.as_str())),
        );
        hung.extend(
            (0..).map(Item::Endpoint).zip(endpoints).map(|(i, e)| (i, "below", e.below.as_str())),
        );
        let Some((item, key, above)) = hung.into_iter().find(|(item, ..)| !planned(*item)) else {
            return Ok(());
        };
        let what = match self.names.get(above) {
            None => format!("there is no {above:?}"),
            Some(Item::Peer(_)) => format!("{above:?} is a peer device, nothing hangs below it"),
            Some(Item::Endpoint(_)) => format!("{above:?} is a device, nothing hangs below it"),
            Some(Item::Switch(_)) if !matches!(item, Item::Switch(_)) => {
                format!("{above:?} is a whole switch; name one of its ports")
            }
            Some(_) => {
                format!("it hangs in a loop: nothing leads from {above:?} up to a host bridge")
            }
        };
        Err(Problem::new(item, key, what))
    }
}

impl From<Window> for AddressRange {
    fn from(Window { first, last }: Window) -> Self {
        Self { first, last }
    }
}
