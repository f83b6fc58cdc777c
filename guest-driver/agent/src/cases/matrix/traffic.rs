//! Bytes by route and by target, as the monitor counts them.

use std::collections::BTreeMap;
use std::fmt;

use crate::cases::{Bench, Stop, ensure};
use crate::device::Peer;
use crate::lab::{Moved, RAM, Stat};

/// What one device's requests moved, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// By target: RAM, or whose memory or registers.
    moved: Moved,
    /// Between devices, past the root complex; both ways together.
    by_bus_address: u64,
    /// Between devices, through the root complex.
    through_host_bridge: u64,
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
    fn of(moved: Moved, stat: &Stat, function: &str) -> Self {
        let both = |route: &str| {
            let at = |kind: &str| stat.counter(&format!("{kind}/{function}/{route}"));
            at("read").unwrap_or_default() + at("written").unwrap_or_default()
        };
        let (by_bus_address, through_host_bridge) =
            (both("bus-address"), both("through-host-bridge"));
        Self { moved, by_bus_address, through_host_bridge }
    }

    /// The counters of `peer` now.
    pub(crate) fn now(bench: &mut Bench<'_>, peer: &Peer) -> Result<Self, Stop> {
        let moved = moved(bench, peer.function().address())?;
        Ok(Self::of(moved, &bench.stat()?, peer.function().address()))
    }

    /// What has come since `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        let Moved { name, read, written } = self.moved;
        let moved = Moved {
            name,
            read: difference(read, &before.moved.read),
            written: difference(written, &before.moved.written),
        };
        Self {
            moved,
            by_bus_address: self.by_bus_address - before.by_bus_address,
            through_host_bridge: self.through_host_bridge - before.through_host_bridge,
        }
    }

    /// By which route the data went, in the monitor's words.
    pub(crate) fn route(&self) -> &'static str {
        match self {
            Self { by_bus_address: 1.., .. } => "bus-address",
            Self { through_host_bridge: 1.., .. } => "through-host-bridge",
            Self { moved, .. } if at(&moved.read, RAM) > OVERHEAD => "memory",
            _ => "inside the device",
        }
    }

    /// Whether `length` bytes were read by `way`, as many written, and no data went anywhere else. `owner`: whose memory
    /// it is that they must have gone to if they go to a device's.
    pub(crate) fn expect(&self, way: Way, owner: &str, length: u64) -> Result<(), Stop> {
        let (peer, memory) = match way {
            Way::Nowhere => (0, 0),
            Way::Peer => (length, 0),
            Way::Memory => (0, length),
        };
        let about = |found: u64, wanted: u64| (wanted..=wanted + OVERHEAD).contains(&found);
        let Moved { read, written, .. } = &self.moved;
        // The driver reads the last byte back after it has written to another device.
        let read_back = u64::from(way == Way::Peer);
        ensure!(
            at(read, owner) == peer + read_back
                && at(written, owner) == peer
                && about(at(read, RAM), memory)
                && about(at(written, RAM), memory),
            "{length} bytes each way should have gone {way:?} (the owner is {owner}), but it was: {self}"
        );
        let stranger =
            read.keys().chain(written.keys()).find(|name| *name != owner && *name != RAM);
        ensure!(
            stranger.is_none(),
            "{length} bytes each way should have gone {way:?} (the owner is {owner}), and some went elsewhere: {self}"
        );
        Ok(())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes read")?;
        list(f, &self.moved.read, "from")?;
        f.write_str("; written")?;
        list(f, &self.moved.written, "to")
    }
}

/// The name of a device in the topology.
pub(crate) fn name(bench: &mut Bench<'_>, peer: &Peer) -> Result<String, Stop> {
    Ok(moved(bench, peer.function().address())?.name)
}

/// What the function at this address has moved since power-on.
pub(crate) fn moved(bench: &mut Bench<'_>, address: &str) -> Result<Moved, Stop> {
    let lab =
        bench.lab.as_mut().ok_or_else(|| Stop::Skip("the lab port does not answer".into()))?;
    Ok(lab.traffic(address)?)
}

fn at(by_target: &BTreeMap<String, u64>, target: &str) -> u64 {
    by_target.get(target).copied().unwrap_or(0)
}

fn difference(
    after: BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let less = |(name, bytes): (String, u64)| {
        let more = bytes.saturating_sub(at(before, &name));
        (more > 0).then_some((name, more))
    };
    after.into_iter().filter_map(less).collect()
}

fn list(f: &mut fmt::Formatter<'_>, by_target: &BTreeMap<String, u64>, word: &str) -> fmt::Result {
    if by_target.is_empty() {
        return f.write_str(" none");
    }
    for (index, (name, bytes)) in by_target.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma} {bytes} {word} {name}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(text: &str) -> Traffic {
        let stat =
            Stat::parse(r#"{"read":{"02:00.0":{"memory":100,"bus-address":5001}}}"#).unwrap();
        Traffic::of(serde_json::from_str(text).unwrap(), &stat, "02:00.0")
    }

    #[test]
    fn a_silent_fall_back_to_ram_shows() {
        let fell_back = traffic(r#"{"name":"peer1","read":{"ram":5100},"written":{"ram":5032}}"#);
        assert!(fell_back.expect(Way::Peer, "peer0", 5000).is_err());
        assert!(fell_back.expect(Way::Memory, "peer0", 5000).is_ok());
        let nothing = fell_back.clone().since(&fell_back);
        assert!(nothing.expect(Way::Nowhere, "peer0", 5000).is_ok());
        assert_eq!(nothing.to_string(), "bytes read none; written none");
    }

    #[test]
    fn the_wrong_peer_shows() {
        let text =
            r#"{"name":"peer1","read":{"peer0":5001,"ram":64},"written":{"peer0":5000,"ram":32}}"#;
        let right = traffic(text);
        assert!(right.expect(Way::Peer, "peer0", 5000).is_ok());
        assert!(right.expect(Way::Peer, "peer2", 5000).is_err());
        assert_eq!(
            right.to_string(),
            "bytes read 5001 from peer0, 64 from ram; written 5000 to peer0, 32 to ram"
        );
        let more =
            traffic(r#"{"name":"peer1","read":{"peer0":5001},"written":{"peer0":5000,"peer2":1}}"#);
        let error = more.expect(Way::Peer, "peer0", 5000).unwrap_err();
        assert!(matches!(&error, Stop::Fail(text) if text.contains("1 to peer2")), "{error:?}");
    }
}
