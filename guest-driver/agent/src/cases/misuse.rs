//! Shared buffers, used against the rules of sharing: each mistake must be reported, and must have
//! no other effect.

use super::Kind::Negative;
use super::busy::{Busy, LOADS};
use super::faults::{IOMMU_FAULT, PORT_ERROR, class};
use super::matrix::{Exporter, Importer, SIZE, Shared, TRANSLATED, goes_by_bus_address};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::uapi;
use rustix::io::Errno;

const STRICT: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Path,
    Need::Translated,
    Need::Strict,
];

pub(super) const CASES: &[Case] = &[
    Case::new("misuse", "move-without-fence-wait", Negative, STRICT, move_without_wait),
    Case::new("misuse", "importer-unmaps-before-its-work-ends", Negative, STRICT, unmaps_early),
    Case::new(
        "misuse",
        "cpu-physical-address-for-a-device",
        Negative,
        TRANSLATED,
        physical_address,
    ),
];

/// An address that this device has not got: never had, or no more.
pub(super) fn expect_no_such_address(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::UNMAPPED, 0, None)?;
    bench.expect(class::STALE, 0, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    Ok(())
}

/// A read that must end at the IOMMU, before its first byte.
pub(super) fn must_fault(peer: &Peer, what: &str, work: Work) -> Verdict {
    let result = peer.run(work.with(uapi::SUBMIT_VERDICT))?;
    ensure!(
        result.error == -Errno::IO.raw_os_error() && result.bytes == 0 && result.verdict != 0,
        "{what}: error {}, {} bytes, verdict {}",
        result.error,
        result.bytes,
        result.verdict
    );
    Ok(())
}

/// From here on the test breaks rules: without an IOMMU in between nothing stops the access.
fn expect_stale(bench: &mut Bench<'_>, owner: &Peer, client: &Peer, imported: Object) -> Verdict {
    // Mapped now, used later.
    client.map(imported, uapi::BIDIRECTIONAL)?;
    if goes_by_bus_address(owner, client, imported)? {
        return Err(Stop::Skip(
            "the way between the peers is by bus address, past the IOMMU: nothing can stop what comes too late".into(),
        ));
    }
    bench.expect(class::STALE, 1, None)?;
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    Ok(())
}

/// Queues a write to a new import behind work that takes a while, has the mapping `taken` away meanwhile, and sees that
/// the write came too late: its reading back failed, and nothing of it is in the buffer. On a busy machine the work may
/// be over before anything is taken away; then again, with more of it.
fn write_comes_late(
    bench: &mut Bench<'_>,
    exporter: Exporter,
    flags: u32,
    taken: impl Fn(&Peer, Object) -> Verdict,
) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let pattern = Pattern::new(90);
    for (attempt, fills) in LOADS.into_iter().enumerate() {
        let shared = Shared::new(&owner, exporter, SIZE as u64)?;
        shared.store(0..SIZE, pattern)?;
        let imported = client.import(&shared.fd, flags)?;
        if attempt == 0 {
            expect_stale(bench, &owner, &client, imported)?;
        } else {
            client.map(imported, uapi::BIDIRECTIONAL)?;
        }
        let busy = Busy::start_of(&client, fills)?;
        let write =
            client.submit(Work::fill(imported.at(0), SIZE as u64, 0x4444_4444_4444_4444))?;
        taken(&owner, shared.object)?;
        let result = client.wait(write, WAIT_MS)?;
        busy.end(&client, &[])?;
        match result.error {
            0 => bench.note(format!("the write was not too late behind {fills} others")),
            error => {
                ensure!(
                    error == -Errno::IO.raw_os_error(),
                    "a write through a mapping that had gone ended with error {error}"
                );
                return shared.expect(0..SIZE, pattern, 0);
            }
        }
        client.close(imported)?;
    }
    Err(Stop::Fail("no write came too late: what was taken away could still be used".into()))
}

/// The exporter moves a buffer and does not wait for its importer's fence: the importer's device goes on with addresses
/// that have been taken away.
fn move_without_wait(bench: &mut Bench<'_>) -> Verdict {
    let flags = Importer::Dynamic.flags();
    write_comes_late(bench, Exporter::Migrating, flags, |owner, object| {
        Ok(owner.move_buffer(object, uapi::PLACE_SYSTEM, uapi::MOVE_LAB_NO_WAIT)?)
    })
}

/// The importer is notified that the buffer moves and unmaps at once, with its own work still to come.
fn unmaps_early(bench: &mut Bench<'_>) -> Verdict {
    let flags = Importer::Dynamic.flags() | uapi::IMPORT_LAB_UNMAP_EARLY;
    write_comes_late(bench, Exporter::Local, flags, |owner, object| Ok(owner.invalidate(object)?))
}

/// The exporter gives away what is an address for CPUs only.
fn physical_address(bench: &mut Bench<'_>) -> Verdict {
    expect_no_such_address(bench)?;
    let (owner, client) = bench.take_peers()?;
    let local = client.alloc(SIZE as u64, 1)?;
    for kind in [uapi::BUFFER_P2PMEM, uapi::BUFFER_PAGES, uapi::BUFFER_MIGRATING] {
        let object = owner.buffer(kind, SIZE as u64, 1, uapi::BUFFER_LAB_PHYSICAL)?;
        let shared = Shared::of(&owner, object)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        must_fault(
            &client,
            "a CPU physical address",
            Work::copy(imported.at(0), local.at(0), SIZE as u64),
        )?;
        client.close(imported)?;
    }
    Ok(())
}
