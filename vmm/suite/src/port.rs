//! The judge's inputs: the guest protocol's port, and an observer of the checker's findings.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use device_models::checker::Finding;
use device_models::fabric::{Delivery, Input, Observer, Transaction, WitnessInput};
use device_models::iommu::virtio::Request;
use device_models::witness::Record;
use guest_protocol::FAIL;
use peerdma_machine::runtime::RuntimeBus;
use peerdma_machine::{ProtocolHandler, Reply, StopHandle};

use super::exchange::Link;
use super::history::History;
use super::judge::{Answer, Judge, Reaction};
use super::pause::Pauser;

/// The answer to requests about files where no file is shared.
const NOTHING_SHARED: &str = "nothing is shared with this guest: start it with boot --share PATH, and --results FOLDER for what it puts";

/// A judge that both inputs share. Lock order: the system's lock before this one.
#[derive(Debug, Clone)]
pub struct SharedJudge(Arc<Mutex<Judge>>);

impl SharedJudge {
    /// Shares `judge`.
    pub fn new(judge: Judge) -> Self {
        Self(Arc::new(Mutex::new(judge)))
    }

    /// The judge, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, Judge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Freezes a guest.
#[derive(Debug, Clone, Default)]
pub struct Freezer(Arc<OnceLock<(StopHandle, Weak<RuntimeBus>)>>);

impl Freezer {
    /// From here on it freezes this machine and its devices.
    pub fn arm(&self, machine: StopHandle, bus: &Arc<RuntimeBus>) {
        // Armed once: there is one machine.
        let _ = self.0.set((machine, Arc::downgrade(bus)));
    }

    fn freeze(&self) {
        let Some((machine, bus)) = self.0.get() else { return };
        if let Some(bus) = bus.upgrade() {
            bus.halt();
        }
        machine.freeze();
    }
}

/// Hands findings to the judge, with what happened before them.
#[derive(Debug)]
pub struct Findings {
    judge: SharedJudge,
    history: History,
    freezer: Freezer,
    pauser: Pauser,
}

impl Findings {
    /// For this judge; what ends the run freezes the guest through `freezer`, and what pauses it does so through
    /// `pauser`.
    pub fn new(judge: SharedJudge, history: History, freezer: Freezer, pauser: Pauser) -> Self {
        Self { judge, history, freezer, pauser }
    }
}

impl Observer for Findings {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, _: Option<&[u8]>) {
        self.history.request(transaction, delivery);
    }

    fn input(&mut self, input: &Input<'_>) {
        if let Input::Witness { kind: WitnessInput::Record, data } = input
            && let Ok(bytes) = (*data).try_into()
        {
            self.history.record(&Record::of(bytes));
        }
    }

    fn iommu_request(&mut self, number: u64, request: &Request) {
        self.history.iommu(number, request);
    }

    fn finding(&mut self, finding: &Finding) {
        let reaction = self.judge.lock().finding(finding, || self.history.before(finding));
        // Here the system's lock is held, and what comes of the request has not reached the guest.
        match reaction {
            Reaction::GoOn => {}
            Reaction::Pause => self.pauser.pause(&finding.to_string()),
            Reaction::Stop => self.freezer.freeze(),
        }
    }
}

/// Answers the guest.
#[derive(Debug)]
pub struct JudgePort {
    /// Judges the run.
    pub judge: SharedJudge,
    /// Has the counters.
    pub bus: Arc<RuntimeBus>,
    /// Leads to the files that are shared; none where none are.
    pub link: Option<Link>,
}

impl ProtocolHandler for JudgePort {
    fn line(&mut self, line: &str) -> Reply {
        // The judge's lock is given up before the system's is taken.
        let answer = self.judge.lock().line(line);
        match answer {
            Answer::Line(line) => Reply::Line(line),
            Answer::Exit(code) => Reply::Exit(code),
            Answer::Slot { port, filled } => {
                let done = if filled { self.bus.plug(port) } else { self.bus.unplug(port) };
                done.map_or_else(Reply::fail, |()| Reply::ok())
            }
            Answer::Delay { requester, target, delay } => {
                let done = self.bus.delay_posted(requester, target, delay);
                done.map_or_else(Reply::fail, |()| Reply::ok())
            }
            Answer::Fence(requester) => {
                self.bus.fence_seen(requester).map_or_else(Reply::fail, |()| Reply::ok())
            }
            Answer::Settle => self.bus.settle().map_or_else(Reply::fail, |()| Reply::ok()),
            Answer::Traffic(requester) => match self.bus.traffic(requester) {
                Some(traffic) => json(&traffic),
                None => Reply::fail(format_args!("there is no function {requester}")),
            },
            Answer::Files => Reply::Line(match &mut self.link {
                Some(link) => link.ask(line),
                None => format!("{FAIL} {NOTHING_SHARED}"),
            }),
            Answer::Counters => json(&self.bus.counters().counters),
        }
    }
}

/// `ok` and a value as JSON.
fn json(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_string(value) {
        Ok(text) => Reply::Line(format!("ok {text}")),
        Err(error) => Reply::fail(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use device_models::fabric::InterruptSink;
    use peerdma_topology::assembly::SystemConfig;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::event::Events;
    use crate::hello::{Hello, Mode};

    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    #[test]
    fn what_the_judge_leaves_to_the_lab_is_answered() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let system =
            SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
        let (bus, _engine) = RuntimeBus::new(system, None).unwrap();
        let (sender, _events) = sync_channel(1);
        let hello = Hello::new(Mode::Test, "s");
        let judge = Judge::new(&hello, 0, Events::new(sender)).unwrap();
        let mut port = JudgePort { judge: SharedJudge::new(judge), bus, link: None };
        let mut answer = |line: &str| match port.line(line) {
            Reply::Line(line) => line,
            Reply::Exit(code) => format!("exit {code}"),
        };
        assert_eq!(answer("settle"), "ok");
        assert!(answer("stat").starts_with("ok {"));
        assert!(answer("traffic 1f:00.0").contains("there is no function"));
        assert!(answer("unplug 1f:00.0").starts_with("fail "));
        assert!(answer("share list 0").contains("--share PATH"));
        assert_eq!(answer("exit 3"), "exit 3");
    }
}
