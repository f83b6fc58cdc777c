//! What the kernel decides about peer-to-peer DMA, against what the VMM expects from its topology;
//! and whether the data then takes that route and no other.

mod address;
mod decision;
mod first_path;
mod route;
mod wrong_kind;

use super::Kind::{Negative, Positive};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{DEVICE, DeviceError, Peer, VENDOR};
use crate::sys::pci::Function;
use crate::uapi;
use crate::vmm::{Address, Arrival, Expected, Path, PathKind};
pub(super) use decision::{Access, Client, Decisions, Expectation, kinds_of};
pub(super) use first_path::FirstPath;
use rustix::io::Errno;

const NEEDS: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];
const PEERS: &[Need] = &[Need::Vmm, Need::Peers];

pub(super) const CASES: &[Case] = &[
    Case::new("topology", "kernel-decides-as-predicted", Positive, NEEDS, decisions),
    Case::new("topology", "iommu-groups-as-predicted", Positive, &[Need::Vmm, Need::Peer], groups),
    Case::new("topology", "route", Positive, NEEDS, route::all),
    Case::new("topology", "requests-by-bus-address", Positive, PEERS, |bench| {
        address::all(bench, address::Kind::Bus)
    }),
    Case::new("topology", "requests-by-cpu-address", Positive, PEERS, |bench| {
        address::all(bench, address::Kind::Cpu)
    }),
    Case::new(
        "topology",
        "wrong-kind-of-address",
        Negative,
        &[Need::Vmm, Need::Peers, Need::Translated],
        wrong_kind::is_caught,
    ),
];

pub(super) fn expected(bench: &mut Bench<'_>) -> Result<Expected, Stop> {
    let vmm = bench.vmm.as_mut().ok_or_else(|| Stop::Skip("the VMM does not answer".into()))?;
    let hello = vmm.hello()?;
    let expected =
        hello.expected.ok_or_else(|| Stop::Skip("the VMM expects nothing of the kernel".into()))?;
    let planned = hello.peers.len();
    let there = Function::all()?.iter().filter(|function| function.is(VENDOR, DEVICE)).count();
    ensure!(
        there == planned,
        "the topology {} has {planned} peer devices, {there} are on the bus",
        expected.topology
    );
    Ok(expected)
}

/// Whether this kernel's driver can do as the kernel decides. Before Linux 6.19 memory without pages is mapped as a
/// resource, which goes through the host bridge and past swiotlb whatever the way.
pub(super) fn can_follow(bench: &mut Bench<'_>, path: &Path) -> Result<bool, Stop> {
    let plain =
        path.way == PathKind::None || (path.way == PathKind::Host && path.address != Address::None);
    Ok(plain || bench.peer(0)?.info.features & uapi::FEATURE_WAYS != 0)
}

pub(super) fn cannot_follow() -> Verdict {
    let reason = "this kernel maps device memory without regard to the way (pcim_p2pdma_provider came with Linux 6.19)";
    Err(Stop::Skip(reason.into()))
}

/// Every peer device.
pub(super) fn peers(bench: &mut Bench<'_>) -> Result<Vec<Peer>, Stop> {
    let count = bench.hello()?.map_or(0, |hello| hello.peers.len());
    Ok((0..).take(count).map(Peer::open).collect::<Result<_, _>>()?)
}

/// Distance and kind of DMA address between every two devices, in both directions.
fn decisions(bench: &mut Bench<'_>) -> Verdict {
    let mut decisions = Decisions::default();
    for (client, owner, path) in expected(bench)?.paths {
        let (owner, client) = (Peer::open(owner)?, Peer::open(client)?);
        let name = Client::Peer(client.instance);
        let expected = Expectation { client: name, owner: &owner, path: &path };
        let (found, access) = (owner.distance(&client)?, access(&owner, &client)?);
        decisions.add(bench, &expected, found, &access)?;
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
    let mut found = Vec::new();
    let mut names = Vec::new();
    for peer in peers(bench)? {
        found.push(peer.function().iommu_group());
        names.push(peer.name());
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
                "{} is in group {group:?}, {} in {other_group:?}; expected them {}",
                names[index],
                names[other],
                if number == other_number { "together" } else { "apart" }
            );
        }
    }
    Ok(())
}

/// What becomes of data by the address that the kernel gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PairResult {
    /// It gets there.
    Moves {
        /// The way of requests with data.
        ahead: PathKind,
        /// The way of completions with data.
        back: PathKind,
    },
    /// The kernel gives no address.
    NoAddress,
    /// It gives one, and requests by it do not arrive: this class of finding says why.
    Lost(String),
    /// It gives one that may be something else's, or completions get lost: not tried.
    Untried(&'static str),
}

impl PairResult {
    /// Of a path, by what is expected of it.
    pub(super) fn of(path: &Path) -> Self {
        let arrival = match path.address {
            _ if path.way == PathKind::None => return Self::NoAddress,
            Address::None => return Self::NoAddress,
            Address::Bus => &path.by_bus,
            Address::Phys => &path.by_cpu,
            Address::Iova => &path.by_iova,
        };
        Self::by(arrival, path)
    }

    /// By an address with which requests end so.
    pub(super) fn by(arrival: &Arrival, path: &Path) -> Self {
        match (arrival.way(), path.completions.way()) {
            (Some(ahead), Some(back)) => Self::Moves { ahead, back },
            (None, _) => match arrival {
                Arrival::Refused(class) => Self::Lost(class.clone()),
                _ => Self::Untried(
                    "the address may be that of something else on the requester's bus",
                ),
            },
            (Some(_), None) => Self::Untried("completions do not come back: what is read is lost"),
        }
    }
}
