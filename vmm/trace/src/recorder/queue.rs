//! Between the devices' thread, which makes blocks, and the one that packs and writes them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device_models::checker::Finding;

use super::ring::{Ring, RingFiles, Slots};
use super::{Output, RecordOptions, RecordSummary};
use crate::blocks::Blocks;
use crate::event::{Ahead, Event, Header, Payload, TlpRun};
use crate::frames::Frames;
use crate::writer::FRAME;

/// A frame ends after this time, if anything came in it: so much may be lost when the program is killed.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Frames that may wait for being written.
const WAITING: usize = 8;

/// The devices wait no longer for a disk that takes nothing.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 10 });

/// The findings about a transaction come behind it, perhaps with a value from outside in between; after this time none
/// comes any more.
const FINDINGS_COME: Duration = Duration::from_millis(10);

/// As many values may come in between.
const BEHIND: usize = 8;

#[derive(Debug)]
pub(super) struct Shared {
    options: RecordOptions,
    state: Mutex<State>,
    /// Something waits for the writer, or the trace ends.
    filled: Condvar,
    /// The writer has taken something, or has ended.
    taken: Condvar,
}

/// Blocks that make a frame.
#[derive(Debug)]
struct Chunk {
    /// Number of the first entry in it.
    first: u64,
    blocks: Vec<u8>,
}

#[derive(Debug)]
struct State {
    blocks: Blocks,
    /// Number of the first entry that is neither written nor in `waiting`.
    first: u64,
    waiting: VecDeque<Chunk>,
    /// Memory of chunks that have been written: new memory costs a page fault for each page.
    spare: Vec<Vec<u8>>,
    /// A transaction whose findings may still come.
    held: Option<(TlpRun, Duration)>,
    /// A finding about a transaction that has not come yet.
    ahead: Option<Ahead>,
    /// What came behind it, and can come between a transaction and its findings.
    behind: Vec<(Event, Duration)>,
    /// When it began: since 1970, and on the clock that never goes back.
    begun: (Duration, Instant),
    flushed: Instant,
    /// Frames that the writer has dealt with.
    frames: u64,
    bytes: u64,
    files: RingFiles,
    lost: u64,
    /// Of those, dropped since the last that was not.
    gap: u64,
    stalls: u64,
    stalled: Duration,
    /// Nothing more is taken.
    over: bool,
    cut: bool,
    failed: Option<io::Error>,
    /// The writer has ended.
    ended: bool,
}

impl Shared {
    pub(super) fn new(
        out: Box<dyn Output>,
        slots: Option<Box<dyn Slots>>,
        header: &Header,
        options: RecordOptions,
    ) -> io::Result<Arc<Self>> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = &Header { payload: options.payload, ..header.clone() };
        let mut blocks = Blocks::new(header, epoch)?;
        let mut frames = Frames::new(out)?;
        // The first frame is there before anything happens.
        frames.frame(blocks.made())?;
        blocks.made().clear();
        let state = State {
            first: 1,
            blocks,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            held: None,
            ahead: None,
            behind: Vec::new(),
            begun: (epoch, Instant::now()),
            flushed: Instant::now(),
            frames: 0,
            bytes: frames.written(),
            files: RingFiles::default(),
            lost: 0,
            gap: 0,
            stalls: 0,
            stalled: Duration::ZERO,
            over: false,
            cut: false,
            failed: None,
            ended: false,
        };
        let shared = Arc::new(Self {
            options,
            state: Mutex::new(state),
            filled: Condvar::new(),
            taken: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let ring = slots.map(|slots| Ring::new(slots, header, epoch, options.per_file()));
        let builder = thread::Builder::new().name("recorder".into());
        drop(builder.spawn(move || write(&theirs, frames, ring))?);
        Ok(shared)
    }

    pub(super) fn payload(&self) -> Payload {
        self.options.payload
    }

    /// Whether the devices would wait.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.state().waiting.len() >= WAITING
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry.
    pub(super) fn append(&self, event: Event) {
        let mut state = self.state();
        let now = state.now();
        let between = matches!(event, Event::Outside { .. } | Event::Witness { .. })
            && !event.is_cause()
            && state.held.is_some()
            && state.behind.len() < BEHIND;
        if between {
            state.behind.push((event, now));
            return;
        }
        state.release();
        state.push(&event, now);
        self.hand_on(state);
    }

    /// Adds a transaction once it is known what was found about it.
    pub(super) fn hold(&self, mut run: TlpRun) {
        let mut state = self.state();
        let now = state.now();
        state.release();
        run.found_ahead(state.ahead.take());
        state.held = Some((run, now));
        self.hand_on(state);
    }

    /// Adds a finding, and to the transaction that it is about its class.
    pub(super) fn finding(&self, finding: &Finding) {
        let mut state = self.state();
        let now = state.now();
        let is_held = state.held.as_mut().is_some_and(|(run, _)| run.found(finding));
        if let Some(ahead) = Ahead::new(finding).filter(|_| !is_held) {
            // What the witness finds comes in front.
            state.ahead = Some(ahead);
        }
        state.release();
        state.push(&finding.into(), now);
        self.hand_on(state);
    }

    /// Gives the writer what makes a frame. Waits for it where too much waits already, or drops what there is.
    fn hand_on<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        let frame = self.options.frame();
        if state.over || state.blocks.made().len() < frame {
            return;
        }
        if state.waiting.len() >= WAITING {
            if self.options.lossy {
                state.drop_made();
                return;
            }
            state = self.wait(state);
        }
        if !state.over {
            state.enqueue();
            self.filled.notify_one();
        }
    }

    /// Waits for room, for a bounded time.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let begun = Instant::now();
        let full = |state: &mut State| state.waiting.len() >= WAITING && !state.over;
        let (mut state, waited) = self
            .taken
            .wait_timeout_while(state, PATIENCE, full)
            .unwrap_or_else(PoisonError::into_inner);
        state.stalls += 1;
        state.stalled += begun.elapsed();
        if waited.timed_out() {
            state.fail(slow());
        }
        state
    }

    pub(super) fn finish(&self) -> io::Result<RecordSummary> {
        let mut state = self.state();
        let now = state.now();
        state.release();
        if !state.over {
            let events = state.blocks.events();
            state.push(&Event::End { events }, now);
            state.enqueue();
            state.over = true;
        }
        self.filled.notify_one();
        while !state.ended {
            let frames = state.frames;
            let idle = |state: &mut State| !state.ended && state.frames == frames;
            let (next, waited) = self
                .taken
                .wait_timeout_while(state, PATIENCE, idle)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                return Err(slow());
            }
        }
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let State { bytes, files, cut, lost, stalls, stalled, .. } = *state;
        // Without the end mark.
        let events = state.blocks.events().saturating_sub(1);
        Ok(RecordSummary { events, bytes, files, cut, lost, stalls, stalled })
    }
}

fn slow() -> io::Error {
    let what = format!("the disk took nothing for {} s", PATIENCE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl State {
    fn now(&self) -> Duration {
        self.begun.0 + self.begun.1.elapsed()
    }

    fn push(&mut self, event: &Event, time: Duration) {
        if !self.over
            && let Err(error) = self.blocks.push(event, time)
        {
            self.fail(error);
        }
    }

    /// Adds the transaction that was held, and what came behind it.
    fn release(&mut self) {
        if let Some((run, time)) = self.held.take() {
            self.push(&Event::Transaction(run), time);
            let mut behind = std::mem::take(&mut self.behind);
            behind.drain(..).for_each(|(event, time)| self.push(&event, time));
            self.behind = behind;
        }
    }

    fn enqueue(&mut self) {
        let made = self.blocks.made();
        if !made.is_empty() {
            let fresh = self.spare.pop();
            let fresh = fresh.unwrap_or_else(|| Vec::with_capacity(FRAME + (FRAME >> 4)));
            let blocks = std::mem::replace(made, fresh);
            self.waiting.push_back(Chunk { first: self.first, blocks });
            (self.first, self.gap) = (self.blocks.events() + 1, 0);
        }
    }

    /// Drops what was made; a mark says how much.
    fn drop_made(&mut self) {
        self.blocks.made().clear();
        // A mark of a gap before may be among them.
        let lost = self.blocks.events() + 1 - self.first;
        self.lost += lost - self.gap;
        self.gap = lost;
        let now = self.now();
        self.push(&Event::Lost { entries: lost }, now);
    }

    fn fail(&mut self, error: io::Error) {
        self.over = true;
        self.failed.get_or_insert(error);
    }
}

/// The writer's thread.
fn write(shared: &Arc<Shared>, mut frames: Frames<Box<dyn Output>>, mut ring: Option<Ring>) {
    let result = loop {
        let Some(chunk) = next(shared) else { break Ok(frames) };
        let size = frames.size_with(chunk.blocks.len());
        if let Some(ring) = ring.as_mut().filter(|ring| ring.is_full(size)) {
            let now = shared.state().now();
            match ring.turn(frames, chunk.first, now) {
                Ok(begun) => frames = begun,
                Err(error) => break Err(error),
            }
        }
        if let Err(error) = frames.frame(&chunk.blocks) {
            break Err(error);
        }
        let written = frames.written();
        let mut state = shared.state();
        (state.bytes, state.files) = match &ring {
            Some(ring) => (ring.bytes(written), ring.files()),
            None => (written, RingFiles::default()),
        };
        state.frames += 1;
        if state.spare.len() < WAITING {
            let mut blocks = chunk.blocks;
            blocks.clear();
            state.spare.push(blocks);
        }
        if ring.is_none() && written >= shared.options.limit && !state.over {
            state.release();
            let (events, now) = (state.blocks.events(), state.now());
            state.push(&Event::Cut { events }, now);
            state.enqueue();
            (state.over, state.cut) = (true, true);
        }
        drop(state);
        shared.taken.notify_all();
    };
    // Without an end mark nothing follows: the table would make the file look whole.
    let complete = shared.state().over && shared.state().failed.is_none();
    let result = result.and_then(|frames| match complete {
        true => frames.finish().map(|(_, bytes)| bytes),
        false => Ok(frames.written()),
    });
    let mut state = shared.state();
    match (result, &ring) {
        (Ok(bytes), Some(ring)) => state.bytes = ring.bytes(bytes),
        (Ok(bytes), None) => state.bytes = bytes,
        (Err(error), _) => state.fail(error),
    }
    state.ended = true;
    drop(state);
    shared.taken.notify_all();
}

/// What is to be written next: a frame that waits, or, after some time, what there is; none at the end.
fn next(shared: &Arc<Shared>) -> Option<Chunk> {
    let mut state = shared.state();
    loop {
        if let Some(made) = state.waiting.pop_front() {
            state.flushed = Instant::now();
            return Some(made);
        }
        if state.over {
            return None;
        }
        let age = state.flushed.elapsed();
        if age >= FLUSH_AFTER {
            // Nothing is recorded any more, and no end mark will come.
            let abandoned = Arc::strong_count(shared) == 1;
            let now = state.now();
            if state.held.as_ref().is_some_and(|(_, at)| abandoned || now - *at > FINDINGS_COME) {
                state.release();
            }
            state.enqueue();
            state.flushed = Instant::now();
            if state.waiting.is_empty() && abandoned {
                return None;
            }
            continue;
        }
        state = shared
            .filled
            .wait_timeout(state, FLUSH_AFTER - age)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}
