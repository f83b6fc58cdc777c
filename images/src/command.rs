//! Running the programs that do the building: output to a log, its last lines kept for the error, an end when the
//! user wants one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::progress::Progress;

/// Lines of output that an error repeats.
const TAIL: usize = 15;
/// A line longer than this is cut: a program may print anything.
const LINE_LIMIT: u64 = 8192;
/// How often the user's wish to stop is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("`{program}` is not installed: `make setup` installs what is needed.")]
    Missing {
        /// Its name.
        program: String,
    },
    /// The program could not be started, or its output not be read or logged.
    #[error("{what} failed, running `{program}`: {source}.")]
    Io {
        /// What it was for, as the subject of a sentence.
        what: String,
        /// The program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The program failed.
    #[error("{what} failed ({status}).{}{}", log_note(.log.as_deref()), tail_note(tail))]
    Failed {
        /// What it was for, as the subject of a sentence.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// Where all of its output is.
        log: Option<PathBuf>,
        /// The last lines of its output.
        tail: Vec<String>,
    },
    /// The user stopped it.
    #[error("{what} was interrupted.")]
    Interrupted {
        /// What it was for, as the subject of a sentence.
        what: String,
    },
}

fn log_note(log: Option<&Path>) -> String {
    log.map_or_else(String::new, |log| format!(" The whole log is {}.", log.display()))
}

fn tail_note(tail: &[String]) -> String {
    if tail.is_empty() { String::new() } else { format!(" Its last lines:\n{}", tail.join("\n")) }
}

/// Looks for a program where users look, and where only root does.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Fails, naming the first of these programs that is not installed.
pub fn require_programs(names: &[&str]) -> Result<(), CommandError> {
    match names.iter().find(|name| find_program(name).is_none()) {
        Some(name) => Err(CommandError::Missing { program: (*name).to_owned() }),
        None => Ok(()),
    }
}

/// What a watcher of a running program sees.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It printed a line.
    Line(&'a str),
    /// A tenth of a second passed in silence.
    Tick,
}

/// A program to run for a purpose.
#[derive(Debug)]
pub struct Job<'a> {
    what: &'a str,
    command: Command,
    log: Option<PathBuf>,
}

impl<'a> Job<'a> {
    /// Runs `program` for `what`, the subject of a sentence such as "Configuring the kernel". Its messages come in
    /// English, and it ends with this process.
    pub fn new(what: &'a str, program: &str) -> Self {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        end_with_parent(&mut command);
        Self { what, command, log: None }
    }

    /// `make` with as many jobs at once, free of what an outer `make` or the user's shell would make it inherit.
    pub fn make(what: &'a str, jobs: usize) -> Self {
        let mut job = Self::new(what, "make").arg(format!("-j{jobs}"));
        for name in [
            "MAKEFLAGS",
            "MFLAGS",
            "GNUMAKEFLAGS",
            "MAKELEVEL",
            "ARCH",
            "CROSS_COMPILE",
            "LLVM",
            "O",
            "V",
            "W",
        ] {
            job.command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("KBUILD_") || name.starts_with("KCONFIG_"))
            {
                job.command.env_remove(name);
            }
        }
        job
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub fn args(
        mut self,
        arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    ) -> Self {
        self.command.args(arguments);
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder to run in.
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Appends all output to this file.
    pub fn log(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Runs it to its end.
    pub fn run(self, progress: &dyn Progress) -> Result<(), CommandError> {
        self.run_watched(progress, &mut |_| {})
    }

    /// Runs it to its end and gives back what it printed, errors included.
    pub fn output(self, progress: &dyn Progress) -> Result<String, CommandError> {
        let mut text = String::new();
        self.run_watched(progress, &mut |event| {
            if let Event::Line(line) = event {
                text.push_str(line);
                text.push('\n');
            }
        })?;
        Ok(text)
    }

    /// Runs it to its end; `watch` sees every line of its output and error output, and the time pass.
    pub fn run_watched(
        mut self,
        progress: &dyn Progress,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), CommandError> {
        let mut log = match &self.log {
            Some(path) => {
                let opened = File::options().append(true).create(true).open(path);
                Some(opened.map_err(|source| self.io(source))?)
            }
            None => None,
        };
        let (reader, writer) = io::pipe().map_err(|source| self.io(source))?;
        let second = writer.try_clone().map_err(|source| self.io(source))?;
        self.command.stdout(writer).stderr(second);
        let mut child = self.command.spawn().map_err(|source| self.not_started(source))?;
        // The command keeps our ends of the pipe open until it is replaced: the reader would never see the end.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());

        let lines = read_lines(reader);
        let mut tail = VecDeque::with_capacity(TAIL);
        let mut logged = Ok(());
        loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => {
                    watch(Event::Line(&line));
                    if let (Some(log), Ok(())) = (&mut log, &logged) {
                        logged = writeln!(log, "{line}");
                    }
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => watch(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if progress.cancelled() {
                stop(&mut child);
                return Err(CommandError::Interrupted { what: self.what.to_owned() });
            }
        }
        let status = child.wait().map_err(|source| self.io(source))?;
        logged.map_err(|source| self.io(source))?;
        self.verdict(status, tail.into())
    }

    fn verdict(&self, status: ExitStatus, tail: Vec<String>) -> Result<(), CommandError> {
        let what = self.what.to_owned();
        if status.success() {
            return Ok(());
        }
        // Ctrl-C goes to the whole foreground group; make reports it as a failed target.
        let ending = [Signal::INT, Signal::TERM].map(|signal| Some(signal.as_raw()));
        let stopped = ending.contains(&status.signal());
        if stopped || (status.code() == Some(130)) {
            return Err(CommandError::Interrupted { what });
        }
        Err(CommandError::Failed { what, status, log: self.log.clone(), tail })
    }

    fn program(&self) -> String {
        self.command.get_program().to_string_lossy().into_owned()
    }

    fn io(&self, source: io::Error) -> CommandError {
        CommandError::Io { what: self.what.to_owned(), program: self.program(), source }
    }

    fn not_started(&self, source: io::Error) -> CommandError {
        if source.kind() == io::ErrorKind::NotFound {
            return CommandError::Missing { program: self.program() };
        }
        self.io(source)
    }
}

/// Asks a program to end, and sees to it.
fn stop(child: &mut Child) {
    // `make` passes a SIGTERM on to the compilers it runs and removes what they left half-written.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    for _ in 0..50 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(POLL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The program gets a SIGTERM when the thread that started it is gone, however that came about.
pub(super) fn end_with_parent(command: &mut Command) {
    let setup = || {
        let signal = Some(Signal::TERM);
        rustix::process::set_parent_process_death_signal(signal).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes one prctl system call; it allocates nothing, takes no lock
    // and touches no memory of the parent.
    unsafe {
        command.pre_exec(setup);
    }
}

/// Lines as they come, from a thread of their own; the channel closes when all writers of the pipe have.
fn read_lines(reader: io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = sync_channel(256);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            match io::Read::take(&mut reader, LINE_LIMIT).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::time::Instant;

    fn shell(script: &str) -> Job<'_> {
        Job::new("The test", "sh").args(["-c", script])
    }

    #[test]
    fn output_is_collected_and_logged() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text = shell("echo one; echo two >&2").log(&log).output(&Silent).unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_failure_repeats_the_last_lines() {
        let error =
            shell("for i in $(seq 40); do echo line $i; done; exit 3").run(&Silent).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("The test failed (exit status: 3). Its last lines:\nline 26\n"),
            "{text}"
        );
        assert!(text.ends_with("line 40"), "{text}");
    }

    #[test]
    fn a_missing_program_is_reported_with_its_fix() {
        let error = Job::new("The test", "no-such-program-here").run(&Silent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`no-such-program-here` is not installed: `make setup` installs what is needed."
        );
    }

    #[test]
    fn the_first_missing_program_is_named() {
        require_programs(&["sh", "ls"]).unwrap();
        let error = require_programs(&["sh", "no-such-program-here", "nor-this"]).unwrap_err();
        assert!(
            error.to_string().starts_with("`no-such-program-here` is not installed"),
            "{error}"
        );
    }

    #[derive(Debug)]
    struct Until(Instant);

    impl Progress for Until {
        fn phase(&self, _title: &str, _total: Option<u64>) {}
        fn advance(&self, _done: u64) {}
        fn note(&self, _line: &str) {}
        fn cancelled(&self) -> bool {
            Instant::now() >= self.0
        }
    }

    #[test]
    fn a_program_is_stopped_when_the_user_wants_it() {
        let begun = Instant::now();
        let error =
            shell("exec sleep 60").run(&Until(begun + Duration::from_millis(150))).unwrap_err();
        assert!(matches!(error, CommandError::Interrupted { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut longest = 0;
        let mut watch = |event: Event<'_>| {
            if let Event::Line(line) = event {
                longest = longest.max(line.len());
            }
        };
        shell("head -c 100000 /dev/zero | tr '\\0' x").run_watched(&Silent, &mut watch).unwrap();
        assert_eq!(longest, 8192);
    }
}
