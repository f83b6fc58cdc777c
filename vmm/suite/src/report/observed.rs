//! What a guest's kernel decided about peer-to-peer DMA, as the guest's tests observed it, and the
//! machine that it decided about. `peerdma explain --run` compares both.

use std::fmt;

use guest_protocol::{Address, Request};
use peerdma_topology::Topology;
use peerdma_topology::linux::Guest;
use peerdma_topology::{Client, ParseClientError};
use serde::{Deserialize, Serialize};

/// The machine of a scenario, as far as the kernel's decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The devices and how they hang together.
    pub topology: Topology,
    /// The guest.
    pub guest: Guest,
}

/// One decision: about DMA by a device into the memory of a peer device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPath {
    /// Whose memory: instance N of the peer device, `/dev/peerdmaN`.
    pub owner: u8,
    /// The device that does DMA.
    pub client: Client,
    /// What `pci_p2pdma_distance()` said; negative: no way.
    pub distance: i32,
    /// The DMA address that the client got for the first byte, and what kind of address it is;
    /// none: it got none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<(Address, u64)>,
}

/// Why a line is not a decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservedPathError {
    /// The request is about something else.
    #[error("this request does not describe a path")]
    OtherRequest,
    /// The owner.
    #[error("no topology has a peer device with the instance number {0}")]
    NoSuchPeer(u32),
    /// The client.
    #[error(transparent)]
    Client(#[from] ParseClientError),
}

impl ObservedPath {
    /// Reads a `path` request; its client as [`Client`] says.
    ///
    /// # Errors
    /// What is wrong with a word of it; [`ObservedPathError::OtherRequest`] for other requests.
    pub fn of(request: &Request<'_>) -> Result<Self, ObservedPathError> {
        match *request {
            Request::Path { owner, client, distance, address } => {
                let owner =
                    u8::try_from(owner).map_err(|_| ObservedPathError::NoSuchPeer(owner))?;
                Ok(Self { owner, client: client.parse()?, distance, address })
            }
            _ => Err(ObservedPathError::OtherRequest),
        }
    }
}

impl fmt::Display for ObservedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.distance {
            ..0 => write!(f, "no way between the two")?,
            distance => write!(f, "distance {distance}")?,
        }
        match self.address {
            Some((kind, address)) => write!(f, ", {} {address:#x}", kind.words()),
            None => write!(f, ", no DMA address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use device_models::pci::Bdf;

    use super::*;

    #[test]
    fn decisions_are_read_as_the_guest_writes_them() {
        let parse = |text: &str| ObservedPath::of(&Request::parse(text).unwrap());
        let read = parse("path 1 0 4 iova 0xfffe0000").unwrap();
        let address = Some((Address::Iova, 0xFFFE_0000));
        assert_eq!(read, ObservedPath { owner: 1, client: Client::Peer(0), distance: 4, address });
        assert_eq!(read.to_string(), "distance 4, IOVA 0xfffe0000");
        let read = parse("path 0 1 -1").unwrap();
        assert_eq!(read.to_string(), "no way between the two, no DMA address");
        let engine = parse("path 1 05:00.0 3 bus 0xc0000000").unwrap();
        assert_eq!(engine.client, Client::Function(Bdf::new(5, 0, 0)));
        for (decision, client) in [(read, "1"), (engine, "\"05:00.0\"")] {
            let text = serde_json::to_string(&decision).unwrap();
            assert!(text.contains(&format!("\"client\":{client}")), "{text}");
            assert_eq!(serde_json::from_str::<ObservedPath>(&text).unwrap(), decision);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["path 0 300 2", "path 300 0 2", "path 0 05:00 2", "path 0 x 2", "stat"] {
            assert!(ObservedPath::of(&Request::parse(text).unwrap()).is_err(), "{text}");
        }
    }
}
