//! Carries a guest's requests from a vCPU's thread to where the files are.
//!
//! A vCPU that waits is a processor that stands still, and a disk or a network may take seconds or hang for good. So a
//! thread of its own does the work, and a request that takes longer is answered `later`: the guest asks again with the
//! same line, and what has been found out meanwhile is kept for it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use guest_protocol::exchange::LATER;
use guest_protocol::{FAIL, OK};

/// How long a vCPU waits for an answer at most.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long an answer is kept for a program that asks again every few milliseconds: later it may be wrong.
const KEEP: Duration = Duration::from_secs(5);
/// Answers that are kept until they are asked for again: programs that ask at the same time.
const KEPT: usize = 8;

/// The guest's end.
#[derive(Debug)]
pub struct Link {
    requests: SyncSender<String>,
    answers: Receiver<String>,
    /// The request that is being worked on.
    waiting: Option<String>,
    /// Requests and their answers that came too late, and when they did.
    kept: VecDeque<(String, String, Instant)>,
    /// How long they are good.
    pub(super) keep: Duration,
}

impl Link {
    /// Has `serve` answer each line, in a thread of its own.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(mut serve: impl FnMut(&str) -> String + Send + 'static) -> io::Result<Self> {
        let (requests, lines) = sync_channel::<String>(1);
        let (sender, answers) = sync_channel(1);
        let work = move || {
            for line in lines {
                if sender.send(serve(&line)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("exchange".into()).spawn(work)?;
        Ok(Self { requests, answers, waiting: None, kept: VecDeque::new(), keep: KEEP })
    }

    /// The answer to a line, or that it is not there yet.
    pub fn ask(&mut self, line: &str) -> String {
        let keep = self.keep;
        self.kept.retain(|(.., since)| since.elapsed() < keep);
        let known = self.kept.iter().position(|(request, ..)| request == line);
        if let Some((_, answer, _)) = known.and_then(|index| self.kept.remove(index)) {
            return answer;
        }
        let later = || format!("{OK} {LATER}");
        let gone = || format!("{FAIL} the host does not serve files any more");
        loop {
            if let Some(request) = self.waiting.take() {
                match self.answers.recv_timeout(PATIENCE) {
                    Ok(answer) if request == line => return answer,
                    Ok(answer) => {
                        self.kept.truncate(KEPT - 1);
                        self.kept.push_front((request, answer, Instant::now()));
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        self.waiting = Some(request);
                        return later();
                    }
                    Err(RecvTimeoutError::Disconnected) => return gone(),
                }
            }
            if self.requests.send(line.to_owned()).is_err() {
                return gone();
            }
            self.waiting = Some(line.to_owned());
        }
    }
}
