//! The engine as a third party in whatever topology this is: what the kernel decides about its access to the memory of each
//! peer device, against what the VMM expects; and which route its bytes then take.

use super::client::Channel;
use super::engines;
use super::third_party::{Shared, carry, first_channels};
use crate::cases::topology::{
    Access, Client, Decisions, Expectation, PairResult, can_follow, cannot_follow, expected, peers,
};
use crate::cases::traffic::{Traffic, name};
use crate::cases::{Bench, Stop, Verdict};
use crate::device::{Pattern, Peer};
use crate::sys::pci::Function;
use crate::vmm::{Other, Path, PathKind};
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

    /// What is expected of its DMA into the memory of a peer device.
    fn path(&self, owner: &Peer) -> Result<&Path, Stop> {
        self.expected.paths.get(owner.instance as usize).ok_or_else(|| {
            let what = format!("{} into {}", self.expected.name, owner.name());
            Stop::Fail(format!("the VMM expects nothing of {what}"))
        })
    }

    fn outcome(&self, owner: &Peer) -> Result<PairResult, Stop> {
        self.path(owner).map(PairResult::of)
    }

    /// Whether it may reach that memory, as far as the kernel knows.
    fn reaches(&self, owner: &Peer) -> Result<bool, Stop> {
        Ok(self.outcome(owner)? != PairResult::NoAddress)
    }
}

/// Every engine on the bus, and every peer device.
fn engines_and_peers(bench: &mut Bench<'_>) -> Result<(Vec<Engine>, Vec<Peer>), Stop> {
    // ioatdma says so of the descriptor of its own that it starts a channel with, if the channel is given back without
    // a copy before it has looked at that one: on a busy machine.
    bench.expect_message("Freeing 1 in use descriptors!");
    let expected = expected(bench)?;
    let mut all = Vec::new();
    for (function, channel) in engines()?.into_iter().zip(first_channels()?) {
        let address = function.address();
        let own = expected.others.iter().find(|other| other.function == address).cloned();
        let expected =
            own.ok_or_else(|| Stop::Fail(format!("the VMM expects nothing of {address}")))?;
        let channel = Channel::new(&channel)?;
        all.push(Engine { function, channel, expected });
    }
    Ok((all, peers(bench)?))
}

/// Distance and kind of DMA address, for every engine and the memory of every peer device.
pub(super) fn decisions(bench: &mut Bench<'_>) -> Verdict {
    let (engines, peers) = engines_and_peers(bench)?;
    let mut decisions = Decisions::default();
    for engine in &engines {
        let numbers = engine.function.segment_and_requester_id();
        let (segment, bdf) =
            numbers.ok_or_else(|| Stop::Fail(format!("{} is not an address", engine.address())))?;
        for owner in &peers {
            let client = Client::Other(&engine.expected);
            let expected = Expectation { client, owner, path: engine.path(owner)? };
            let (found, access) = (owner.distance_of(segment, bdf)?, access(engine, owner)?);
            decisions.add(bench, &expected, found, &access)?;
        }
    }
    decisions.verdict()
}

/// Shares a buffer of `owner` with the engine's driver.
fn access(engine: &Engine, owner: &Peer) -> Result<Access, Stop> {
    let shared = Shared::new(owner)?;
    let access = match engine.channel.address(&shared.buffer) {
        Ok(value) => Access::At(value),
        Err(Errno::REMOTEIO) => Access::NotAttached,
        Err(errno) => Access::NotMapped(errno.to_string()),
    };
    shared.close()?;
    Ok(access)
}

/// Copies by every engine between every two peer devices whose memories it reaches, and within one whose memory is the
/// only one: all bytes went by the expected way, from the one and to the other, and none by another. Where one of both is
/// out of reach the copy is refused, and not one byte moves. Where the hardware does not take what the kernel allows, the
/// engine would halt: not tried, the peer devices' own tests do it.
pub(super) fn routes(bench: &mut Bench<'_>) -> Verdict {
    let (engines, peers) = engines_and_peers(bench)?;
    for engine in &engines {
        let (mut copies, mut refusals, mut untried) = (0, 0, 0);
        let mut reached = Vec::new();
        for peer in &peers {
            if !can_follow(bench, engine.path(peer)?)? {
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
            match (engine.outcome(from)?, engine.outcome(to)?) {
                (PairResult::NoAddress, _) | (_, PairResult::NoAddress) => {
                    refused(bench, engine, &peers, from, to)?;
                    refusals += 1;
                }
                (PairResult::Moves { back, .. }, PairResult::Moves { ahead, .. }) => {
                    copy(bench, engine, &peers, (from, to), (ahead, back))?;
                    copies += 1;
                }
                _ => untried += 1,
            }
        }
        bench.note(format!(
            "{}: {copies} copies of {LENGTH} bytes, {refusals} refused, {untried} not tried",
            engine.expected.name
        ));
    }
    Ok(())
}

/// What the engine moves meanwhile; the peer devices themselves move nothing between each other.
fn traffic(
    bench: &mut Bench<'_>,
    engine: &Engine,
    peers: &[Peer],
    work: impl FnOnce() -> Verdict,
) -> Result<Traffic, Stop> {
    let functions: Vec<_> = peers.iter().map(Peer::function).collect();
    Traffic::during_alone(bench, &engine.function, &functions, work)
}

/// `ahead`: the way of what is written; `back`: that of what is read.
fn copy(
    bench: &mut Bench<'_>,
    engine: &Engine,
    peers: &[Peer],
    (from, to): (&Peer, &Peer),
    (ahead, back): (PathKind, PathKind),
) -> Verdict {
    let what = format!("{} from {} to {}", engine.expected.name, from.name(), to.name());
    let (source, target) = (Shared::new(from)?, Shared::new(to)?);
    let (one, other) = (name(bench, &from.function())?, name(bench, &to.function())?);
    let traffic =
        traffic(bench, engine, peers, || carry(&engine.channel, &source, &target, 70, LENGTH))
            .map_err(|stop| stop.of(&what))?;
    source.close()?;
    target.close()?;

    let length = LENGTH as u64;
    let check = || {
        traffic.expect_read(back, length..=length)?;
        traffic.expect_written(ahead, length..=length)?;
        traffic.expect_carried(&one, &other, length)
    };
    check().map_err(|stop| stop.of(&what))
}

/// The exporter refuses the attachment, or the DMA API the mapping.
fn refused(
    bench: &mut Bench<'_>,
    engine: &Engine,
    peers: &[Peer],
    from: &Peer,
    to: &Peer,
) -> Verdict {
    let what = format!("{} from {} to {}", engine.expected.name, from.name(), to.name());
    let no_way = engine.path(from)?.way == PathKind::None || engine.path(to)?.way == PathKind::None;
    let (source, target) = (Shared::new(from)?, Shared::new(to)?);
    let (new, old) = (Pattern::new(71), Pattern::new(72));
    let end = SHORT as usize;
    source.peer.view(source.object)?.store(0..end, new);
    target.peer.view(target.object)?.store(0..end, old);
    let attempt = || match engine.channel.attempt(source.at(0), target.at(0), SHORT) {
        Err(Errno::REMOTEIO) if no_way => Ok(()),
        // There is a way, and no address.
        Err(errno) if !no_way && errno != Errno::REMOTEIO => Ok(()),
        Err(errno) => Err(Stop::Fail(format!("refused with {errno}"))),
        Ok(result) => Err(Stop::Fail(format!("must be refused, and ended with {result}"))),
    };
    let checked = traffic(bench, engine, peers, attempt)
        .and_then(|traffic| traffic.expect_none_between_devices());
    checked.map_err(|stop| stop.of(&what))?;
    target.peer.view(target.object)?.expect(0..end, old, 0)?;
    source.close()?;
    target.close()
}
