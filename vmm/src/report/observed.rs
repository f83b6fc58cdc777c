//! What a guest's kernel decided about peer-to-peer DMA, as the guest's tests found it out, and the machine that it
//! decided about. `peerdma explain --run` holds both against each other.

use std::fmt;
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};

use crate::suite::hello::Address;
use crate::topology::Topology;
use crate::topology::linux::Guest;

/// The machine of a scenario, as far as the kernel's decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The devices and how they hang together.
    pub topology: Topology,
    /// The guest.
    pub guest: Guest,
}

/// One decision: about DMA by one peer device into the memory of another. Both by their number N of `/dev/peerdmaN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPath {
    /// Whose memory.
    pub owner: u8,
    /// Who does DMA.
    pub client: u8,
    /// What `pci_p2pdma_distance()` said; negative: no way.
    pub distance: i32,
    /// The DMA address that the client got for the first byte, and what kind of number it is; none: it got none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<(Address, u64)>,
}

/// Why a line is no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservedPathError {
    /// Words are missing, or there are too many.
    #[error("OWNER CLIENT DISTANCE [KIND ADDRESS] is what makes up a decision")]
    Words,
    /// A number.
    #[error("{word:?}: {source}")]
    Number {
        /// The word.
        word: String,
        /// What is wrong with it.
        source: ParseIntError,
    },
    /// A kind of address.
    #[error("{0:?} is no kind of address; bus, phys and iova are")]
    Kind(String),
}

impl ObservedPath {
    /// Reads `OWNER CLIENT DISTANCE [KIND ADDRESS]`; the address in hexadecimal with 0x.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ObservedPathError> {
        let words: Vec<&str> = text.split_whitespace().take(6).collect();
        let number = |word: &str| -> Result<i32, ObservedPathError> {
            word.parse()
                .map_err(|source| ObservedPathError::Number { word: word.to_owned(), source })
        };
        let device = |word: &str| -> Result<u8, ObservedPathError> {
            word.parse()
                .map_err(|source| ObservedPathError::Number { word: word.to_owned(), source })
        };
        let (owner, client, distance, address) = match words.as_slice() {
            [owner, client, distance] => (owner, client, distance, None),
            [owner, client, distance, kind, address] => {
                let kind = match *kind {
                    "bus" => Address::Bus,
                    "phys" => Address::Phys,
                    "iova" => Address::Iova,
                    other => return Err(ObservedPathError::Kind(other.to_owned())),
                };
                let digits = address.strip_prefix("0x").unwrap_or(address);
                let value = u64::from_str_radix(digits, 16).map_err(|source| {
                    ObservedPathError::Number { word: (*address).to_owned(), source }
                })?;
                (owner, client, distance, Some((kind, value)))
            }
            _ => return Err(ObservedPathError::Words),
        };
        Ok(Self {
            owner: device(owner)?,
            client: device(client)?,
            distance: number(distance)?,
            address,
        })
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
    use super::*;

    #[test]
    fn decisions_are_read_as_the_guest_writes_them() {
        let read = ObservedPath::parse("1 0 4 iova 0xfffe0000").unwrap();
        let address = Some((Address::Iova, 0xFFFE_0000));
        assert_eq!(read, ObservedPath { owner: 1, client: 0, distance: 4, address });
        assert_eq!(read.to_string(), "distance 4, IOVA 0xfffe0000");
        let read = ObservedPath::parse("0 1 -1").unwrap();
        assert_eq!(read.to_string(), "no way between the two, no DMA address");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0 1",
            "0 1 2 iova",
            "0 1 2 iova 1 1",
            "0 300 2",
            "0 1 x",
            "0 1 2 what 0x1",
            "0 1 2 bus 0xg",
        ] {
            assert!(ObservedPath::parse(text).is_err(), "{text}");
        }
    }
}
