//! The observer of a replay: reads the trace on while the system does again what was recorded, and compares.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::{
    Alternative, Delivery, FunctionId, Input, Observer, Transaction, WitnessInput,
};
use device_models::witness;
use peerdma_support::warnings::Warnings;

use super::changed::Collector;
use super::{Difference, Replay, ReplayError};
use crate::event::{Event, FindingEvent, TestMark};
use crate::reader::{Entry, Reader};
use crate::what_if;

/// What is looked for ahead comes next, or behind what was found on the way to it.
const MAX_AHEAD: usize = 64;

/// As much is kept of what comes of one cause.
const MAX_KEPT: usize = 1000;

#[derive(Debug)]
pub(super) struct Stage<R: BufRead> {
    script: Arc<Mutex<Script<R>>>,
    pub(super) refused: Arc<Warnings>,
}

impl<R: BufRead> Clone for Stage<R> {
    fn clone(&self) -> Self {
        Self { script: Arc::clone(&self.script), refused: Arc::clone(&self.refused) }
    }
}

#[derive(Debug)]
struct Script<R: BufRead> {
    reader: Option<Reader<R>>,
    /// What was read ahead: entries that are compared, and behind them at most one that is not.
    ahead: VecDeque<Entry>,
    /// Number of the cause that is played.
    cause: u64,
    replay: Replay,
    failed: Option<ReplayError>,
    what_if: Option<Collector>,
    /// What came of the cause, if that is wanted.
    kept: Option<Vec<Entry>>,
    /// The test that is running, where the next cause is.
    test: Option<String>,
}

impl<R: BufRead> Stage<R> {
    pub(super) fn new(reader: Reader<R>, what_if: Option<Collector>) -> Self {
        let script = Script {
            reader: Some(reader),
            ahead: VecDeque::new(),
            cause: 0,
            replay: Replay::default(),
            failed: None,
            what_if,
            kept: None,
            test: None,
        };
        let refused = Warnings::of("recorded causes that the devices refused");
        Self { script: Arc::new(Mutex::new(script)), refused: Arc::new(refused) }
    }

    fn lock(&self) -> MutexGuard<'_, Script<R>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cause has been played: nothing may be left of what came of it. The next cause; none when it is over.
    pub(super) fn finish_cause(&self) -> Result<Option<Entry>, ReplayError> {
        let mut script = self.lock();
        if let Some(error) = script.failed.take() {
            return Err(error);
        }
        if script.replay.difference.is_some() {
            return Ok(None);
        }
        let next = script.next_entry()?;
        match next {
            None => Ok(None),
            Some(entry) if entry.event.is_cause() => {
                script.cause = entry.number;
                script.replay.events += 1;
                Ok(Some(entry))
            }
            Some(entry) => {
                script.differ(entry.number, Some(entry.event), None);
                Ok(None)
            }
        }
    }

    /// From here on what comes of each cause is kept.
    pub(super) fn keep(&self) {
        self.lock().kept = Some(Vec::new());
    }

    /// What came of the causes since the last call.
    pub(super) fn take_kept(&self) -> Vec<Entry> {
        self.lock().kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The test that is running where the next cause is.
    pub(super) fn test(&self) -> Option<String> {
        self.lock().test.clone()
    }

    /// The system has answered a read.
    pub(super) fn compare_answer(&self, cause: Entry, answer: Option<Event>) {
        if answer.as_ref().is_some_and(|answer| *answer != cause.event) {
            self.lock().differ(cause.number, Some(cause.event), answer);
        }
    }

    pub(super) fn into_replay(self) -> Result<Replay, ReplayError> {
        let mut script = self.lock();
        if let Some(error) = script.failed.take() {
            return Err(error);
        }
        let mut replay = std::mem::take(&mut script.replay);
        if let Some(Collector { changes, strict, has_witness, .. }) = script.what_if.take() {
            if strict && !has_witness {
                return Err(what_if::no_witness().into());
            }
            replay.changes = Some(changes);
        }
        replay.ending = script.reader.as_ref().and_then(|reader| reader.ending().cloned());
        Ok(replay)
    }
}

impl<R: BufRead> Script<R> {
    /// The next entry that is a cause or compared.
    fn next_entry(&mut self) -> Result<Option<Entry>, ReplayError> {
        match self.ahead.pop_front() {
            Some(entry) => Ok(Some(entry)),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Result<Option<Entry>, ReplayError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        loop {
            let entry = reader.next().transpose()?;
            if entry.as_ref().is_some_and(|entry| !entry.event.is_last()) {
                self.replay.entries += 1;
            }
            match entry {
                Some(Entry { event: Event::Lost { .. }, number, .. }) => {
                    return Err(ReplayError::Lost(number));
                }
                Some(Entry { event, .. }) if event.is_last() => return Ok(None),
                Some(entry) if entry.event.is_cause() || entry.event.is_compared() => {
                    return Ok(Some(entry));
                }
                Some(Entry { event: Event::Test(TestMark { name, result }), .. }) => {
                    self.test = result.is_none().then_some(name);
                }
                // What other sources have added.
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Reads on, so that `ahead` holds the next entry.
    fn fill(&mut self) {
        if self.ahead.is_empty() {
            match self.read() {
                Ok(Some(entry)) => self.ahead.push_back(entry),
                Ok(None) => {}
                Err(error) => drop(self.failed.get_or_insert(error)),
            }
        }
    }

    /// The next entry that is compared; the cause behind it stays.
    fn next_compared(&mut self) -> Option<Entry> {
        self.fill();
        if self.ahead.front()?.event.is_compared() { self.ahead.pop_front() } else { None }
    }

    /// The witness record that comes next, if one does.
    fn next_record(&mut self) -> Option<witness::Bytes> {
        if self.replay.difference.is_some() || self.failed.is_some() {
            return None;
        }
        self.fill();
        match &self.ahead.front()?.event {
            Event::Witness { kind: WitnessInput::Record, data } => data.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// The replay did this: did the trace too?
    fn compare(&mut self, now: Event) {
        if self.replay.difference.is_some() || self.failed.is_some() {
            return;
        }
        match self.next_compared() {
            Some(recorded) if recorded.event.is_same(&now) => {
                self.replay.events += 1;
                self.keep(recorded);
                match now {
                    Event::Transaction(_) => self.replay.transactions += 1,
                    Event::Finding(FindingEvent { text, note: false, .. }) => self.replay.add(text),
                    Event::Finding(FindingEvent { text, note: true, .. }) => {
                        self.replay.add(format!("note: {text}"));
                    }
                    _ => {}
                }
            }
            Some(recorded) => self.differ(recorded.number, Some(recorded.event), Some(now)),
            // Where the trace was cut, the replay goes on a little further.
            None if self.failed.is_some() || self.is_at_a_cut() => {}
            None => self.differ(self.cause, None, Some(now)),
        }
    }

    fn keep(&mut self, entry: Entry) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.len() < MAX_KEPT) {
            kept.push(entry);
        }
    }

    /// What a question finds out, as long as the replay does what the trace has.
    fn what_if(&mut self) -> Option<&mut Collector> {
        self.what_if.as_mut().filter(|_| self.replay.difference.is_none() && self.failed.is_none())
    }

    /// Whether the trace ends here without saying that it is complete.
    fn is_at_a_cut(&self) -> bool {
        use crate::reader::Ending;
        let ending = self.reader.as_ref().and_then(Reader::ending);
        self.ahead.is_empty() && matches!(ending, Some(Ending::Cut | Ending::Truncated { .. }))
    }

    fn differ(&mut self, entry: u64, recorded: Option<Event>, replayed: Option<Event>) {
        self.replay.difference.get_or_insert(Difference { entry, recorded, replayed });
    }

    /// Looks ahead for the next entry of which `wanted` gives something, up to the next cause.
    fn look_ahead<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> Option<T> {
        if self.replay.difference.is_some() || self.failed.is_some() {
            // What is next is not known any more, and need not be looked for.
            return None;
        }
        let mut at = 0;
        while at < MAX_AHEAD {
            if at == self.ahead.len() {
                match self.read() {
                    Ok(Some(entry)) => self.ahead.push_back(entry),
                    Ok(None) => return None,
                    Err(error) => {
                        self.failed.get_or_insert(error);
                        return None;
                    }
                }
            }
            let event = &self.ahead.get(at)?.event;
            if let Some(found) = wanted(event) {
                return Some(found);
            }
            if event.is_cause() {
                return None;
            }
            at += 1;
        }
        None
    }
}

impl<R: BufRead + Send> Observer for Stage<R> {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        let mut script = self.lock();
        script.compare(Event::transaction(transaction, delivery, data));
        if let Some(what_if) = script.what_if() {
            what_if.transaction(transaction, delivery);
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let mut script = self.lock();
        script.compare(finding.into());
        if let Some(what_if) = script.what_if() {
            what_if.finding(finding);
        }
    }

    fn alternative(&mut self, transaction: &Transaction, alternative: &Alternative) {
        if let Some(what_if) = self.lock().what_if() {
            what_if.alternative(transaction, alternative);
        }
    }

    fn input(&mut self, input: &Input<'_>) {
        if let Input::Witness { kind: WitnessInput::Attach, .. } = input
            && let Some(what_if) = self.lock().what_if()
        {
            what_if.has_witness = true;
        }
        let compared = matches!(
            input,
            Input::Outside { .. } | Input::Witness { kind: WitnessInput::Record, .. }
        );
        if compared {
            self.lock().compare(input.into());
        }
    }

    fn next_record(&mut self, record: &mut witness::Bytes) -> bool {
        match self.lock().next_record() {
            Some(recorded) => {
                *record = recorded;
                true
            }
            None => false,
        }
    }

    fn replace_read(&mut self, _transaction: &Transaction, data: &mut [u8]) -> bool {
        let recorded = self.lock().look_ahead(|event| match event {
            Event::Transaction(run) => Some(run.data.clone()),
            _ => None,
        });
        match recorded.flatten() {
            Some(recorded) if recorded.len() == data.len() => {
                data.copy_from_slice(&recorded);
                true
            }
            _ => false,
        }
    }

    fn replace_outside(&mut self, _function: FunctionId, data: &mut [u8]) {
        let recorded = self.lock().look_ahead(|event| match event {
            Event::Outside { data, .. } => Some(data.clone()),
            _ => None,
        });
        if let Some(recorded) = recorded.filter(|recorded| recorded.len() == data.len()) {
            data.copy_from_slice(&recorded);
        }
    }
}
