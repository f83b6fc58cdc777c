//! The witness: what the guest's kernel says that it has mapped for DMA.

mod clock;
mod counters;
mod record;
mod rings;

pub use clock::Clock;
pub(crate) use clock::{GuestClock, Span};
pub use counters::{Counters, Gap};
pub use record::{Builder, Bytes, Direction, Event, Record, Text};
pub use rings::{BadHeader, Find, Rings};

/// What the guest's witness has said, and how it says it.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    attached: bool,
    /// None in a replay.
    rings: Option<Rings>,
    pub(crate) clock: GuestClock,
    pub(crate) counters: Counters,
    /// A header was refused, and a warning has said so.
    refused: bool,
}

impl Witness {
    pub(crate) fn new(_functions: usize) -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    #[inline]
    pub(crate) fn has_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// Whether there is something in the rings.
    #[inline]
    pub(crate) fn has_records(&self) -> bool {
        self.rings.as_ref().is_some_and(|rings| !rings.is_idle())
    }

    /// It is there; `now` is the guest's clock. Without rings its records come from a trace.
    pub(crate) fn attach(&mut self, now: u64, rings: Option<Rings>) {
        self.attached = true;
        self.rings = rings;
        self.clock.begin(now);
    }

    /// It is gone.
    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.rings = None;
    }

    /// Its header makes no sense.
    pub(crate) fn refuse(&mut self, error: &BadHeader) {
        if !std::mem::replace(&mut self.refused, true) {
            log::warn!("the guest's witness is not listened to: {error}");
        }
    }

    pub(crate) fn take_rings(&mut self) -> Option<Rings> {
        self.rings.take()
    }

    pub(crate) fn put_rings(&mut self, rings: Rings) {
        self.rings = Some(rings);
    }
}
