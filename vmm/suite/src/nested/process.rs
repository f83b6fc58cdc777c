//! The emulator as a child process that never outlives us.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::NestedError;
use super::command::WithDescriptors;
use crate::host::ctrl_c::Hook;

/// How often to look whether it has ended.
const END_POLL: Duration = Duration::from_millis(10);
/// How long the last of what it has said may be on its way.
const LAST_ERRORS: Duration = Duration::from_secs(1);
/// How many lines of its error output are kept.
const ERROR_LINES: usize = 20;
/// The longest of them, in bytes.
const ERROR_LENGTH: u64 = 1000;

#[derive(Debug)]
pub(super) struct Process {
    child: Arc<Mutex<Child>>,
    errors: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    _hook: Hook,
}

impl Process {
    pub(super) fn start(with: WithDescriptors) -> Result<Self, NestedError> {
        let WithDescriptors { mut command, descriptors } = with;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is for this process, which then ends the child in good order.
        command.process_group(0);
        let parent = rustix::process::getpid();
        let before_exec = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Should the parent have died before that took effect, nothing is left to wait for the
            // child.
            if getppid() != Some(parent) {
                return Err(io::Error::other("the parent is gone"));
            }
            for &descriptor in &descriptors {
                // SAFETY: the numbers are those of descriptors that the caller of `start` keeps
                // open meanwhile; the child has copies of them.
                let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
                fcntl_setfd(descriptor, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls on numbers that it owns and nothing else: it
        // takes no lock and does not allocate.
        unsafe { command.pre_exec(before_exec) };
        let mut child = command.spawn().map_err(NestedError::host("starting QEMU"))?;
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let start = |stream| {
            let errors = Arc::clone(&errors);
            let reader = move || keep_lines(stream, &errors);
            thread::Builder::new().name("qemu-errors".into()).spawn(reader)
        };
        let reader = child.stderr.take().map(start).transpose();
        let reader = reader.map_err(NestedError::host("a thread for QEMU's messages"))?;
        let child = Arc::new(Mutex::new(child));
        let hook = {
            let child = Arc::clone(&child);
            Hook::new(move || kill(&child))
        };
        Ok(Self { child, errors, reader, _hook: hook })
    }

    pub(super) fn kill(&self) {
        kill(&self.child);
    }

    /// Waits until it has ended by itself, at most for `limit`; whether it has.
    pub(super) fn ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match lock(&self.child).try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
            thread::sleep(END_POLL);
        }
    }

    /// Its last error messages; all of them when it has ended.
    pub(super) fn errors(&self) -> Vec<String> {
        let deadline = Instant::now() + LAST_ERRORS;
        let has_ended = || !matches!(lock(&self.child).try_wait(), Ok(None));
        let is_reading = || self.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        while is_reading() && has_ended() && Instant::now() < deadline {
            thread::sleep(END_POLL);
        }
        lock(&self.errors).iter().cloned().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(child: &Mutex<Child>) {
    let mut child = lock(child);
    // It may have ended by itself: then there is nothing to kill, and waiting collects it.
    let _ = child.kill();
    let _ = child.wait();
}

fn keep_lines(stream: impl Read, lines: &Mutex<VecDeque<String>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match stream.by_ref().take(ERROR_LENGTH).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut lines = lock(lines);
                if lines.len() == ERROR_LINES {
                    lines.pop_front();
                }
                lines.push_back(crate::report::ktap::plain(&String::from_utf8_lossy(&line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_is_killed_with_its_handle_and_its_words_are_kept() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo bad news >&2; exec sleep 1000"]);
        let process = Process::start(WithDescriptors { command, descriptors: Vec::new() }).unwrap();
        let begun = Instant::now();
        while process.errors().is_empty() && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(process.errors(), ["bad news"]);
        let child = Arc::clone(&process.child);
        drop(process);
        assert!(lock(&child).try_wait().unwrap().is_some());
    }

    #[test]
    fn what_a_child_said_at_its_end_is_not_lost() {
        for _ in 0..20 {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "echo bad news >&2"]);
            let process =
                Process::start(WithDescriptors { command, descriptors: Vec::new() }).unwrap();
            assert!(process.ended_within(Duration::from_secs(10)));
            assert_eq!(process.errors(), ["bad news"]);
        }
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let lines = Mutex::new(VecDeque::new());
        let text = (0..100).map(|i| format!("{i}\n")).collect::<String>();
        keep_lines(text.as_bytes(), &lines);
        assert_eq!(lock(&lines).len(), ERROR_LINES);
        assert_eq!(lock(&lines).back().unwrap(), "99");
    }
}
