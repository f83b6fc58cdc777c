//! Bytes by route, as the monitor counts them.

use crate::cases::{Bench, Stop, ensure};
use crate::device::Peer;
use crate::lab::Stat;

/// What one device's requests moved, in bytes: between devices, and between it and RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) read_peer: u64,
    pub(crate) read_memory: u64,
    pub(crate) written_peer: u64,
    pub(crate) written_memory: u64,
    /// How much of what went between devices went past the root complex, both ways together.
    pub(crate) by_bus_address: u64,
}

/// Descriptors are read and completion records written by the way: no more than this for a few pieces of work, bytes.
const OVERHEAD: u64 = 2048;

/// Where data must have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Not over the bus.
    Nowhere,
    /// From device to device.
    Peer,
    /// Between device and RAM.
    Memory,
}

impl Traffic {
    fn of(stat: &Stat, function: &str) -> Self {
        let at = |kind: &str, route: &str| {
            stat.counter(&format!("{kind}/{function}/{route}")).unwrap_or_default()
        };
        let peer = |kind| at(kind, "through-host-bridge") + at(kind, "bus-address");
        Self {
            read_peer: peer("read"),
            read_memory: at("read", "memory"),
            written_peer: peer("written"),
            written_memory: at("written", "memory"),
            by_bus_address: at("read", "bus-address") + at("written", "bus-address"),
        }
    }

    /// The counters of `peer` now.
    pub(crate) fn now(bench: &mut Bench<'_>, peer: &Peer) -> Result<Self, Stop> {
        let name = peer.function().name;
        let stat = bench.stat()?;
        // The lab has one segment and names functions without it.
        Ok(Self::of(&stat, name.split_once(':').map_or(name.as_str(), |(_, rest)| rest)))
    }

    /// What has come since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            read_peer: self.read_peer - before.read_peer,
            read_memory: self.read_memory - before.read_memory,
            written_peer: self.written_peer - before.written_peer,
            written_memory: self.written_memory - before.written_memory,
            by_bus_address: self.by_bus_address - before.by_bus_address,
        }
    }

    /// By which route the data went, in the monitor's words.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self { by_bus_address: 1.., .. } => "bus-address",
            Self { read_peer: 1.., .. } | Self { written_peer: 1.., .. } => "through-host-bridge",
            Self { read_memory, .. } if read_memory > OVERHEAD => "memory",
            _ => "inside the device",
        }
    }

    /// Whether `length` bytes were read by `way` and as many written, and no data by any other.
    pub(crate) fn expect(self, way: Way, length: u64) -> Result<(), Stop> {
        let (peer, memory) = match way {
            Way::Nowhere => (0, 0),
            Way::Peer => (length, 0),
            Way::Memory => (0, length),
        };
        let about = |found: u64, wanted: u64| (wanted..=wanted + OVERHEAD).contains(&found);
        // The driver reads the last byte back after it has written to another device.
        let read_back = u64::from(way == Way::Peer);
        ensure!(
            self.read_peer == peer + read_back
                && self.written_peer == peer
                && about(self.read_memory, memory)
                && about(self.written_memory, memory),
            "{length} bytes each way should have gone {way:?}, but it was {self:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_fall_back_to_ram_shows() {
        let stat = Stat::parse(
            r#"{"read":{"01:00.0":{"memory":5100,"bus-address":1}},"written":{"01:00.0":{"memory":5032}}}"#,
        )
        .unwrap();
        let traffic = Traffic::of(&stat, "01:00.0");
        assert!(traffic.expect(Way::Peer, 5000).is_err());
        assert!(Traffic { read_peer: 0, ..traffic }.expect(Way::Memory, 5000).is_ok());
        assert!(traffic.since(traffic).expect(Way::Nowhere, 5000).is_ok());
    }
}
