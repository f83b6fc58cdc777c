//! Memory writes are posted: a device may have finished, and reported it by record, interrupt and
//! fence, before the bytes arrive. The VMM keeps them under way on the path from one device to the
//! other, whichever that is in the topology; completion records and interrupts go another path.
//!
//! The driver's way of avoiding it is to read the last byte back before the device says anything: a read pushes the posted
//! writes of its path. Each signal is tried with that and without. A CPU that looks pushes them, too, so that the bytes
//! which have arrived are counted before one does.

use super::Kind::{Negative, Positive};
use super::bench::succeeded;
use super::faults::class;
use super::matrix::{Exporter, FENCED_PATH, Importer, PATH, SIZE, Shared};
use super::topology::FirstPath;
use super::traffic::Traffic;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, View, WAIT_MS, Work};
use crate::sys::dma_buf;
use crate::uapi;
use crate::vmm::{RAM, Vmm};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

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
    Case::new("ordering", "cpu-read-pushes", Positive, PATH, cpu_read_pushes),
    Case::new("ordering", "cpu-write-comes-behind", Positive, PATH, cpu_write_comes_behind),
    Case::new("ordering", "delay-under-cpu-access", Positive, PATH, under_cpu_access),
    Case::new("ordering", "ram-needs-no-flush", Positive, PATH, ram_needs_none),
];

/// The kinds whose memory another device writes to by the path between the two.
const KINDS: [Exporter; 3] = [Exporter::Local, Exporter::Scattered, Exporter::ZoneDevice];

/// Bytes of a write.
const LENGTH: usize = 12_345;

/// What software takes for the end of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The completion record: the driver looks for it itself, and no interrupt is asked for.
    Record,
    /// The interrupt, by which the driver learns of the record.
    Interrupt,
    /// The fence, which the driver signals then.
    Fence,
}

/// Posted writes of one device to another are under way until something pushes them.
struct Delay {
    requester: String,
    target: String,
}

fn vmm<'a>(bench: &'a mut Bench<'_>) -> Result<&'a mut Vmm, Stop> {
    Ok(&mut **bench.vmm.as_mut().ok_or_else(|| Stop::Skip("the VMM does not answer".into()))?)
}

impl Delay {
    fn until_pushed(bench: &mut Bench<'_>, client: &Peer, owner: &Peer) -> Result<Self, Stop> {
        let delay = Self {
            requester: client.function().address().to_owned(),
            target: owner.function().address().to_owned(),
        };
        vmm(bench)?.delay(&delay.requester, &delay.target, "pushed")?;
        Ok(delay)
    }

    fn off(self, bench: &mut Bench<'_>) -> Verdict {
        Ok(vmm(bench)?.delay(&self.requester, &self.target, "off")?)
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
            vmm(bench)?.fence_seen(client.function().address())?;
            cookie
        }
    };
    let result = succeeded(client, client.wait(cookie, WAIT_MS)?)?;
    let interrupted = result.interrupted != 0;
    ensure!(
        signal == Signal::Fence || interrupted == (signal == Signal::Interrupt),
        "{signal:?} should have brought the news; an interrupt: {interrupted}"
    );
    Ok(client.close(local)?)
}

/// Bytes of `client` that come to other devices during `work`. Asking pushes nothing.
fn arrived(
    bench: &mut Bench<'_>,
    client: &Peer,
    work: impl FnOnce(&mut Bench<'_>) -> Verdict,
) -> Result<u64, Stop> {
    Ok(Traffic::during(bench, &client.function(), work)?.arrived())
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
        let arrived =
            arrived(bench, client, |bench| write(bench, client, imported, after, (signal, 0)))?;
        ensure!(
            arrived >= LENGTH as u64,
            "the signal came, and {arrived} bytes of {LENGTH} have arrived"
        );
        Ok(shared.view.expect(0..LENGTH, after, 0)?)
    })
}

/// A driver that leaves the reading back out is caught: the signal is there, the data is not, and the finding names what
/// came too early.
pub(super) fn without_flush(bench: &mut Bench<'_>, signal: Signal) -> Verdict {
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
        let early = arrived(bench, client, |bench| {
            write(bench, client, imported, after, (signal, uapi::SUBMIT_NO_FLUSH))
        })?;
        ensure!(early == 0, "{exporter:?}: delayed data is there already: {early} bytes");
        // What the channel reads elsewhere does not help: its next descriptor, another one's memory.
        let own = client.alloc(4096, 1)?;
        let elsewhere = Work::checksum(own.at(0), 8).with(uapi::SUBMIT_POLL);
        let pushed = arrived(bench, client, |_| super::bench::must(client, elsewhere).map(drop))?;
        client.close(own)?;
        ensure!(
            pushed == 0,
            "{exporter:?}: something that is not its path pushed it: {pushed} bytes"
        );
        // The finding is of a device that came to rest while it still held data back.
        if let Some(busy) = vmm(bench)?.settle()? {
            return Err(Stop::Fail(busy));
        }
        // What it reads there comes too late for that, and pushes.
        super::bench::must(client, Work::checksum(imported.at(0), 8))?;
        Ok(shared.view.expect(0..LENGTH, after, 0)?)
    })
}

/// A driver that lets a CPU read where the data goes before it uses it needs no flush of the device's.
fn cpu_read_pushes(bench: &mut Bench<'_>) -> Verdict {
    let (before, after) = (Pattern::new(120), Pattern::new(121));
    let kinds = kinds(bench, &KINDS)?;
    each_kind(bench, &kinds, |bench, client, imported, shared, exporter| {
        for signal in [Signal::Record, Signal::Interrupt] {
            shared.store(0..LENGTH, before)?;
            let early = arrived(bench, client, |bench| {
                write(bench, client, imported, after, (signal, uapi::SUBMIT_NO_FLUSH))
            })?;
            ensure!(early == 0, "{exporter:?}: delayed data is there already: {early} bytes");
            // By a program's mapping, and by the kernel's, which copies with string instructions; none of several ranges.
            if signal == Signal::Record || exporter == Exporter::Scattered {
                shared.view.expect(0..LENGTH, after, 0)?;
            } else {
                let mut found = vec![0; LENGTH];
                client.kernel_read(shared.fd.as_fd(), 0, &mut found)?;
                let wrong = (0..LENGTH).find(|&at| found[at] != after.byte(at as u64));
                ensure!(wrong.is_none(), "{exporter:?}: the kernel finds old data at {wrong:?}");
            }
        }
        Ok(())
    })
}

/// What a CPU writes is newer than what was posted before, and does not end below it.
fn cpu_write_comes_behind(bench: &mut Bench<'_>) -> Verdict {
    let (posted, written) = (Pattern::new(122), Pattern::new(123));
    let (kinds, own) = (kinds(bench, &KINDS)?, 4000..4111);
    each_kind(bench, &kinds, |bench, client, imported, shared, exporter| {
        let early = arrived(bench, client, |bench| {
            write(bench, client, imported, posted, (Signal::Record, uapi::SUBMIT_NO_FLUSH))
        })?;
        ensure!(early == 0, "{exporter:?}: delayed data is there already: {early} bytes");
        shared.store(own.clone(), written)?;
        shared.view.expect(0..own.start, posted, 0)?;
        shared.view.expect(own.clone(), written, own.start as u64)?;
        Ok(shared.view.expect(own.end..LENGTH, posted, own.end as u64)?)
    })
}

/// The memory leaves the guest's direct map and comes back while programs use it: nothing of theirs is lost, nor what the
/// device writes meanwhile.
fn under_cpu_access(bench: &mut Bench<'_>) -> Verdict {
    const ROUNDS: u64 = 60;
    let kinds = kinds(bench, &[Exporter::Local])?;
    let (owner, client) = bench.take_peers()?;
    let exporter = *kinds.first().ok_or_else(|| Stop::Skip("no memory".into()))?;
    let shared = Shared::new(&owner, exporter, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let over = AtomicBool::new(false);
    // A word of its own, of a page that the device does not write to.
    let word = SIZE - 8;
    let beside = || -> Result<u64, String> {
        let view = View::new(&shared.fd, SIZE, 0).map_err(|error| error.to_string())?;
        let mut count = 0;
        while !over.load(Ordering::Acquire) {
            count += 1;
            view.set_word(word, count);
            let found = view.word(word);
            if found != count {
                return Err(format!("{count} was written, and {found} is read"));
            }
            std::thread::yield_now();
        }
        Ok(count)
    };
    let (done, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let done: Verdict = (0..ROUNDS).try_for_each(|round| {
            let pattern = Pattern::new(200 + round);
            let delay = Delay::until_pushed(bench, &client, &owner)?;
            let wrote =
                write(bench, &client, imported, pattern, (Signal::Record, uapi::SUBMIT_NO_FLUSH));
            // The last bytes are behind all others.
            let tail = LENGTH - 57..LENGTH;
            let start = tail.start as u64;
            let found = wrote.and_then(|()| Ok(shared.view.expect(tail, pattern, start)?));
            delay.off(bench)?;
            found?;
            Ok(shared.view.expect(0..LENGTH, pattern, 0)?)
        });
        over.store(true, Ordering::Release);
        (done, beside.join())
    });
    done?;
    let count = beside.map_err(|_| Stop::Fail("the thread beside has panicked".into()))?;
    let count = count.map_err(Stop::Fail)?;
    let last = shared.view.word(word);
    ensure!(last == count, "{count} was written last, and {last} is there");
    bench.note(format!("{ROUNDS} rounds, {count} accesses beside them"));
    Ok(client.close(imported)?)
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
        vmm(bench)?.delay(&address, RAM, TURNS)?;
        let pattern = Pattern::new(seed);
        let done = write(bench, &client, imported, pattern, (signal, uapi::SUBMIT_NO_FLUSH));
        let there = shared.view.expect(0..LENGTH, pattern, 0);
        vmm(bench)?.delay(&address, RAM, "off")?;
        done?;
        there?;
    }
    Ok(())
}
