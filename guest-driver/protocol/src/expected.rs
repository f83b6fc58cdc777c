//! What the VMM expects of the guest kernel's P2P decisions, in as few letters as an answer has room for.

use serde::{Deserialize, Serialize};

/// By which way a request of one device must reach another: a map type of `enum pci_p2pdma_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
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

/// What Linux should make of the topology. Peer devices are named by their number N of `/dev/peerdmaN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The topology's name.
    pub topology: String,
    /// For each two peer devices: both numbers, the way, `pci_p2pdma_distance()` (negative: no way), and the kind of DMA
    /// address. The way is the same in both directions.
    pub paths: Vec<(u32, u32, Way, i32, Address)>,
    /// Where Linux takes the way through the host bridge although a switch redirects only part of the traffic. By
    /// requester, a bit for each owner of memory: a request by bus address is turned around.
    #[serde(default, skip_serializing_if = "all_zero")]
    pub direct_requests: Vec<u16>,
    /// Likewise: completions, which carry the data of reads, come back directly.
    #[serde(default, skip_serializing_if = "all_zero")]
    pub direct_completions: Vec<u16>,
    /// The IOMMU group of each peer device, by a number that means nothing by itself; empty without an IOMMU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// What devices of other kinds may do with the memories of the peer devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
}

/// What Linux should make of DMA by a device of another kind into the memory of each peer device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its function, `05:00.0`.
    pub function: String,
    /// For each peer device, by its number: as in [`Expected::paths`].
    pub paths: Vec<(Way, i32, Address)>,
    /// A bit for each peer device, as in [`Expected::direct_requests`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub direct_requests: u16,
    /// A bit for each peer device, as in [`Expected::direct_completions`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub direct_completions: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(mask: &u16) -> bool {
    *mask == 0
}

fn all_zero(masks: &[u16]) -> bool {
    masks.iter().all(|mask| *mask == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_short_and_come_back_whole() {
        let text = concat!(
            r#"{"topology":"t","paths":[[0,1,"host",4,"iova"],[0,2,"none",-1,"none"]],"groups":[4,5,5],"#,
            r#""others":[{"function":"05:00.0","paths":[["bus",4,"bus"]],"direct_requests":1}]}"#
        );
        let expected: Expected = serde_json::from_str(text).unwrap();
        assert_eq!(expected.paths[1], (0, 2, Way::None, -1, Address::None));
        assert_eq!(expected.groups, [4, 5, 5]);
        assert_eq!(expected.others[0].paths[0], (Way::Bus, 4, Address::Bus));
        assert_eq!(serde_json::to_string(&expected).unwrap(), text);
        let wrong = r#"{"topology":"t","paths":[[0,1,"air",4,"iova"]]}"#;
        assert!(serde_json::from_str::<Expected>(wrong).is_err());
    }

    #[test]
    fn words_lead_back_to_their_kinds() {
        for kind in [Address::Bus, Address::Phys, Address::Iova] {
            assert_eq!(kind.word().and_then(Address::from_word), Some(kind));
        }
        assert_eq!((Address::None.word(), Address::from_word("none")), (None, None));
    }
}
