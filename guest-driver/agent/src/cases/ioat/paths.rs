//! The engine as a third party in whatever topology this is: what the kernel decides about its access to the memory of each
//! peer device, against what the monitor expects; and by which way its bytes then go.

use super::client::Channel;
use super::engines;
use super::third_party::{Shared, carry, first_channels};
use crate::cases::matrix::{moved, name};
use crate::cases::topology::{
    BY_BUS, BY_HOST, by, can_follow, cannot_follow, expected, kinds_of, told,
};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Pattern, Peer};
use crate::lab::{Address, Moved, Other, RAM, Stat, Way};
use crate::sys::pci::Function;
use rustix::io::Errno;

/// Bytes of each copy: more than the driver takes at once, and an odd end.
const LENGTH: usize = (64 << 10) + 1027;
/// Bytes of a copy that must be refused.
const SHORT: u32 = 1000;

/// An engine, and what is expected of it.
struct Engine {
    function: Function,
    channel: Channel,
    expected: Other,
}

impl Engine {
    fn address(&self) -> &str {
        self.function.address()
    }

    /// Way and kind of address for the memory of a peer device.
    fn path(&self, owner: &Peer) -> Result<(Way, i32, Address), Stop> {
        self.expected.paths.get(owner.instance as usize).copied().ok_or_else(|| {
            let what = format!("{} into peer{}", self.address(), owner.instance);
            Stop::Fail(format!("the monitor expects nothing of {what}"))
        })
    }

    /// Whether it may reach that memory.
    fn reaches(&self, owner: &Peer) -> Result<bool, Stop> {
        let (way, _, address) = self.path(owner)?;
        Ok(way != Way::None && address != Address::None)
    }

    /// The way of its requests with data, and that of completions with data that it asked for.
    fn ways(&self, owner: &Peer) -> Result<(Way, Way), Stop> {
        let (way, _, address) = self.path(owner)?;
        let is_named = |mask: u16| mask.checked_shr(owner.instance).unwrap_or(0) & 1 != 0;
        // To a switch, the CPUs' address is a bus address where both are one number.
        let on_the_bus =
            address == Address::Phys && owner.info.memory_phys == owner.info.memory_bus;
        let ahead = on_the_bus && is_named(self.expected.direct_requests);
        let back = is_named(self.expected.direct_completions);
        Ok((if ahead { Way::Bus } else { way }, if back { Way::Bus } else { way }))
    }
}

/// Every engine on the bus, and every peer device.
fn everybody(bench: &mut Bench<'_>) -> Result<(Vec<Engine>, Vec<Peer>), Stop> {
    // ioatdma says so of the descriptor of its own that it starts a channel with, if the channel is given back without
    // a copy before it has looked at that one: on a busy machine.
    bench.expect_message("Freeing 1 in use descriptors!");
    let expected = expected(bench)?;
    let mut all = Vec::new();
    for (function, channel) in engines()?.into_iter().zip(first_channels()?) {
        let address = function.address();
        let own = expected.others.iter().find(|other| other.function == address).cloned();
        let expected =
            own.ok_or_else(|| Stop::Fail(format!("the monitor expects nothing of {address}")))?;
        let channel = Channel::new(&channel)?;
        all.push(Engine { function, channel, expected });
    }
    let last = expected.paths.iter().map(|(a, b, ..)| *a.max(b)).max().unwrap_or(0);
    let peers = (0..=last).map(Peer::open).collect::<Result<_, _>>()?;
    Ok((all, peers))
}

/// Distance and kind of DMA address, for every engine and the memory of every peer device.
pub(super) fn decisions(bench: &mut Bench<'_>) -> Verdict {
    let (engines, peers) = everybody(bench)?;
    let mut wrong = Vec::new();
    let mut all = true;
    for engine in &engines {
        for owner in &peers {
            let (way, distance, address) = engine.path(owner)?;
            let follow = can_follow(bench, way, address)?;
            all &= follow;
            let what = format!("{} into peer{}", engine.address(), owner.instance);
            let (segment, bdf) =
                engine.function.numbers().ok_or_else(|| Stop::Fail(what.clone()))?;
            let found = owner.distance_of(segment, bdf)?;
            if found != distance {
                wrong.push(format!(
                    "{what}: expected a distance of {distance}, the kernel says {found}"
                ));
            }
            let mapped = match mapped(engine, owner) {
                Err(Stop::Fail(reason)) => {
                    // A driver that cannot follow has its own way of being wrong: the test is skipped in the end.
                    if follow {
                        wrong.push(format!("{what}: {reason}"));
                    }
                    continue;
                }
                other => other?,
            };
            if let Some((kind, value)) = mapped
                && kind != address
                && follow
            {
                wrong.push(format!(
                    "{what}: expected an address of kind {address:?}, {value:#x} is of kind {kind:?}"
                ));
            }
            if let Some(lab) = bench.lab.as_mut() {
                lab.path(owner.instance, &engine.address(), found, mapped)?;
            }
            bench.note(told(engine.address(), owner.instance, found, mapped));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if all { Ok(()) } else { cannot_follow() }
}

/// The DMA address by which the engine finds a buffer of `owner`, if it should get one, and its kind: the expected one if
/// it can be that.
fn mapped(engine: &Engine, owner: &Peer) -> Result<Option<(Address, u64)>, Stop> {
    let (way, _, address) = engine.path(owner)?;
    let shared = Shared::new(owner)?;
    let answer = engine.channel.address(&shared.buffer);
    shared.close()?;
    match answer {
        Err(Errno::REMOTEIO) if way == Way::None => Ok(None),
        Err(errno) => Err(Stop::Fail(format!("no DMA address: {errno}"))),
        Ok(value) if way == Way::None => {
            Err(Stop::Fail(format!("there is no way, but {value:#x} is its DMA address")))
        }
        Ok(value) => {
            let kinds = kinds_of(owner, value);
            let kind = if kinds.contains(&address) { Some(&address) } else { kinds.first() };
            Ok(kind.map(|kind| (*kind, value)))
        }
    }
}

/// Copies by every engine between every two peer devices whose memories it reaches, and within one whose memory is the
/// only one: all bytes went by the expected way, from the one and to the other, and none by another. Where one of both is
/// out of reach the copy is refused, and not one byte moves.
pub(super) fn routes(bench: &mut Bench<'_>) -> Verdict {
    let (engines, peers) = everybody(bench)?;
    for engine in &engines {
        let (mut copies, mut refusals) = (0, 0);
        let mut reached = Vec::new();
        for peer in &peers {
            let (way, _, address) = engine.path(peer)?;
            if !can_follow(bench, way, address)? {
                return cannot_follow();
            }
            if engine.reaches(peer)? {
                reached.push(peer.instance);
            }
        }
        for (from, to) in peers.iter().flat_map(|from| peers.iter().map(move |to| (from, to))) {
            let is_one = from.instance == to.instance;
            if is_one && reached != [from.instance] {
                continue;
            }
            if reached.contains(&from.instance) && reached.contains(&to.instance) {
                copy(bench, engine, &peers, from, to)?;
                copies += 1;
            } else {
                refused(bench, engine, &peers, from, to)?;
                refusals += 1;
            }
        }
        bench.note(format!(
            "{}: {copies} copies of {LENGTH} bytes, {refusals} refused",
            engine.address()
        ));
    }
    Ok(())
}

/// What the monitor has counted up to a moment.
struct Count {
    by_route: Stat,
    /// By target, of the engine alone.
    by_target: Moved,
}

impl Count {
    fn now(bench: &mut Bench<'_>, engine: &Engine) -> Result<Self, Stop> {
        let by_target = moved(bench, engine.address())?;
        Ok(Self { by_route: bench.stat()?, by_target })
    }
}

/// The monitor's counters of bytes at two moments.
struct Between {
    before: Count,
    after: Count,
}

impl Between {
    /// What a function did by a route meanwhile.
    fn bytes(&self, kind: &str, function: &Function, route: &str) -> u64 {
        let path = format!("{kind}/{}/{route}", function.address());
        // What never happened has no counter.
        let of = |count: &Count| count.by_route.counter(&path).unwrap_or(0);
        of(&self.after).saturating_sub(of(&self.before))
    }

    /// Exactly `wanted` bytes by the route, and none by the other one.
    fn must(&self, what: &str, kind: &str, function: &Function, way: Way, wanted: u64) -> Verdict {
        let (right, wrong) = by(way);
        let (moved, astray) =
            (self.bytes(kind, function, right), self.bytes(kind, function, wrong));
        ensure!(
            moved == wanted && astray == 0,
            "{what}: {}: {kind}: {moved} bytes {right} and {astray} {wrong}, not {wanted} {right}",
            function.address()
        );
        Ok(())
    }

    /// The engine has read `wanted` bytes from the one peer device and written them to the other, and touched no
    /// other function's memory.
    fn targets(&self, what: &str, from: &str, to: &str, wanted: u64) -> Verdict {
        let (before, after) = (&self.before.by_target, &self.after.by_target);
        for (kind, owner, before, after) in [
            ("read from", from, &before.read, &after.read),
            ("written to", to, &before.written, &after.written),
        ] {
            for (target, bytes) in after.iter().filter(|(target, _)| *target != RAM) {
                let bytes = bytes.saturating_sub(before.get(target).copied().unwrap_or(0));
                let wanted = if target == owner { wanted } else { 0 };
                ensure!(bytes == wanted, "{what}: {bytes} bytes {kind} {target}, not {wanted}");
            }
            ensure!(after.contains_key(owner), "{what}: no bytes {kind} {owner}, not {wanted}");
        }
        Ok(())
    }

    /// Nothing of any kind by either way between devices.
    fn nothing(&self, what: &str, function: &Function) -> Verdict {
        for kind in ["read", "written"] {
            for route in [BY_BUS, BY_HOST] {
                let bytes = self.bytes(kind, function, route);
                let address = function.address();
                ensure!(bytes == 0, "{what}: {address}: {kind}: {bytes} bytes {route}");
            }
        }
        Ok(())
    }
}

fn copy(bench: &mut Bench<'_>, engine: &Engine, peers: &[Peer], from: &Peer, to: &Peer) -> Verdict {
    let what = format!("{} from peer{} to peer{}", engine.address(), from.instance, to.instance);
    let (source, target) = (Shared::new(from)?, Shared::new(to)?);
    let (one, other) = (name(bench, from)?, name(bench, to)?);
    let before = Count::now(bench, engine)?;
    carry(&engine.channel, &source, &target, 70, LENGTH)?;
    let after = Count::now(bench, engine)?;
    source.close()?;
    target.close()?;

    let between = Between { before, after };
    let (ahead, back) = (engine.ways(to)?.0, engine.ways(from)?.1);
    let length = LENGTH as u64;
    between.must(&what, "read", &engine.function, back, length)?;
    between.must(&what, "written", &engine.function, ahead, length)?;
    between.targets(&what, &one, &other, length)?;
    for peer in peers {
        between.must(&what, "read", &peer.function(), Way::Bus, 0)?;
        between.must(&what, "written", &peer.function(), Way::Bus, 0)?;
    }
    Ok(())
}

/// The exporter refuses the attachment, or the DMA API the mapping.
fn refused(
    bench: &mut Bench<'_>,
    engine: &Engine,
    peers: &[Peer],
    from: &Peer,
    to: &Peer,
) -> Verdict {
    let what = format!("{} from peer{} to peer{}", engine.address(), from.instance, to.instance);
    let no_way = engine.path(from)?.0 == Way::None || engine.path(to)?.0 == Way::None;
    let (source, target) = (Shared::new(from)?, Shared::new(to)?);
    let (new, old) = (Pattern::new(71), Pattern::new(72));
    let end = SHORT as usize;
    source.peer.view(source.object)?.store(0..end, new);
    target.peer.view(target.object)?.store(0..end, old);
    let before = Count::now(bench, engine)?;
    let answer = engine.channel.attempt(source.at(0), target.at(0), SHORT);
    let after = Count::now(bench, engine)?;
    match answer {
        Err(Errno::REMOTEIO) if no_way => {}
        Err(errno) => return Err(Stop::Fail(format!("{what}: refused with {errno}"))),
        Ok(result) => {
            return Err(Stop::Fail(format!("{what}: must be refused, and ended with {result}")));
        }
    }
    target.peer.view(target.object)?.expect(0..end, old, 0)?;
    source.close()?;
    target.close()?;

    let between = Between { before, after };
    between.nothing(&what, &engine.function)?;
    peers.iter().try_for_each(|peer| between.nothing(&what, &peer.function()))
}
