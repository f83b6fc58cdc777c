//! The nested test host: a machine that QEMU emulates, with a KVM of its own that works, in which this very program
//! runs the guests.
//!
//! What the job needs goes in as an initramfs, put together in memory: program, guest kernel, guest initramfs. What
//! comes out goes two ways: files through a shared folder, events as JSON lines through a virtio-serial port. A second
//! port is the guest's console for somebody who sits in front of it.

mod clock;
mod command;
mod init;
mod probe;
mod process;

use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

pub use self::init::main as init_main;
pub use self::probe::probe;
use self::process::Process;
use super::qemu::Qemu;
use crate::images::initramfs::{Initramfs, InitramfsError};
use crate::suite::event::{self, Event};
use crate::suite::job::Job;

/// The hidden subcommand by which the program knows that it is the test host's first process.
pub const SUBCOMMAND: &str = "nested-init";
/// How long the test host may take until it reports, in seconds, on a machine that is not overloaded.
pub const BOOT_LIMIT: u64 = 90;
/// The test host's console log, in the output folder.
pub const CONSOLE_LOG: &str = "test-host.log";

/// Where things are inside.
mod inside {
    pub(super) const PROGRAM: &str = "/peerdma";
    pub(super) const JOB: &str = "/job/job.json";
    pub(super) const KERNEL: &str = "/job/kernel";
    pub(super) const INITRAMFS: &str = "/job/initramfs";
    pub(super) const MODULE: &str = "/job/svm_under_tcg.ko";
    pub(super) const OUT: &str = "/out";
    pub(super) const RECORD: &str = "/record";
    /// Names of the virtio-serial ports.
    pub(super) const EVENTS: &str = "peerdma.events";
    pub(super) const CONSOLE: &str = "peerdma.console";
}

/// Why there is no test host.
#[derive(Debug, thiserror::Error)]
pub enum NestedError {
    /// The job could not be packed.
    #[error("the job for the nested test host cannot be packed: {0}")]
    Pack(#[from] InitramfsError),
    /// Something of this machine's.
    #[error("the nested test host cannot be started: {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It has not done its work.
    #[error("the nested test host {how}{}", telling(last_words).map(|line| format!(": {line}")).unwrap_or_default())]
    Lost {
        /// What became of it, as what follows its name.
        how: String,
        /// What QEMU said, and the last lines of the test host's console.
        last_words: Vec<String>,
    },
}

impl NestedError {
    fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}

/// The line that most likely says why: QEMU's own, the kernel's when it panics, else the last.
fn telling(last_words: &[String]) -> Option<&String> {
    let with = |mark: &str| last_words.iter().find(|line| line.contains(mark));
    with("QEMU: ").or_else(|| with("Kernel panic")).or(last_words.last())
}

/// What a test host is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The emulator.
    pub qemu: Qemu,
    /// The test host's kernel: a vmlinux of the lab flavour.
    pub kernel: PathBuf,
    /// The module that it loads before guests run.
    pub module: Option<PathBuf>,
    /// This program, linked statically.
    pub program: PathBuf,
}

/// A test host that is running a job. It ends when this is dropped.
#[derive(Debug)]
pub struct TestHost {
    process: Process,
    log: PathBuf,
}

impl TestHost {
    /// Starts a test host for `job`. `console` is the guest's console, for an interactive job. Without guests it probes
    /// its KVM and tells of that.
    ///
    /// Events come through the receiver; it closes when the test host is gone.
    ///
    /// # Errors
    /// When the job cannot be packed or QEMU cannot be started. What goes wrong later is told by events, or by the
    /// end of them.
    pub fn start(
        recipe: &Recipe,
        job: &Job,
        console: Option<UnixStream>,
    ) -> Result<(Self, Receiver<Event>), NestedError> {
        let archive = pack(recipe, job)?;
        let (ours, theirs) =
            UnixStream::pair().map_err(NestedError::host("a channel for events"))?;
        let log = job.out.join(CONSOLE_LOG);
        let machine = command::Machine {
            recipe,
            archive: &archive,
            events: &theirs,
            console: console.as_ref(),
            log: &log,
            out: &job.out,
            record: job.record.as_deref(),
            at_once: job.at_once,
            guest_memory: job.runs.iter().map(|run| run.memory).collect(),
        };
        let process = Process::start(machine.command())?;
        drop((theirs, console, archive));
        let (sender, receiver) = sync_channel(event::QUEUE);
        let mut input = BufReader::new(ours);
        let reader = move || {
            loop {
                match event::read_line(&mut input) {
                    Ok(Some(event)) => {
                        if sender.send(event).is_err() {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let message = format!(
                            "the nested test host sent something that is no event: {error}"
                        );
                        let _ = sender.send(Event::Broken { message });
                        break;
                    }
                }
            }
        };
        thread::Builder::new()
            .name("events".into())
            .spawn(reader)
            .map_err(NestedError::host("a thread for events"))?;
        Ok((Self { process, log }, receiver))
    }

    /// Lets it power off by itself, which it does when its work is done, for at most `limit`: what a guest wrote last is
    /// still on its way through the test host when the news of the guest's end is here.
    pub fn let_end(&self, limit: Duration) {
        if !self.process.ended_within(limit) {
            log::debug!("the test host does not power off; it is ended");
        }
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// What is known about an end that nobody asked for: what QEMU said, and the console's last lines.
    pub fn last_words(&self) -> Vec<String> {
        let console = std::fs::read(&self.log).unwrap_or_default();
        let watch = crate::suite::console::ConsoleWatch::default();
        watch.feed(&console);
        let mut lines: Vec<String> =
            self.process.errors().into_iter().map(|line| format!("QEMU: {line}")).collect();
        lines.extend(watch.tail());
        lines
    }
}

/// Packs all that the test host needs into an archive in memory.
fn pack(recipe: &Recipe, job: &Job) -> Result<OwnedFd, NestedError> {
    let mut inner = job.clone();
    inner.kernel = inside::KERNEL.into();
    inner.initramfs = inside::INITRAMFS.into();
    inner.out = inside::OUT.into();
    inner.record = job.record.as_ref().map(|_| PathBuf::from(inside::RECORD));
    let mut image = Initramfs::new();
    for (number, run) in inner.runs.iter_mut().enumerate() {
        let Some(path) = &mut run.initramfs else { continue };
        let inside = format!("{}-{number}", inside::INITRAMFS);
        image.host_file(&inside, path)?;
        *path = inside.into();
    }
    let text = serde_json::to_vec(&inner).map_err(NestedError::host("the job's description"))?;
    image.file(inside::JOB, 0o644, text)?;
    image.host_file(inside::PROGRAM, &recipe.program)?;
    if job.runs.is_empty() {
        return in_memory(&image);
    }
    image.host_file(inside::KERNEL, &job.kernel)?;
    if let Some(module) = &recipe.module {
        image.host_file(inside::MODULE, module)?;
    }
    image.host_file(inside::INITRAMFS, &job.initramfs)?;
    in_memory(&image)
}

fn in_memory(image: &Initramfs) -> Result<OwnedFd, NestedError> {
    let bytes = image.to_bytes()?;
    let file = memfd_create("peerdma-job", MemfdFlags::CLOEXEC)
        .map_err(NestedError::host("memory for the job"))?;
    write_all(&file, &bytes).map_err(NestedError::host("memory for the job"))?;
    Ok(file)
}

fn write_all(file: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::from(file.try_clone()?);
    io::Write::write_all(&mut file, bytes)
}

/// The path by which a child opens a descriptor that it inherits.
fn descriptor_path(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}
