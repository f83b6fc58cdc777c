//! Does dmatest notice? The engine misbehaves on request, by a register that hardware does not
//! have, and every thread must report an error; once it behaves again, all must pass.
//!
//! Without an IOMMU only: with one the engine would be caught at writing where it may not, before
//! dmatest sees a byte.

use super::dmatest::{DmatestResult, Run, Summary};
use super::{Channels, engines, few, run_dmatest, verified};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::View;
use crate::sys;
use crate::sys::kernel_log::{KernelLog, OVERWRITTEN};
use std::fs::File;

/// The register for misbehaviour in BAR 0, and what can be asked of it: `device-models/src/endpoint/ioat/regs.rs`.
const FAULT: usize = 0x3000;
const BAR_SIZE: usize = 0x4000;
const NONE: u32 = 0;
const SWAP: u32 = 1;
const LOSE_COMPLETION: u32 = 2;
const DROP_INTERRUPT: u32 = 3;
const CORRUPT_DATA: u32 = 4;
const STICKY: u32 = 0x100;
/// What the driver says before it resets a channel that makes no progress.
const RESET: &str = "CHANSTS: ";
/// It does so after two turns of its timer, 100 ms each: so no operation that it gave up was one among many in a second.
const GIVEN_UP: f64 = 5.0;
/// Milliseconds within which an operation ends although the guest is emulated twice.
const PATIENT: u32 = 3000;

/// The registers for misbehaviour of all engines.
struct Faults(Vec<View>);

impl Faults {
    fn new() -> Result<Self, Stop> {
        let open = |path| File::options().read(true).write(true).open(path);
        let view = |engine: crate::sys::pci::Function| {
            Ok(View::new(open(engine.path().join("resource0"))?, BAR_SIZE, 0)?)
        };
        engines()?.into_iter().map(view).collect::<Result<_, Stop>>().map(Self)
    }

    fn set(&self, fault: u32) {
        self.0.iter().for_each(|view| view.set_dword(FAULT, fault));
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.set(NONE);
    }
}

/// dmatest logs each wrong byte, and a console is slow: while this lives it shows none of it, the
/// kernel's log all.
struct QuietConsole(String);

impl QuietConsole {
    /// How important a message must be for the console, and other levels behind it.
    const LEVELS: &str = "/proc/sys/kernel/printk";

    fn new() -> Result<Self, Stop> {
        let before = sys::read(Self::LEVELS)?;
        sys::write(Self::LEVELS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for QuietConsole {
    fn drop(&mut self) {
        let _ = sys::write(Self::LEVELS, &self.0);
    }
}

/// One operation a thread, all of them with this fault; each waits n milliseconds for its end. A thread is content
/// only if `excuse` takes its summary for that of an operation which the driver gave up, and the driver says so.
fn broken(
    bench: &mut Bench<'_>,
    fault: u32,
    symptom: &str,
    timeout: u32,
    excuse: fn(&Summary) -> bool,
) -> Verdict {
    // What it found wrong with which byte, and that was too much if the log is small.
    bench.expect_message("dmatest: ");
    bench.expect_message(OVERWRITTEN);
    let quiet = QuietConsole::new()?;
    let faults = Faults::new()?;
    let run = Run { buffer: 64, timeout, ..Run::of(1) };
    let mut log = KernelLog::open()?;
    log.drain();
    faults.set(fault | STICKY);
    let (DmatestResult { summaries, failures }, _) = run_dmatest(&run, Channels::First)?;
    faults.set(NONE);
    drop(quiet);
    if let Some(first) = failures.first() {
        println!("  dmatest: {first}");
    }
    let resets = log.drain().iter().filter(|record| record.text.contains(RESET)).count();
    let is_noticed = |one: &Summary| one.failures == 1 || (resets > 0 && excuse(one));
    ensure!(
        summaries.iter().all(is_noticed),
        "dmatest is content with an engine that is broken: {summaries:?}; the driver reset a channel {resets} times"
    );
    let other = failures.iter().find(|failure| !failure.contains(symptom));
    ensure!(other.is_none(), "dmatest says {other:?}, not {symptom:?}");
    let failed = summaries.iter().filter(|summary| summary.failures == 1).count();
    ensure!(
        failed > 0,
        "dmatest itself noticed nothing; the driver reset a channel {resets} times: {summaries:?}"
    );
    let given_up = summaries.len() - failed;
    bench.note(match given_up {
        0 => format!("{failed} threads, each says {symptom:?}"),
        _ => format!("{failed} threads say {symptom:?}, {given_up} were given up by the driver"),
    });
    few(bench, &Run::of(5), Channels::First)
}

/// It writes to what dmatest has mapped for reading: the witness of mappings sees that.
pub(super) fn swap(bench: &mut Bench<'_>) -> Verdict {
    bench.expect_witnessed("witness.direction", 1, None)?;
    broken(bench, SWAP, "data error", PATIENT, |_| false)
}

pub(super) fn corruption(bench: &mut Bench<'_>) -> Verdict {
    broken(bench, CORRUPT_DATA, "data error", PATIENT, |_| false)
}

pub(super) fn lost_completion(bench: &mut Bench<'_>) -> Verdict {
    // The driver gives up waiting, resets the channel and says so.
    bench.expect_message("ioatdma ");
    // None of them can come in time, so there is no need to wait long. When the driver gives a channel up it ends what is
    // behind the operation that failed, and dmatest, which asks for no result, takes that for done: where the record of
    // the channel's own first descriptor was lost before.
    broken(bench, LOSE_COMPLETION, "test timed out", 1000, |one| one.rate < GIVEN_UP)
}

/// The driver looks by itself after 100 ms, and whenever a client asks how a copy stands, as dmatest does before it calls
/// one lost: no time-out makes it notice. The VMM counts.
pub(super) fn lost_interrupts(bench: &mut Bench<'_>) -> Verdict {
    let faults = Faults::new()?;
    faults.set(DROP_INTERRUPT | STICKY);
    // Now and then no thread looks before dmatest's time is up.
    let seen = verified(bench, &Run { timeout: 1000, ..Run::of(1) }, Channels::First);
    faults.set(NONE);
    match seen {
        Err(Stop::Fail(reason)) if reason.contains(" 0 interrupts") => bench.note(reason),
        other => return Err(Stop::Fail(format!("no interrupt is sent, and that gives {other:?}"))),
    }
    few(bench, &Run::of(5), Channels::First)
}
