//! Bytes by route and by target, as the VMM counts them.

use std::collections::BTreeMap;
use std::fmt;

use super::{Bench, Stop, Verdict, ensure};
use crate::sys::pci::Function;
use crate::vmm::{self, Counters, FunctionTraffic, RAM};

/// What one function's requests moved, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// By target: RAM, or whose memory or registers.
    moved: FunctionTraffic,
    /// Read from other devices.
    read: ByRoute,
    /// Written to other devices.
    written: ByRoute,
}

/// Bytes between devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ByRoute {
    /// Past the root complex.
    bus_address: u64,
    /// Through the root complex.
    through_host_bridge: u64,
}

/// Descriptors are read and completion records written by the way: no more than this for a few pieces of work, bytes.
const OVERHEAD: u64 = 2048;

/// The driver reads the last byte back after it has written to another device.
pub(super) const READ_BACK: u64 = 1;

/// Where data must have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// Not over the bus.
    Nowhere,
    /// From device to device.
    Peer,
    /// Between device and RAM.
    Memory,
}

impl ByRoute {
    /// What never happened has no counter.
    fn of(stat: &Counters, kind: &str, function: &str) -> Self {
        let at = |route: &str| stat.counter(&format!("{kind}/{function}/{route}")).unwrap_or(0);
        Self { bus_address: at("bus-address"), through_host_bridge: at("through-host-bridge") }
    }

    fn since(self, before: Self) -> Self {
        Self {
            bus_address: self.bus_address.saturating_sub(before.bus_address),
            through_host_bridge: self
                .through_host_bridge
                .saturating_sub(before.through_host_bridge),
        }
    }

    /// By this way and by the other one.
    fn split(self, way: vmm::PathKind) -> (u64, u64) {
        match way {
            vmm::PathKind::Bus => (self.bus_address, self.through_host_bridge),
            vmm::PathKind::Host | vmm::PathKind::None => {
                (self.through_host_bridge, self.bus_address)
            }
        }
    }

    /// As many bytes as wanted by this way, and none by the other.
    fn check(
        self,
        kind: &str,
        way: vmm::PathKind,
        wanted: std::ops::RangeInclusive<u64>,
    ) -> Verdict {
        let (right, astray) = self.split(way);
        ensure!(
            wanted.contains(&right) && astray == 0,
            "{kind}: {right} bytes by the right way ({way:?}) and {astray} by the wrong one, not {wanted:?} and 0"
        );
        Ok(())
    }
}

impl Traffic {
    fn of(moved: FunctionTraffic, stat: &Counters, function: &str) -> Self {
        let by_route = |kind| ByRoute::of(stat, kind, function);
        Self { moved, read: by_route("read"), written: by_route("written") }
    }

    /// The counters of a function now.
    pub(super) fn now(bench: &mut Bench<'_>, function: &Function) -> Result<Self, Stop> {
        let moved = moved(bench, function)?;
        Ok(Self::of(moved, &bench.stat()?, function.address()))
    }

    /// What has come since `before`.
    pub(super) fn since(self, before: &Self) -> Self {
        let FunctionTraffic { name, traffic } = self.moved;
        let old = &before.moved.traffic;
        let traffic = vmm::Traffic {
            read: difference(traffic.read, &old.read),
            written: difference(traffic.written, &old.written),
        };
        let moved = FunctionTraffic { name, traffic };
        Self {
            moved,
            read: self.read.since(before.read),
            written: self.written.since(before.written),
        }
    }

    /// What the function has done from now until the end of `work`.
    pub(super) fn during(
        bench: &mut Bench<'_>,
        function: &Function,
        work: impl FnOnce(&mut Bench<'_>) -> Verdict,
    ) -> Result<Self, Stop> {
        let before = Self::now(bench, function)?;
        work(bench)?;
        Ok(Self::now(bench, function)?.since(&before))
    }

    /// The same while `others` must move nothing between each other.
    pub(super) fn during_alone(
        bench: &mut Bench<'_>,
        function: &Function,
        others: &[Function],
        work: impl FnOnce() -> Verdict,
    ) -> Result<Self, Stop> {
        let mut before = Vec::new();
        for other in others {
            before.push(Self::now(bench, other)?);
        }
        let traffic = Self::during(bench, function, |_| work())?;
        for (other, before) in others.iter().zip(&before) {
            let own = Self::now(bench, other)?.since(before);
            own.expect_none_between_devices().map_err(|stop| stop.of(other.address()))?;
        }
        Ok(traffic)
    }

    /// Bytes that have arrived in other devices: what is under way is not among them.
    pub(super) fn arrived(&self) -> u64 {
        self.written.bus_address + self.written.through_host_bridge
    }

    /// By which route the data went, in the VMM's words.
    pub(super) fn route(&self) -> &'static str {
        let ByRoute { bus_address, through_host_bridge } = self.between_devices();
        match (bus_address, through_host_bridge) {
            (1.., _) => "bus-address",
            (0, 1..) => "through-host-bridge",
            _ if at(&self.moved.traffic.read, RAM) > OVERHEAD => "memory",
            _ => "inside the device",
        }
    }

    /// Both directions together.
    fn between_devices(&self) -> ByRoute {
        ByRoute {
            bus_address: self.read.bus_address + self.written.bus_address,
            through_host_bridge: self.read.through_host_bridge + self.written.through_host_bridge,
        }
    }

    /// Not one byte between devices, whatever the way.
    pub(super) fn expect_none_between_devices(&self) -> Verdict {
        ensure!(
            self.between_devices() == ByRoute::default(),
            "there must be nothing between devices, but it was: {self}"
        );
        Ok(())
    }

    /// n bytes read from other devices, whose completions came by `way`, and none by the other.
    pub(super) fn expect_read(
        &self,
        way: vmm::PathKind,
        wanted: std::ops::RangeInclusive<u64>,
    ) -> Verdict {
        self.read.check("read", way, wanted)
    }

    /// n bytes written to other devices by `way`, and none by the other.
    pub(super) fn expect_written(
        &self,
        way: vmm::PathKind,
        wanted: std::ops::RangeInclusive<u64>,
    ) -> Verdict {
        self.written.check("written", way, wanted)
    }

    /// `length` bytes read from the one device's memory and written to the other's, and no third one's touched.
    pub(super) fn expect_carried(&self, from: &str, to: &str, length: u64) -> Verdict {
        let vmm::Traffic { read, written } = &self.moved.traffic;
        let only = |by_target: &BTreeMap<String, u64>, owner: &str| {
            at(by_target, owner) == length
                && by_target.keys().all(|target| target == owner || target == RAM)
        };
        ensure!(
            only(read, from) && only(written, to),
            "{length} bytes should have gone from {from} to {to}, but it was: {self}"
        );
        Ok(())
    }

    /// Whether `length` bytes were read from there, as many written there, and no data went anywhere else. `owner`:
    /// whose memory it must have been if it was a device's.
    pub(super) fn expect(&self, to: Where, owner: &str, length: u64) -> Result<(), Stop> {
        let (peer, memory) = match to {
            Where::Nowhere => (0, 0),
            Where::Peer => (length, 0),
            Where::Memory => (0, length),
        };
        let about = |found: u64, wanted: u64| (wanted..=wanted + OVERHEAD).contains(&found);
        let vmm::Traffic { read, written } = &self.moved.traffic;
        let read_back = if to == Where::Peer { READ_BACK } else { 0 };
        ensure!(
            at(read, owner) == peer + read_back
                && at(written, owner) == peer
                && about(at(read, RAM), memory)
                && about(at(written, RAM), memory),
            "{length} bytes each way should have gone to {to:?} (the owner is {owner}), but it was: {self}"
        );
        let stranger =
            read.keys().chain(written.keys()).find(|name| *name != owner && *name != RAM);
        ensure!(
            stranger.is_none(),
            "{length} bytes each way should have gone to {to:?} (the owner is {owner}), and some went elsewhere: {self}"
        );
        Ok(())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes read")?;
        list(f, &self.moved.traffic.read, "from")?;
        f.write_str("; written")?;
        list(f, &self.moved.traffic.written, "to")
    }
}

/// The name of a function in the topology.
pub(super) fn name(bench: &mut Bench<'_>, function: &Function) -> Result<String, Stop> {
    Ok(moved(bench, function)?.name)
}

/// What the function has moved since power-on.
fn moved(bench: &mut Bench<'_>, function: &Function) -> Result<FunctionTraffic, Stop> {
    let vmm = bench.vmm.as_mut().ok_or_else(|| Stop::Skip("the VMM does not answer".into()))?;
    Ok(vmm.traffic(function.address())?)
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
            serde_json::from_str(r#"{"read":{"02:00.0":{"memory":100,"bus-address":5001}}}"#)
                .unwrap();
        Traffic::of(serde_json::from_str(text).unwrap(), &stat, "02:00.0")
    }

    #[test]
    fn a_silent_fall_back_to_ram_shows() {
        let fell_back = traffic(r#"{"name":"peer1","read":{"ram":5100},"written":{"ram":5032}}"#);
        assert!(fell_back.expect(Where::Peer, "peer0", 5000).is_err());
        assert!(fell_back.expect(Where::Memory, "peer0", 5000).is_ok());
        let nothing = fell_back.clone().since(&fell_back);
        assert!(nothing.expect(Where::Nowhere, "peer0", 5000).is_ok());
        assert_eq!(nothing.to_string(), "bytes read none; written none");
    }

    #[test]
    fn a_detour_shows() {
        let traffic = traffic(r#"{"name":"peer1"}"#);
        assert!(traffic.expect_read(vmm::PathKind::Bus, 5001..=5001).is_ok());
        assert!(traffic.expect_read(vmm::PathKind::Bus, 5000..=5000).is_err());
        assert!(traffic.expect_read(vmm::PathKind::Host, 0..=0).is_err());
        assert!(traffic.expect_written(vmm::PathKind::Host, 0..=0).is_ok());
        assert!(traffic.expect_none_between_devices().is_err());
        assert_eq!(traffic.route(), "bus-address");
    }

    #[test]
    fn what_a_third_party_carries_must_come_and_go_where_it_should() {
        let text = r#"{"name":"ioat0","read":{"peer0":900,"ram":64},"written":{"peer1":900}}"#;
        let right = traffic(text);
        assert!(right.expect_carried("peer0", "peer1", 900).is_ok());
        assert!(right.expect_carried("peer1", "peer0", 900).is_err());
        assert!(right.expect_carried("peer0", "peer1", 901).is_err());
        let text = r#"{"name":"ioat0","read":{"peer0":900},"written":{"peer1":900,"peer2":1}}"#;
        assert!(traffic(text).expect_carried("peer0", "peer1", 900).is_err());
    }

    #[test]
    fn the_wrong_peer_shows() {
        let text =
            r#"{"name":"peer1","read":{"peer0":5001,"ram":64},"written":{"peer0":5000,"ram":32}}"#;
        let right = traffic(text);
        assert!(right.expect(Where::Peer, "peer0", 5000).is_ok());
        assert!(right.expect(Where::Peer, "peer2", 5000).is_err());
        assert_eq!(
            right.to_string(),
            "bytes read 5001 from peer0, 64 from ram; written 5000 to peer0, 32 to ram"
        );
        let more =
            traffic(r#"{"name":"peer1","read":{"peer0":5001},"written":{"peer0":5000,"peer2":1}}"#);
        let error = more.expect(Where::Peer, "peer0", 5000).unwrap_err();
        assert!(matches!(&error, Stop::Fail(text) if text.contains("1 to peer2")), "{error:?}");
    }
}
