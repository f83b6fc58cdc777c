//! The answer to the guest's `hello`: what this guest is for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::topology::linux::{AddressKind, Guest, MapType, View};
use crate::topology::{Plan, Problem, Topology};

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
                let decision = view.decide(provider, client);
                let (way, distance) = match decision.map {
                    MapType::BusAddress => (Way::Bus, decision.distance),
                    MapType::ThroughHostBridge => (Way::Host, decision.distance),
                    MapType::NotSupported => (Way::None, u32::MAX),
                };
                let address = view.address_kind(decision.map).into();
                if decision.map == MapType::ThroughHostBridge {
                    for ((from, one), (to, other)) in
                        [((a, client), (b, provider)), ((b, provider), (a, client))]
                    {
                        let (from, bit) =
                            (usize::from(from), 1_u16.checked_shl(to.into()).unwrap_or(0));
                        if !view.requests_redirected(one, other) {
                            direct_requests[from] |= bit;
                        }
                        if !view.completions_redirected(other, one) {
                            direct_completions[from] |= bit;
                        }
                    }
                }
                paths.push((a, b, way, i32::try_from(distance).unwrap_or(-1), address));
            }
        }
        let groups = view.groups();
        let groups = peers.iter().filter_map(|peer| groups[*peer]).collect();
        let topology = topology.name.clone();
        Ok(Self { topology, paths, direct_requests, direct_completions, groups })
    }
}

/// Longest answer in bytes: the lab port carries 4096 with the line end, and `ok ` goes in front.
const MAX_LENGTH: usize = 4096 - 1 - "ok ".len();

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
        hello.expected = Some(Expected::new(&Topology::root_ports(16), &guest).unwrap());
        assert!(hello.to_line().is_ok(), "the largest topology fits");
        let text = include_str!("../../../ci/topologies/switch.toml");
        let half = Topology::parse("t", &text.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        let half = Expected::new(&half, &guest).unwrap();
        assert_eq!((half.direct_requests, half.direct_completions), (vec![0, 1], vec![2, 1]));
        hello.command = vec!["x".repeat(5000)];
        assert!(hello.to_line().unwrap_err().to_string().contains("too long"));
    }
}
