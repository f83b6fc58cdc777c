//! Runs a job where guests can run, follows its events, and ends it when it hangs.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::event::{self, Event, Events};
use super::exchange::{Link, Server};
use super::files::Local;
use super::job::Job;
use super::runner::{self, Channels, Duplex};
use super::test_host::TestHostKernel;
use crate::host::PROGRAM;
use crate::host::ctrl_c::interrupted;
use crate::host::qemu::Qemu;
use crate::nested::{self, NestedError, Recipe, TestHost};

/// How much longer than a guest's own limit its keeper waits before it is taken for hung too.
const GRACE: Duration = Duration::from_secs(20);
/// How often the end is looked for while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// Where a job runs.
#[derive(Debug, Clone)]
pub enum Venue {
    /// In this process.
    Here,
    /// In the nested test host.
    Nested(Box<Recipe>),
}

impl Venue {
    /// The nested test host, with this very program inside.
    pub fn nested(qemu: &Qemu, kernel: TestHostKernel) -> Self {
        let program = PROGRAM.into();
        Self::Nested(Box::new(Recipe { qemu: qemu.clone(), kernel, program }))
    }
}

impl Venue {
    /// Kernel parameters that guests need there.
    ///
    /// `maxcpus=1`: a kernel patches itself most while it boots, and the emulator may run what has just been replaced. It
    /// boots on one processor, and the guest's first process starts the others.
    ///
    /// `nohz=off`: TCG's VMRUN does not restore the interrupt shadow of STI. A guest that was left between the STI and
    /// the HLT of its idle loop gets the next interrupt before the HLT, and then halts although a
    /// thread has been woken: until the next interrupt, which without a periodic tick may be
    /// minutes away. Seen as a sleep of 100 ms that lasted as long as the longest timer there was.
    pub fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Nested(_) => &["maxcpus=1", "nohz=off"],
            Self::Here => &[],
        }
    }

    /// Whether whatever runs there takes turns on one processor of this machine's.
    pub fn takes_turns(&self) -> bool {
        matches!(self, Self::Nested(recipe) if recipe.takes_turns())
    }

    /// What is to be said of it besides in a report.
    pub fn remark(&self) -> String {
        match self {
            Self::Nested(recipe) => format!("; the test host's kernel: {}", recipe.kernel.name),
            Self::Here => String::new(),
        }
    }

    /// Gives them to all guests of `job`.
    pub fn adapt(&self, job: &mut Job) {
        for run in &mut job.runs {
            run.parameters.extend(self.parameters().iter().map(|text| (*text).to_owned()));
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// By itself.
    Done,
    /// The test host ended, or was ended, without having finished.
    Lost {
        /// Why, in a sentence.
        reason: String,
        /// It did not answer any more.
        hung: bool,
        /// What it said last.
        last_words: Vec<String>,
    },
    /// By the user.
    Interrupted,
}

/// How long a test host's power-off may take after an interactive guest.
const LAST_OUTPUT: Duration = Duration::from_secs(3);

/// The other ends of what the user of an interactive guest reaches it by.
#[derive(Debug, Default)]
pub struct Streams {
    /// The guest's console: what is written there the guest reads, and the other way round.
    pub console: Option<UnixStream>,
    /// The control channel.
    pub control: Option<UnixStream>,
    /// A debugger's messages.
    pub gdb: Option<UnixStream>,
}

impl Streams {
    fn open(self) -> std::io::Result<Channels> {
        let duplex = |stream: Option<UnixStream>| {
            let open = |stream: UnixStream| {
                let output = Box::new(stream.try_clone()?);
                std::io::Result::Ok(Duplex { input: Box::new(stream), output })
            };
            stream.map(open).transpose()
        };
        let (console, control) = (duplex(self.console)?, duplex(self.control)?);
        Ok(Channels { console, control, gdb: duplex(self.gdb)?, exchange: None })
    }
}

/// Something that runs a job.
#[derive(Debug)]
enum Runner {
    Here(Option<JoinHandle<()>>),
    Nested(TestHost),
}

/// Runs `job` at `venue`; hands every event to `each`. `streams` reach the guest of an interactive job. `factor`
/// stretches limits of the test host's own.
///
/// # Errors
/// When the test host cannot be started.
pub fn drive(
    venue: &Venue,
    job: &Job,
    streams: Streams,
    factor: u64,
    mut each: impl FnMut(Event),
) -> Result<JobEnd, NestedError> {
    let interactive = streams.console.is_some();
    let (runner, events) = start(venue, job, streams)?;
    let end = follow(&events, matches!(runner, Runner::Nested(_)), factor, &mut each);
    Ok(match runner {
        Runner::Nested(host) => {
            let hung = matches!(&end, Followed::Silent);
            if hung {
                host.kill();
            } else if interactive && matches!(&end, Followed::Done) {
                host.let_end(LAST_OUTPUT * u32::try_from(factor.max(1)).unwrap_or(u32::MAX));
            }
            conclude(end, "the nested test host", || host.last_words())
        }
        Runner::Here(mut thread) => {
            // A guest here is ended by its own limit or by the user; a panic has been printed. One that says nothing
            // any more is stuck in a call of the host's: it goes with this process.
            if !matches!(end, Followed::Interrupted | Followed::Silent) {
                thread.take().map(JoinHandle::join);
            }
            conclude(end, "the VMM in this process", Vec::new)
        }
    })
}

fn start(
    venue: &Venue,
    job: &Job,
    streams: Streams,
) -> Result<(Runner, Receiver<Event>), NestedError> {
    match venue {
        Venue::Nested(recipe) => {
            let (host, events) = TestHost::start(recipe, job, streams)?;
            Ok((Runner::Nested(host), events))
        }
        Venue::Here => {
            let failed = |what| move |source| NestedError::Host { what, source };
            let mut channels = streams.open().map_err(failed("the guest's channels"))?;
            channels.exchange = link(job).map_err(failed("the files that are shared"))?;
            let (sender, receiver) = sync_channel(event::QUEUE);
            let job = job.clone();
            let thread = thread::Builder::new()
                .name("runner".into())
                .spawn(move || runner::run(&job, &Local(&job), channels, &Events::new(sender)))
                .map_err(failed("a thread for the guests"))?;
            Ok((Runner::Here(Some(thread)), receiver))
        }
    }
}

/// Where a guest of this process asks for files; none if there are none to ask for.
fn link(job: &Job) -> std::io::Result<Option<Link>> {
    if job.exchange.is_empty() {
        return Ok(None);
    }
    let mut server = Server::new(&job.exchange)?;
    Link::start(move |line| server.answer(line)).map(Some)
}

/// Why following a job's events ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Followed {
    Done,
    /// Nothing came in the time that there was.
    Silent,
    /// The sender is gone.
    Gone,
    /// The sender gave up.
    Broken(String),
    Interrupted,
}

fn follow(
    events: &Receiver<Event>,
    boots: bool,
    factor: u64,
    each: &mut impl FnMut(Event),
) -> Followed {
    let factor = u32::try_from(factor).unwrap_or(u32::MAX);
    let after = |time: Duration| Instant::now().checked_add(time);
    let boot = Duration::from_secs(nested::BOOT_LIMIT).saturating_mul(factor);
    // Of the guests that run; one without a limit has none.
    let mut running: BTreeMap<String, Option<Instant>> = BTreeMap::new();
    // The limits of those that stand still, meanwhile.
    let mut paused: BTreeMap<String, Duration> = BTreeMap::new();
    // Of the next guest's start, while none runs.
    let mut start = after(boot).filter(|_| boots);
    loop {
        if interrupted() {
            return Followed::Interrupted;
        }
        let event = match events.recv_timeout(TICK) {
            Ok(event) => event,
            // The user's wish ends the test host before it is looked at here.
            Err(RecvTimeoutError::Disconnected) if interrupted() => return Followed::Interrupted,
            Err(RecvTimeoutError::Disconnected) => return Followed::Gone,
            Err(RecvTimeoutError::Timeout) => {
                let idle = if running.is_empty() { start } else { None };
                let now = Instant::now();
                if running.values().flatten().chain(&idle).any(|deadline| now > *deadline) {
                    return Followed::Silent;
                }
                continue;
            }
        };
        match &event {
            Event::Done => return Followed::Done,
            Event::Broken { message } => return Followed::Broken(message.clone()),
            Event::Started { scenario, limit } => {
                let limit = (*limit > 0).then(|| Duration::from_secs(*limit).saturating_add(GRACE));
                running.insert(scenario.clone(), limit.and_then(after));
            }
            Event::Paused { scenario, .. } => {
                if let Some(deadline) = running.get_mut(scenario).and_then(Option::take) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    paused.insert(scenario.clone(), left);
                }
            }
            Event::Resumed { scenario } => {
                if let Some(left) = paused.remove(scenario) {
                    running.insert(scenario.clone(), after(left));
                }
            }
            Event::HostUp { .. } => start = after(boot),
            Event::Ended { report } => {
                running.remove(&report.name);
                start = after(boot);
            }
            _ => {}
        }
        each(event);
    }
}

fn conclude(end: Followed, what: &str, last_words: impl FnOnce() -> Vec<String>) -> JobEnd {
    let (reason, hung) = match end {
        Followed::Done => return JobEnd::Done,
        Followed::Interrupted => return JobEnd::Interrupted,
        Followed::Silent => (format!("{what} hung and was given up"), true),
        Followed::Gone => (format!("{what} ended before its work was done"), false),
        Followed::Broken(message) => (format!("{what} gave up: {message}"), false),
    };
    JobEnd::Lost { reason, hung, last_words: last_words() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ScenarioReport;

    fn followed(events: Vec<Event>, hold: bool) -> (Followed, usize) {
        let (sender, receiver) = sync_channel(16);
        events.into_iter().for_each(|event| sender.send(event).unwrap());
        let keep = hold.then_some(sender);
        let mut count = 0;
        let end = follow(&receiver, false, 0, &mut |_| count += 1);
        drop(keep);
        (end, count)
    }

    #[test]
    fn a_hang_names_the_guests_that_hung() {
        let end = conclude(Followed::Silent, "the VMM in this process", Vec::new);
        let JobEnd::Lost { reason, hung, .. } = end else { panic!("{end:?}") };
        assert_eq!(
            (reason.as_str(), hung),
            ("the VMM in this process hung and was given up", true)
        );
    }

    #[test]
    fn the_end_of_events_is_distinguished() {
        let ended = || Event::Ended { report: Box::new(ScenarioReport::new("a")) };
        assert_eq!(followed(vec![ended(), Event::Done], true), (Followed::Done, 1));
        assert_eq!(followed(vec![ended()], false), (Followed::Gone, 1));
        let broken = Event::Broken { message: "why".into() };
        assert_eq!(followed(vec![broken], true), (Followed::Broken("why".into()), 0));
        // With a factor of 0 the time for the next guest to start is over at once.
        assert_eq!(followed(vec![ended()], true), (Followed::Silent, 1));
    }

    #[test]
    fn a_guest_that_goes_on_keeps_nobody_waiting_for_the_other() {
        let started = |name: &str, limit| Event::Started { scenario: name.into(), limit };
        let ended = Event::Ended { report: Box::new(ScenarioReport::new("a")) };
        // One has ended and no other begins, but the second, which has no limit, still runs: that is not silence.
        let (sender, receiver) = sync_channel(16);
        for event in [started("a", 9), started("b", 0), ended] {
            sender.send(event).unwrap();
        }
        let later = thread::spawn(move || {
            thread::sleep(TICK * 3);
            sender.send(Event::Done).unwrap();
        });
        assert_eq!(follow(&receiver, false, 0, &mut |_| ()), Followed::Done);
        later.join().unwrap();
    }

    #[test]
    fn a_job_without_guests_is_done() {
        let job = Job {
            kernel: "/none".into(),
            initramfs: "/none".into(),
            out: "/none".into(),
            record: None,
            recording: peerdma_trace::RecordOptions::default(),
            at_once: 1,
            jitter: None,
            exchange: crate::exchange::Exchange::default(),
            runs: Vec::new(),
        };
        assert_eq!(drive(&Venue::Here, &job, Streams::default(), 1, |_| ()).unwrap(), JobEnd::Done);
    }
}
