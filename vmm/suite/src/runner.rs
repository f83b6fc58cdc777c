//! Runs the guests of a job on this machine's KVM: in a nested test host, on that machine's.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use device_models::system::System;
use peerdma_machine::boot::acpi::PciConfig;
use peerdma_machine::boot::{KernelBoot, Protocol};
use peerdma_machine::debug::gdb;
use peerdma_machine::jitter::{Stalls, Stream};
use peerdma_machine::runtime::{Interrupts, RuntimeBus};
use peerdma_machine::{
    Backends, CpuProfile, Machine, MachineConfig, MachineError, Platform, RunEnd, StopHandle,
    Workload,
};
use peerdma_topology::assembly::AssemblyError;
use peerdma_trace::{Header, Output, RecordSummary, Recording, ring_file};
use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::console::{ConsoleWatch, Outputs};
use super::control::{Controlled, link};
use super::event::{Event, Events};
use super::exchange::Link;
use super::files::{Files, Folder};
use super::hello::TooLong;
use super::history::History;
use super::job::{GuestRun, Job};
use super::judge::{End, Ending, Judge};
use super::pause::Pauser;
use super::port::{Findings, Freezer, JudgePort, SharedJudge};
use super::scene;
use crate::host::ctrl_c::{Hook, interrupted};
use crate::report::ScenarioReport;

/// How long console input waits for a guest that does not read.
const INPUT_PAUSE: Duration = Duration::from_millis(5);

/// Where the guest's virtio-rng gets its entropy: the host's generator, as it is. A test host that has just started has
/// not collected much yet, and `/dev/urandom` would spend seconds on that, with the devices and so the whole guest waiting.
#[derive(Debug)]
struct Entropy;

impl Read for Entropy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(getrandom(buffer, GetRandomFlags::INSECURE)?)
    }
}

/// A stream in both directions.
pub struct Duplex {
    /// What comes.
    pub input: Box<dyn Read + Send>,
    /// Where answers go.
    pub output: Box<dyn Write + Send>,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

/// What the user of an interactive guest reaches it by.
#[derive(Debug, Default)]
pub struct Channels {
    /// Keys and screen of its console.
    pub console: Option<Duplex>,
    /// Requests of the control channel.
    pub control: Option<Duplex>,
    /// A debugger's messages.
    pub gdb: Option<Duplex>,
    /// What is shared with it.
    pub exchange: Option<Link>,
}

/// Why a guest could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The devices.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The command.
    #[error(transparent)]
    Hello(#[from] TooLong),
    /// A file.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as in "reading".
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A thread.
    #[error("the host gave no thread: {0}")]
    Thread(#[source] io::Error),
}

impl RunError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// What is left of a job.
struct Waiting<'a> {
    runs: std::slice::Iter<'a, GuestRun>,
    channels: Channels,
}

/// Runs the guests in their order, [`Job::at_once`] beside each other, and reports to `events`.
/// What they leave goes into `files`, `channels` to the interactive one.
pub fn run(job: &Job, files: &dyn Files, channels: Channels, events: &Events) {
    let waiting = Mutex::new(Waiting { runs: job.runs.iter(), channels });
    let lane = || while one(job, files, &waiting, events) {};
    thread::scope(|scope| {
        for _ in 1..job.at_once.min(job.runs.len()) {
            // Without another thread this one does it all, only later.
            let builder = thread::Builder::new().name("guest".into());
            if let Err(error) = builder.spawn_scoped(scope, lane) {
                log::warn!("guests run one after the other: {error}");
            }
        }
        lane();
    });
    events.send(Event::Done);
}

/// Runs the next guest; false when there is none, or the user has had enough.
fn one(job: &Job, files: &dyn Files, waiting: &Mutex<Waiting<'_>>, events: &Events) -> bool {
    let (run, channels) = {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.runs.next().filter(|_| !interrupted());
        let Some(run) = next else { return false };
        // Reported under the lock: reports come in the order in which guests begin, which is that
        // of the job.
        events.send(Event::Started { scenario: run.name.clone(), limit: run.limit.unwrap_or(0) });
        (run, if run.interactive { take(&mut waiting.channels) } else { Channels::default() })
    };
    let report = guest(job, run, files, channels, events).unwrap_or_else(|error| {
        let mut report = ScenarioReport::new(&run.name);
        report.failures.push(format!("the guest could not be run: {error}"));
        report.conclude();
        report
    });
    events.send(Event::Ended { report: Box::new(report) });
    true
}

fn guest(
    job: &Job,
    run: &GuestRun,
    files: &dyn Files,
    channels: Channels,
    events: &Events,
) -> Result<ScenarioReport, RunError> {
    let mut judge = Judge::new(&run.hello, run.at_least, events.clone())?;
    if run.all_findings {
        judge.list_each_finding();
    }
    let plan = run.system.plan().map_err(AssemblyError::from)?;
    judge.suppress(&run.suppressions, &plan.addresses());
    judge.stop_on(&run.stop_on);
    judge.pause_on(&run.pause_on);
    judge.expect(&run.expectations, plan.addresses());
    let judge = SharedJudge::new(judge);
    let watch = ConsoleWatch::default();
    let (input, screen) = match channels.console {
        Some(Duplex { input, output }) => (Some(input), Some(output)),
        None => (None, None),
    };
    let log = match &run.console_log {
        Some(name) => Some(create(files, Folder::Out, name)? as Box<dyn Write + Send>),
        None => None,
    };
    let screen = Outputs::new(watch.clone(), screen, log);

    let vcpus = u8::try_from(run.cpus).unwrap_or(u8::MAX);
    let platform = Platform::new(vcpus, run.memory)?;
    let interrupts = Box::new(Interrupts::new(platform.msi()));
    let system_config = run.system.clone();
    let mut system =
        system_config.build_planned(&plan, platform.ram().memory(), interrupts, Entropy)?;
    let recording = start_recording(job, run, files, &system, &platform)?;
    if let Some((recording, _)) = &recording {
        system.add_observer(Box::new(recording.recorder()));
        judge.lock().record_marks(recording.clone());
    }
    let freezer = Freezer::default();
    let names = system.address_map().functions().map(|(_, node)| node.name.to_string()).collect();
    let pauser = Pauser::new(&run.name, events.clone());
    let history = History::new(names);
    let findings = Findings::new(judge.clone(), history, freezer.clone(), pauser.clone());
    system.add_observer(Box::new(findings));
    let stalls = job.jitter.map(Stalls::of);
    let jitter = stalls.as_ref().map(|stalls| stalls.stream(Stream::Devices));
    let (bus, engine) = RuntimeBus::new(system, jitter).map_err(RunError::Thread)?;
    let open = |path: &Path| File::open(path).map_err(RunError::file("opening", path));
    let kernel = KernelBoot {
        kernel: open(&job.kernel)?.into(),
        initramfs: Some(open(run.initramfs.as_ref().unwrap_or(&job.initramfs))?.into()),
        command_line: run.command_line(),
        protocol: Protocol::Auto,
    };
    let config = MachineConfig {
        workload: Workload::Kernel(Box::new(kernel)),
        cpu_profile: CpuProfile::of(&system_config.topology),
        pci: Some(PciConfig::of(&plan)),
    };
    let protocol =
        Box::new(JudgePort { judge: judge.clone(), bus: bus.clone(), link: channels.exchange });
    let machine = Machine::new(
        platform,
        config,
        bus.clone(),
        Backends { console: Box::new(screen), protocol },
    )?
    .with_stalls(stalls.clone());
    let stop = machine.stop_handle();
    freezer.arm(stop.clone(), &bus);
    pauser.arm(&machine.debug_handle(), &bus);
    if let Some(Duplex { input, output }) = channels.control {
        let guest = Controlled {
            scenario: run.name.clone(),
            begun: Instant::now(),
            bus: bus.clone(),
            machine: machine.debug_handle(),
            stop: stop.clone(),
            pauser: pauser.clone(),
            judge: judge.clone(),
        };
        start("control-channel", move || link::serve(input, output, &guest))?;
    }
    let _hook = {
        let stop = stop.clone();
        Hook::new(move || stop.stop())
    };
    if let Some(input) = input {
        let keys = machine.console_input();
        let feeder = move || feed(input, &stop, |bytes| keys.send(bytes));
        start("console-input", feeder)?;
    }
    if let Some(Duplex { input, output }) = channels.gdb {
        let (machine, halt) = (machine.debug_handle(), Box::new(pauser));
        start("gdb", move || gdb::serve(input, output, machine, halt))?;
    }
    let outcome = machine.run(run.limit.map(Duration::from_secs))?;
    drop(engine);
    let stopped = judge.lock().stopped().cloned();
    let scene = stopped.as_ref().map(|stopped| scene::lines(stopped, &bus)).unwrap_or_default();
    // What was overtaken and never pushed is found even if the delay was not switched off.
    bus.end_delays();
    let counters = bus.counters().totals();
    let end = End {
        ending: match stopped {
            Some(_) => Ending::StoppedOnFinding,
            None => ending(outcome, run.limit),
        },
        complaints: watch.complaints(),
        console_tail: watch.tail(),
    };
    let mut report = judge.lock().finish(end);
    report.counters = counters;
    report.setup.clone_from(&run.setup);
    report.scene = scene;
    let mut incomplete = Vec::new();
    if let Some((recording, name)) = recording {
        let path = files.path(Folder::Record, &name);
        let finished = recording.finish().and_then(|summary| {
            let parts = 0..summary.files.count.max(1);
            parts
                .map(|slot| files.settle(Folder::Record, &ring_file(&name, slot)))
                .collect::<io::Result<Vec<_>>>()
                .map(|_| summary)
        });
        match finished {
            Ok(summary) => {
                report.notes.extend(incompleteness(&summary, &path));
                let milliseconds = u64::try_from(summary.stalled.as_millis()).unwrap_or(u64::MAX);
                for (name, value) in [
                    ("record-entries", summary.events),
                    ("record-bytes", summary.bytes),
                    ("record-lost", summary.lost),
                    ("record-stalls", summary.stalls),
                    ("record-stalled-ms", milliseconds),
                ] {
                    report.counters.insert(name.into(), value);
                }
            }
            Err(error) => {
                incomplete.push(format!("the trace {} is not complete: {error}", path.display()));
            }
        }
    }
    let log = run.console_log.as_ref().map_or(Ok(()), |name| files.settle(Folder::Out, name));
    if let Some(error) = watch.log_error().or_else(|| log.err().map(|error| error.to_string())) {
        incomplete.push(format!("the console's log is not complete: {error}"));
    }
    if let Some(stalls) = stalls {
        let (devices, processors) = (stalls.of_devices(), stalls.of_processors());
        report.counters.insert("stalls-devices".into(), devices);
        report.counters.insert("stalls-processors".into(), processors);
        // Tests that report have both sides at work; others' may not.
        if run.at_least > 0 && (devices == 0 || processors == 0) {
            incomplete.push(format!(
                "the jitter had no effect: devices stood still {devices} times, processors {processors} times"
            ));
        }
    }
    if !incomplete.is_empty() {
        report.failures.append(&mut incomplete);
        report.conclude();
    }
    Ok(report)
}

/// Starts a thread that ends when its input does.
fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).map_err(RunError::Thread)
}

/// What a trace lacks, as its options have it: no failure.
fn incompleteness(summary: &RecordSummary, path: &Path) -> Option<String> {
    let RecordSummary { files, cut, bytes, .. } = summary;
    let newest = ring_file(path, files.newest);
    if *cut {
        let path = path.display();
        Some(format!(
            "the trace {path} was cut at its limit, {bytes} bytes: what came behind is not in it (--record-limit, \
             --record-ring)"
        ))
    } else if files.overwritten {
        Some(format!(
            "the trace is a ring of {} files that has overwritten its beginning; the newest is {}. It can be shown, not \
             replayed",
            files.count,
            newest.display()
        ))
    } else if files.count > 1 {
        let (count, newest) = (files.count, newest.display());
        Some(format!("the trace is a ring of {count} files, {} to {newest}", path.display()))
    } else {
        None
    }
}

/// Begins the trace, if one is wanted.
fn start_recording(
    job: &Job,
    run: &GuestRun,
    files: &dyn Files,
    system: &System,
    platform: &Platform,
) -> Result<Option<(Recording, PathBuf)>, RunError> {
    let (Some(_), Some(name)) = (&job.record, &run.record) else { return Ok(None) };
    let ram = platform
        .ram()
        .memory()
        .iter()
        .map(|region| (region.start_addr().0, region.len()))
        .collect();
    let header = Header::of(&run.system, ram, system, job.recording.payload);
    let begun = match job.recording.ring {
        Some(_) => Recording::ring(files.ring(Folder::Record, name), &header, job.recording),
        None => Recording::new(create(files, Folder::Record, name)?, &header, job.recording),
    };
    let recording = begun.map_err(RunError::file("writing", &files.path(Folder::Record, name)))?;
    Ok(Some((recording, name.clone())))
}

fn create(files: &dyn Files, folder: Folder, name: &Path) -> Result<Box<dyn Output>, RunError> {
    files.create(folder, name).map_err(RunError::file("writing", &files.path(folder, name)))
}

fn ending(outcome: RunEnd, limit: Option<u64>) -> Ending {
    match outcome {
        RunEnd::Exit(code) => Ending::Exit(code),
        RunEnd::PowerOff => Ending::PowerOff,
        RunEnd::Stopped if interrupted() => Ending::Interrupted,
        RunEnd::Stopped => limit.map_or(Ending::Interrupted, |limit| Ending::TimedOut { limit }),
        RunEnd::Reset | RunEnd::Fault(_) => Ending::Broke(outcome.to_string()),
    }
}

/// Feeds keys to the guest until they end or the guest does.
fn feed(mut input: impl Read, stop: &StopHandle, send: impl Fn(&[u8]) -> usize) {
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        let mut bytes = buffer.get(..count).unwrap_or_default();
        while !bytes.is_empty() {
            if stop.ended() {
                return;
            }
            let taken = send(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == 0 {
                thread::sleep(INPUT_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::event::QUEUE;
    use crate::files::Local;
    use crate::hello::{Hello, Mode};
    use peerdma_topology::assembly::SystemConfig;
    use peerdma_trace::RecordOptions;

    #[test]
    fn entropy_is_never_the_same_and_never_ends() {
        let (mut one, mut other) = ([0; 4096], [0; 4096]);
        Entropy.read_exact(&mut one).unwrap();
        Entropy.read_exact(&mut other).unwrap();
        assert!(one != other && one != [0; 4096]);
    }

    /// Guests that cannot start, so no KVM is needed: what counts is which event is reported for which guest, and when.
    fn job(guests: usize, at_once: usize) -> Job {
        let run = |number: usize| GuestRun {
            name: format!("s{number}"),
            initramfs: None,
            parameters: Vec::new(),
            hello: Hello::new(Mode::Test, "s"),
            system: SystemConfig::default(),
            setup: None,
            memory: 64,
            cpus: 1,
            limit: Some(5),
            at_least: 0,
            expectations: Vec::new(),
            suppressions: Vec::new(),
            stop_on: Vec::new(),
            pause_on: Vec::new(),
            gdb: false,
            console_log: None,
            record: None,
            interactive: false,
            all_findings: false,
        };
        Job {
            kernel: "/no/such/kernel".into(),
            initramfs: "/no/such/initramfs".into(),
            out: "/none".into(),
            record: None,
            recording: RecordOptions::default(),
            at_once,
            jitter: None,
            exchange: crate::exchange::Exchange::default(),
            runs: (0..guests).map(run).collect(),
        }
    }

    #[test]
    fn guests_begin_in_order_and_all_of_them_end() {
        for (guests, at_once) in [(0, 2), (1, 4), (5, 1), (7, 3), (3, 0)] {
            let (sender, receiver) = sync_channel(QUEUE);
            let job = job(guests, at_once);
            run(&job, &Local(&job), Channels::default(), &Events::new(sender));
            let (mut begun, mut ended) = (Vec::new(), Vec::new());
            let mut last = None;
            for event in receiver {
                match &event {
                    Event::Started { scenario, .. } => begun.push(scenario.clone()),
                    Event::Ended { report } => {
                        assert!(begun.contains(&report.name));
                        assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
                        ended.push(report.name.clone());
                    }
                    _ => {}
                }
                last = Some(event);
            }
            let all: Vec<_> = (0..guests).map(|number| format!("s{number}")).collect();
            ended.sort();
            assert_eq!((begun, ended), (all.clone(), all));
            assert_eq!(last, Some(Event::Done));
        }
    }
}
