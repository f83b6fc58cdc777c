//! What the kernel decides about peer-to-peer DMA, against what the monitor expects from its topology; and whether the
//! data then takes that way and no other.

use super::Kind::{Negative, Positive};
use super::bench::must;
use super::lane::{Engine, Lane};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{DEVICE, DeviceError, Pattern, Peer, VENDOR, Work, at_address};
use crate::lab::{Address, Expected, Stat, Way};
use crate::sys::pci::Function;
use crate::uapi;
use rustix::io::Errno;

const NEEDS: &[Need] =
    &[Need::Lab, Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new("topology", "kernel-decides-as-predicted", Positive, NEEDS, decisions),
    Case::new("topology", "iommu-groups-as-predicted", Positive, &[Need::Lab, Need::Peers], groups),
    Case::new("topology", "route", Positive, NEEDS, routes),
    Case::new(
        "topology",
        "wrong-kind-of-address",
        Negative,
        &[Need::Lab, Need::Peers, Need::Translated],
        wrong_kind,
    ),
];

/// Bytes of the copies: several maximum payloads and read requests, and an odd end.
const LENGTH: u64 = (64 << 10) + 1027;

/// The monitor's ways of a request from device to device, by the names that its counters have.
pub(super) const BY_BUS: &str = "bus-address";
pub(super) const BY_HOST: &str = "through-host-bridge";

pub(super) fn expected(bench: &mut Bench<'_>) -> Result<Expected, Stop> {
    let lab =
        bench.lab.as_mut().ok_or_else(|| Stop::Skip("the lab port does not answer".into()))?;
    let expected = lab.hello()?.expected;
    let expected =
        expected.ok_or_else(|| Stop::Skip("the monitor expects nothing of the kernel".into()))?;
    let there = Function::all()?.iter().filter(|function| function.is(VENDOR, DEVICE)).count();
    let pairs = there * there.saturating_sub(1) / 2;
    ensure!(
        pairs == expected.paths.len(),
        "the topology {} has {} pairs of peer devices, {there} devices are on the bus",
        expected.topology,
        expected.paths.len()
    );
    Ok(expected)
}

/// Whether this kernel's driver can do as the kernel decides. Before Linux 6.19 memory without pages is mapped as a
/// resource, which goes through the host bridge and past swiotlb whatever the way.
pub(super) fn can_follow(bench: &mut Bench<'_>, way: Way, address: Address) -> Result<bool, Stop> {
    let plain = way == Way::None || (way == Way::Host && address != Address::None);
    Ok(plain || bench.peer(0)?.info.features & uapi::FEATURE_WAYS != 0)
}

/// Whether it can for memory without pages that the first two share, whichever way that is here.
pub(super) fn first_two_can_follow(bench: &mut Bench<'_>) -> Result<bool, Stop> {
    let paths = expected(bench)?.paths;
    match paths.iter().find(|(a, b, ..)| (*a, *b) == (0, 1)) {
        Some(&(_, _, way, _, address)) => can_follow(bench, way, address),
        None => Ok(true),
    }
}

pub(super) fn cannot_follow() -> Verdict {
    let reason = "this kernel maps device memory without regard to the way (pcim_p2pdma_provider came with Linux 6.19)";
    Err(Stop::Skip(reason.into()))
}

/// Distance and kind of DMA address between every two devices, in both directions.
fn decisions(bench: &mut Bench<'_>) -> Verdict {
    let (mut wrong, mut found_out) = (Vec::new(), Vec::new());
    let mut all = true;
    for (a, b, way, distance, address) in expected(bench)?.paths {
        let follow = can_follow(bench, way, address)?;
        all &= follow;
        for (owner, client) in [(a, b), (b, a)] {
            let (owner, client) = (Peer::open(owner)?, Peer::open(client)?);
            let path = format!("peer{} into peer{}", client.instance, owner.instance);
            let found = owner.distance(&client)?;
            if found != distance {
                wrong.push(format!(
                    "{path}: expected a distance of {distance}, the kernel says {found}"
                ));
            }
            let mapped = match mapped(&owner, &client, way, address) {
                Ok(mapped) => mapped,
                Err(Stop::Fail(reason)) => {
                    // A driver that cannot follow has its own way of being wrong: the test is skipped in the end.
                    if follow {
                        wrong.push(reason);
                    }
                    continue;
                }
                Err(skip) => return Err(skip),
            };
            if let Some((kind, value)) = mapped
                && kind != address
                && follow
            {
                wrong.push(format!(
                    "{path}: expected an address of kind {address:?}, {value:#x} is of kind {kind:?} (bus {:#x}, CPU \
                     {:#x})",
                    owner.info.memory_bus, owner.info.memory_phys
                ));
            }
            found_out.push((owner.instance, client.instance, found, mapped));
        }
    }
    // What the kernel has decided, for whoever reads the report.
    if let Some(lab) = bench.lab.as_mut() {
        for (owner, client, distance, mapped) in found_out {
            lab.path(owner, &client, distance, mapped)?;
            let line = told(&format!("peer{client}"), owner, distance, mapped);
            lab.ktap(&format!("# {line}"))?;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if all { Ok(()) } else { cannot_follow() }
}

/// What the kernel has decided, for people.
pub(super) fn told(
    client: &str,
    owner: u32,
    distance: i32,
    mapped: Option<(Address, u64)>,
) -> String {
    let address =
        mapped.map_or("no DMA address".into(), |(_, value)| format!("DMA address {value:#x}"));
    format!("{client} -> peer{owner}: distance {distance}, {address}")
}

/// Shares a buffer of `owner` with `client` and gives the DMA address that comes of it, if one should, and its kind:
/// the expected one if it can be that.
fn mapped(
    owner: &Peer,
    client: &Peer,
    way: Way,
    address: Address,
) -> Result<Option<(Address, u64)>, Stop> {
    const SIZE: u64 = 64 << 10;
    let what = format!("peer{}'s memory for peer{}", owner.instance, client.instance);
    let object = owner.alloc(SIZE, 1)?;
    let buffer = owner.export(object)?;
    let import = match client.import(&buffer, uapi::IMPORT_PEER2PEER) {
        Ok(import) => import,
        Err(DeviceError { errno: Errno::REMOTEIO, .. }) if way == Way::None => {
            owner.close(object)?;
            return Ok(None);
        }
        Err(error) => return Err(Stop::Fail(format!("{what}: {error}"))),
    };
    ensure!(way != Way::None, "{what}: there is no way, but it could be attached");
    match client.map(import, uapi::BIDIRECTIONAL) {
        Ok(()) => {}
        Err(_) if address == Address::None => {
            client.close(import)?;
            owner.close(object)?;
            return Ok(None);
        }
        Err(error) => return Err(Stop::Fail(format!("{what}: {error}"))),
    }
    let (segments, _) = client.segments(import)?;
    let first = segments
        .first()
        .ok_or_else(|| Stop::Fail(format!("{what}: mapped, without an address")))?
        .address;
    client.close(import)?;
    owner.close(object)?;
    let kinds = kinds_of(owner, first);
    let kind = if kinds.contains(&address) { Some(&address) } else { kinds.first() };
    Ok(kind.map(|kind| (*kind, first)))
}

/// The kinds of address that a number can be. Where the host bridge does not translate, two of them look the same.
pub(super) fn kinds_of(owner: &Peer, address: u64) -> Vec<Address> {
    let within =
        |start: u64| (start..start.saturating_add(owner.info.memory_size)).contains(&address);
    let mut kinds = Vec::new();
    if within(owner.info.memory_bus) {
        kinds.push(Address::Bus);
    }
    if within(owner.info.memory_phys) {
        kinds.push(Address::Phys);
    }
    if kinds.is_empty() {
        kinds.push(Address::Iova);
    }
    kinds
}

/// Which devices share an IOMMU group.
fn groups(bench: &mut Bench<'_>) -> Verdict {
    let expected = expected(bench)?;
    let peers: Vec<_> = expected.paths.iter().flat_map(|(a, b, ..)| [*a, *b]).collect();
    let count = peers.iter().max().map_or(0, |last| last + 1);
    let mut found = Vec::new();
    for instance in 0..count {
        let function = Peer::open(instance)?.function();
        found.push(function.iommu_group());
    }
    if expected.groups.is_empty() {
        ensure!(
            found.iter().all(Option::is_none),
            "there must be no IOMMU, but the peer devices are in groups: {found:?}"
        );
        return Ok(());
    }
    ensure!(found.iter().all(Option::is_some), "a peer device is in no IOMMU group: {found:?}");
    for (index, (group, number)) in found.iter().zip(&expected.groups).enumerate() {
        for (other, (other_group, other_number)) in found.iter().zip(&expected.groups).enumerate() {
            ensure!(
                (group == other_group) == (number == other_number),
                "peer{index} is in group {group:?}, peer{other} in {other_group:?}; expected them {}",
                if number == other_number { "together" } else { "apart" }
            );
        }
    }
    Ok(())
}

/// Copies between every two devices, by either's engine: all bytes went by the expected way, and none by the other.
fn routes(bench: &mut Bench<'_>) -> Verdict {
    let mut moved = false;
    let Expected { paths, direct_requests, direct_completions, .. } = expected(bench)?;
    for (a, b, way, _, address) in paths {
        if way == Way::None || address == Address::None {
            // That nothing moves where nothing may be shared is the other test's.
            continue;
        }
        if !can_follow(bench, way, address)? {
            return cannot_follow();
        }
        moved = true;
        for (from, to) in [(a, b), (b, a)] {
            let (from, to) = (Peer::open(from)?, Peer::open(to)?);
            for engine in [Engine::Source, Engine::Target] {
                let (requester, owner) = match engine {
                    Engine::Source => (&from, &to),
                    Engine::Target => (&to, &from),
                };
                // To a switch, the CPUs' address is a bus address where both are one number.
                let on_the_bus =
                    address == Address::Phys && owner.info.memory_phys == owner.info.memory_bus;
                let ahead = if on_the_bus && names(&direct_requests, requester, owner) {
                    Way::Bus
                } else {
                    way
                };
                let back =
                    if names(&direct_completions, requester, owner) { Way::Bus } else { way };
                route(bench, &from, &to, engine, ahead, back)?;
            }
        }
    }
    if moved { Ok(()) } else { nothing_moved(bench) }
}

/// Whether the bit for `owner` is set in the mask of `requester`.
fn names(masks: &[u16], requester: &Peer, owner: &Peer) -> bool {
    let mask = masks.get(requester.instance as usize).copied().unwrap_or(0);
    mask.checked_shr(owner.instance).unwrap_or(0) & 1 != 0
}

/// Where no two devices may share memory, not one byte has gone from device to device since the guest started.
fn nothing_moved(bench: &mut Bench<'_>) -> Verdict {
    let stat = bench.stat()?;
    for (a, b, ..) in expected(bench)?.paths {
        for instance in [a, b] {
            let peer = Peer::open(instance)?;
            for path in [BY_BUS, BY_HOST] {
                let bytes = both(&stat, &peer, path);
                ensure!(bytes == 0, "peer{instance} moved {bytes} bytes {path}");
            }
        }
    }
    Ok(())
}

/// A driver that takes the CPUs' address of another device's memory for a DMA address, or the bus address where a switch
/// does not route it: behind an IOMMU neither is one.
fn wrong_kind(bench: &mut Bench<'_>) -> Verdict {
    const BYTES: u64 = 300;
    let Expected { paths, direct_requests, .. } = expected(bench)?;
    let direct = paths.iter().find(|(a, b, ..)| (*a, *b) == (0, 1)).map(|(.., way, _, _)| *way);
    if !matches!(direct, Some(Way::Bus | Way::Host)) {
        return Err(Stop::Skip("no two devices may share memory here".into()));
    }
    let (owner, client) = bench.take_peers()?;
    let mut wrong = vec![("the CPUs' address", owner.info.memory_phys)];
    if direct == Some(Way::Host) && !names(&direct_requests, &client, &owner) {
        wrong.push(("the bus address", owner.info.memory_bus));
    } else if owner.info.memory_bus == owner.info.memory_phys {
        return Err(Stop::Skip("the host bridge does not translate: both are one number".into()));
    }
    bench.expect("iommu.unmapped", 1, None)?;
    bench.expect_message("fault from EP");
    let target = client.alloc(4096, 1)?;
    for (what, address) in wrong {
        let result = client.run(Work::copy(at_address(address), target.at(0), BYTES))?;
        ensure!(
            result.error != 0 && result.bytes == 0,
            "{what} of peer0's memory, {address:#x}, worked as a DMA address of peer1: {} bytes",
            result.bytes
        );
    }
    client.close(target)?;
    Ok(())
}

fn both(stat: &Stat, peer: &Peer, route: &str) -> u64 {
    counter(stat, "read", peer, route) + counter(stat, "written", peer, route)
}

/// Bytes that a device has read or written by a route; what never happened has no counter.
fn counter(stat: &Stat, kind: &str, peer: &Peer, route: &str) -> u64 {
    let name = peer.function().name;
    let name = name.split_once(':').map_or(name.as_str(), |(_, rest)| rest);
    stat.counter(&format!("{kind}/{name}/{route}")).unwrap_or(0)
}

/// The names of the way and of the other one.
pub(super) fn by(way: Way) -> (&'static str, &'static str) {
    match way {
        Way::Bus => (BY_BUS, BY_HOST),
        Way::Host | Way::None => (BY_HOST, BY_BUS),
    }
}

/// One copy: requests with data go by `way`, completions with data by `back`.
fn route(
    bench: &mut Bench<'_>,
    from: &Peer,
    to: &Peer,
    engine: Engine,
    way: Way,
    back: Way,
) -> Verdict {
    let ((right, wrong), (right_back, wrong_back)) = (by(way), by(back));
    let lane = Lane::new(from, to, engine, LENGTH.next_multiple_of(4096), 1)?;
    let length = usize::try_from(LENGTH)?;
    let pattern = Pattern::new(77);
    lane.from.view(lane.source)?.store(0..length, pattern);
    let before = bench.stat()?;
    must(lane.engine, lane.work(0, 0, LENGTH))?;
    let after = bench.stat()?;
    lane.to.view(lane.target)?.expect(0..length, pattern, 0)?;
    let delta = |kind, route| {
        counter(&after, kind, lane.engine, route) - counter(&before, kind, lane.engine, route)
    };
    let what =
        format!("peer{} to peer{} by peer{}", from.instance, to.instance, lane.engine.instance);
    let (astray, astray_back) = (delta("written", wrong), delta("read", wrong_back));
    ensure!(astray == 0, "{what}: {astray} bytes were written {wrong} instead of {right}");
    ensure!(
        astray_back == 0,
        "{what}: {astray_back} bytes were read {wrong_back} instead of {right_back}"
    );
    let (read, written) = (delta("read", right_back), delta("written", right));
    let fits = match engine {
        // Posted data is followed by reading its last byte back.
        Engine::Source => written == LENGTH && read <= 64,
        Engine::Target => read == LENGTH && written == 0,
    };
    ensure!(
        fits,
        "{what}: {read} bytes read {right_back} and {written} written {right}, for a copy of {LENGTH} bytes"
    );
    lane.close()
}
