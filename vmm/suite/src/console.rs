//! The guest's console output: into its file, the last lines kept for the report, and the kernel's complaints noticed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guest_protocol::AGENT_SAYS;

/// How many of the last lines a report shows.
const TAIL: usize = 25;
/// Longer lines are cut there, in bytes: a guest can send any number without a line end.
const MAX_LINE: usize = 1024;
/// Bytes of the longest time stamp: twenty digits, six more, and what stands around them.
const LONGEST_STAMP: usize = 32;
/// Bytes of a console's log at most, thousands of times what a guest has to say: one that never stops must not fill the
/// disk.
pub const MAX_LOG: u64 = 64 << 20;
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
    /// The beginning of a program's line that the kernel interrupted: the rest of it comes in a later line.
    begun: String,
    complaints: Vec<String>,
    log_error: Option<String>,
}

/// What is known about a console. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ConsoleWatch(Arc<Mutex<State>>);

impl ConsoleWatch {
    /// The last lines, each marked by whose it is, the one that has no end yet included; neither the first nor the last of
    /// them is empty.
    pub fn tail(&self) -> Vec<String> {
        let state = self.lock();
        let mut tail = state.tail.clone();
        let open = readable(&state.line);
        let mut begun = state.begun.clone();
        for part in split_at_stamps(&open) {
            match kernel_text(part) {
                Some(_) if is_ornament(part) => {}
                Some(_) => tail.push_back(part.to_owned()),
                None => begun.push_str(part),
            }
        }
        if !begun.is_empty() {
            tail.push_back(begun);
        }
        while tail.front().is_some_and(|line| line.trim().is_empty()) {
            tail.pop_front();
        }
        while tail.back().is_some_and(|line| line.trim().is_empty()) {
            tail.pop_back();
        }
        tail.iter().map(|line| format!("{}{}", speaker(line), line.trim_end())).collect()
    }

    /// The kernel's complaints so far, the first ones.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// Why the log is not complete, if it is not.
    pub fn log_error(&self) -> Option<String> {
        self.lock().log_error.clone()
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
        // A message of the kernel's goes to the end of its line, so what it interrupted goes on in the next one.
        let mut interrupted = false;
        for part in split_at_stamps(&line) {
            if kernel_text(part).is_none() {
                self.begun.push_str(part);
                continue;
            }
            interrupted = true;
            if self.complaints.len() < MAX_COMPLAINTS && is_complaint(part) {
                self.complaints.push(part.to_owned());
            }
            if !is_ornament(part) {
                self.keep(part.to_owned());
            }
        }
        if !interrupted || self.begun.len() >= MAX_LINE {
            let program = std::mem::take(&mut self.begun);
            self.keep(program);
        }
    }

    fn keep(&mut self, line: String) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

const KERNEL: &str = "kernel | ";
const AGENT: &str = "agent  | ";
const OUTPUT: &str = "output | ";

/// Whose line it is, in words of equal length.
fn speaker(line: &str) -> &'static str {
    match kernel_text(line) {
        Some(_) => KERNEL,
        None if line.starts_with(AGENT_SAYS) => AGENT,
        None => OUTPUT,
    }
}

/// What the guest's agent says in a line of [`ConsoleWatch::tail`], if it is the agent's.
pub fn agents_words(line: &str) -> Option<&str> {
    line.strip_prefix(AGENT)?.strip_prefix(AGENT_SAYS)
}

/// A line of the console, in several where the kernel spoke up while a program was writing one: the kernel does not
/// wait for its end, and its own message begins with a time stamp, `[` seconds to six places `] ` (print_time() in
/// kernel/printk/printk.c).
fn split_at_stamps(line: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = line;
    // The first byte may be a stamp's own.
    while let Some(at) = rest
        .match_indices('[')
        .map(|(at, _)| at)
        .find(|at| *at > 0 && rest.get(*at..).is_some_and(begins_with_stamp))
    {
        let (before, message) = rest.split_at(at);
        lines.push(before);
        rest = message;
    }
    lines.push(rest);
    lines
}

/// Whether `text` begins as the kernel's messages do; stricter than [`kernel_text`], since it may stand anywhere.
fn begins_with_stamp(text: &str) -> bool {
    let end = text.bytes().take(LONGEST_STAMP).position(|byte| byte == b']');
    let stamp = end.and_then(|end| text.get(..end)?.strip_prefix('['));
    let Some((seconds, fraction)) = stamp.and_then(|stamp| stamp.split_once('.')) else {
        return false;
    };
    let whole = seconds.trim_start_matches(' ');
    seconds.len() >= 5
        && !whole.is_empty()
        && fraction.len() == 6
        && [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn readable(line: &[u8]) -> String {
    crate::report::ktap::plain(&String::from_utf8_lossy(line))
}

/// What the kernel says in a line on its console, without the time stamp.
fn kernel_text(line: &str) -> Option<&str> {
    let (stamp, text) = line.strip_prefix('[')?.split_once(']')?;
    let stamped =
        stamp.contains('.') && stamp.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b' '));
    stamped.then_some(text.trim())
}

/// The kernel's boxed notices (a debugging option is on) say nothing about what went wrong, and fill a screen; nor does
/// KVM's regret that a guest has no virtualization of its own.
fn is_ornament(line: &str) -> bool {
    kernel_text(line).is_some_and(|text| {
        text.is_empty() || text.starts_with("**") || text.contains(" not supported by CPU ")
    })
}

/// Whether the kernel says so: its lines carry a time stamp, those of programs that print on the console do not.
fn is_complaint(line: &str) -> bool {
    kernel_text(line).is_some()
        && COMPLAINTS.iter().any(|complaint| line.contains(complaint))
        && !HARMLESS.iter().any(|harmless| line.contains(harmless))
}

/// A console's output, to each sink that wants it. A sink that fails is left out; the others go on.
pub struct Outputs {
    watch: ConsoleWatch,
    screen: Option<Box<dyn Write + Send>>,
    log: Option<Box<dyn Write + Send>>,
    /// Bytes that still fit into the log.
    room: u64,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (screen, log) = (self.screen.is_some(), self.log.is_some());
        f.debug_struct("Outputs")
            .field("screen", &screen)
            .field("log", &log)
            .finish_non_exhaustive()
    }
}

impl Outputs {
    /// `screen` gets everything that `watch` sees, `log` the first 64 MiB.
    pub fn new(
        watch: ConsoleWatch,
        screen: Option<Box<dyn Write + Send>>,
        log: Option<Box<dyn Write + Send>>,
    ) -> Self {
        Self { watch, screen, log, room: MAX_LOG }
    }

    fn each(&mut self, mut work: impl FnMut(&mut dyn Write) -> io::Result<()>) {
        if let Some(screen) = &mut self.screen
            && let Err(error) = work(screen)
        {
            log::debug!("the console's screen is gone: {error}");
            self.screen = None;
        }
        if let Some(log) = &mut self.log
            && let Err(error) = work(log)
        {
            self.watch.lock().log_error = Some(error.to_string());
            self.log = None;
        }
    }
}

impl Write for Outputs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.watch.feed(bytes);
        let left = self.room.checked_sub(bytes.len() as u64);
        if left.is_none() && self.log.take().is_some() {
            let reason = format!("it was cut at its limit of {} MiB", MAX_LOG >> 20);
            self.watch.lock().log_error = Some(reason);
        }
        self.room = left.unwrap_or(0);
        self.each(|output| output.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.each(|output| output.flush());
        Ok(())
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
        assert_eq!(tail[TAIL - 1], "output | line 99");
        assert_eq!(tail[TAIL], "output | \u{fffd} x");
        watch.feed(&vec![b'y'; 1 << 20]);
        assert!(watch.tail()[TAIL].len() <= MAX_LINE + 11);
    }

    #[test]
    fn programs_and_the_kernel_have_whole_lines_of_their_own() {
        let watch = ConsoleWatch::default();
        watch.feed(b"\n\ncopying ... [    3.250000] peerdma 0000:01:00.0: failed\r\ndone\r\n");
        watch.feed(b"a[0.5] and b[ 1] are [x] and no stamps [    1.25] either\r\n");
        watch.feed(b"[    4.000000] a[    4.000001] b\n");
        watch.feed(
            b"inter[    4.100000] one\r\n[    4.200000] two\r\nrup[    4.300000] three\r\nted\r\n",
        );
        watch.feed(b"peerdma agent: mine\r\n");
        watch.feed(b"half [    5.000000] reboot: Power down\r\n\r");
        let expected = [
            "kernel | [    3.250000] peerdma 0000:01:00.0: failed",
            "output | copying ... done",
            "output | a[0.5] and b[ 1] are [x] and no stamps [    1.25] either",
            "kernel | [    4.000000] a",
            "kernel | [    4.000001] b",
            "kernel | [    4.100000] one",
            "kernel | [    4.200000] two",
            "kernel | [    4.300000] three",
            "output | interrupted",
            "agent  | peerdma agent: mine",
            "kernel | [    5.000000] reboot: Power down",
            "output | half",
        ];
        assert_eq!(watch.tail(), expected);
        let watch = ConsoleWatch::default();
        watch.feed("ä [12345.678901] BUG: behind a program's words\n".as_bytes());
        assert_eq!(watch.complaints(), ["[12345.678901] BUG: behind a program's words"]);
        watch.feed(b"end. [    6.000000] and a message");
        assert_eq!(watch.tail()[1..], ["kernel | [    6.000000] and a message", "output | ä end."]);
        assert_eq!(ConsoleWatch::default().tail(), [""; 0]);
        // A program whose every line is interrupted does not collect for ever.
        let watch = ConsoleWatch::default();
        for _ in 0..1000 {
            watch.feed(b"0123456789 [    7.000000] x\n");
        }
        assert!(watch.lock().begun.len() <= MAX_LINE);
    }

    #[test]
    fn boxed_notices_are_left_out_of_the_tail() {
        let watch = ConsoleWatch::default();
        watch.feed(
            b"[    0.5] \n[    0.6] ****\n[    0.7] **   NOTICE   **\n** mine **\n\n[ 0.8] end\n",
        );
        assert_eq!(watch.tail(), ["output | ** mine **", "output | ", "kernel | [ 0.8] end"]);
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
        for _ in 0..100 {
            watch.feed(b"[    1.0] BUG: a\n");
        }
        assert_eq!(watch.complaints().len(), MAX_COMPLAINTS);
    }

    /// Takes some bytes, then no more: a disk that fills up, a terminal that goes away.
    #[derive(Clone)]
    struct Limited(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Limited {
        fn to(bytes: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), bytes))))
        }

        fn got(&self) -> usize {
            self.0.lock().unwrap().0.len()
        }
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            if state.0.len() + bytes.len() > state.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_the_log_and_neither_the_screen_nor_the_complaints() {
        let watch = ConsoleWatch::default();
        let (screen, log) = (Limited::to(1000), Limited::to(20));
        let boxed = |sink: &Limited| Some(Box::new(sink.clone()) as Box<dyn Write + Send>);
        let mut outputs = Outputs::new(watch.clone(), boxed(&screen), boxed(&log));
        outputs.write_all(b"an ordinary line\n").unwrap();
        assert_eq!(watch.log_error(), None);
        outputs.write_all(b"[    1.0] BUG: a\n").unwrap();
        outputs.write_all(b"[    2.0] BUG: b\n").unwrap();
        outputs.flush().unwrap();
        assert_eq!((screen.got(), log.got()), (51, 17));
        assert_eq!(watch.complaints().len(), 2);
        assert!(watch.log_error().is_some());
    }

    #[test]
    fn a_guest_that_never_stops_fills_its_log_up_to_the_limit_and_no_more() {
        let watch = ConsoleWatch::default();
        let (screen, log) = (Limited::to(usize::MAX), Limited::to(usize::MAX));
        let boxed = |sink: &Limited| Some(Box::new(sink.clone()) as Box<dyn Write + Send>);
        let mut outputs = Outputs::new(watch.clone(), boxed(&screen), boxed(&log));
        outputs.room = 30;
        for _ in 0..4 {
            outputs.write_all(b"ten bytes\n").unwrap();
        }
        assert_eq!((screen.got(), log.got()), (40, 30));
        assert!(watch.log_error().unwrap().contains("limit"));
    }
}
