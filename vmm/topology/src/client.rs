//! The device at the other end of a decision: the one that does DMA.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use device_models::pci::{Bdf, ParseBdfError};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The device that does DMA. Parsed from an instance number or `BUS:DEVICE.FUNCTION`; shown with
/// `peer` in front of an instance number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A peer device, by its instance N of `/dev/peerdmaN`.
    Peer(u8),
    /// A device of another kind, by its function.
    Function(Bdf),
}

/// Why a word names no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseClientError {
    /// Neither an address nor an instance number from 0 to 255.
    #[error("{word:?}: {source}")]
    Number {
        /// The word.
        word: String,
        /// What is wrong with it.
        source: ParseIntError,
    },
    /// The address of a function.
    #[error(transparent)]
    Function(ParseBdfError),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(instance) => write!(f, "peer{instance}"),
            Self::Function(bdf) => write!(f, "{bdf}"),
        }
    }
}

impl FromStr for Client {
    type Err = ParseClientError;

    fn from_str(text: &str) -> Result<Self, ParseClientError> {
        if text.contains(':') {
            return text.parse().map(Self::Function).map_err(ParseClientError::Function);
        }
        text.parse()
            .map(Self::Peer)
            .map_err(|source| ParseClientError::Number { word: text.to_owned(), source })
    }
}

impl Serialize for Client {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Peer(instance) => serializer.serialize_u8(*instance),
            Self::Function(bdf) => serializer.collect_str(bdf),
        }
    }
}

impl<'de> Deserialize<'de> for Client {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number or a function's address")]
        enum Form {
            Number(u8),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(instance) => Ok(Self::Peer(instance)),
            Form::Text(text) => text.parse().map(Self::Function).map_err(D::Error::custom),
        }
    }
}
