//! The engine as a third party, assigned to user space together with the peer devices: VFIO maps
//! the memories of the peers for the engine, and does not ask whether Linux allows the path. What
//! the kernel decides for its own drivers does not count here: the addresses are ours, and the
//! IOMMU translates them at the root complex, whatever a switch could do.

use super::client::Channel;
use super::third_party::{SIZE, Shared, await_recovery, carry, first_channels, has_reporting_port};
use super::{LETTING_GO, engines};
use crate::cases::faults::{IOMMU_FAULT, PORT_ERROR, class};
use crate::cases::need::Need;
use crate::cases::partners::{VFIO, VFIO_SAYS};
use crate::cases::topology::{expected, peers};
use crate::cases::traffic::{Traffic, name};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{self, Pattern, Peer};
use crate::partner::binding::Lent;
use crate::partner::container::{self, Container, Mapping};
use crate::partner::user_engine::{READ_DATA, UserEngine};
use crate::partner::vfio::{DRIVER, Device};
use crate::sys::kernel_log::KernelLog;
use crate::sys::pci::Function;
use crate::vmm::{Arrival, Other, Path, PathKind};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where things lie in the address space: far from RAM and interrupts, and where no BAR is on any bus. A switch without
/// ACS turns a request around that has an address of a BAR below it, whatever it was meant to be.
const WINDOWS: u64 = 0x80_0000_0000;
const DESCRIPTORS: u64 = 0xa0_0000_0000;
const END: u64 = 0xc0_0000_0000;
/// Between two of them.
const STRIDE: u64 = 1 << 32;
/// The BAR with a peer device's memory, and which part of it is mapped: data comes from its first half and goes to the
/// second one.
const BAR: u32 = 2;
const OFFSET: u64 = 1 << 20;
const WINDOW: usize = 2 * SIZE;
/// Odd, and different: a mistake of a few bytes shows.
const FROM: usize = 1;
const TO: usize = SIZE + 3;
/// Bytes of each copy, and of one that is meant to fail: more than one payload, within a page.
const LENGTH: usize = (64 << 10) + 1027;
const SHORT: usize = 600;

const TYPE_1: Need = Need::Module(container::MODULE, "vfio_iommu_type1", "CONFIG_VFIO_IOMMU_TYPE1");

/// What it takes. The IOMMU comes first: where there is none, nothing else is to blame.
pub(super) const NEEDS: &[Need] =
    &[Need::Vmm, Need::Peer, Need::Other, Need::Iommu, super::DRIVER, VFIO, TYPE_1];
/// And to see that the kernel's own drivers carry on.
pub(super) const NEEDS_AND_OWN: &[Need] =
    &[Need::Vmm, Need::Peers, Need::Iommu, Need::Path, super::DRIVER, super::CLIENT, VFIO, TYPE_1];

/// The memory of a peer device.
struct Memory {
    function: Function,
    /// In the topology.
    name: String,
    instance: u32,
    mapping: Mapping,
}

impl Memory {
    fn at(&self, offset: usize) -> u64 {
        self.mapping.iova + offset as u64
    }
}

/// An engine, and what is expected of it.
struct Engine {
    function: Function,
    expected: Other,
    user: UserEngine,
}

impl Engine {
    /// Whether its reads out of that memory end with data.
    fn reads(&self, memory: &Memory) -> bool {
        reads(&self.expected, memory.instance)
    }

    /// Whether its writes get into that memory.
    fn writes(&self, memory: &Memory) -> bool {
        writes(&self.expected, memory.instance)
    }

    /// The way of completions with data from that memory. They are routed by the engine's number, and a switch turns them
    /// around although the request came from above.
    fn way_back(&self, memory: &Memory) -> PathKind {
        let path = self.expected.paths.get(memory.instance as usize);
        path.and_then(|path| path.completions.way()).unwrap_or(PathKind::Host)
    }

    /// What is found when a read, or a write, does not get there.
    fn refusal(&self, memory: &Memory) -> Option<&str> {
        let path = self.expected.paths.get(memory.instance as usize)?;
        [&path.by_iova, &path.completions].into_iter().find_map(|arrival| match arrival {
            Arrival::Refused(class) => Some(class.as_str()),
            _ => None,
        })
    }
}

/// All requests go through the root complex here, whatever the kernel thinks of it: its own drivers do not ask.
fn writes(expected: &Other, instance: u32) -> bool {
    let arrives = |path: &Path| path.by_iova.way().is_some();
    expected.paths.get(instance as usize).is_some_and(arrives)
}

fn reads(expected: &Other, instance: u32) -> bool {
    let comes_back = |path: &Path| path.completions.way().is_some();
    writes(expected, instance) && expected.paths.get(instance as usize).is_some_and(comes_back)
}

/// Whether no address of ours is one of the device's memory, on the bus or for the CPUs: it is the IOMMU's business alone.
fn is_off_the_bus(peer: &Peer) -> bool {
    let info = &peer.info;
    let is_outside = |first: u64| first + info.memory_size <= WINDOWS || first >= END;
    is_outside(info.memory_bus) && is_outside(info.memory_phys)
}

/// Does the work for all at once: most of it is waiting, for resets when a device is opened and closed, for drivers.
fn at_once<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> Result<R, Stop> + Sync,
) -> Result<Vec<R>, Stop> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let panicked = |_| Stop::Fail("a thread of the test has panicked".into());
        threads.into_iter().map(|thread| thread.join().map_err(panicked)?).collect()
    })
}

/// Every engine and every peer device in user space's hands. Fields are dropped in this order: all that is open before
/// the drivers go.
struct Taken {
    engines: Vec<Engine>,
    memories: Vec<Memory>,
    /// Open: a device that is not open is asleep, and does not answer.
    devices: Vec<Device>,
    /// With the file that each brings when it is back.
    lent: Vec<(Lent, PathBuf)>,
}

impl Taken {
    fn new(bench: &mut Bench<'_>) -> Result<Self, Stop> {
        bench.expect_messages(VFIO_SAYS);
        bench.expect_message(LETTING_GO);
        let others = expected(bench)?.others;
        let mut own = Vec::new();
        for peer in peers(bench)? {
            ensure!(
                is_off_the_bus(&peer),
                "{}'s memory has addresses that this test wants for itself: {:x?}",
                peer.name(),
                peer.info
            );
            let function = peer.function();
            let iova = WINDOWS + u64::from(peer.instance) * STRIDE;
            own.push((peer.instance, name(bench, &function)?, function, iova));
        }
        bench.close_peers();

        let lend = |(function, file): (Function, PathBuf)| -> Result<_, Stop> {
            Ok((Lent::new(function, DRIVER)?, file))
        };
        let found = self::engines()?;
        let files = found.iter().map(|engine| (engine.clone(), engine.path().join("dma")));
        let mut lent = at_once(files, lend)?;
        for engine in &found {
            refused_beside_others(bench, engine)?;
        }
        let files = own.iter().map(|(instance, _, peer, _)| (peer.clone(), Peer::path(*instance)));
        lent.extend(at_once(files, lend)?);

        let space = Container::new()?;
        let functions = lent.iter().map(|(lent, _)| lent.function.clone());
        let devices = at_once(functions, |function| Ok(space.open(&function)?))?;
        let (of_engines, of_peers) = devices.split_at(found.len());
        let (mut memories, mut engines) = (Vec::new(), Vec::new());
        for ((instance, name, function, iova), device) in own.into_iter().zip(of_peers) {
            let mapping = space.map(device.view(BAR, OFFSET, WINDOW)?, iova)?;
            memories.push(Memory { function, name, instance, mapping });
        }
        for ((function, device), number) in found.into_iter().zip(of_engines).zip(0..) {
            let address = function.address();
            let own = others.iter().find(|other| other.function == address).cloned();
            let expected =
                own.ok_or_else(|| Stop::Fail(format!("the VMM expects nothing of {address}")))?;
            let user = UserEngine::new(device, &space, DESCRIPTORS + number * STRIDE)?;
            engines.push(Engine { function, expected, user });
        }
        Ok(Self { engines, memories, devices, lent })
    }

    /// Gives all of it back to the drivers it came from.
    fn give_back(self) -> Verdict {
        let Self { engines, memories, devices, lent } = self;
        drop((engines, memories));
        at_once(devices.into_iter(), |device| {
            drop(device);
            Ok(())
        })?;
        at_once(lent.into_iter(), |(lent, file)| Ok(lent.give_back(&file)?)).map(drop)
    }

    /// Between which memories `engine` is tried: every two, and within one that is the only one it reaches.
    fn pairs(&self, engine: &Engine) -> Vec<(&Memory, &Memory)> {
        let is_reached = |memory: &Memory| engine.reads(memory) && engine.writes(memory);
        let reached = self.memories.iter().filter(|memory| is_reached(memory)).count();
        let all =
            self.memories.iter().flat_map(|from| self.memories.iter().map(move |to| (from, to)));
        let is_tried = |(from, to): &(&Memory, &Memory)| {
            from.instance != to.instance || (reached == 1 && is_reached(from))
        };
        all.filter(is_tried).collect()
    }

    /// What `engine` moves meanwhile; the peer devices themselves move nothing.
    fn traffic(
        &self,
        bench: &mut Bench<'_>,
        engine: &Engine,
        work: impl FnOnce() -> Verdict,
    ) -> Result<Traffic, Stop> {
        let idle: Vec<_> = self.memories.iter().map(|memory| memory.function.clone()).collect();
        Traffic::during_alone(bench, &engine.function, &idle, work)
    }
}

/// While another driver has a device of the same IOMMU group, VFIO must not hand out this one: both
/// would be in one address space.
fn refused_beside_others(bench: &mut Bench<'_>, engine: &Function) -> Verdict {
    let group = engine.iommu_group();
    let is_beside = |other: &Function| {
        // Bridges do no DMA of their own: their driver lets VFIO have the group.
        let driver = other.driver().filter(|driver| driver != DRIVER && driver != "pcieport");
        other.iommu_group() == group && driver.is_some()
    };
    let Some(other) = Function::all()?.into_iter().find(is_beside) else { return Ok(()) };
    let (engine_address, other) = (engine.address(), other.address().to_owned());
    let found = Container::new()?.open(engine).err().map(|error| (error.call, error.errno));
    ensure!(
        found == Some(("VFIO_GROUP_SET_CONTAINER", Errno::PERM)),
        "{engine_address} shares its IOMMU group with {other}, which has another driver, and VFIO says {found:?}"
    );
    bench.note(format!(
        "VFIO refuses {engine_address} beside {other} with another driver in its IOMMU group"
    ));
    Ok(())
}

/// Copies by every engine. All bytes go through the root complex, data of reads comes back by the way that the topology
/// has for it. Where the root complex does not take the engine's requests to a memory, the mapping is there all the same,
/// and nothing moves: a read ends in CHANERR, a write is lost.
pub(super) fn routes(bench: &mut Bench<'_>) -> Verdict {
    let taken = Taken::new(bench)?;
    let mut refusals = BTreeMap::<String, u32>::new();
    for engine in &taken.engines {
        for (from, to) in taken.pairs(engine) {
            let refused = match (engine.reads(from), engine.writes(to)) {
                (true, true) => continue,
                (false, _) => from,
                (true, false) => to,
            };
            let class = engine.refusal(refused).unwrap_or(class::PEER_TO_PEER_REFUSED);
            *refusals.entry(class.to_owned()).or_default() += 1;
        }
    }
    for (class, count) in &refusals {
        bench.expect(class, *count, Some(*count))?;
    }
    for engine in &taken.engines {
        let (mut copies, mut refused, mut lost) = (0, 0, 0);
        for (from, to) in taken.pairs(engine) {
            let what = format!("{} from {} to {}", engine.expected.name, from.name, to.name);
            let (attempt, count): (fn(&mut _, &_, &_, &_, &_) -> _, _) =
                match (engine.reads(from), engine.writes(to)) {
                    (true, true) => (copy, &mut copies),
                    (true, false) => (lose, &mut lost),
                    (false, _) => (refuse, &mut refused),
                };
            attempt(bench, &taken, engine, from, to).map_err(|stop: Stop| stop.of(&what))?;
            *count += 1;
        }
        bench.note(format!(
            "{}: {copies} copies of {LENGTH} bytes, {refused} reads refused, {lost} writes lost",
            engine.expected.name
        ));
    }
    taken.give_back()
}

/// Pattern in the source, another one in the target, and the descriptor of a copy between them.
fn prepare(
    engine: &Engine,
    from: &Memory,
    to: &Memory,
    length: usize,
) -> Result<[Pattern; 2], Stop> {
    let (new, old) = (Pattern::new(75), Pattern::new(76));
    from.mapping.view().store(FROM..FROM + length, new);
    to.mapping.view().store(TO..TO + length, old);
    engine.user.describe(from.at(FROM), to.at(TO), u32::try_from(length)?);
    Ok([new, old])
}

/// Has the engine carry out its descriptors: it must end so.
fn run(engine: &Engine, error: u32) -> Verdict {
    let found = engine.user.run()?;
    ensure!(found == error, "CHANERR is {found:#x} in the end, not {error:#x}");
    Ok(())
}

fn copy(
    bench: &mut Bench<'_>,
    taken: &Taken,
    engine: &Engine,
    from: &Memory,
    to: &Memory,
) -> Verdict {
    let [new, _] = prepare(engine, from, to, LENGTH)?;
    let traffic = taken.traffic(bench, engine, || run(engine, 0))?;
    to.mapping.view().expect(TO..TO + LENGTH, new, FROM as u64)?;
    let length = LENGTH as u64;
    traffic.expect_read(engine.way_back(from), length..=length)?;
    traffic.expect_written(PathKind::Host, length..=length)?;
    traffic.expect_carried(&from.name, &to.name, length)
}

/// The root complex does not take the read there.
fn refuse(
    bench: &mut Bench<'_>,
    taken: &Taken,
    engine: &Engine,
    from: &Memory,
    to: &Memory,
) -> Verdict {
    let [_, old] = prepare(engine, from, to, SHORT)?;
    let traffic = taken.traffic(bench, engine, || run(engine, READ_DATA))?;
    traffic.expect_none_between_devices()?;
    Ok(to.mapping.view().expect(TO..TO + SHORT, old, TO as u64)?)
}

/// Nor the write, and that is posted: the engine cannot know. The port above it reports it to the
/// kernel.
fn lose(
    bench: &mut Bench<'_>,
    taken: &Taken,
    engine: &Engine,
    from: &Memory,
    to: &Memory,
) -> Verdict {
    bench.expect_messages(PORT_ERROR);
    let mut log = KernelLog::open()?;
    log.drain();
    let [_, old] = prepare(engine, from, to, SHORT)?;
    let traffic = taken.traffic(bench, engine, || run(engine, 0))?;
    traffic.expect_read(engine.way_back(from), SHORT as u64..=SHORT as u64)?;
    traffic.expect_written(PathKind::Host, 0..=0)?;
    to.mapping.view().expect(TO..TO + SHORT, old, TO as u64)?;
    if has_reporting_port(&engine.function) { await_recovery(&mut log) } else { Ok(()) }
}

/// VFIO takes a memory out of the address space: the descriptor that has just been carried out ends in CHANERR, and not a
/// byte moves. Mapped again, it is carried out again; and so it goes on, when all have their own drivers back.
pub(super) fn unmapped(bench: &mut Bench<'_>) -> Verdict {
    let mut able = expected(bench)?.others;
    able.retain(|other| reads(other, 0) && writes(other, 1));
    if able.is_empty() {
        let [one, other] = [0, 1].map(device::name);
        let reason = format!("no engine reaches both {one}'s memory and {other}'s, mapped or not");
        return Err(Stop::Skip(reason));
    }
    let is_able = |engine: &Function| able.iter().any(|own| own.function == engine.address());
    let findings = u32::try_from(able.len())?;
    bench.expect(class::STALE, findings, Some(findings))?;
    bench.expect_messages(IOMMU_FAULT);
    let mut taken = Taken::new(bench)?;
    for number in 0..taken.engines.len() {
        if is_able(&taken.engines[number].function) {
            read_after_unmap(bench, &mut taken, number)?;
        }
    }
    taken.give_back()?;
    let (peer0, peer1) = bench.take_peers()?;
    let (one, other) = (Shared::new(&peer0)?, Shared::new(&peer1)?);
    for (_, name) in engines()?.iter().zip(first_channels()?).filter(|(own, _)| is_able(own)) {
        carry(&Channel::new(&name)?, &one, &other, 77, 5000)?;
    }
    one.close()?;
    other.close()
}

fn read_after_unmap(bench: &mut Bench<'_>, taken: &mut Taken, number: usize) -> Verdict {
    let [from, to] = [0, 1];
    let arrives = |taken: &Taken, new| -> Verdict {
        run(&taken.engines[number], 0)?;
        Ok(taken.memories[to].mapping.view().expect(TO..TO + SHORT, new, FROM as u64)?)
    };
    let (engine, target) = (&taken.engines[number], &taken.memories[to]);
    let [new, old] = prepare(engine, &taken.memories[from], target, SHORT)?;
    arrives(taken, new)?;
    target.mapping.view().store(TO..TO + SHORT, old);
    taken.memories[from].mapping.unmap()?;
    let traffic = taken.traffic(bench, engine, || run(engine, READ_DATA))?;
    traffic.expect_none_between_devices()?;
    target.mapping.view().expect(TO..TO + SHORT, old, TO as u64)?;
    taken.memories[from].mapping.map()?;
    arrives(taken, new)
}
