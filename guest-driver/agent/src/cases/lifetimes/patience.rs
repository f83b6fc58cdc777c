//! A fence of somebody else's that does not come: whoever wants the buffer waits as long as he was told to, and says so.

use crate::cases::matrix::{Exporter, Importer, SIZE, Shared};
use crate::cases::need::Need;
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::DeviceError;
use crate::sys::dma_buf::{Access, import_sync_file};
use crate::sys::sw_sync::{self, Pending};
use crate::{sys, uapi};
use rustix::io::Errno;
use std::os::fd::AsFd;

pub(super) const NEEDS: &[Need] = &[
    Need::Lab,
    Need::Peers,
    Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA"),
    Need::Feature(uapi::FEATURE_SYNC_FILE, "CONFIG_SYNC_FILE"),
    Need::Path,
    Need::File(sw_sync::PATH, "CONFIG_SW_SYNC"),
];

/// The driver's patience, shorter while this lives.
struct Patience {
    before: String,
}

impl Patience {
    const PARAMETER: &str = "/sys/module/peerdma/parameters/timeout_ms";

    fn of(milliseconds: u32) -> Result<Self, Stop> {
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

/// A buffer with a fence in it that does not signal: `attempt` gives up, and goes through when the fence has signalled.
fn gives_up(shared: &Shared, what: &str, attempt: impl Fn() -> Result<(), DeviceError>) -> Verdict {
    let pending = Pending::new()?;
    import_sync_file(&shared.fd, Access::Write, pending.fence.as_fd())?;
    let short = Patience::of(100)?;
    let outcome = attempt().map_err(|error| error.errno);
    drop(short);
    ensure!(outcome == Err(Errno::TIME), "{what} under a fence that does not signal: {outcome:?}");
    pending.signal()?;
    Ok(attempt()?)
}

pub(super) fn moving(bench: &mut Bench<'_>) -> Verdict {
    let (owner, _) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Migrating, SIZE as u64)?;
    gives_up(&shared, "a move", || owner.move_buffer(shared.object, uapi::PLACE_SYSTEM, 0))?;
    let state = owner.buffer_state(shared.object)?;
    ensure!(
        state.place == uapi::PLACE_SYSTEM && state.moves == 1,
        "one move was possible; place {}, {} moves",
        state.place,
        state.moves
    );
    Ok(())
}

/// The importer has been told at the first attempt, and keeps nothing after the second.
pub(super) fn recall(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Local, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    client.map(imported, uapi::BIDIRECTIONAL)?;
    gives_up(&shared, "a recall", || owner.invalidate(shared.object))?;
    let (segments, _) = client.segments(imported)?;
    ensure!(segments.is_empty(), "the importer keeps what was called back");
    Ok(client.close(imported)?)
}
