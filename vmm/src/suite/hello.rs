//! The answer to the guest's `hello`: what this guest is for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machine::MAX_ANSWER;
use crate::topology::linux::{AddressKind, Guest, MapType, View};
use crate::topology::{Kind, Plan, Planned, Problem, Topology};

/// What the guest's first process does once the system is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Run the built-in tests.
    Test,
    /// Run the user's command; its status is the guest's.
    Command,
    /// An interactive shell on the console.
    Shell,
}

/// A kernel module that the guest loads first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Where it lies in the initramfs.
    pub path: String,
    /// Its parameters, as for `insmod`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
}

/// What a guest is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What to do.
    pub mode: Mode,
    /// The scenario's name.
    pub scenario: String,
    /// Groups of tests to run; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The user's command and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Modules to load first, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
    /// Variables for the command or the shell, `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// What Linux should make of the lab's topology; nothing when nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// What limits of time are stretched by, for slow kernels and machines.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub time_factor: u32,
    /// Height of the user's terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Width of the user's terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

/// What Linux should make of the topology. Peer devices are named by their number N of `/dev/peerdmaN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The topology's name.
    pub topology: String,
    /// For each two peer devices: both numbers, the way, `pci_p2pdma_distance()`, and the kind of DMA address. The way
    /// is the same in both directions.
    pub paths: Vec<(u8, u8, Way, i32, Address)>,
    /// Where Linux takes the way through the host bridge although a switch redirects only part of the traffic. By
    /// requester, a bit for each owner of memory: a request by bus address would be turned around.
    #[serde(default, skip_serializing_if = "all_zero")]
    pub direct_requests: Vec<u16>,
    /// Likewise: completions, which carry the data of reads, come back directly.
    #[serde(default, skip_serializing_if = "all_zero")]
    pub direct_completions: Vec<u16>,
    /// The IOMMU group of each peer device, by a number that means nothing by itself; empty without an IOMMU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<usize>,
    /// What devices of other kinds may do with the memories of the peer devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
}

/// What Linux should make of DMA by a device of another kind into the memory of each peer device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its function, `05:00.0`.
    pub function: String,
    /// For each peer device, by its number: as in [`Expected::paths`].
    pub paths: Vec<(Way, i32, Address)>,
    /// A bit for each peer device, as in [`Expected::direct_requests`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub direct_requests: u16,
    /// Likewise, as in [`Expected::direct_completions`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub direct_completions: u16,
}

fn is_zero(mask: &u16) -> bool {
    *mask == 0
}

fn all_zero(masks: &[u16]) -> bool {
    masks.iter().all(|mask| *mask == 0)
}

/// A map type, in as few letters as the lab port's line has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// By bus address.
    Bus,
    /// Through the host bridge.
    Host,
    /// None.
    None,
}

/// A kind of DMA address, likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// A bus address.
    Bus,
    /// A CPU physical address.
    Phys,
    /// An address that the IOMMU translates.
    Iova,
    /// The kernel does not map it.
    None,
}

impl Address {
    /// What it is, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Bus => "bus address",
            Self::Phys => "CPU physical address",
            Self::Iova => "IOVA",
            Self::None => "no address",
        }
    }
}

impl From<AddressKind> for Address {
    fn from(kind: AddressKind) -> Self {
        match kind {
            AddressKind::Bus => Self::Bus,
            AddressKind::Physical => Self::Phys,
            AddressKind::Iova => Self::Iova,
            AddressKind::Refused => Self::None,
        }
    }
}

impl Expected {
    /// Asks the account of Linux in [`crate::topology::linux`].
    ///
    /// # Errors
    /// What is wrong with the topology.
    pub fn new(topology: &Topology, guest: &Guest) -> Result<Self, Problem> {
        let plan = Plan::new(topology, guest.iommu.has_iommu())?;
        let view = View::new(&plan, guest);
        let peers = plan.peers();
        let mut paths = Vec::new();
        let mut direct_requests = vec![0; peers.len()];
        let mut direct_completions = vec![0; peers.len()];
        for (b, &provider) in (0_u8..).zip(&peers) {
            for (a, &client) in (0_u8..b).zip(&peers) {
                let (way, distance, address) = path(&view, provider, client);
                for ((from, one), (to, other)) in
                    [((a, client), (b, provider)), ((b, provider), (a, client))]
                {
                    let (requests, completions) = direct(&view, one, other);
                    direct_requests[usize::from(from)] |= bit(to, requests);
                    direct_completions[usize::from(from)] |= bit(to, completions);
                }
                paths.push((a, b, way, distance, address));
            }
        }
        let others = others(&view, &peers);
        let groups = view.groups();
        let groups = peers.iter().filter_map(|peer| groups[*peer]).collect();
        let topology = topology.name.clone();
        Ok(Self { topology, paths, direct_requests, direct_completions, groups, others })
    }
}

/// Way, distance and kind of address of DMA by `client` into the memory of `provider`.
fn path(view: &View<'_>, provider: usize, client: usize) -> (Way, i32, Address) {
    let decision = view.decide(provider, client);
    let (way, distance) = match decision.map {
        MapType::BusAddress => (Way::Bus, decision.distance),
        MapType::ThroughHostBridge => (Way::Host, decision.distance),
        MapType::NotSupported => (Way::None, u32::MAX),
    };
    (way, i32::try_from(distance).unwrap_or(-1), view.address_kind(decision.map).into())
}

/// Where the way is through the host bridge: whether a request by bus address from `requester` to a BAR of `owner` would
/// be turned around all the same, and whether completions come back directly.
fn direct(view: &View<'_>, requester: usize, owner: usize) -> (bool, bool) {
    let through_host = view.decide(owner, requester).map == MapType::ThroughHostBridge;
    (
        through_host && !view.requests_redirected(requester, owner),
        through_host && !view.completions_redirected(owner, requester),
    )
}

fn bit(number: u8, set: bool) -> u16 {
    if set { 1_u16.checked_shl(number.into()).unwrap_or(0) } else { 0 }
}

/// What is expected of every device that is no peer.
fn others(view: &View<'_>, peers: &[usize]) -> Vec<Other> {
    let functions = view.plan.functions.iter().enumerate();
    let endpoints = functions.filter(|(_, function)| matches!(function.kind, Kind::Endpoint(..)));
    let other = |(client, function): (usize, &Planned)| {
        let mut other = Other {
            function: function.bdf.to_string(),
            paths: peers.iter().map(|&peer| path(view, peer, client)).collect(),
            direct_requests: 0,
            direct_completions: 0,
        };
        for (number, &peer) in (0_u8..).zip(peers) {
            let (requests, completions) = direct(view, client, peer);
            other.direct_requests |= bit(number, requests);
            other.direct_completions |= bit(number, completions);
        }
        other
    };
    endpoints.map(other).collect()
}

/// Longest answer in bytes: the line end comes behind it, and `ok ` goes in front.
const MAX_LENGTH: usize = MAX_ANSWER - 1 - "ok ".len();

/// The answer does not fit through the lab port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the command for the guest is too long: with all that goes with it {} bytes, and {MAX_LENGTH} fit; put it \
             into a script in the guest, or pass fewer arguments",
            self.0
        )
    }
}

impl std::error::Error for TooLong {}

fn one() -> u32 {
    1
}

/// What every guest assumes need not be said: the line has a limit.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_one(factor: &u32) -> bool {
    *factor == 1
}

impl Hello {
    /// A guest that does `mode` and nothing else.
    pub fn new(mode: Mode, scenario: impl Into<String>) -> Self {
        Self {
            mode,
            scenario: scenario.into(),
            groups: Vec::new(),
            command: Vec::new(),
            modules: Vec::new(),
            environment: Vec::new(),
            expected: None,
            time_factor: 1,
            rows: None,
            columns: None,
        }
    }

    /// The answer's text, one line of JSON.
    ///
    /// # Errors
    /// [`TooLong`], which only a user's command can bring about.
    pub fn to_line(&self) -> Result<String, TooLong> {
        // Strings, numbers and lists of them: this cannot fail, and an empty answer would be refused by the guest.
        let text = serde_json::to_string(self).unwrap_or_default();
        if text.len() > MAX_LENGTH { Err(TooLong(text.len())) } else { Ok(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::IommuMode;
    use crate::topology::Cpu;

    #[test]
    fn the_line_is_what_the_guest_reads() {
        let mut hello = Hello::new(Mode::Command, "user");
        hello.command = vec!["/bin/sh".into(), "-c".into(), "echo \"a b\"\n".into()];
        hello.modules = vec![Module { path: "/lib/peerdma.ko".into(), parameters: String::new() }];
        assert_eq!(
            hello.to_line().unwrap(),
            r#"{"mode":"command","scenario":"user","command":["/bin/sh","-c","echo \"a b\"\n"],"modules":[{"path":"/lib/peerdma.ko"}]}"#
        );
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        hello.expected = Some(Expected::new(&Topology::default(), &guest).unwrap());
        let line = hello.to_line().unwrap();
        assert!(line.contains(r#""paths":[[0,1,"host",4,"iova"]],"groups":[4,5]"#), "{line}");
        let mut largest = Topology::root_ports(16);
        for port in 0..16 {
            largest.add(&format!("ioat,below=port{port},function=1").parse().unwrap()).unwrap();
        }
        hello.expected = Some(Expected::new(&largest, &guest).unwrap());
        assert!(hello.to_line().is_ok(), "the largest topology fits");
        let text = include_str!("../../../ci/topologies/switch.toml");
        let half = Topology::parse("t", &text.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        let half = Expected::new(&half, &guest).unwrap();
        assert_eq!((half.direct_requests, half.direct_completions), (vec![0, 1], vec![2, 1]));
        hello.command = vec!["x".repeat(70_000)];
        assert!(hello.to_line().unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn devices_of_other_kinds_have_expectations_of_their_own() {
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        let of = |topology: &str, devices: &[&str]| {
            let mut topology = Topology::load(topology).unwrap();
            for device in devices {
                topology.add(&device.parse().unwrap()).unwrap();
            }
            Expected::new(&topology, &guest).unwrap()
        };
        let host = (Way::Host, 4, Address::Iova);
        let plain = of("root-ports", &["ioat"]);
        assert_eq!(plain.others[0].function, "03:00.0");
        assert_eq!(plain.others[0].paths, [host, host]);
        assert_eq!(plain.paths, of("root-ports", &[]).paths);

        // Below the same switch its traffic is turned around; below a root port it is not.
        let switch = of("switch", &["ioat,below=switch0", "ioat"]);
        assert_eq!(switch.others[0].paths, [(Way::Bus, 4, Address::Bus); 2]);
        assert_eq!(switch.others[1].paths, [(Way::Host, 6, Address::Iova); 2]);

        let two = of("two-bridges", &["ioat,below=bridge0", "ioat,below=bridge1"]);
        let (near, none) = ((Way::Host, 3, Address::Iova), (Way::None, -1, Address::None));
        assert_eq!(two.others[0].paths, [near, near, none]);
        assert_eq!(two.others[1].paths, [none, none, near]);
        assert_eq!(two.paths, of("two-bridges", &[]).paths);

        // One port that redirects is enough for Linux; completions enter by another one.
        let text = include_str!("../../../ci/topologies/switch.toml");
        let mut half = Topology::parse("t", &text.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        half.add(&"ioat,below=switch0".parse().unwrap()).unwrap();
        let half = Expected::new(&half, &guest).unwrap();
        let engine = &half.others[0];
        assert_eq!(engine.paths, [host, (Way::Bus, 4, Address::Bus)]);
        assert_eq!((engine.direct_requests, engine.direct_completions), (1, 1));
    }
}
