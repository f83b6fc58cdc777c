//! How far something has come that takes more than a moment, on stderr if that is a terminal.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Nothing is printed before.
const MOMENT: Duration = Duration::from_secs(2);
/// Or more often.
const INTERVAL: Duration = Duration::from_millis(500);

/// A file of which it is printed how much has been read.
#[derive(Debug)]
pub(super) struct Watched<R> {
    input: R,
    done: u64,
    /// Bytes in all; none if nothing is to be printed.
    size: Option<u64>,
    next: Instant,
    printed: bool,
}

impl<R> Watched<R> {
    /// One of `size` bytes, if that is known and there may be a line about it.
    pub(super) fn new(input: R, size: Option<u64>) -> Self {
        let size = size.filter(|size| *size > 0 && io::stderr().is_terminal());
        Self { input, done: 0, size, next: Instant::now() + MOMENT, printed: false }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.printed) {
            print("");
        }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.done += count as u64;
        if count == 0 {
            self.clear();
        } else if let Some(size) = self.size
            && Instant::now() >= self.next
        {
            self.next = Instant::now() + INTERVAL;
            self.printed = true;
            print(&percent(self.done, size));
        }
        Ok(count)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How much that is, for people.
fn percent(done: u64, size: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(size.max(1));
    format!("{} % of {} MiB read", percent.min(100), size >> 20)
}

/// Prints how long something has taken of the time that it may take, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticker(Option<(Sender<()>, JoinHandle<()>)>);

impl Ticker {
    /// Begins now.
    pub(super) fn new(what: &'static str, budget: Duration) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = channel();
        let begun = Instant::now();
        let ticker = thread::spawn(move || {
            let mut wait = MOMENT;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = INTERVAL;
                let (now, most) = (begun.elapsed().as_secs(), budget.as_secs());
                print(&format!("{what}: {now} s of at most {most} s"));
            }
            print("");
        });
        Self(Some((stop, ticker)))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if let Some((stop, ticker)) = self.0.take() {
            drop(stop);
            drop(ticker.join());
        }
    }
}

/// Puts a text in the place of the line before it.
fn print(text: &str) {
    let mut err = io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_percentage_and_never_more_than_all() {
        assert_eq!(percent(0, 5 << 20), "0 % of 5 MiB read");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 % of 17592186044415 MiB read");
        assert_eq!(percent(7, 4), "100 % of 0 MiB read");
    }

    #[test]
    fn what_is_read_is_what_is_there() {
        let mut watched = Watched::new(&b"abc"[..], Some(3));
        let mut all = Vec::new();
        watched.read_to_end(&mut all).unwrap();
        assert_eq!((all.as_slice(), watched.done), (&b"abc"[..], 3));
    }
}
