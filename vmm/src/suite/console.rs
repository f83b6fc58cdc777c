//! The guest's console output: into its file, the last lines kept for the report, and the kernel's complaints noticed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many of the last lines a report shows.
const TAIL: usize = 25;
/// Longer lines are cut there, in bytes: a guest can send any number without a line end.
const MAX_LINE: usize = 1024;
/// How many complaints are kept.
const MAX_COMPLAINTS: usize = 8;

/// What a kernel says when something is wrong with it or with a driver. Drivers' own error messages are not among
/// them: the tests provoke some.
const COMPLAINTS: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "kernel BUG at",
    "Oops: ",
    "Kernel panic - ",
    "general protection fault",
    "invalid opcode: ",
    "stack segment: ",
    "double fault: ",
    "UBSAN: ",
    "DMA-API: ",
    "INFO: possible ",
    "INFO: trying to register non-static key",
    "INFO: task ",
    "rcu: INFO: ",
    "suspicious RCU usage",
    "possible circular locking dependency",
    "kmemleak: ",
    "Call Trace:",
];

/// Parts of lines that look like complaints and are none.
const HARMLESS: &[&str] = &[
    "DMA-API: preallocated",
    "DMA-API: debugging enabled",
    "kmemleak: Kernel memory leak detector initialized",
    "kmemleak: Automatic memory scanning thread",
];

#[derive(Debug, Default)]
struct State {
    tail: VecDeque<String>,
    line: Vec<u8>,
    complaints: Vec<String>,
}

/// What is known about a console. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ConsoleWatch(Arc<Mutex<State>>);

impl ConsoleWatch {
    /// The last lines, the one that has no end yet included.
    pub fn tail(&self) -> Vec<String> {
        let state = self.lock();
        let open = (!state.line.is_empty()).then(|| readable(&state.line));
        state.tail.iter().cloned().chain(open).collect()
    }

    /// The kernel's complaints so far, the first ones.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// Takes in output.
    pub fn feed(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for &byte in bytes {
            match byte {
                b'\n' => state.end_of_line(),
                _ if state.line.len() < MAX_LINE => state.line.push(byte),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_of_line(&mut self) {
        let line = readable(&std::mem::take(&mut self.line));
        if self.complaints.len() < MAX_COMPLAINTS && is_complaint(&line) {
            self.complaints.push(line.clone());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

fn readable(line: &[u8]) -> String {
    crate::report::ktap::plain(&String::from_utf8_lossy(line))
}

/// Whether the kernel says so: its lines carry a time stamp, those of programs that print on the console do not.
fn is_complaint(line: &str) -> bool {
    let Some((stamp, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    let stamped =
        stamp.contains('.') && stamp.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b' '));
    stamped
        && COMPLAINTS.iter().any(|complaint| line.contains(complaint))
        && !HARMLESS.iter().any(|harmless| line.contains(harmless))
}

/// Writes output to `inner` and shows it to a [`ConsoleWatch`].
#[derive(Debug)]
pub struct Tee<W> {
    inner: W,
    watch: ConsoleWatch,
}

impl<W> Tee<W> {
    /// Both get everything.
    pub fn new(inner: W, watch: ConsoleWatch) -> Self {
        Self { inner, watch }
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.watch.feed(bytes);
        // The watch has seen all of it: so must the file, and an error there is the file's alone.
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_readable() {
        let watch = ConsoleWatch::default();
        for i in 0..100 {
            watch.feed(format!("line {i}\r\n").as_bytes());
        }
        watch.feed(&[0xff, 0x1b, b'x']);
        let tail = watch.tail();
        assert_eq!(tail.len(), TAIL + 1);
        assert_eq!(tail[TAIL - 1], "line 99");
        assert_eq!(tail[TAIL], "\u{fffd} x");
        watch.feed(&vec![b'y'; 1 << 20]);
        assert!(watch.tail()[TAIL].len() <= MAX_LINE + 2);
    }

    #[test]
    fn the_kernel_is_heard_and_programs_are_not() {
        for (line, complaint) in [
            ("[    1.234567] WARNING: CPU: 0 PID: 1 at drivers/x.c:3 f+0x1/0x2", true),
            ("[   12.000000] BUG: sleeping function called from invalid context", true),
            ("[    0.516738] DMA-API: debugging enabled by kernel config", false),
            ("[    2.000000] DMA-API: peerdma 0000:01:00.0: device driver frees DMA memory", true),
            ("[    1.000000] peerdma 0000:01:00.0: transfer failed", false),
            ("WARNING: this is my test program", false),
            ("[x] WARNING: neither is this", false),
            ("", false),
        ] {
            assert_eq!(is_complaint(line), complaint, "{line}");
        }
        let watch = ConsoleWatch::default();
        let mut tee = Tee::new(Vec::new(), watch.clone());
        for _ in 0..100 {
            tee.write_all(b"[    1.0] BUG: a\n").unwrap();
        }
        assert_eq!(watch.complaints().len(), MAX_COMPLAINTS);
        assert_eq!(tee.inner.len(), 1700);
    }
}
