//! Intel's DMA engine, which was not designed here, driven by drivers that know nothing of peerdma:
//! the kernel's `ioatdma`, and its `dmatest` on top.

mod broken;
mod client;
mod dmatest;
mod moving;
mod paths;
mod speed;
mod third_party;
mod user_space;

use super::Kind::{Negative, Partner, Positive};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::sys;
use crate::sys::kernel_config;
use crate::sys::kernel_log::complaints;
use crate::sys::pci::Function;
use crate::sys::sw_sync;
use crate::uapi;
use crate::vmm::Counters;
use dmatest::{DmatestResult, Operation, Run, Summary};
use std::collections::BTreeMap;
use std::path::Path;

const VENDOR: u32 = 0x8086;
/// Skylake's, with which Linux copies, and the Atom's, with which it computes XOR too.
const SKYLAKE: u32 = 0x2021;
const ATOM: u32 = 0x0c50;

/// Where the kernel shows channels of DMA engines.
const CLASS: &str = "/sys/class/dma";

const DRIVER_FOLDER: &str = "/sys/bus/pci/drivers/ioatdma";
pub(super) const DRIVER: Need = Need::Module(DRIVER_FOLDER, "ioatdma", "CONFIG_INTEL_IOATDMA");
const DMATEST: Need = Need::Module(dmatest::PARAMETERS, "dmatest", "CONFIG_DMATEST");
const NEEDS: &[Need] = &[Need::Vmm, DRIVER, DMATEST];

const CLIENT: Need = Need::Module(client::PATH, "peerdma_dma", "CONFIG_DMA_ENGINE");
const P2P: Need = Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA");
const THIRD_PARTY: &[Need] = &[Need::Vmm, Need::Peer, Need::Other, P2P, DRIVER, CLIENT];

const MOVING: &[Need] = &[Need::Vmm, Need::Peers, P2P, Need::Path, DRIVER, CLIENT];

/// What ioatdma says, at level error, when it lets go of an engine.
pub(super) const LETTING_GO: &str = "Removing dma and dca services";

/// Operations of the large tests; as many more as it takes to share them out evenly.
const MILLION: u32 = 1_000_000;
const MANY: u32 = 20_000;

pub(super) const CASES: &[Case] = &[
    Case::new("ioat", "driver-is-bound", Partner, &[DRIVER], bound),
    Case::new("ioat", "dmatest-one-thread-a-channel", Partner, NEEDS, |bench| {
        few(bench, &Run { threads: 1, buffer: 16 << 10, ..Run::of(20) }, Channels::All)
    }),
    Case::new("ioat", "dmatest-three-threads-a-channel", Partner, NEEDS, |bench| {
        few(bench, &Run { threads: 3, buffer: 1 << 10, ..Run::of(20) }, Channels::All)
    }),
    Case::new("ioat", "dmatest-polled", Partner, NEEDS, |bench| {
        few(bench, &Run { polled: true, buffer: 256, ..Run::of(100) }, Channels::First)
    }),
    Case::new(
        "ioat",
        "a-copy-gives-up-in-time",
        Positive,
        &[
            Need::Peers,
            P2P,
            Need::Path,
            DRIVER,
            CLIENT,
            Need::File(sw_sync::PATH, "CONFIG_SW_SYNC"),
        ],
        third_party::gives_up,
    ),
    Case::new("ioat", "source-that-moves-between-copies", Partner, MOVING, moving::between),
    Case::new("ioat", "source-that-moves-meanwhile", Partner, MOVING, moving::meanwhile),
    Case::new(
        "ioat",
        "read-of-an-unmapped-address",
        Negative,
        &[Need::Vmm, Need::Peers, Need::Path, Need::Translated, DRIVER, CLIENT],
        third_party::read_unmapped,
    ),
    Case::new(
        "ioat",
        "write-to-an-unmapped-address",
        Negative,
        &[Need::Vmm, Need::Peers, Need::Path, Need::Translated, DRIVER, CLIENT],
        third_party::write_unmapped,
    ),
    Case::new(
        "ioat",
        "vfio-read-after-unmap",
        Negative,
        user_space::NEEDS_AND_OWN,
        user_space::unmapped,
    ),
    Case::new("third-party", "kernel-decides-as-predicted", Partner, THIRD_PARTY, paths::decisions),
    Case::new("third-party", "route", Partner, THIRD_PARTY, paths::routes),
    Case::new("third-party", "vfio-route", Partner, user_space::NEEDS, user_space::routes),
    Case::new(
        "ioat-speed",
        "beside-a-peer-device",
        Partner,
        &[Need::Vmm, Need::Peers, DRIVER, DMATEST],
        speed::beside,
    ),
    Case::new("ioat-broken", "swapped-addresses", Partner, NEEDS, broken::swap),
    Case::new("ioat-broken", "lost-completion", Partner, NEEDS, broken::lost_completion),
    Case::new("ioat-broken", "lost-interrupts", Partner, NEEDS, broken::lost_interrupts),
    Case::new("ioat-broken", "corrupted-byte", Partner, NEEDS, broken::corruption),
    Case::new("ioat-million", "dmatest-with-interrupts", Partner, NEEDS, |bench| {
        few(bench, &Run { threads: 2, buffer: 64, ..Run::of(2000) }, Channels::All)
    }),
    Case::new("ioat-million", "dmatest-polled", Partner, NEEDS, |bench| {
        many(bench, MILLION, false)
    }),
    Case::new("ioat-many", "dmatest-with-interrupts", Partner, NEEDS, |bench| {
        many(bench, MANY / 4, true)
    }),
    Case::new("ioat-many", "dmatest-polled", Partner, NEEDS, |bench| many(bench, MANY, false)),
];

/// Both engines on the bus.
fn engines() -> Result<Vec<Function>, Stop> {
    let mut all = Function::all()?;
    all.retain(|function| function.is(VENDOR, SKYLAKE) || function.is(VENDOR, ATOM));
    ensure!(!all.is_empty(), "there is no I/OAT engine on the bus");
    Ok(all)
}

/// The engine number `index` of those that the kernel's tests of VFIO have a driver for.
pub(super) fn skylake(index: usize) -> Result<Function, Stop> {
    let mut all = engines()?.into_iter().filter(|function| function.is(VENDOR, SKYLAKE));
    all.nth(index)
        .ok_or_else(|| Stop::Fail(format!("there is no I/OAT engine 8086:2021 number {index}")))
}

/// The channels that the kernel has from each function.
fn channels() -> Result<BTreeMap<String, Vec<String>>, Stop> {
    let mut channels = BTreeMap::<String, Vec<String>>::new();
    for entry in std::fs::read_dir(CLASS)? {
        let entry = entry?;
        let device = std::fs::canonicalize(entry.path().join("device"))?;
        let device = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        channels.entry(device).or_default().push(entry.file_name().to_string_lossy().into_owned());
    }
    channels.values_mut().for_each(|names| names.sort());
    Ok(channels)
}

/// The driver has taken every engine, its own test of each at that has passed, and it complained of nothing.
fn bound(bench: &mut Bench<'_>) -> Verdict {
    let channels = channels()?;
    for engine in engines()? {
        let driver = engine.driver();
        ensure!(
            driver.as_deref() == Some("ioatdma"),
            "{} is bound to {driver:?}, not to ioatdma",
            engine.name
        );
        let Some(own) = channels.get(&engine.name) else {
            return Err(Stop::Fail(format!("{} is bound and has no channel", engine.name)));
        };
        let id = engine.hexadecimal("device").unwrap_or(0);
        let capabilities = sys::read(Path::new(CLASS).join(&own[0]).join("quickdata/cap"))?;
        bench.note(format!(
            "{} 8086:{id:04x}: {} channels, {capabilities}",
            engine.name,
            own.len()
        ));
    }
    let complaints = complaints(bench.boot, &[]);
    match complaints.iter().find(|record| record.text.contains("ioatdma")) {
        Some(record) => Err(Stop::Fail(format!("the kernel's log: {}", record.text))),
        None => Ok(()),
    }
}

/// Whether the IOMMU translates for an engine.
fn is_translated() -> Result<bool, Stop> {
    let domain = |engine: &Function| engine.attribute("iommu_group/type").unwrap_or_default();
    Ok(engines()?.iter().any(|engine| domain(engine).starts_with("DMA")))
}

/// Which channels a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    /// All of every engine, at the same time.
    All,
    /// The first of every engine, one engine after the other; for each kind of operation another one: so dmatest asks for
    /// them. The driver makes 65536 descriptors ready for each channel that it
    /// opens, which takes a kernel that checks itself most of the time.
    First,
}

/// Runs dmatest; gives what became of it, and how many threads there must have been for each operation.
fn run_dmatest(
    run: &Run,
    on: Channels,
) -> Result<(DmatestResult, BTreeMap<Operation, usize>), Stop> {
    let wanted = threads(run.threads as usize, on)?;
    if on == Channels::All {
        return Ok((run.run(wanted.values().sum())?, wanted));
    }
    let mut all = DmatestResult::default();
    for engine in engines()? {
        let own = threads_of(&engine, run.threads as usize, on)?;
        let DmatestResult { summaries, failures } =
            run.run_first(&engine.name, own.values().sum())?;
        all.summaries.extend(summaries);
        all.failures.extend(failures);
    }
    Ok((all, wanted))
}

/// Runs dmatest once; all of it must succeed. Behind an IOMMU an operation is mostly mapping and
/// unmapping, and takes ten times as long: fewer of them show as much.
fn few(bench: &mut Bench<'_>, run: &Run, on: Channels) -> Verdict {
    const SHARE: u32 = 4;
    let share = if is_translated()? { SHARE } else { 1 };
    let run = Run { iterations: run.iterations.div_ceil(share), ..*run };
    let summaries = verified(bench, &run, on)?;
    bench.note(dmatest::figures(&summaries));
    Ok(())
}

/// n operations in all, each verified.
fn many(bench: &mut Bench<'_>, wanted: u32, interrupts: bool) -> Verdict {
    // A kernel that checks each of its own steps would take hours.
    let wanted = if kernel_config::option("CONFIG_KASAN").is_some() { wanted / 50 } else { wanted };
    let threads = threads(1, Channels::All)?;
    let each = wanted.div_ceil(u32::try_from(threads.values().sum::<usize>()).unwrap_or(1).max(1));
    let run = Run { polled: !interrupts, buffer: 64, ..Run::of(each) };
    let summaries = verified(bench, &run, Channels::All)?;
    let total: u64 = summaries.iter().map(|summary| summary.tests).sum();
    ensure!(total >= u64::from(wanted), "dmatest verified {total} operations only");
    bench.note(dmatest::figures(&summaries));
    Ok(())
}

/// How many threads dmatest starts for each operation, with n for each channel and operation.
fn threads(each: usize, on: Channels) -> Result<BTreeMap<Operation, usize>, Stop> {
    let mut threads = BTreeMap::<Operation, usize>::new();
    for engine in engines()? {
        for (operation, own) in threads_of(&engine, each, on)? {
            *threads.entry(operation).or_default() += own;
        }
    }
    Ok(threads)
}

/// Those on the channels of one engine.
fn threads_of(
    engine: &Function,
    each: usize,
    on: Channels,
) -> Result<BTreeMap<Operation, usize>, Stop> {
    let used = channels_used(engine, on)?;
    Ok(operations_of(engine).iter().map(|operation| (*operation, used * each)).collect())
}

/// What dmatest asks of an engine.
fn operations_of(engine: &Function) -> &'static [Operation] {
    match engine.is(VENDOR, ATOM) {
        true => &[Operation::Copy, Operation::Xor],
        false => &[Operation::Copy],
    }
}

/// How many of an engine's channels dmatest opens.
fn channels_used(engine: &Function, on: Channels) -> Result<usize, Stop> {
    let there = channels()?.get(&engine.name).map_or(0, Vec::len);
    Ok(match on {
        Channels::All => there,
        Channels::First => there.min(operations_of(engine).len()),
    })
}

/// What the threads report of a run in which every operation was verified; anything else is a failure.
fn verified(bench: &mut Bench<'_>, run: &Run, on: Channels) -> Result<Vec<Summary>, Stop> {
    let before = bench.stat()?;
    // Of a thread that waited for a processor for more than 100 ms, between handing a descriptor in and ringing for it:
    // nothing is lost, the driver rings itself. Lost interrupts are counted below.
    bench.expect_message("Completion timeout with pending descriptors");
    let (DmatestResult { summaries, failures }, threads) = run_dmatest(run, on)?;
    if let Some(first) = failures.first() {
        let all = failures.len();
        return Err(Stop::Fail(format!("dmatest: {all} operations failed, the first: {first}")));
    }
    let after = bench.stat()?;
    for (operation, wanted) in threads {
        let own = summaries.iter().filter(|summary| summary.operation == operation);
        ensure!(
            own.clone().count() == wanted,
            "{} threads of dmatest report about {operation:?}, not {wanted}",
            own.count()
        );
    }
    for summary in &summaries {
        ensure!(
            summary.failures == 0 && summary.tests == u64::from(run.iterations),
            "{}: {} of {} operations, {} failures",
            summary.thread,
            summary.tests,
            run.iterations,
            summary.failures
        );
    }
    for engine in engines()? {
        let address = engine.name.trim_start_matches("0000:");
        let count = |what: &str| {
            let path = format!("{what}/{address}");
            let of = |stat: &Counters| stat.counter(&path).unwrap_or(0);
            of(&after).saturating_sub(of(&before))
        };
        ensure!(count("tlps") > 0, "{address}: dmatest ran, and the VMM saw no request of it");
        // The driver's timer would do without interrupts, five times a second. Threads of one channel may share one;
        // each channel has a vector of its own.
        let used = channels_used(&engine, on)?;
        let iterations = if run.polled { 0 } else { run.iterations };
        let interrupts = count("msi");
        ensure!(
            interrupts >= used as u64 * u64::from(iterations),
            "{address}: {interrupts} interrupts, and the threads of each of {used} channels waited {iterations} times \
             for one"
        );
    }
    Ok(summaries)
}
