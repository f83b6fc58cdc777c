//! Inside the test host: this program as its first process.

use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use guest_protocol::FAIL;
use guest_protocol::wire::MAX_ANSWER;
use peerdma_images::kernel;
use peerdma_machine::kvm_probe;
use peerdma_support::say;
use rustix::mount::{MountFlags, mount};
use rustix::stdio;
use rustix::system::{RebootCommand, reboot};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::files::Sender;
use super::inside;
use super::probe::PAYLOAD_LIMIT;
use crate::event::{self, Event, Events};
use crate::exchange::{self, Link};
use crate::job::Job;
use crate::runner::{self, Channels, Duplex};

/// How long the virtio-serial ports may take to appear; they come a moment after the first process.
const PORTS_LIMIT: Duration = Duration::from_secs(10);

/// Runs the job and ends the machine. Does not return: the starter of the test host ends it when it
/// has heard of the end, and if not, the machine ends itself.
pub fn main() -> ! {
    if std::process::id() != 1 {
        say!("peerdma: {} is for the first process of the nested test host", super::SUBCOMMAND);
        std::process::exit(2);
    }
    if let Err(error) = run() {
        say!("peerdma: nested test host: {error}");
    }
    // The log goes through an emulated serial port: give it a moment.
    thread::sleep(Duration::from_millis(100));
    let _ = reboot(RebootCommand::Restart);
    std::process::exit(1)
}

fn run() -> Result<(), Box<dyn Error>> {
    mount_all()?;
    env_logger::init();
    let mut out = port(inside::EVENTS)?;
    event::write_line(&mut out, &Event::HostUp { uptime: uptime() })?;
    let result = job(out.try_clone()?);
    if let Err(error) = &result {
        event::write_line(&mut out, &Event::Broken { message: error.to_string() })?;
    }
    event::write_line(&mut out, &Event::Done)?;
    // Waits to be ended from outside, which is quicker than any way of ending oneself.
    thread::sleep(Duration::from_secs(5));
    result
}

fn job(mut out: File) -> Result<(), Box<dyn Error>> {
    let job: Job = serde_json::from_slice(&fs::read(inside::JOB)?)?;
    load_modules()?;
    if job.runs.is_empty() {
        let probe = kvm_probe::probe(PAYLOAD_LIMIT);
        return Ok(event::write_line(&mut out, &Event::Probed { probe })?);
    }
    leave_first_cpu();
    load_workaround();
    let duplex = |name| -> Result<_, Box<dyn Error>> {
        let port = port(name)?;
        Ok(Some(Duplex { input: Box::new(port.try_clone()?), output: Box::new(port) }))
    };
    let mut channels = Channels::default();
    if job.runs.iter().any(|run| run.interactive) {
        channels.console = duplex(inside::CONSOLE)?;
        channels.control = duplex(inside::CONTROL)?;
    }
    if job.runs.iter().any(|run| run.gdb) {
        channels.gdb = duplex(inside::GDB)?;
    }
    let (sender, receiver) = sync_channel::<Event>(event::QUEUE);
    let writer = thread::Builder::new().name("events".into()).spawn(move || {
        for event in receiver {
            event::write_line(&mut out, &event)?;
        }
        io::Result::Ok(())
    })?;
    if !job.exchange.is_empty() {
        channels.exchange = Some(link(port(inside::EXCHANGE)?)?);
    }
    let port = port(inside::FILES)?;
    let files = Sender::new(port.try_clone()?, port);
    runner::run(&job, &files, channels, &Events::new(sender));
    match writer.join() {
        Ok(result) => Ok(result?),
        Err(_) => Err("the thread that sends events panicked".into()),
    }
}

/// Hands the guest's requests about files to the machine outside, and its answers to the guest.
fn link(port: File) -> io::Result<Link> {
    let mut requests = port.try_clone()?;
    let mut answers = BufReader::new(port);
    Link::start(move |line| {
        let sent = requests.write_all(format!("{line}\n").as_bytes());
        let answer = sent.and_then(|()| exchange::read_line(&mut answers, MAX_ANSWER));
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => format!("{FAIL} the host does not answer any more"),
            Err(error) => format!("{FAIL} the host's answer: {error}"),
        }
    })
}

/// Keeps this process, and so all guests, off the first processor.
///
/// QEMU's TCG takes IGNNE# for one wire, and keeps its state among the first processor's flags. Whichever processor
/// loads a clean FPU state (FXRSTOR, XRSTOR) clears it there, without a lock and not atomically. If the first processor
/// is entering or leaving a guest at that moment, what it changes in the same word is lost: that nested paging is on, or
/// off again; that interrupts are let through. The guest then runs on the test host's physical addresses, or the test
/// host on the guest's. A processor that runs no guest changes nothing there.
fn leave_first_cpu() {
    let set = || {
        let mut cpus = sched_getaffinity(None)?;
        cpus.unset(0);
        sched_setaffinity(None, &cpus)
    };
    if let Err(error) = set() {
        may_crash(&format!("they cannot be kept off the first processor: {error}"));
    }
}

/// Loads the kernel's own modules in the order of their names, with their parameters from the kernel's command line, as
/// those have them that are built in.
fn load_modules() -> Result<(), Box<dyn Error>> {
    let Ok(entries) = fs::read_dir(inside::MODULES) else { return Ok(()) };
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let command_line = fs::read_to_string("/proc/cmdline")?;
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        // The number before it is ours.
        let name = name.split_once('-').map_or(&*name, |(_, name)| name);
        let parameters =
            CString::new(kernel::parameters_of(name, command_line.split_whitespace()))?;
        rustix::system::finit_module(&File::open(&file)?, &parameters, 0)
            .map_err(|error| format!("the module {name} is not loaded: {error}"))?;
    }
    Ok(())
}

/// Loads the module that works around the emulator. Without it guests crash now and then, but most run to their end.
fn load_workaround() {
    let load = || {
        rustix::system::finit_module(&File::open(inside::WORKAROUND)?, c"", 0)
            .map_err(io::Error::from)
    };
    if let Err(error) = load() {
        may_crash(&format!("{} is not loaded: {error}", inside::WORKAROUND));
    }
}

/// Guests run all the same: most come to their end.
fn may_crash(why: &str) {
    log::warn!("guests may crash under emulation: {why}");
}

fn mount_all() -> Result<(), Box<dyn Error>> {
    for (kind, folder) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")]
    {
        mount(kind, folder, kind, MountFlags::empty(), None)
            .map_err(|error| format!("mounting {folder}: {error}"))?;
    }
    // Messages go to the console, also those of a panic.
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    stdio::dup2_stdin(&console)?;
    stdio::dup2_stdout(&console)?;
    stdio::dup2_stderr(&console)?;
    Ok(())
}

/// Opens the virtio-serial port `name`.
fn port(name: &str) -> Result<File, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        if let Some(path) = find_port(Path::new("/sys/class/virtio-ports"), name) {
            return Ok(OpenOptions::new().read(true).write(true).open(path)?);
        }
        if begun.elapsed() > PORTS_LIMIT {
            return Err(format!("the virtio-serial port {name} does not appear").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn find_port(class: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(class).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        let device = Path::new("/dev").join(entry.file_name());
        (found.trim() == name && device.exists()).then_some(device)
    })
}

/// Milliseconds since the kernel started.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 =
        text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    Duration::try_from_secs_f64(seconds)
        .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0))
}
