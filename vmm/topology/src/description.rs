//! The description itself: what stands in a topology file, in a trace, and in a job for the test host.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Acs;

/// Offset of the variant `+translated`: above all of RAM and all untranslated windows, and well below 2^40.
const TRANSLATION: u64 = 0x20_0000_0000;
/// What is added to a name for that variant.
pub(super) const TRANSLATED: &str = "+translated";

/// The devices of a machine and how they hang together.
///
/// Everything is a flat list, and each thing names what it hangs below, so that the text of a deep tree stays readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// What it shows, in one line.
    #[serde(default)]
    pub description: String,
    /// What the guest's processor contributes to Linux's decision.
    #[serde(default)]
    pub cpu: Cpu,
    /// The host bridges, one at least. The first has bus 0 and the lab's own virtio functions.
    #[serde(rename = "host-bridge")]
    pub host_bridges: Vec<HostBridge>,
    /// The root ports.
    #[serde(rename = "root-port", default, skip_serializing_if = "Vec::is_empty")]
    pub root_ports: Vec<RootPort>,
    /// The switches.
    #[serde(rename = "switch", default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<Switch>,
    /// The peer devices, at most 16.
    #[serde(rename = "peer", default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// Devices of other kinds, at most 16.
    #[serde(rename = "endpoint", default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// Linux trusts every host bridge if the processor is one of AMD's from family 0x17 on (`cpu_supports_p2pdma()`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cpu {
    /// The processor is none of those, whatever the host has: the host bridge's identity decides.
    #[default]
    Neutral,
    /// The processor is one of those.
    TrustedForPeerToPeer,
}

/// A host bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostBridge {
    /// Its name.
    pub name: String,
    /// Identity of its own function, `VENDOR:DEVICE` in hexadecimal.
    pub id: PciId,
    /// Its root bus; by default the one after the last of the bridge before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bus: Option<u8>,
    /// Its highest bus; by default as many as there are links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_bus: Option<u8>,
    /// What is added to a bus address to get the CPUs' address (ACPI's `_TRA`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub translation: u64,
    /// Bus addresses below 4 GiB for it; by default a share of the lab's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Window>,
    /// Bus addresses for 64-bit prefetchable BARs; by default a share of the lab's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetchable: Option<Window>,
    /// How far it really takes requests from one function to another, whatever Linux thinks of it.
    #[serde(default)]
    pub peer_routing: PeerRouting,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// An address range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// First address, a multiple of 1 MiB.
    pub first: u64,
    /// Last address, one less than a multiple of 1 MiB.
    pub last: u64,
}

/// How far a host bridge takes peer-to-peer requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRouting {
    /// To every function.
    #[default]
    Everywhere,
    /// To functions below the same host bridge.
    SameBridge,
    /// Not at all.
    Nowhere,
}

/// A root port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RootPort {
    /// Its name.
    pub name: String,
    /// Its host bridge.
    pub on: String,
    /// Device number on the root bus.
    pub device: u8,
    /// Function number.
    #[serde(default)]
    pub function: u8,
    /// Access Control Services.
    #[serde(default = "Acs::standard")]
    pub acs: Acs,
    /// Controls of those that can be switched on and do nothing.
    #[serde(default, skip_serializing_if = "Acs::is_none")]
    pub acs_without_effect: Acs,
    /// Its slot has hot-plug: it signals when a device comes or goes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hot_plug: bool,
}

/// A switch: an upstream port, and downstream ports below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switch {
    /// Its name, which is that of its upstream port.
    pub name: String,
    /// The root port or downstream port that it hangs below.
    pub below: String,
    /// The downstream ports.
    #[serde(rename = "port")]
    pub ports: Vec<SwitchPort>,
}

/// A downstream port of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SwitchPort {
    /// Its name.
    pub name: String,
    /// Device number inside the switch; also its Port Number less one.
    pub device: u8,
    /// Access Control Services.
    #[serde(default)]
    pub acs: Acs,
    /// Controls of those that can be switched on and do nothing.
    #[serde(default, skip_serializing_if = "Acs::is_none")]
    pub acs_without_effect: Acs,
    /// Its slot has hot-plug: it signals when a device comes or goes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hot_plug: bool,
}

/// A peer device, or one function of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The port that it hangs below, or the host bridge on whose root bus it sits.
    pub below: String,
    /// Device number; there is none but 0 below a port.
    #[serde(default)]
    pub device: u8,
    /// Function number.
    #[serde(default)]
    pub function: u8,
    /// Access Control Services, for a device with several functions.
    #[serde(default)]
    pub acs: Acs,
    /// Bytes of local memory; by default what the lab gives every peer device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_memory: Option<u64>,
}

/// A device of any kind that the device models know, or one function of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// What it is: one of [`device_models::endpoint::KINDS`].
    pub kind: String,
    /// The port that it hangs below, or the host bridge on whose root bus it sits.
    pub below: String,
    /// Device number; there is none but 0 below a port.
    #[serde(default)]
    pub device: u8,
    /// Function number.
    #[serde(default)]
    pub function: u8,
    /// Access Control Services, for a device with several functions.
    #[serde(default)]
    pub acs: Acs,
    /// What the kind lets choose.
    #[serde(
        default,
        deserialize_with = "texts_or_numbers",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub options: BTreeMap<String, String>,
}

/// Numbers may stand for their text: `channels = 2`.
fn texts_or_numbers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an option's value is a text or a whole number")]
    enum Value {
        Number(u64),
        Text(String),
    }
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let text = |value| match value {
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text,
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// Vendor and device ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciId {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// Text that is not a vendor and a device ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnId {
    /// It has another form.
    #[error(
        "{0:?} is not a pair of IDs; write VENDOR:DEVICE, four hexadecimal digits each, for example \
         \"1ae0:0001\""
    )]
    Form(String),
    /// All ones are read where no function is (PCIe 6.0, 7.5.1.1.1).
    #[error("{0:?}: ffff is not a vendor ID, it is what software reads where no function is")]
    Nothing(String),
}

impl FromStr for PciId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let number = |digits: &str| {
            let plain = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let ids = text.split_once(':').and_then(|(v, d)| number(v).zip(number(d)));
        let short = || text.chars().take(40).collect();
        let (vendor, device) = ids.ok_or_else(|| NotAnId::Form(short()))?;
        if vendor == u16::MAX {
            return Err(NotAnId::Nothing(short()));
        }
        Ok(Self { vendor, device })
    }
}

impl Serialize for PciId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PciId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Default for Topology {
    /// The default machine: two peer devices, each below a root port of its own.
    fn default() -> Self {
        Self::root_ports(2)
    }
}

impl Topology {
    /// `peers` peer devices, each below a root port of its own.
    pub fn root_ports(peers: u8) -> Self {
        Self {
            name: "root-ports".into(),
            description: "two peer devices, each below a root port of its own".into(),
            cpu: Cpu::default(),
            host_bridges: vec![HostBridge {
                name: "host-bridge".into(),
                id: PciId { vendor: 0x8086, device: 0x2020 },
                first_bus: None,
                last_bus: None,
                translation: 0,
                memory: None,
                prefetchable: None,
                peer_routing: PeerRouting::default(),
            }],
            root_ports: (0..peers)
                .map(|index| RootPort {
                    name: format!("port{index}"),
                    on: "host-bridge".into(),
                    device: 4 + index,
                    function: 0,
                    acs: Acs::standard(),
                    acs_without_effect: Acs::NONE,
                    hot_plug: false,
                })
                .collect(),
            switches: Vec::new(),
            peers: (0..peers)
                .map(|index| Peer {
                    name: format!("peer{index}"),
                    below: format!("port{index}"),
                    device: 0,
                    function: 0,
                    acs: Acs::NONE,
                    local_memory: None,
                })
                .collect(),
            endpoints: Vec::new(),
        }
    }

    /// The same with host bridges that translate: bus addresses, the CPUs' addresses and IOVAs of one BAR are three
    /// different numbers then, in ranges that do not overlap, so that a mixed-up kind of address shows.
    #[must_use]
    pub fn translated(mut self) -> Self {
        for bridge in &mut self.host_bridges {
            bridge.translation = TRANSLATION;
        }
        self.name.push_str(TRANSLATED);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_text() {
        let id = PciId { vendor: 0x8086, device: 0x3c00 };
        assert_eq!(id.to_string(), "8086:3c00");
        assert_eq!("8086:3c00".parse(), Ok(id));
        for text in ["8086", "8086:", "8086:3c0", "8086:3c00:1", "+086:3c00", ""] {
            assert!(text.parse::<PciId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_description_survives_both_of_its_texts() {
        for topology in [Topology::default(), Topology::root_ports(16).translated()] {
            let text = toml::to_string(&topology).unwrap();
            assert_eq!(toml::from_str::<Topology>(&text).unwrap(), topology);
            let text = serde_json::to_string(&topology).unwrap();
            assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
        }
    }
}
