//! A reset of the exporter's device while the importer's works on its memory.

use crate::cases::bench::{must, succeeded};
use crate::cases::busy::{Busy, Load};
use crate::cases::lifecycle::reset;
use crate::cases::matrix::{Exporter, Importer, SIZE, Shared};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::sys::dma_buf::signalled;
use crate::sys::patience::stretched;
use crate::uapi;
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// What the importer's work writes.
const BYTE: u8 = 0x48;
const WORD: u64 = 0x4848_4848_4848_4848;

/// One buffer of the exporter's, its import, and what the importer does with it meanwhile.
struct Transfer<'p> {
    exporter: Exporter,
    owner: &'p Peer,
    client: &'p Peer,
    shared: Shared,
    imported: Object,
    /// Where the importer's copy of the buffer goes.
    local: Object,
}

/// Importers are notified, the reset waits for their work and their unmaps, and only then resets: the importer's device
/// notices nothing. New work gets EAGAIN until all is over, and then maps anew. Memory outside the device is
/// not concerned at all.
pub(super) fn during_a_transfer(bench: &mut Bench<'_>) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let (mut load, mut told_to_come_again) = (Load::default(), 0);
    for exporter in [
        Exporter::Local,
        Exporter::ZoneDevice,
        Exporter::Migrating,
        Exporter::Pages,
        Exporter::Noncontiguous,
    ] {
        let transfer = Transfer::new(&owner, &client, exporter)?;
        let of = |stop: Stop| stop.of(&format!("{exporter:?}"));
        let (in_flight, refused) = transfer.reset().map_err(of)?;
        transfer.goes_on().map_err(of)?;
        if exporter.begins_inside() {
            load.count(in_flight);
            told_to_come_again += u32::from(in_flight && refused);
        }
    }
    bench.note(format!(
        "{} resets waited for the importer's work, {told_to_come_again} had others come again",
        load.under_way()
    ));
    load.conclude(bench)?;
    ensure!(told_to_come_again > 0, "work that comes during a reset never gets EAGAIN");
    Ok(())
}

impl<'p> Transfer<'p> {
    fn new(owner: &'p Peer, client: &'p Peer, exporter: Exporter) -> Result<Self, Stop> {
        let shared = Shared::new(owner, exporter, SIZE as u64)?;
        let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
        client.map(imported, uapi::BIDIRECTIONAL)?;
        let local = client.alloc(SIZE as u64, 1)?;
        Ok(Self { exporter, owner, client, shared, imported, local })
    }

    /// The importer reads the buffer and then overwrites it, and the exporter's function is reset before either is over.
    /// Gives whether that was so, and whether work that came meanwhile was refused.
    fn reset(&self) -> Result<(bool, bool), Stop> {
        let Self { exporter, owner, client, shared, imported, local } = self;
        let (before, length) = (Pattern::new(24), SIZE as u64);
        shared.store(0..SIZE, before)?;
        let (counters, resets) = (client.counters()?, owner.counters()?.resets);

        let busy = Busy::start(client)?;
        let read = client.submit(Work::copy(imported.at(0), local.at(0), length))?;
        let (write, fence) = client.submit_fenced(Work::fill(imported.at(0), length, WORD))?;
        let function = owner.function();
        let resetting = std::thread::spawn(move || reset(&function));
        if exporter.begins_inside() {
            self.await_notice(&counters)?;
        }
        let in_flight = !signalled(&fence, 0)?;
        let other = client.run(Work::checksum(imported.at(0), 64));
        // A caller that was held up here came after the reset, and is not asked to come again.
        let in_flight = in_flight && owner.counters()?.resets == resets;
        resetting
            .join()
            .map_err(|_| Stop::Fail("the thread that resets has panicked".into()))??;
        let ended = signalled(&fence, 0)?;

        busy.end(client, &[])?;
        for cookie in [read, write] {
            let done = succeeded(client, client.wait(cookie, WAIT_MS)?)?.bytes;
            ensure!(done == length, "work on the buffer ended after {done} bytes");
        }
        client.view(*local)?.expect(0..SIZE, before, 0)?;
        let resets = owner.counters()?.resets - resets;
        ensure!(resets == 1, "one reset, and the driver has noticed {resets}");
        ensure!(
            ended || !exporter.begins_inside(),
            "the reset is over, and the importer's work on the memory is not"
        );
        let refused = match other {
            Err(error) if exporter.begins_inside() && error.errno == Errno::AGAIN => true,
            other => succeeded(client, other?).map(|_| false)?,
        };
        self.check_mapping(&counters, refused)?;
        Ok((in_flight, refused))
    }

    /// Waits until the importer has been notified.
    fn await_notice(&self, before: &uapi::Counters) -> Verdict {
        // Looked at often: what follows has to come before the reset does.
        let end = Instant::now() + stretched(Duration::from_secs(10));
        while self.client.counters()?.invalidations == before.invalidations {
            ensure!(Instant::now() < end, "the importer is not notified of the reset");
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// The importer was notified, and unmapped; work that came too late to be refused has mapped again.
    fn check_mapping(&self, before: &uapi::Counters, refused: bool) -> Verdict {
        let after = self.client.counters()?;
        let inside = u64::from(self.exporter.begins_inside());
        let expected = (inside, inside, if refused { 0 } else { inside });
        let found = (
            after.invalidations - before.invalidations,
            after.unmaps - before.unmaps,
            after.maps - before.maps,
        );
        ensure!(
            found == expected,
            "the importer was notified, unmapped and mapped {found:?} times, not {expected:?}"
        );
        Ok(())
    }

    /// What was inside is lost, with what the importer had written; the importer's next work maps what is there now.
    fn goes_on(self) -> Verdict {
        let Self { exporter, owner, client, shared, imported, local } = self;
        let kept = shared.view.expect_all(0..SIZE, BYTE);
        if exporter.begins_inside() {
            ensure!(kept.is_err(), "the memory is what it was before the reset");
        } else {
            kept?;
        }
        let (inward, outward) = (Pattern::new(25), Pattern::new(26));
        shared.store(0..SIZE, inward)?;
        let view = client.view(local)?;
        must(client, Work::copy(imported.at(0), local.at(0), SIZE as u64))?;
        view.expect(0..SIZE, inward, 0)?;
        view.store(0..SIZE, outward);
        must(client, Work::copy(local.at(0), imported.at(0), SIZE as u64))?;
        shared.expect(0..SIZE, outward, 0)?;
        client.close(imported)?;
        client.close(local)?;
        Ok(owner.close(shared.object)?)
    }
}
