//! What the VMM expects of the guest kernel's P2P decisions, and of the route that data then takes,
//! if any; short enough for an answer.

use serde::{Deserialize, Serialize};

/// How a request of one device reaches another: for Linux, a map type of `enum pci_p2pdma_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// By bus address, turned around in a switch.
    Bus,
    /// Through the host bridge.
    Host,
    /// Not supported.
    None,
}

/// What kind of DMA address the kernel gives for another device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// A bus address: what stands in the BAR.
    Bus,
    /// A CPU physical address.
    Phys,
    /// One that the IOMMU translates.
    Iova,
    /// The kernel refuses to map it.
    None,
}

impl Address {
    /// The word for it in a `path` request; none where there is no address.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Bus => Some("bus"),
            Self::Phys => Some("phys"),
            Self::Iova => Some("iova"),
            Self::None => None,
        }
    }

    /// The kind that a word of a `path` request means.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Bus, Self::Phys, Self::Iova].into_iter().find(|kind| kind.word() == Some(word))
    }

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

/// What the hardware does with requests of one device that have an address of another's memory, or with completions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Arrival {
    /// A switch turns them around.
    Bus,
    /// They arrive through the root complex.
    Host,
    /// They do not arrive, and the checker finds this class.
    Refused(String),
    /// The address is one of something else, or may be.
    Elsewhere,
}

impl Arrival {
    /// By which way they arrive; none if they do not.
    pub fn way(&self) -> Option<PathKind> {
        match self {
            Self::Bus => Some(PathKind::Bus),
            Self::Host => Some(PathKind::Host),
            Self::Refused(_) | Self::Elsewhere => None,
        }
    }
}

impl From<String> for Arrival {
    fn from(word: String) -> Self {
        match word.as_str() {
            "bus" => Self::Bus,
            "host" => Self::Host,
            "elsewhere" => Self::Elsewhere,
            // All classes of findings have a dot.
            _ => Self::Refused(word),
        }
    }
}

impl From<Arrival> for String {
    fn from(arrival: Arrival) -> Self {
        match arrival {
            Arrival::Bus => "bus".into(),
            Arrival::Host => "host".into(),
            Arrival::Elsewhere => "elsewhere".into(),
            Arrival::Refused(class) => class,
        }
    }
}

/// What is expected of DMA by one device into the memory of another: what Linux decides, and what the hardware does,
/// whatever Linux decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathAsList", into = "PathAsList")]
pub struct Path {
    /// Linux: the way.
    pub way: PathKind,
    /// Linux: `pci_p2pdma_distance()`; negative: no way.
    pub distance: i32,
    /// Linux: the kind of DMA address.
    pub address: Address,
    /// Hardware: requests with the address that stands in the BAR.
    pub by_bus: Arrival,
    /// Hardware: requests with the CPUs' address.
    pub by_cpu: Arrival,
    /// Hardware: requests with an address that the IOMMU translates to that memory, and that is on no bus.
    pub by_iova: Arrival,
    /// Hardware: completions with what was read there.
    pub completions: Arrival,
}

type PathAsList = (PathKind, i32, Address, Arrival, Arrival, Arrival, Arrival);

impl From<PathAsList> for Path {
    fn from((way, distance, address, by_bus, by_cpu, by_iova, completions): PathAsList) -> Self {
        Self { way, distance, address, by_bus, by_cpu, by_iova, completions }
    }
}

impl From<Path> for PathAsList {
    fn from(path: Path) -> Self {
        let Path { way, distance, address, by_bus, by_cpu, by_iova, completions } = path;
        (way, distance, address, by_bus, by_cpu, by_iova, completions)
    }
}

/// What is expected of the topology. Peer devices are named by their number N of `/dev/peerdmaN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The topology's name.
    pub topology: String,
    /// For every two peer devices, in both directions: whose DMA, whose memory, and what is expected of it.
    pub paths: Vec<(u32, u32, Path)>,
    /// The IOMMU group of each peer device, by a number that means nothing by itself; empty without an IOMMU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Parts of the lines, at level warning, with which Linux comments on its own decisions about these paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// What devices of other kinds may do with the memories of the peer devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
}

/// What is expected of DMA by a device of another kind into the memory of each peer device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its function, `05:00.0`.
    pub function: String,
    /// Its name in the topology.
    pub name: String,
    /// For each peer device, by its number.
    pub paths: Vec<Path>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_short_and_come_back_whole() {
        let text = concat!(
            r#"{"topology":"t","paths":[[0,1,["host",4,"iova","iommu.unmapped","elsewhere","host","bus"]],"#,
            r#"[0,2,["none",-1,"none","bus","bus","host","host"]]],"groups":[4,5,5],"messages":["m"],"#,
            r#""others":[{"function":"05:00.0","name":"e","paths":[["bus",4,"bus","bus","bus","host","bus"]]}]}"#
        );
        let expected: Expected = serde_json::from_str(text).unwrap();
        let (_, _, path) = &expected.paths[0];
        assert_eq!((path.way, path.distance, path.address), (PathKind::Host, 4, Address::Iova));
        assert_eq!(path.by_bus, Arrival::Refused("iommu.unmapped".into()));
        assert_eq!((&path.by_cpu, &path.completions), (&Arrival::Elsewhere, &Arrival::Bus));
        assert_eq!(expected.groups, [4, 5, 5]);
        assert_eq!(expected.others[0].paths[0].by_iova, Arrival::Host);
        assert_eq!(serde_json::to_string(&expected).unwrap(), text);
        let wrong = text.replace("\"host\",4", "\"air\",4");
        assert!(serde_json::from_str::<Expected>(&wrong).is_err());
    }

    #[test]
    fn words_lead_back_to_their_kinds() {
        for kind in [Address::Bus, Address::Phys, Address::Iova] {
            assert_eq!(kind.word().and_then(Address::from_word), Some(kind));
        }
        assert_eq!((Address::None.word(), Address::from_word("none")), (None, None));
    }
}
