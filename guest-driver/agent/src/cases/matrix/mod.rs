//! Every kind of memory, shared with every kind of importer: one test for each pair.
//!
//! The test is the same for all pairs, because the importer cannot know what backs a buffer. What differs is what the
//! contract says ([`contract`]): by which way the data goes, or with which error the attachment is refused.

mod kinds;

use super::Kind::Positive;
use super::bench::must;
use super::copy::crc32c;
use super::need::Need;
use super::topology::{self, FirstPath, kinds_of};
use super::traffic::{self, READ_BACK, Traffic, Where};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, View, Work};
use crate::sys::dma_buf::{Access, begin_cpu_access, end_cpu_access};
use crate::uapi;
pub(super) use kinds::{Contract, Exporter, Importer, contract};
use std::os::fd::OwnedFd;

/// What a cell cannot run without.
pub(super) const NEEDS: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

/// And what a test cannot that goes from device to device.
pub(super) const PATH: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"), Need::Path];

/// And what one cannot whose mistake only an IOMMU can notice.
pub(super) const TRANSLATED: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Path,
    Need::Translated,
];

/// And what a test with fences of its own cannot.
pub(super) const FENCED: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Feature(uapi::FEATURE_SYNC_FILE, "CONFIG_SYNC_FILE"),
];

/// And what one cannot that does both.
pub(super) const FENCED_PATH: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Feature(uapi::FEATURE_SYNC_FILE, "CONFIG_SYNC_FILE"),
    Need::Path,
];

/// The table: each exporter's row has all importers.
macro_rules! matrix {
    (@row $($exporter_name:literal $exporter:ident $importer_name:literal $importer:ident;)*) => {
        pub(super) const CASES: &[Case] = &[$(
            Case::new(
                "matrix",
                concat!($exporter_name, "-to-", $importer_name),
                Positive,
                NEEDS,
                |bench| cell(bench, Exporter::$exporter, Importer::$importer),
            ),
        )*];
    };
    ($($name:literal $exporter:ident;)*) => {
        matrix!(@row $(
            $name $exporter "own-device" OwnDevice;
            $name $exporter "static" Static;
            $name $exporter "dynamic" Dynamic;
            $name $exporter "dynamic-without-peer2peer" DynamicNoPeers;
            $name $exporter "pinned-revocable" PinnedRevocable;
            $name $exporter "pinned-not-revocable" PinnedNotRevocable;
        )*);
    };
}

matrix! {
    "local" Local;
    "scattered" Scattered;
    "zone-device" ZoneDevice;
    "pages" Pages;
    "noncontiguous" Noncontiguous;
    "noncoherent" Noncoherent;
    "coherent" Coherent;
    "migrating" Migrating;
}

/// Bytes of a shared buffer, and of what is copied: no multiple of anything.
pub(super) const SIZE: usize = 20 << 10;
const LENGTH: usize = 12_345;

/// A buffer, shared: the exporter's name for it, the dma-buf, and the CPU's mapping of that.
pub(super) struct Shared {
    pub(super) object: Object,
    pub(super) fd: OwnedFd,
    pub(super) view: View,
}

impl Shared {
    pub(super) fn new(owner: &Peer, exporter: Exporter, size: u64) -> Result<Self, Stop> {
        let object = match exporter.buffer(owner, size) {
            Err(error) if error.errno == rustix::io::Errno::OPNOTSUPP => {
                return Err(Stop::Skip(format!(
                    "no memory of kind {exporter:?}: the kernel gives the local memory no struct pages \
                     (CONFIG_ZONE_DEVICE), or none were asked for (p2pmem_percent=0)"
                )));
            }
            other => other?,
        };
        Self::of(owner, object)
    }

    pub(super) fn of(owner: &Peer, object: Object) -> Result<Self, Stop> {
        let fd = owner.export(object)?;
        let length = usize::try_from(object.size).unwrap_or(usize::MAX);
        let view = View::new(&fd, length, 0)?;
        Ok(Self { object, fd, view })
    }

    /// The CPU stores a pattern, between the two calls that it needs for that.
    pub(super) fn store(&self, range: std::ops::Range<usize>, pattern: Pattern) -> Verdict {
        begin_cpu_access(&self.fd, Access::Write)?;
        self.view.store(range, pattern);
        end_cpu_access(&self.fd, Access::Write)?;
        Ok(())
    }

    /// The CPU looks, likewise.
    pub(super) fn expect(
        &self,
        range: std::ops::Range<usize>,
        pattern: Pattern,
        position: u64,
    ) -> Verdict {
        begin_cpu_access(&self.fd, Access::Read)?;
        let found = self.view.expect(range, pattern, position);
        end_cpu_access(&self.fd, Access::Read)?;
        Ok(found?)
    }
}

/// Whether the kernel sends `client`'s requests to `owner` past the IOMMU: there no unmapping makes them fail.
pub(super) fn goes_by_bus_address(
    owner: &Peer,
    client: &Peer,
    imported: Object,
) -> Result<bool, Stop> {
    let (segments, _) = client.segments(imported)?;
    let address = segments.first().map_or(0, |segment| segment.address);
    Ok(address_kind(owner, client, address).contains("bus"))
}

/// What kind of DMA address an importer got for memory of `owner`.
fn address_kind(owner: &Peer, client: &Peer, address: u64) -> &'static str {
    let inside = |base: u64| (base..base + owner.info.memory_size).contains(&address);
    if inside(owner.info.memory_bus) && owner.info.memory_bus != owner.info.memory_phys {
        "bus address"
    } else if inside(owner.info.memory_phys) {
        "CPU physical or bus address"
    } else if client.is_translated() {
        "IOVA"
    } else {
        "CPU physical"
    }
}

/// Linux before 6.19 takes every dynamic importer for one with a callback.
pub(super) fn check_optional_invalidate(peer: &Peer) -> Verdict {
    if peer.info.features & uapi::FEATURE_NO_INVALIDATE != 0 {
        return Ok(());
    }
    Err(Stop::Skip(
        "this kernel has no dynamic importers without a callback (Linux 6.19 has)".into(),
    ))
}

fn cell(bench: &mut Bench<'_>, exporter: Exporter, importer: Importer) -> Verdict {
    let (owner, other) = bench.take_peers()?;
    if importer == Importer::PinnedNotRevocable {
        check_optional_invalidate(&other)?;
    }
    let client = if importer == Importer::OwnDevice { &owner } else { &other };
    let path = FirstPath::new(bench)?;
    let contract = contract(exporter, importer, path.is_open());
    if contract == Contract::Peer {
        if exporter != Exporter::ZoneDevice && !path.follows() {
            return topology::cannot_follow();
        }
        path.carries()?;
    }
    let shared = Shared::new(&owner, exporter, SIZE as u64)?;
    let pattern = Pattern::new(61);
    shared.store(0..SIZE, pattern)?;

    if let Contract::Refused(expected, _) = contract {
        let refused = client.import(&shared.fd, importer.flags()).err().map(|error| error.errno);
        ensure!(refused == Some(expected), "the contract says {expected}, it was {refused:?}");
        bench.note(contract.to_string());
        return Ok(());
    }
    let imported = client.import(&shared.fd, importer.flags())?;
    let name = traffic::name(bench, &owner.function())?;
    let traffic = Traffic::during(bench, &client.function(), |_| {
        copy_both_ways(client, imported, &shared, pattern)
    })?;
    let place = match contract {
        Contract::Inside => Where::Nowhere,
        Contract::Peer => Where::Peer,
        _ => Where::Memory,
    };
    traffic.expect(place, &name, LENGTH as u64)?;
    match contract {
        Contract::Peer => path.expect(&traffic, LENGTH as u64, READ_BACK)?,
        _ => traffic.expect_none_between_devices()?,
    }
    both_devices_agree(&owner, client, imported, &shared)?;

    if exporter == Exporter::Migrating {
        let state = owner.buffer_state(shared.object)?;
        let moved = u64::from(contract == Contract::FallsBack);
        ensure!(
            state.moves == moved && u64::from(state.place) == moved,
            "{contract}, but the buffer moved {} times and is at place {}",
            state.moves,
            state.place
        );
    }
    let (segments, _) = client.segments(imported)?;
    let address = segments.first().map_or(0, |segment| segment.address);
    let right = path.address();
    ensure!(
        contract != Contract::Peer || kinds_of(&owner, address).contains(&right),
        "expected an address of kind {right:?}, it is {address:#x}"
    );
    let kind = match contract {
        Contract::Inside => "local offset",
        _ => address_kind(&owner, client, address),
    };
    bench.note(format!(
        "{contract}: {kind} {address:#x}, {} {}, {}; {traffic}",
        segments.len(),
        if segments.len() == 1 { "segment" } else { "segments" },
        traffic.route()
    ));
    client.close(imported)?;
    Ok(())
}

/// The importer's device reads what the CPU has stored, and writes what the CPU then finds; a little shifted.
fn copy_both_ways(client: &Peer, imported: Object, shared: &Shared, pattern: Pattern) -> Verdict {
    let local = client.alloc(SIZE as u64, 1)?;
    let view = client.view(local)?;
    must(client, Work::copy(imported.at(1), local.at(3), LENGTH as u64))?;
    view.expect(3..3 + LENGTH, pattern, 1)?;

    let answer = Pattern::new(62);
    view.store(0..SIZE, answer);
    must(client, Work::copy(local.at(7), imported.at(2), LENGTH as u64))?;
    shared.expect(2..2 + LENGTH, answer, 7)?;
    // Before it and after it nothing has changed.
    shared.expect(0..2, pattern, 0)?;
    shared.expect(2 + LENGTH..SIZE, pattern, 2 + LENGTH as u64)?;
    drop(view);
    client.close(local)?;
    Ok(())
}

/// Exporter's and importer's device see the same bytes: those the CPU sees.
fn both_devices_agree(owner: &Peer, client: &Peer, imported: Object, shared: &Shared) -> Verdict {
    let answer = Pattern::new(62);
    let expected = u64::from(crc32c((7..7 + LENGTH as u64).map(|at| answer.byte(at))));
    for (peer, object) in [(owner, shared.object), (client, imported)] {
        let found = must(peer, Work::checksum(object.at(2), LENGTH as u64))?.result;
        ensure!(
            found == expected,
            "{} finds the checksum {found:#x}, the CPU {expected:#x}",
            peer.name()
        );
    }
    Ok(())
}
