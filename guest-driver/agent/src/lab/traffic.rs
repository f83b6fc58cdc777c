//! The answer to `traffic`: into whose memory or registers the requests of one function went, in bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What RAM is called beside functions.
pub const RAM: &str = "ram";

/// What one function has moved since power-on. Targets have the names that functions have in the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Moved {
    /// The function's own name.
    pub name: String,
    /// Bytes read, by target.
    #[serde(default)]
    pub read: BTreeMap<String, u64>,
    /// Bytes written, by target.
    #[serde(default)]
    pub written: BTreeMap<String, u64>,
}
