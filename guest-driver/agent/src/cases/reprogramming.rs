//! Bridges that are reprogrammed while devices work: nothing crashes, requests fail as they do on
//! hardware, and once the registers are as before, so is everything else.

use super::Kind::Negative;
use super::bench::succeeded;
use super::busy::{is_to_come, too_busy};
use super::faults::{PORT_ERROR, class};
use super::lane::{Engine, Lane};
use super::lifecycle::reset;
use super::need::Need;
use super::surprise::failures;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Peer, WAIT_MS, Work};
use crate::sys::FileError;
use crate::sys::config_space::extended;
use crate::sys::pci::Function;
use crate::sys::processors;
use crate::uapi;

const NEEDS: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Path, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new("reprogramming", "window-to-memory-closed-under-load", Negative, NEEDS, no_memory),
    Case::new("reprogramming", "window-to-memory-moved-under-load", Negative, NEEDS, elsewhere),
    Case::new(
        "reprogramming",
        "window-to-registers-closed-under-load",
        Negative,
        NEEDS,
        no_registers,
    ),
    Case::new("reprogramming", "bus-numbers-changed-under-load", Negative, NEEDS, other_bus),
];

/// Bytes of each piece of work.
const LENGTH: u64 = 8 << 20;
/// How many are queued on each channel: more than can be done before the register is written, if not at first then
/// with the next number.
const PIECES: [u32; 3] = [32, 128, 256];

/// Registers of a bridge (PCIe 6.0, 7.5.1.3).
const BUS_NUMBERS: u16 = 0x18;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
/// A window whose base is above its limit is closed.
const CLOSED: u32 = 0x0000_fff0;
/// Secondary and subordinate bus 0x70, which no bridge has.
const ELSEWHERE: u32 = 0x0070_7000;

/// A register of a bridge that has another value for a while, also when the test fails meanwhile.
#[derive(Debug)]
struct Reprogrammed {
    bridge: Function,
    register: u16,
    before: u32,
}

impl Reprogrammed {
    fn new(
        bridge: &Function,
        register: u16,
        change: impl Fn(u32) -> u32,
    ) -> Result<Self, FileError> {
        let before = bridge.config_space()?.u32(register.into());
        bridge.write_config(register, change(before))?;
        Ok(Self { bridge: bridge.clone(), register, before })
    }

    /// As it was.
    fn restore(self) -> Verdict {
        self.bridge.write_config(self.register, self.before)?;
        let now = self.bridge.config_space()?.u32(self.register.into());
        ensure!(now == self.before, "{:#x} holds {now:#010x} now", self.register);
        Ok(())
    }
}

impl Drop for Reprogrammed {
    fn drop(&mut self) {
        // A second time does no harm; a failure has been reported by then.
        let _ = self.bridge.write_config(self.register, self.before);
    }
}

fn port_above(peer: &Peer) -> Result<Function, Stop> {
    let name = peer.function().name;
    peer.function().upstream().ok_or_else(|| Stop::Skip(format!("{name} has no port above it")))
}

/// The second device reads and writes the memory of the first, while `change` happens to a register of the port above
/// one of them; how many reads and writes there were, and how many of them failed.
fn under_load(
    lanes: &[Lane<'_>; 2],
    change: impl Fn() -> Result<Reprogrammed, Stop>,
    meanwhile: impl Fn() -> Verdict,
) -> Result<(u32, [usize; 2]), Stop> {
    for pieces in PIECES {
        let (to_come, failed) = attempt(lanes, pieces, &change, &meanwhile)?;
        if failed[0] > 0 {
            return Ok((pieces, failed));
        }
        ensure!(!to_come, "every read was done, although the register was written before");
    }
    Err(too_busy())
}

/// Gives whether any read was to come when the register had been written, and how many failed.
fn attempt(
    lanes: &[Lane<'_>; 2],
    pieces: u32,
    change: impl Fn() -> Result<Reprogrammed, Stop>,
    meanwhile: impl Fn() -> Verdict,
) -> Result<(bool, [usize; 2]), Stop> {
    let engine = lanes[0].engine;
    let mut pending = [Vec::new(), Vec::new()];
    for _ in 0..pieces {
        for ((lane, pending), channel) in lanes.iter().zip(&mut pending).zip(0..) {
            pending.push(engine.submit(lane.work(0, 0, LENGTH).on(channel))?);
        }
    }
    succeeded(engine, engine.wait(pending[0].remove(0), WAIT_MS)?)?;
    let changed = change()?;
    let to_come = is_to_come(engine, &pending[0])?;
    let mut failed = [0; 2];
    for (failed, pending) in failed.iter_mut().zip(pending) {
        *failed = failures(engine, pending)?;
    }
    meanwhile()?;
    changed.restore()?;
    Ok((to_come, failed))
}

fn lanes<'p>(owner: &'p Peer, engine: &'p Peer) -> Result<[Lane<'p>; 2], Stop> {
    let pull = Lane::new(owner, engine, Engine::Target, LENGTH, 1)?;
    Ok([pull, Lane::new(engine, owner, Engine::Source, LENGTH, 1)?])
}

/// Closes or moves the window to the memory of the first device.
fn without_memory(bench: &mut Bench<'_>, change: impl Fn(u32) -> u32 + Copy) -> Verdict {
    bench.expect(class::NO_TARGET, 2, None)?;
    bench.expect_messages(PORT_ERROR);
    let (owner, engine) = bench.take_peers()?;
    let port = port_above(&owner)?;
    let lanes = lanes(&owner, &engine)?;
    let view = owner.view(lanes[0].source)?;
    view.set_word(0, 0x0123_4567_89ab_cdef);
    let unreachable = || {
        let word = view.word(0);
        ensure!(word == u64::MAX, "the CPU reads {word:#x} where no window leads");
        Ok(())
    };
    let (pieces, [reads, writes]) = under_load(
        &lanes,
        || Ok(Reprogrammed::new(&port, PREFETCHABLE_WINDOW, change)?),
        unreachable,
    )?;
    bench.note(format!("of {pieces} each: {reads} reads, {writes} writes failed"));
    let word = view.word(0);
    ensure!(word != u64::MAX, "the CPU reads {word:#x} after the window is back");
    lanes.into_iter().try_for_each(Lane::close)
}

fn no_memory(bench: &mut Bench<'_>) -> Verdict {
    without_memory(bench, |_| CLOSED)
}

/// To the uppermost MiB below a multiple of 4 GiB, where no BAR is: the upper halves of base and limit stay.
fn elsewhere(bench: &mut Bench<'_>) -> Verdict {
    without_memory(bench, |before| before & 0x000f_000f | 0xfff0_fff0)
}

/// The driver reaches its device no more, not even to stop it: it gives its work up, and needs a reset afterwards.
fn no_registers(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(class::BUS_MASTER_OFF, 0, None)?;
    bench.expect_messages(PORT_ERROR);
    let (owner, other) = bench.take_peers()?;
    let port = port_above(&owner)?;
    let local = owner.alloc(LENGTH, 1)?;
    let system = owner.system(LENGTH, 0, uapi::BIDIRECTIONAL)?;
    let copy = || Work::copy(local.at(0), system.at(0), LENGTH);
    let mut pending = Vec::new();
    for _ in 0..PIECES[0] {
        pending.push(owner.submit(copy())?);
    }
    succeeded(&owner, owner.wait(pending.remove(0), WAIT_MS)?)?;
    let closed = Reprogrammed::new(&port, MEMORY_WINDOW, |_| CLOSED)?;
    pending.push(owner.submit(copy())?);
    let failed = failures(&owner, pending)?;
    closed.restore()?;
    ensure!(failed > 0, "work succeeded whose doorbell cannot have been heard");
    reset(&owner.function())?;
    succeeded(&owner, owner.run(copy())?)?;
    owner.close(system)?;
    owner.close(local)?;
    drop((owner, other));
    Ok(())
}

/// The bus of the working device lies outside the port's bus numbers now: its requests are spoofed,
/// says ACS Source Validation; without it they pass, and completions do not find back.
fn other_bus(bench: &mut Bench<'_>) -> Verdict {
    let (owner, engine) = bench.take_peers()?;
    let port = port_above(&engine)?;
    let validates = validates_source(&port)?;
    bench.expect(class::ACS_VIOLATION, u32::from(validates), None)?;
    bench.expect(class::COMPLETION_TIMEOUT, u32::from(!validates), None)?;
    bench.expect_messages(PORT_ERROR);
    // The driver waits for a device that cannot say anything, and says so.
    bench.expect_message("peerdma");
    let lanes = lanes(&owner, &engine)?;
    let function = engine.function();
    let unreachable = || {
        let id = function.config_space()?.u32(0);
        ensure!(id == u32::MAX, "{} is still found below its old bus: {id:#010x}", function.name);
        Ok(())
    };
    let (pieces, [reads, writes]) = under_load(
        &lanes,
        || Ok(Reprogrammed::new(&port, BUS_NUMBERS, |before| before & 0xff00_00ff | ELSEWHERE)?),
        unreachable,
    )?;
    bench.note(format!(
        "of {pieces} each: {reads} reads, {writes} writes failed; source validation {}",
        if validates { "on" } else { "off" }
    ));
    // Recovery from reported errors goes on for a moment, and reaches the device again.
    processors::let_handlers_finish();
    lanes.into_iter().try_for_each(Lane::close)
}

/// ACS Source Validation (PCIe 6.0, 7.7.11.3).
fn validates_source(port: &Function) -> Result<bool, Stop> {
    const CONTROL: usize = 6;
    let config = port.config_space()?;
    Ok(config.find_extended(extended::ACS).is_some_and(|at| config.u16(at + CONTROL) & 1 != 0))
}
