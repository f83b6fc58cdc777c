//! The nested test host: a machine that QEMU emulates, with a KVM of its own that works, in which this very program
//! runs the guests.
//!
//! What the job needs goes in as an initramfs, put together in memory: program, guest kernel, guest initramfs. What
//! comes out goes through virtio-serial ports: events as JSON lines through one, files (console logs, traces) through
//! another. For an interactive user there are the guest's console, the control channel and a debugger's messages, and, if
//! files are shared with the guest, its requests for them. The test host reaches nothing else of this machine.

mod clock;
mod command;
mod files;
mod init;
mod probe;
mod process;

use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use self::files::{Name, create_below, open_folder, read_below};
pub use self::init::main as init_main;
pub use self::probe::probe;
use peerdma_images::initramfs::{Initramfs, InitramfsError};

use self::process::Process;
use crate::console;
use crate::drive::Streams;
use crate::event::{self, Event};
use crate::exchange::Server;
use crate::host::qemu::Qemu;
use crate::job::Job;
use crate::test_host::TestHostKernel;

/// The hidden subcommand by which the program knows that it is the test host's first process.
pub const SUBCOMMAND: &str = "nested-init";
/// How long the test host may take until it reports, in seconds, on a machine that is not overloaded.
pub const BOOT_LIMIT: u64 = 90;
/// The test host's console log, in the output folder.
pub const CONSOLE_LOG: &str = "test-host.log";
/// How long to wait for what was sent before the end to be written.
const WRITER_LIMIT: Duration = Duration::from_secs(5);

/// Where things are inside.
mod inside {
    pub(super) const PROGRAM: &str = "/peerdma";
    pub(super) const JOB: &str = "/job/job.json";
    pub(super) const KERNEL: &str = "/job/kernel";
    pub(super) const INITRAMFS: &str = "/job/initramfs";
    /// The kernel's own modules; the order of their names is that in which they are loaded.
    pub(super) const MODULES: &str = "/job/modules";
    pub(super) const WORKAROUND: &str = "/job/svm_under_tcg.ko";
    /// Names of the virtio-serial ports.
    pub(super) const EVENTS: &str = "peerdma.events";
    pub(super) const FILES: &str = "peerdma.files";
    pub(super) const CONSOLE: &str = "peerdma.console";
    pub(super) const CONTROL: &str = "peerdma.control";
    pub(super) const GDB: &str = "peerdma.gdb";
    pub(super) const EXCHANGE: &str = "peerdma.exchange";
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
    /// The test host's kernel, and the modules that it loads before guests run.
    pub kernel: TestHostKernel,
    /// This program.
    pub program: PathBuf,
}

impl Recipe {
    /// Whether the emulated processors take turns in one thread. A kernel that changes its code while another processor
    /// runs it is too much for QEMU's threads: before 8.1 the translator does not hold a page while it reads code from
    /// it, and 10.0.13 lost one start in fifty to an int3 that was not there any more.
    pub fn takes_turns(&self) -> bool {
        self.kernel.patches_itself
    }
}

/// A test host that is running a job. It ends when this is dropped.
#[derive(Debug)]
pub struct TestHost {
    process: Process,
    /// The folder with its log.
    out: OwnedFd,
    /// What writes files here. Each ends with the test host.
    writers: Vec<Writer>,
}

impl TestHost {
    /// Starts a test host for `job`. `streams` reach the guest of an interactive job.
    /// Without guests it probes its KVM and reports that.
    ///
    /// Events come through the receiver; it closes when the test host is gone.
    ///
    /// # Errors
    /// When the job cannot be packed or QEMU cannot be started. What goes wrong later is reported by events, or by the
    /// end of them.
    pub fn start(
        recipe: &Recipe,
        job: &Job,
        streams: Streams,
    ) -> Result<(Self, Receiver<Event>), NestedError> {
        let archive = pack(recipe, job)?;
        let pair = |what| UnixStream::pair().map_err(NestedError::host(what));
        let (events, their_events) = pair("a channel for events")?;
        let (files, their_files) = pair("a channel for files")?;
        let (serial, their_serial) = pair("a channel for the log")?;
        let out = open_folder(&job.out).map_err(NestedError::host("the output folder"))?;
        let log = Name::new(Path::new(CONSOLE_LOG))
            .and_then(|name| create_below(&out, &name))
            .map_err(NestedError::host("the log in the output folder"))?;
        let incoming =
            files::Receiver::new(job).map_err(NestedError::host("the folders for files"))?;
        let answers = files.try_clone().map_err(NestedError::host("a channel for files"))?;
        let exchange = exchange(job)?;
        let machine = command::Machine {
            recipe,
            archive: &archive,
            events: &their_events,
            files: &their_files,
            streams: &streams,
            exchange: exchange.as_ref().map(|(_, _, theirs)| theirs),
            log: &their_serial,
            at_once: job.at_once,
            guest_memory: job.runs.iter().map(|run| run.memory).collect(),
        };
        let process = Process::start(machine.command())?;
        drop((their_events, their_files, their_serial, streams, archive));
        let exchange = exchange.map(|(server, ours, _)| (server, ours));
        let (sender, receiver) = sync_channel(event::QUEUE);
        let broken = sender.clone();
        let mut writers = vec![
            Writer::start("log", move || keep_log(serial, log))?,
            Writer::start("files", move || receive_files(incoming, files, answers, &broken))?,
        ];
        if let Some((server, stream)) = exchange {
            let broken = sender.clone();
            let serve = move || serve_files(server, &stream, &broken);
            writers.push(Writer::start("exchange", serve)?);
        }
        thread::Builder::new()
            .name("events".into())
            .spawn(move || receive_events(events, &sender))
            .map_err(NestedError::host("a thread for events"))?;
        Ok((Self { process, out, writers }, receiver))
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

    /// What is known about an end that was not asked for: what QEMU said, and the console's last
    /// lines.
    pub fn last_words(&self) -> Vec<String> {
        if self.process.ended_within(Duration::ZERO) {
            self.writers.iter().for_each(|writer| writer.wait(WRITER_LIMIT));
        }
        let console = read_below(&self.out, CONSOLE_LOG).unwrap_or_default();
        let watch = crate::console::ConsoleWatch::default();
        watch.feed(&console);
        let mut lines: Vec<String> =
            self.process.errors().into_iter().map(|line| format!("QEMU: {line}")).collect();
        lines.extend(watch.tail());
        lines
    }
}

impl Drop for TestHost {
    /// What it sent before its end is in the files when this is over.
    fn drop(&mut self) {
        self.process.kill();
        self.writers.iter().for_each(|writer| writer.wait(WRITER_LIMIT));
    }
}

/// A thread that writes down what the test host sends.
#[derive(Debug)]
struct Writer {
    /// Closes when it has ended.
    ended: Mutex<Receiver<()>>,
}

impl Writer {
    fn start(
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self, NestedError> {
        let (sender, receiver) = sync_channel(0);
        let work = move || {
            work();
            drop(sender);
        };
        let thread = thread::Builder::new().name(name.into()).spawn(work);
        thread.map_err(NestedError::host("a thread for what the test host sends"))?;
        Ok(Self { ended: Mutex::new(receiver) })
    }

    /// Waits for its end, at most for `limit`: a disk may hang.
    fn wait(&self, limit: Duration) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(limit);
    }
}

fn receive_events(stream: UnixStream, sender: &SyncSender<Event>) {
    let mut input = BufReader::new(stream);
    loop {
        match event::read_line(&mut input) {
            Ok(Some(event)) => {
                if sender.send(event).is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let message =
                    format!("the nested test host sent a line that is not an event: {error}");
                let _ = sender.send(Event::Broken { message });
                break;
            }
        }
    }
}

fn receive_files(
    mut files: files::Receiver,
    stream: UnixStream,
    answers: UnixStream,
    sender: &SyncSender<Event>,
) {
    if let Err(error) = files.receive(stream, answers) {
        let message = format!("the nested test host sent a file that it may not send: {error}");
        // There may be no reader to make room in the queue. The closed stream then stops the test
        // host.
        let _ = sender.try_send(Event::Broken { message });
    }
}

/// What answers the guest's requests about files, and both ends of their channel; none if there is nothing to ask for.
fn exchange(job: &Job) -> Result<Option<(Server, UnixStream, UnixStream)>, NestedError> {
    if job.exchange.is_empty() {
        return Ok(None);
    }
    let what = "a channel for the files that are shared";
    let server = Server::new(&job.exchange).map_err(NestedError::host("the folder for results"))?;
    let (ours, theirs) = UnixStream::pair().map_err(NestedError::host(what))?;
    Ok(Some((server, ours, theirs)))
}

fn serve_files(mut server: Server, stream: &UnixStream, sender: &SyncSender<Event>) {
    if let Err(error) = server.serve_lines(stream, stream) {
        let message =
            format!("the nested test host asked for files in a way that it may not: {error}");
        let _ = sender.try_send(Event::Broken { message });
    }
}

/// Writes down what comes from the serial port, as much as a log may have; reads it all, so that
/// the writer never waits.
fn keep_log(mut stream: impl Read, mut log: impl Write) {
    let kept = io::copy(&mut (&mut stream).take(console::MAX_LOG), &mut log);
    if let Err(error) = kept {
        log::warn!("{CONSOLE_LOG} is not complete: {error}");
    }
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Packs all that the test host needs into an archive in memory.
fn pack(recipe: &Recipe, job: &Job) -> Result<OwnedFd, NestedError> {
    let mut inner = job.clone();
    inner.kernel = inside::KERNEL.into();
    inner.initramfs = inside::INITRAMFS.into();
    // They are this machine's, and files get there by their names.
    inner.out = PathBuf::new();
    inner.record = job.record.as_ref().map(|_| PathBuf::new());
    inner.exchange = job.exchange.without_paths();
    let mut image = Initramfs::new();
    for (number, run) in inner.runs.iter_mut().enumerate() {
        let Some(path) = &mut run.initramfs else { continue };
        let inside = format!("{}-{number}", inside::INITRAMFS);
        image.host_file(&inside, path)?;
        *path = inside.into();
    }
    let text = serde_json::to_vec(&inner).map_err(NestedError::host("the job's description"))?;
    image.file(inside::JOB, 0o644, text)?;
    image.program(inside::PROGRAM, &recipe.program)?;
    for (number, module) in recipe.kernel.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        image.host_file(&format!("{}/{number:03}-{name}", inside::MODULES), module)?;
    }
    if job.runs.is_empty() {
        return in_memory(&image);
    }
    image.host_file(inside::KERNEL, &job.kernel)?;
    if let Some(module) = &recipe.kernel.workaround {
        image.host_file(inside::WORKAROUND, module)?;
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
    std::fs::File::from(file.try_clone()?).write_all(bytes)
}

/// The path by which a child opens a descriptor that it inherits.
fn descriptor_path(fd: &impl AsRawFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use peerdma_images::kernel_image::{ImageKind, KernelImage};

    use super::*;
    use crate::host::qemu::Version;

    #[test]
    fn a_probe_s_test_host_has_the_kernel_s_modules_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            std::fs::write(folder.path().join(name), name).unwrap();
            folder.path().join(name)
        };
        let image = KernelImage {
            elf: std::fs::File::open("/dev/null").unwrap(),
            has_pvh: true,
            kind: ImageKind::Vmlinux,
            build_tree: None,
            release: None,
        };
        let recipe = Recipe {
            qemu: Qemu { path: "/q".into(), version: Version { major: 7, minor: 2, micro: 0 } },
            kernel: TestHostKernel {
                image: Arc::new(image),
                name: "stock".into(),
                modules: vec![file("kvm.ko"), file("kvm-amd.ko")],
                workaround: None,
                patches_itself: true,
            },
            program: file("program"),
        };
        let job = Job {
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            out: folder.path().to_owned(),
            record: None,
            recording: peerdma_trace::RecordOptions::default(),
            at_once: 1,
            jitter: None,
            exchange: crate::exchange::Exchange::default(),
            runs: Vec::new(),
        };
        let packed = std::fs::File::from(pack(&recipe, &job).unwrap());
        let mut bytes = vec![0; usize::try_from(packed.metadata().unwrap().len()).unwrap()];
        packed.read_exact_at(&mut bytes, 0).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is not packed"));
        assert!(at("job/modules/000-kvm.ko") < at("job/modules/001-kvm-amd.ko"));
    }
}
