//! The kernel's `dmatest`: threads that fill buffers, have a channel of a DMA engine work on them, and look at every
//! byte afterwards, those beside the target too.

use crate::cases::Stop;
use crate::sys;
use crate::sys::kernel_log::KernelLog;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where its parameters are.
pub(super) const PARAMETERS: &str = "/sys/module/dmatest/parameters";

/// A run that takes longer does not end.
const PATIENCE: Duration = Duration::from_secs(1400);

/// What a thread does all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Copy,
    Xor,
}

/// One run over all channels that there are, or some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Threads for each channel and operation.
    pub(super) threads: u32,
    /// Operations of each.
    pub(super) iterations: u32,
    /// Bytes of a buffer; each operation takes a part of it, at random.
    pub(super) buffer: u32,
    /// The driver asks whether an operation is over, and there is no interrupt.
    pub(super) polled: bool,
    /// Milliseconds that a thread waits for an operation. A guest that is emulated twice may have to wait for its turn.
    pub(super) timeout: u32,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct DmatestResult {
    /// What its threads said at their end.
    pub(super) summaries: Vec<Summary>,
    /// What they said about each operation that failed.
    pub(super) failures: Vec<String>,
}

/// What a thread says at its end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    /// Its name, `dma0chan0-copy0`.
    pub(super) thread: String,
    pub(super) operation: Operation,
    /// Operations, all of which it verified but those that failed.
    pub(super) tests: u64,
    pub(super) failures: u64,
    /// Operations a second, without the time for filling and looking.
    pub(super) rate: f64,
    /// KiB a second, likewise.
    pub(super) throughput: u64,
}

impl Run {
    /// A run of one thread a channel and operation.
    pub(super) fn of(iterations: u32) -> Self {
        Self { threads: 1, iterations, buffer: 4 << 10, polled: false, timeout: 30_000 }
    }

    /// Runs one thread on one channel of this function, which copies; each operation takes the whole buffer.
    pub(super) fn run_alone(&self, function: &str) -> Result<DmatestResult, Stop> {
        self.run_on(function, "Y", 1)
    }

    /// Runs it on one channel of this function, until all `threads` have ended.
    pub(super) fn run_first(&self, function: &str, threads: usize) -> Result<DmatestResult, Stop> {
        self.run_on(function, "N", threads)
    }

    fn run_on(&self, function: &str, whole: &str, threads: usize) -> Result<DmatestResult, Stop> {
        let set = |device: &str, channels: &str, whole: &str| -> Result<(), Stop> {
            for (name, value) in
                [("device", device), ("max_channels", channels), ("norandom", whole)]
            {
                sys::write(Path::new(PARAMETERS).join(name), value)?;
            }
            Ok(())
        };
        set(function, "1", whole)?;
        let outcome = self.run(threads);
        // As it was: any device, all channels, a part of the buffer.
        set("\n", "0", "N")?;
        outcome
    }

    /// Runs it until all `threads` have ended. Their lines go to the console, too.
    pub(super) fn run(&self, threads: usize) -> Result<DmatestResult, Stop> {
        let set = |name: &str, value: &str| sys::write(Path::new(PARAMETERS).join(name), value);
        let mut log = KernelLog::open()?;
        log.drain();
        for (name, value) in [
            ("threads_per_chan", self.threads),
            ("iterations", self.iterations),
            ("test_buf_size", self.buffer),
            ("timeout", self.timeout),
            ("polled", self.polled.into()),
        ] {
            set(name, &value.to_string())?;
        }
        set("run", "1")?;
        let mut summaries = Vec::new();
        let mut failures = Vec::new();
        let begun = Instant::now();
        while summaries.len() < threads {
            // Reading it takes as long as threads run, and no time at all before they do.
            sys::read(Path::new(PARAMETERS).join("wait"))?;
            for record in log.drain() {
                let Some(line) = record.text.strip_prefix("dmatest: ") else { continue };
                if let Some(summary) = parse(line) {
                    println!("  dmatest: {line}");
                    summaries.push(summary);
                } else if line.contains(": result ") {
                    failures.push(line.to_owned());
                }
            }
            // Telling it to stop would interrupt threads that wait for an operation: they take away the mappings then,
            // whether the operation is over or not. So it is left alone.
            if begun.elapsed() > PATIENCE {
                return Err(Stop::Fail(format!(
                    "{} of {threads} threads of dmatest have ended after {} s",
                    summaries.len(),
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // All have ended: this gives the channels back.
        set("run", "0")?;
        Ok(DmatestResult { summaries, failures })
    }
}

/// Reads `dma0chan0-copy0: summary 100 tests, 0 failures 74.03 iops 154 KB/s (0)`.
fn parse(line: &str) -> Option<Summary> {
    let (thread, rest) = line.split_once(": summary ")?;
    let (_, operation) = thread.rsplit_once('-')?;
    let operation = match operation.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "copy" => Operation::Copy,
        "xor" => Operation::Xor,
        _ => return None,
    };
    let mut words = rest.split_whitespace();
    let tests = words.next()?.parse().ok()?;
    let failures = words.nth(1)?.parse().ok()?;
    let rate = words.nth(1)?.parse().ok()?;
    let throughput = words.nth(1)?.parse().ok()?;
    Some(Summary { thread: thread.to_owned(), operation, tests, failures, rate, throughput })
}

/// The whole run in a line.
pub(super) fn figures(summaries: &[Summary]) -> String {
    let of = |operation: Operation| summaries.iter().filter(move |s| s.operation == operation);
    let tests = |operation| of(operation).map(|summary| summary.tests).sum::<u64>();
    format!(
        "dmatest verified {} operations, {} copies and {} XORs, in {} threads, at {:.0} a second",
        tests(Operation::Copy) + tests(Operation::Xor),
        tests(Operation::Copy),
        tests(Operation::Xor),
        summaries.len(),
        summaries.iter().map(|summary| summary.rate).sum::<f64>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read_and_added_up() {
        let line = |thread: &str, failures: u32| {
            format!("{thread}: summary 100 tests, {failures} failures 74.03 iops 154 KB/s (0)")
        };
        let copy = parse(&line("dma0chan1-copy12", 3)).unwrap();
        assert_eq!((copy.tests, copy.failures, copy.rate), (100, 3, 74.03));
        assert_eq!(copy.throughput, 154);
        assert_eq!((copy.thread.as_str(), copy.operation), ("dma0chan1-copy12", Operation::Copy));
        let xor = parse(&line("dma0chan1-xor0", 0)).unwrap();
        assert_eq!(
            figures(&[copy, xor]),
            "dmatest verified 200 operations, 100 copies and 100 XORs, in 2 threads, at 148 a second"
        );
        for other in ["Added 2 threads using dma0chan1", &line("dma0chan1-pq0", 0), "x: summary"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
