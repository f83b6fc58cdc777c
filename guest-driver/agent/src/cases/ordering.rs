//! Memory writes are posted: that the device has ended its work, and has said so by record, interrupt and fence, does not
//! mean that the bytes are there. The lab keeps them under way on the path from one device to the other, whichever that
//! is in the topology; completion records and interrupts go another path.
//!
//! The driver's way of avoiding it is to read the last byte back before the device says anything: a read pushes the posted
//! writes of its path. Each signal is tried with that and without.

use super::Kind::{Negative, Positive};
use super::bench::succeeded;
use super::faults::class;
use super::matrix::{Exporter, FENCED_PATH, Importer, PATH, SIZE, Shared};
use super::topology::FirstPath;
use super::traffic::Traffic;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, WAIT_MS, Work};
use crate::lab::{Lab, RAM};
use crate::sys::dma_buf;
use crate::uapi;

pub(super) const CASES: &[Case] = &[
    Case::new("ordering", "record-with-flush", Positive, PATH, |bench| {
        with_flush(bench, Signal::Record)
    }),
    Case::new("ordering", "interrupt-with-flush", Positive, PATH, |bench| {
        with_flush(bench, Signal::Interrupt)
    }),
    Case::new("ordering", "fence-with-flush", Positive, FENCED_PATH, |bench| {
        with_flush(bench, Signal::Fence)
    }),
    Case::new("ordering", "record-without-flush", Negative, PATH, |bench| {
        without_flush(bench, Signal::Record)
    }),
    Case::new("ordering", "interrupt-without-flush", Negative, PATH, |bench| {
        without_flush(bench, Signal::Interrupt)
    }),
    Case::new("ordering", "fence-without-flush", Negative, FENCED_PATH, |bench| {
        without_flush(bench, Signal::Fence)
    }),
    Case::new("ordering", "many-descriptors-and-one-flush", Positive, PATH, many_descriptors),
    Case::new("ordering", "ram-needs-no-flush", Positive, PATH, ram_needs_none),
];

/// The kinds whose memory another device writes to by the path between the two.
const KINDS: [Exporter; 3] = [Exporter::Local, Exporter::Scattered, Exporter::ZoneDevice];

/// Bytes of a write.
const LENGTH: usize = 12_345;

/// What software takes for the end of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// The completion record: the driver looks for it itself, and no interrupt is asked for.
    Record,
    /// The interrupt, by which the driver is told of the record.
    Interrupt,
    /// The fence, which the driver signals then.
    Fence,
}

/// Posted writes of one device to another are under way until something pushes them.
struct Delay {
    requester: String,
    target: String,
}

fn lab<'a>(bench: &'a mut Bench<'_>) -> Result<&'a mut Lab, Stop> {
    Ok(&mut **bench
        .lab
        .as_mut()
        .ok_or_else(|| Stop::Skip("the lab port does not answer".into()))?)
}

impl Delay {
    fn until_pushed(bench: &mut Bench<'_>, client: &Peer, owner: &Peer) -> Result<Self, Stop> {
        let delay = Self {
            requester: client.function().address().to_owned(),
            target: owner.function().address().to_owned(),
        };
        lab(bench)?.delay(&delay.requester, &delay.target, "pushed")?;
        Ok(delay)
    }

    fn off(self, bench: &mut Bench<'_>) -> Verdict {
        Ok(lab(bench)?.delay(&self.requester, &self.target, "off")?)
    }
}

/// Writes a pattern into the import; returns when the signal has been seen.
fn write(
    bench: &mut Bench<'_>,
    client: &Peer,
    imported: Object,
    pattern: Pattern,
    (signal, flags): (Signal, u32),
) -> Verdict {
    let local = client.alloc(SIZE as u64, 1)?;
    client.view(local)?.store(0..LENGTH, pattern);
    let copy = Work::copy(local.at(0), imported.at(0), LENGTH as u64).with(flags);
    let cookie = match signal {
        Signal::Record => client.submit(copy.with(uapi::SUBMIT_POLL))?,
        Signal::Interrupt => client.submit(copy)?,
        Signal::Fence => {
            let (cookie, fence) = client.submit_fenced(copy)?;
            ensure!(dma_buf::signalled(&fence, WAIT_MS)?, "the fence does not signal");
            lab(bench)?.fence_seen(client.function().address())?;
            cookie
        }
    };
    let result = succeeded(client, client.wait(cookie, WAIT_MS)?)?;
    let told = result.interrupted != 0;
    ensure!(
        signal == Signal::Fence || told == (signal == Signal::Interrupt),
        "{signal:?} should have brought the news; an interrupt: {told}"
    );
    Ok(client.close(local)?)
}

/// Those of `wanted` that this kernel has and can share by the way between the two; at least one, or there is nothing to
/// be tested.
fn kinds(bench: &mut Bench<'_>, wanted: &[Exporter]) -> Result<Vec<Exporter>, Stop> {
    let follows = FirstPath::new(bench)?.follows();
    let (owner, _) = bench.take_peers()?;
    let mut there = Vec::new();
    let mut why = String::from("this kernel maps memory without pages without regard to the way");
    for exporter in wanted {
        if !follows && *exporter != Exporter::ZoneDevice {
            bench.note(format!("not {exporter:?}: {why}"));
            continue;
        }
        match Shared::new(&owner, *exporter, SIZE as u64) {
            Ok(_) => there.push(*exporter),
            Err(Stop::Skip(reason)) => {
                bench.note(format!("not {exporter:?}: {reason}"));
                why = reason;
            }
            Err(failure) => return Err(failure),
        }
    }
    if there.is_empty() { Err(Stop::Skip(why)) } else { Ok(there) }
}

/// Does `work` for each kind of memory, with its data under way until something pushes it.
fn each_kind(
    bench: &mut Bench<'_>,
    kinds: &[Exporter],
    mut work: impl FnMut(&mut Bench<'_>, &Peer, Object, &Shared, Exporter) -> Verdict,
) -> Verdict {
    let (owner, client) = bench.take_peers()?;
    let traffic = Traffic::during(bench, &client.function(), |bench| {
        for exporter in kinds.iter().copied() {
            let shared = Shared::new(&owner, exporter, SIZE as u64)?;
            let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
            let delay = Delay::until_pushed(bench, &client, &owner)?;
            let done = work(bench, &client, imported, &shared, exporter);
            delay.off(bench)?;
            done?;
            client.close(imported)?;
        }
        Ok(())
    })?;
    bench.note(format!("{}; {traffic}", traffic.route()));
    Ok(())
}

/// The driver reads back what it has written to another device: then the data is there when the signal comes.
fn with_flush(bench: &mut Bench<'_>, signal: Signal) -> Verdict {
    let (before, after) = (Pattern::new(110), Pattern::new(111));
    let kinds = kinds(bench, &KINDS)?;
    each_kind(bench, &kinds, |bench, client, imported, shared, _| {
        shared.store(0..LENGTH, before)?;
        write(bench, client, imported, after, (signal, 0))?;
        // Without asking anybody: the signal was enough.
        Ok(shared.view.expect(0..LENGTH, after, 0)?)
    })
}

/// A driver that leaves the reading back out is caught: the signal is there, the data is not, and the finding names what
/// came too early.
fn without_flush(bench: &mut Bench<'_>, signal: Signal) -> Verdict {
    let (before, after) = (Pattern::new(112), Pattern::new(113));
    let kinds = kinds(bench, &KINDS)?;
    let each = u32::try_from(kinds.len())?;
    bench.expect(class::RECORD_BEFORE_DATA, each, Some(each))?;
    if signal != Signal::Record {
        bench.expect(class::INTERRUPT_BEFORE_DATA, each, Some(each))?;
    }
    if signal == Signal::Fence {
        bench.expect(class::FENCE_BEFORE_DATA, each, Some(each))?;
    }
    each_kind(bench, &kinds, |bench, client, imported, shared, exporter| {
        shared.store(0..LENGTH, before)?;
        write(bench, client, imported, after, (signal, uapi::SUBMIT_NO_FLUSH))?;
        shared.view.expect(0..LENGTH, before, 0).map_err(|there| {
            Stop::Fail(format!("{exporter:?}: delayed data is there already: {there}"))
        })?;
        // What the channel reads elsewhere does not help: its next descriptor, another one's memory.
        let own = client.alloc(4096, 1)?;
        let elsewhere = Work::checksum(own.at(0), 8).with(uapi::SUBMIT_POLL);
        super::bench::must(client, elsewhere)?;
        client.close(own)?;
        shared.view.expect(0..8, before, 0).map_err(|there| {
            Stop::Fail(format!("{exporter:?}: something that is not its path pushed it: {there}"))
        })?;
        // The finding is of a device at rest that still holds data back: it has been told before the data goes.
        if let Some(restless) = lab(bench)?.settle()? {
            return Err(Stop::Fail(restless));
        }
        // What it reads there does.
        super::bench::must(client, Work::checksum(imported.at(0), 8))?;
        Ok(shared.view.expect(0..LENGTH, after, 0)?)
    })
}

/// Work of many descriptors has as many records, and only the last one ends it: the flush before that is enough, and the
/// records before it are no mistake.
fn many_descriptors(bench: &mut Bench<'_>) -> Verdict {
    let (before, after) = (Pattern::new(114), Pattern::new(115));
    let kinds = kinds(bench, &[Exporter::Scattered])?;
    each_kind(bench, &kinds, |bench, client, imported, shared, _| {
        shared.store(0..LENGTH, before)?;
        let local = client.alloc(SIZE as u64, 1)?;
        client.view(local)?.store(0..LENGTH, after);
        let copy = Work::copy(local.at(0), imported.at(0), LENGTH as u64);
        let result = super::bench::must(client, copy)?;
        bench.note(format!("{} descriptors", result.descriptors));
        client.close(local)?;
        Ok(shared.view.expect(0..LENGTH, after, 0)?)
    })
}

/// Data for RAM goes the path that record and interrupt go, and however long it takes, they come behind it.
fn ram_needs_none(bench: &mut Bench<'_>) -> Verdict {
    const TURNS: &str = "200";
    let (owner, client) = bench.take_peers()?;
    let shared = Shared::new(&owner, Exporter::Pages, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let address = client.function().address().to_owned();
    for (seed, signal) in (116..).zip([Signal::Record, Signal::Interrupt]) {
        shared.store(0..LENGTH, Pattern::new(seed + 10))?;
        lab(bench)?.delay(&address, RAM, TURNS)?;
        let pattern = Pattern::new(seed);
        let done = write(bench, &client, imported, pattern, (signal, uapi::SUBMIT_NO_FLUSH));
        let there = shared.view.expect(0..LENGTH, pattern, 0);
        lab(bench)?.delay(&address, RAM, "off")?;
        done?;
        there?;
    }
    Ok(())
}
