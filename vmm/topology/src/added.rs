//! A device that a command line or a scenario adds to a topology, in one line of text: `ioat,channels=2,below=port1`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use device_models::endpoint::{KINDS, Kind as DeviceKind, SetupError};
use peerdma_support::names::nearest_name;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Acs;
use super::description::{Endpoint, Peer, RootPort, SwitchPort, Topology};
use super::names::{MAX_NAME, check_name};
use super::plan::{Kind, Plan};
use super::problem::{Item, Problem};

/// What the peer device is called here.
const PEER: &str = "peer";
/// The keys that say where a device goes and what it is called, whatever kind it is.
const PLACE: [&str; 4] = ["name", "below", "device", "function"];
/// The option of a peer device.
const LOCAL_MEMORY: &str = "local-memory";
/// The highest device number on a bus.
const LAST_DEVICE: u8 = 31;

/// One device to be added: its kind, its place, and the options of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedDevice {
    kind: String,
    name: Option<String>,
    below: Option<String>,
    device: Option<u8>,
    function: Option<u8>,
    options: BTreeMap<String, String>,
}

/// A device that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The text is not `KIND[,KEY=VALUE]...`.
    #[error("{0}; write KIND[,KEY=VALUE]..., as in \"ioat,channels=2,below=port1\"")]
    Syntax(String),
    /// A name that nothing has: which sort of thing, the name, the nearest one, and all that there are.
    #[error("there is no {what} {name:?}{}; there are {known}", near.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// The name.
        name: String,
        /// The name that was probably meant.
        near: Option<String>,
        /// All names that would be right.
        known: String,
    },
    /// Anything else.
    #[error("{0}")]
    Impossible(String),
}

impl AddError {
    fn unknown(what: &'static str, name: &str, known: &[&str]) -> Self {
        let near = nearest_name(name, known.iter().copied());
        Self::Unknown { what, name: name.chars().take(40).collect(), near, known: known.join(", ") }
    }
}

/// The kinds that can be added, each with a line about it.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    let peer = (PEER, "the lab's peer device; option local-memory = bytes");
    std::iter::once(peer).chain(KINDS.iter().map(|kind| (kind.name, kind.about)))
}

impl FromStr for AddedDevice {
    type Err = AddError;

    fn from_str(text: &str) -> Result<Self, AddError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        if kind.is_empty() || kind.contains('=') {
            return Err(AddError::Syntax("the kind of device comes first".into()));
        }
        let kinds: Vec<_> = kinds().map(|(name, _)| name).collect();
        if !kinds.contains(&kind) {
            return Err(AddError::unknown("kind of device", kind, &kinds));
        }
        let mut values = BTreeMap::new();
        for part in parts {
            let Some((key, value)) =
                part.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
            else {
                return Err(AddError::Syntax(format!("{part:?} is not of the form KEY=VALUE")));
            };
            if values.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(AddError::Syntax(format!("{key} is there twice")));
            }
        }
        let mut number = |key: &str| match values.remove(key) {
            Some(value) => value.parse().map(Some).map_err(|_| {
                AddError::Impossible(format!("{key} is {value:?}; take a whole number"))
            }),
            None => Ok(None),
        };
        let (device, function) = (number("device")?, number("function")?);
        Ok(Self {
            kind: kind.to_owned(),
            name: values.remove("name"),
            below: values.remove("below"),
            device,
            function,
            options: values,
        })
    }
}

impl fmt::Display for AddedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        let Self { name, below, device, function, .. } = self;
        for (key, value) in [("name", name), ("below", below)] {
            value.iter().try_for_each(|value| write!(f, ",{key}={value}"))?;
        }
        for (key, value) in [("device", device), ("function", function)] {
            value.iter().try_for_each(|value| write!(f, ",{key}={value}"))?;
        }
        self.options.iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

impl Serialize for AddedDevice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddedDevice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Where a device goes.
struct Position {
    below: String,
    device: u8,
    function: u8,
}

impl Topology {
    /// Adds `added`. Without a port it gets a root port of its own, on the first host bridge behind everything else
    /// there; below a switch a downstream port of its own, behind the others; without a name its kind's with the first
    /// number that is free.
    ///
    /// # Errors
    /// When a name is unknown, the place is taken, or the kind does not take the options. Nothing
    /// is added then.
    pub fn add(&mut self, added: &AddedDevice) -> Result<(), AddError> {
        let plan = Plan::new(self, true).map_err(impossible)?;
        let mut new = self.clone();
        let name = match &added.name {
            Some(name) => name.clone(),
            None => free_name(&plan, &added.kind)?,
        };
        // Before a port is called after it: that one was not asked for.
        check_name(&name).map_err(AddError::Impossible)?;
        let Position { below, device, function } = match &added.below {
            Some(below) => match self.switch(&plan, below) {
                Some(switch) => new.switch_port(added, port_name(&plan, &name)?, switch)?,
                None => self.place(added, &plan, below)?,
            },
            None => new.own_port(added, port_name(&plan, &name)?)?,
        };
        let acs = Acs::NONE;
        let item = if added.kind == PEER {
            let local_memory = added.local_memory()?;
            new.peers.push(Peer { name, below, device, function, acs, local_memory });
            Item::Peer(self.peers.len())
        } else {
            let (kind, options) = (added.kind.clone(), added.options.clone());
            let endpoint = Endpoint { name, kind, below, device, function, acs, options };
            // Here once more, since what is wrong with a key is known by name here only.
            added.check_options(&endpoint)?;
            new.endpoints.push(endpoint);
            Item::Endpoint(self.endpoints.len())
        };
        match Plan::new(&new, true) {
            Ok(_) => {
                *self = new;
                Ok(())
            }
            Err(problem) if problem.item == item => Err(AddError::Impossible(problem.what)),
            Err(problem) => Err(impossible(problem)),
        }
    }

    /// The switch whose upstream port is called `below`, by its place in the description.
    fn switch(&self, plan: &Plan, below: &str) -> Option<usize> {
        let found = &plan.functions[plan.find(below)?];
        match found.kind {
            Kind::SwitchUpstream => {
                self.switches.iter().position(|switch| switch.name == found.name)
            }
            _ => None,
        }
    }

    /// Makes a downstream port, called `name`, for a device: ACS as at the last one that is there.
    fn switch_port(
        &mut self,
        added: &AddedDevice,
        name: String,
        switch: usize,
    ) -> Result<Position, AddError> {
        if added.device.is_some() || added.function.is_some() {
            let what =
                "below a switch it gets a port of its own: leave `device` and `function` out";
            return Err(AddError::Impossible(what.into()));
        }
        let ports = &mut self.switches[switch].ports;
        let used: Vec<_> = ports.iter().map(|port| port.device).collect();
        let behind = used.iter().max().map_or(0, |last| last.saturating_add(1));
        let free = (behind..=LAST_DEVICE).chain(0..=LAST_DEVICE).find(|at| !used.contains(at));
        let Some(device) = free else {
            return Err(AddError::Impossible("the switch has no device number left".into()));
        };
        let last = ports.iter().max_by_key(|port| port.device);
        let (acs, acs_without_effect) =
            last.map_or((Acs::NONE, Acs::NONE), |port| (port.acs, port.acs_without_effect));
        let below = name.clone();
        ports.push(SwitchPort { name, device, acs, acs_without_effect, hot_plug: false });
        Ok(Position { below, device: 0, function: 0 })
    }

    /// The place below the port or on the host bridge called `below`.
    fn place(&self, added: &AddedDevice, plan: &Plan, below: &str) -> Result<Position, AddError> {
        let takes =
            |kind| matches!(kind, Kind::RootPort | Kind::SwitchDownstream | Kind::HostBridge);
        let found = plan.find(below).map(|index| &plan.functions[index]);
        let Some(above) = found.filter(|function| takes(function.kind)) else {
            let takes = |kind| takes(kind) || kind == Kind::SwitchUpstream;
            let all = plan.functions.iter().filter(|function| takes(function.kind));
            let names: Vec<_> = all.map(|function| function.name.as_str()).collect();
            return Err(AddError::unknown("port, switch or host bridge", below, &names));
        };
        let name = above.name.clone();
        let function = added.function.unwrap_or(0);
        if above.kind == Kind::HostBridge {
            let device = added.device.map_or_else(|| self.free_device(&name), Ok)?;
            return Ok(Position { below: name, device, function });
        }
        if let (Some(&child), None) = (above.children.first(), added.function) {
            let free = |function: &&super::Planned| {
                function.children.is_empty()
                    && matches!(function.kind, Kind::RootPort | Kind::SwitchDownstream)
            };
            let free: Vec<_> =
                plan.functions.iter().filter(free).map(|free| free.name.as_str()).collect();
            let free = match free.is_empty() {
                true => "no port is free".to_owned(),
                false => format!("free are {}", free.join(", ")),
            };
            let there = &plan.functions[child].name;
            return Err(AddError::Impossible(format!(
                "{there:?} is below {name:?} already ({free}); without `below` it gets a root port of its own, with \
                 `function=1` and so on it becomes a function of the device that is there"
            )));
        }
        Ok(Position { below: name, device: added.device.unwrap_or(0), function })
    }

    /// Makes a root port, called `name`, for a device.
    fn own_port(&mut self, added: &AddedDevice, name: String) -> Result<Position, AddError> {
        if added.device.is_some() || added.function.is_some() {
            let what = "`device` and `function` say where on a bus: give `below`, too";
            return Err(AddError::Impossible(what.into()));
        }
        let Some(bridge) = self.host_bridges.first() else {
            return Err(AddError::Impossible("there is no host bridge".into()));
        };
        let on = bridge.name.clone();
        let device = self.free_device(&on)?;
        let below = name.clone();
        self.root_ports.push(RootPort {
            name,
            on,
            device,
            function: 0,
            acs: Acs::standard(),
            acs_without_effect: Acs::NONE,
            hot_plug: false,
        });
        Ok(Position { below, device: 0, function: 0 })
    }

    /// A device number on the root bus of `bridge` that nothing has: behind all others, so that no bus below the bridge
    /// changes its number, or else the first. The buses of further bridges follow and move up if a bus is added.
    fn free_device(&self, bridge: &str) -> Result<u8, AddError> {
        let ports = self.root_ports.iter().map(|port| (&port.on, port.device));
        let peers = self.peers.iter().map(|peer| (&peer.below, peer.device));
        let endpoints = self.endpoints.iter().map(|endpoint| (&endpoint.below, endpoint.device));
        let used = ports.chain(peers).chain(endpoints).filter(|(on, _)| *on == bridge);
        let used: Vec<_> = used.map(|(_, device)| device).collect();
        // The host bridge itself, and on the first one what is the lab's own.
        let is_first = self.host_bridges.first().is_some_and(|first| first.name == bridge);
        let first = if is_first { 3 } else { 1 };
        let behind = used.iter().max().map_or(first, |last| last.saturating_add(1).max(first));
        (behind..=LAST_DEVICE)
            .chain(first..=LAST_DEVICE)
            .find(|device| !used.contains(device))
            .ok_or_else(|| AddError::Impossible(format!("{bridge:?} has no device number left")))
    }
}

impl AddedDevice {
    fn check_options(&self, endpoint: &Endpoint) -> Result<(), AddError> {
        let setup = endpoint.setup(true);
        match DeviceKind::find(&self.kind).and_then(|kind| (kind.make)(&setup)) {
            Ok(_) => Ok(()),
            Err(SetupError::Option { option, known }) => Err(self.unknown_key(&option, &known)),
            Err(error) => Err(AddError::Impossible(error.to_string())),
        }
    }

    fn local_memory(&self) -> Result<Option<u64>, AddError> {
        if let Some(key) = self.options.keys().find(|key| *key != LOCAL_MEMORY) {
            return Err(self.unknown_key(key, &[LOCAL_MEMORY.to_owned()]));
        }
        let Some(value) = self.options.get(LOCAL_MEMORY) else { return Ok(None) };
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        let what = || format!("{LOCAL_MEMORY} is {value:?}; take a number of bytes");
        number.map(Some).map_err(|_| AddError::Impossible(what()))
    }

    fn unknown_key(&self, key: &str, options: &[String]) -> AddError {
        let known: Vec<_> = options.iter().map(String::as_str).chain(PLACE).collect();
        AddError::unknown("key", key, &known)
    }
}

/// A problem of something else than the device that is being added: said with where it is.
fn impossible(problem: Problem) -> AddError {
    AddError::Impossible(problem.to_string())
}

fn free_name(plan: &Plan, kind: &str) -> Result<String, AddError> {
    let is_free = |name: &String| {
        let port = format!("{name}-port");
        plan.functions.iter().all(|function| function.name != *name && function.name != port)
    };
    // There are fewer functions than that.
    let mut names = (0..=u16::MAX).map(|number| format!("{kind}{number}"));
    names.find(is_free).ok_or_else(|| AddError::Impossible("give it a name".into()))
}

/// A name for the port that the device called `device` gets: after it, cut and numbered as need be.
fn port_name(plan: &Plan, device: &str) -> Result<String, AddError> {
    let is_free = |name: &String| {
        *name != device && plan.functions.iter().all(|function| function.name != *name)
    };
    let name = |number: u16| {
        let suffix = if number == 0 { "-port".to_owned() } else { format!("-port{number}") };
        let room = MAX_NAME.saturating_sub(suffix.len());
        device.chars().take(room).collect::<String>() + &suffix
    };
    // There are fewer functions than that.
    (0..=u16::MAX)
        .map(name)
        .find(is_free)
        .ok_or_else(|| AddError::Impossible("give it another name".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(topology: &str, devices: &[&str]) -> Result<Topology, String> {
        let mut topology = Topology::load(topology).unwrap();
        for device in devices {
            let added = device.parse::<AddedDevice>().map_err(|error| error.to_string())?;
            assert_eq!(added.to_string().parse(), Ok(added.clone()));
            topology.add(&added).map_err(|error| error.to_string())?;
        }
        Ok(topology)
    }

    /// What it hangs below, and its BDF.
    fn placed(topology: &Topology, name: &str) -> (String, String) {
        let plan = Plan::new(topology, true).unwrap();
        let function = &plan.functions[plan.find(name).unwrap()];
        let parent = function.parent.map_or("", |parent| plan.functions[parent].name.as_str());
        (parent.to_owned(), function.bdf.to_string())
    }

    #[test]
    fn a_device_gets_a_port_of_its_own_and_a_name() {
        let topology = with("root-ports", &["ioat", "ioat,model=atom,channels=1", "peer"]).unwrap();
        assert_eq!(placed(&topology, "ioat0"), ("ioat0-port".into(), "03:00.0".into()));
        assert_eq!(placed(&topology, "ioat0-port"), (String::new(), "00:06.0".into()));
        assert_eq!(placed(&topology, "ioat1"), ("ioat1-port".into(), "04:00.0".into()));
        assert_eq!(placed(&topology, "peer2"), ("peer2-port".into(), "05:00.0".into()));
        // What was there keeps its BDF.
        for peer in ["peer0", "peer1"] {
            assert_eq!(placed(&topology, peer), placed(&Topology::default(), peer));
        }
        assert_eq!(topology.endpoints[1].options["model"], "atom");
    }

    #[test]
    fn it_goes_where_it_is_told() {
        let root = with("root-ports", &["ioat,below=host-bridge"]).unwrap();
        assert_eq!(placed(&root, "ioat0"), (String::new(), "00:06.0".into()));
        let root = with("root-ports", &["ioat,below=host-bridge,device=9,name=mover"]).unwrap();
        assert_eq!(placed(&root, "mover"), (String::new(), "00:09.0".into()));
        let function = with("switch", &["ioat,below=down0,function=1"]).unwrap();
        assert_eq!(placed(&function, "ioat0"), ("down0".into(), "03:00.1".into()));
        let by_number = with("root-ports", &["ioat,below=00:04.0,function=2"]).unwrap();
        assert_eq!(placed(&by_number, "ioat0"), ("port0".into(), "01:00.2".into()));
        let ports = with("switch-acs", &["ioat,below=switch0", "ioat,below=01:00.0"]).unwrap();
        assert_eq!(placed(&ports, "ioat0"), ("ioat0-port".into(), "05:00.0".into()));
        assert_eq!(placed(&ports, "ioat1"), ("ioat1-port".into(), "06:00.0".into()));
        assert_eq!(placed(&ports, "ioat1-port"), ("switch0".into(), "02:03.0".into()));
        assert_eq!(ports.switches[0].ports[3].acs, ports.switches[0].ports[1].acs);
        assert_eq!(placed(&ports, "peer1"), ("down1".into(), "04:00.0".into()));
        let memory = with("root-ports", &["peer,local-memory=0x200000,name=small"]).unwrap();
        assert_eq!(memory.peers[2].local_memory, Some(2 << 20));
    }

    #[test]
    fn any_legal_name_will_do_wherever_the_device_gets_a_port() {
        let long = "n".repeat(32);
        for length in [1, 27, 28, 32] {
            let name = &long[..length];
            for place in ["", ",below=switch0"] {
                let topology = with("switch", &[&format!("ioat,name={name}{place}")]).unwrap();
                let port = format!("{}-port", &name[..length.min(27)]);
                assert_eq!(placed(&topology, name).0, port);
            }
        }
        // The cut name is the device's own, and what is there already is another's.
        let own = format!("{}-port", &long[..27]);
        let two = [format!("ioat,name={own}"), format!("ioat,name={long}")];
        let topology = with("root-ports", &[&two[0], &two[1]]).unwrap();
        assert_eq!(placed(&topology, &own).0, format!("{}-port1", &long[..26]));
        assert_eq!(placed(&topology, &long).0, format!("{}-port2", &long[..26]));
        let taken = with("root-ports", &["ioat,name=x-port", "ioat,name=x"]).unwrap();
        assert_eq!(placed(&taken, "x").0, "x-port1");
        for name in ["n".repeat(33), "a/b".into(), "ram".into()] {
            let error = with("root-ports", &[&format!("ioat,name={name}")]).unwrap_err();
            assert!(error.starts_with(&format!("{name:?} is ")), "{error}");
        }
    }

    #[test]
    fn as_many_as_there_is_room_for() {
        let mut topology = Topology::default();
        let added: AddedDevice = "ioat".parse().unwrap();
        for _ in 0..16 {
            topology.add(&added).unwrap();
        }
        let before = topology.clone();
        let error = topology.add(&added).unwrap_err().to_string();
        assert!(error.contains("room for 16"), "{error}");
        assert_eq!(topology, before, "nothing is added");
    }

    #[test]
    fn mistakes_are_answered_with_what_was_meant() {
        for (device, part) in [
            ("", "the kind of device comes first"),
            ("channels=2", "the kind of device comes first"),
            ("iaot", "did you mean \"ioat\"?; there are peer, ioat"),
            ("ioat,", "\"\" is not of the form KEY=VALUE"),
            ("ioat,channels", "\"channels\" is not of the form KEY=VALUE"),
            ("ioat,channels=1,channels=2", "channels is there twice"),
            ("ioat,chanels=2", "no key \"chanels\", did you mean \"channels\"?"),
            ("ioat,bellow=port0", "did you mean \"below\"?"),
            ("ioat,channels=9", "take 1 to 4"),
            (
                "ioat,below=prot0",
                "no port, switch or host bridge \"prot0\", did you mean \"port0\"?",
            ),
            ("ioat,below=peer0", "there are host-bridge, port0, port1"),
            ("ioat,below=port0", "\"peer0\" is below \"port0\" already (no port is free)"),
            ("ioat,below=port0,function=0", "has something at device 0 function 0 already"),
            ("ioat,below=port0,function=8", "function numbers at 7"),
            ("ioat,below=host-bridge,device=1", "the lab's own"),
            ("ioat,device=9", "give `below`"),
            ("ioat,below=host-bridge,device=x", "device is \"x\"; take a whole number"),
            ("ioat,name=peer0", "there is another \"peer0\""),
            ("peer,local-memory=1G", "take a number of bytes"),
            ("peer,local-mem=1", "did you mean \"local-memory\"?"),
        ] {
            let error = with("root-ports", &[device]).unwrap_err();
            assert!(error.contains(part), "{device}: {error}");
        }
        let error = with("switch", &["ioat,below=switch0,device=7"]).unwrap_err();
        assert!(error.contains("a port of its own"), "{error}");
    }

    #[test]
    fn further_host_bridges_move_up_unless_they_have_a_first_bus() {
        let mut before = Topology::load("two-bridges").unwrap();
        let number = |topology: &Topology, name| placed(topology, name).1;
        for (first_bus, from, to) in
            [(None, "04:00.0", "05:00.0"), (Some(0x40), "41:00.0", "41:00.0")]
        {
            before.host_bridges[1].first_bus = first_bus;
            let mut after = before.clone();
            after.add(&"ioat".parse().unwrap()).unwrap();
            assert_eq!(
                (number(&before, "peer2"), number(&after, "peer2")),
                (from.into(), to.into())
            );
            for same in ["peer0", "peer1", "port0", "port1"] {
                assert_eq!(number(&before, same), number(&after, same));
            }
        }
    }
}
