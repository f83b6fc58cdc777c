//! What the kernel decides about peer-to-peer DMA, against what the monitor expects from its topology; and whether the
//! data then takes that way and no other.

mod decision;
mod first_path;
mod route;
mod wrong_kind;

use super::Kind::{Negative, Positive};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{DEVICE, DeviceError, Peer, VENDOR};
use crate::lab::{Address, Expected, Way};
use crate::sys::pci::Function;
use crate::uapi;
pub(super) use decision::{Access, Client, Decisions, Expectation, kinds_of};
pub(super) use first_path::FirstPath;
use rustix::io::Errno;

const NEEDS: &[Need] =
    &[Need::Lab, Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new("topology", "kernel-decides-as-predicted", Positive, NEEDS, decisions),
    Case::new("topology", "iommu-groups-as-predicted", Positive, &[Need::Lab, Need::Peers], groups),
    Case::new("topology", "route", Positive, NEEDS, route::all),
    Case::new(
        "topology",
        "wrong-kind-of-address",
        Negative,
        &[Need::Lab, Need::Peers, Need::Translated],
        wrong_kind::is_caught,
    ),
];

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

pub(super) fn cannot_follow() -> Verdict {
    let reason = "this kernel maps device memory without regard to the way (pcim_p2pdma_provider came with Linux 6.19)";
    Err(Stop::Skip(reason.into()))
}

/// Distance and kind of DMA address between every two devices, in both directions.
fn decisions(bench: &mut Bench<'_>) -> Verdict {
    let mut decisions = Decisions::default();
    for (a, b, way, distance, address) in expected(bench)?.paths {
        for (owner, client) in [(a, b), (b, a)] {
            let (owner, client) = (Peer::open(owner)?, Peer::open(client)?);
            let name = Client::Peer(client.instance);
            let expected = Expectation { client: name, owner: &owner, way, distance, address };
            let (found, access) = (owner.distance(&client)?, access(&owner, &client)?);
            decisions.add(bench, &expected, found, &access)?;
        }
    }
    decisions.verdict()
}

/// Shares a buffer of `owner` with `client`.
fn access(owner: &Peer, client: &Peer) -> Result<Access, Stop> {
    const SIZE: u64 = 64 << 10;
    let object = owner.alloc(SIZE, 1)?;
    let buffer = owner.export(object)?;
    let import = match client.import(&buffer, uapi::IMPORT_PEER2PEER) {
        Ok(import) => import,
        Err(DeviceError { errno: Errno::REMOTEIO, .. }) => {
            owner.close(object)?;
            return Ok(Access::NotAttached);
        }
        Err(error) => {
            owner.close(object)?;
            return Ok(Access::Failed(error.to_string()));
        }
    };
    let access = match client.map(import, uapi::BIDIRECTIONAL) {
        Ok(()) => {
            let (segments, _) = client.segments(import)?;
            match segments.first() {
                Some(first) => Access::At(first.address),
                None => Access::Failed("mapped, without an address".into()),
            }
        }
        Err(error) => Access::NotMapped(error.to_string()),
    };
    client.close(import)?;
    owner.close(object)?;
    Ok(access)
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

/// Whether the bit for the peer device `owner` is set in a mask.
pub(super) fn names(mask: u16, owner: u32) -> bool {
    mask.checked_shr(owner).unwrap_or(0) & 1 != 0
}

/// The mask of `requester`.
fn mask_of(masks: &[u16], requester: &Peer) -> u16 {
    masks.get(requester.instance as usize).copied().unwrap_or(0)
}

/// The ways of a requester's data into the memory of `owner`, and back with completions, where `way` is what the kernel
/// has chosen. `requests` and `completions`: what a switch on the way turns around by itself, see [`Expected`].
pub(super) fn ways(
    owner: &Peer,
    (way, address): (Way, Address),
    (requests, completions): (u16, u16),
) -> (Way, Way) {
    // To a switch, the CPUs' address is a bus address where both are one number.
    let on_the_bus = address == Address::Phys && owner.info.memory_phys == owner.info.memory_bus;
    let ahead = if on_the_bus && names(requests, owner.instance) { Way::Bus } else { way };
    let back = if names(completions, owner.instance) { Way::Bus } else { way };
    (ahead, back)
}
