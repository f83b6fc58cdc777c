//! A foreign fence that does not come: the caller that needs the buffer waits up to its limit, and
//! reports it.

use crate::cases::bench::succeeded;
use crate::cases::busy::{Busy, LOADS, Load};
use crate::cases::lifecycle::{bind, unbind};
use crate::cases::matrix::{Exporter, Importer, SIZE, Shared};
use crate::cases::need::Need;
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{DeviceError, WAIT_MS, Work};
use crate::sys;
use crate::sys::dma_buf::{Access, import_sync_file, signalled};
use crate::sys::patience::await_that;
use crate::sys::sw_sync::{self, Pending};
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) const NEEDS: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Feature(uapi::FEATURE_SYNC_FILE, "CONFIG_SYNC_FILE"),
    Need::Path,
    Need::File(sw_sync::PATH, "CONFIG_SW_SYNC"),
];

/// The driver's patience, shorter while this lives.
pub(in crate::cases) struct Patience {
    before: String,
}

impl Patience {
    const PARAMETER: &str = "/sys/module/peerdma/parameters/timeout_ms";

    pub(in crate::cases) fn of(milliseconds: u32) -> Result<Self, Stop> {
        let before = sys::read(Self::PARAMETER)?;
        sys::write(Self::PARAMETER, &milliseconds.to_string())?;
        Ok(Self { before })
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Err(error) = sys::write(Self::PARAMETER, &self.before) {
            println!("the driver's patience stays short: {error}");
        }
    }
}

/// A buffer with a fence in it that does not signal: `attempt` gives up, `meanwhile` looks at what that has left behind, and
/// the next attempt goes through because the fence has signalled.
fn gives_up(
    shared: &Shared,
    what: &str,
    attempt: impl Fn() -> Result<(), DeviceError>,
    meanwhile: impl FnOnce() -> Verdict,
) -> Verdict {
    let pending = Pending::new()?;
    import_sync_file(&shared.fd, Access::Write, pending.fence.as_fd())?;
    let short = Patience::of(100)?;
    let usual = Duration::from_millis(short.before.parse()?);
    let begun = Instant::now();
    let outcome = attempt().map_err(|error| error.errno);
    let waited = begun.elapsed();
    drop(short);
    ensure!(outcome == Err(Errno::TIME), "{what} under a fence that does not signal: {outcome:?}");
    ensure!(waited < usual / 2, "{what} was to wait for 100 ms, and waited for {waited:?}");
    meanwhile()?;
    pending.signal()?;
    Ok(attempt()?)
}

pub(super) fn moving(bench: &mut Bench<'_>) -> Verdict {
    let (owner, _) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    let is_at = |place, moves| -> Verdict {
        let state = owner.buffer_state(shared.object)?;
        ensure!(
            (state.place, state.moves) == (place, moves),
            "place {} after {} moves instead of place {place} after {moves}",
            state.place,
            state.moves
        );
        Ok(())
    };
    let attempt = || owner.move_buffer(shared.object, uapi::PLACE_SYSTEM, 0);
    gives_up(&shared, "a move", attempt, || is_at(uapi::PLACE_LOCAL, 0))?;
    is_at(uapi::PLACE_SYSTEM, 1)
}

/// The importer is notified at the first attempt, which only does not wait for what may still use the mapping.
pub(super) fn invalidation(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Local, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    client.map(imported, uapi::BIDIRECTIONAL)?;
    let before = client.counters()?.invalidations;
    let is_told = || -> Verdict {
        let notified = client.counters()?.invalidations - before;
        ensure!(
            notified == 1,
            "the importer was notified {notified} times by an invalidation that gave up"
        );
        Ok(())
    };
    gives_up(&shared, "an invalidation", || owner.invalidate(shared.object), is_told)?;
    let (segments, _) = client.segments(imported)?;
    ensure!(segments.is_empty(), "the importer keeps what was called back");
    Ok(client.close(imported)?)
}

/// The importer's work outlasts the exporter's patience: unbinding goes on without its fence, and what
/// the importer unmaps late does no harm.
pub(super) fn unbinding(bench: &mut Bench<'_>) -> Verdict {
    bench.expect_message("has not signalled in 1 ms; taken back without it");
    let mut load = Load::default();
    for fills in LOADS {
        let outlasts = unbind_during_work(bench, fills)?;
        load.count(outlasts);
        if outlasts {
            break;
        }
    }
    load.conclude(bench)
}

/// Unbinds the exporter behind work of the importer's. Returns whether the work was still under way
/// when the exporter had given up waiting for its fence.
fn unbind_during_work(bench: &mut Bench<'_>, fills: u32) -> Result<bool, Stop> {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Local, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    client.map(imported, uapi::BIDIRECTIONAL)?;
    let before = client.counters()?;
    let busy = Busy::start_of(&client, fills)?;
    // Its own time limit is the usual one.
    let (write, fence) = client.submit_fenced(Work::fill(imported.at(0), SIZE as u64, 0))?;
    let short = Patience::of(1)?;
    let function = owner.function();
    let taken = function.clone();
    let unbinding = std::thread::spawn(move || unbind(&taken));
    let notified = await_that(Duration::from_secs(10), || -> Result<_, Stop> {
        Ok(client.counters()?.invalidations > before.invalidations)
    })?;
    std::thread::sleep(Duration::from_millis(50));
    let outlasts = !signalled(&fence, 0)?;
    let driver = unbinding
        .join()
        .map_err(|_| Stop::Fail("the thread that unbinds has panicked".into()))??;
    let (ended, unmaps) = (signalled(&fence, 0)?, client.counters()?.unmaps - before.unmaps);
    drop(short);
    bind(&function, &driver, owner.instance)?;
    busy.end(&client, &[])?;
    ensure!(notified, "the importer is not notified of the unbinding");
    ensure!(
        ended && unmaps == 1,
        "the exporter's driver is gone, and the importer's work on its memory is not: ended {ended}, {unmaps} unmaps"
    );
    succeeded(&client, client.wait(write, WAIT_MS)?)?;
    client.close(imported)?;
    Ok(outlasts)
}
