//! The judge's two ears: the lab port for what the guest says, an observer for what the checker finds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::Observer;

use super::judge::{Answer, Judge};
use crate::lab::LabBus;
use crate::machine::{LabPort, Reply};

/// A judge that both ears share. Lock order: the lab's lock before this one.
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

/// Hands findings to the judge.
#[derive(Debug)]
pub struct Findings(pub SharedJudge);

impl Observer for Findings {
    fn finding(&mut self, finding: &Finding) {
        self.0.lock().finding(finding.class, || finding.to_string());
    }
}

/// Answers the guest.
#[derive(Debug)]
pub struct JudgePort {
    /// Who judges.
    pub judge: SharedJudge,
    /// Who counts.
    pub bus: Arc<LabBus>,
}

impl LabPort for JudgePort {
    fn line(&mut self, line: &str) -> Reply {
        // The judge's lock is given up before the lab's is taken.
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
            Answer::Counters => json(&self.bus.counters()),
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
