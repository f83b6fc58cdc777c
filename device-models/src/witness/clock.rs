//! Time for sentences: how long ago something was. Nothing depends on it.

use std::fmt;

/// A clock that only runs forward.
pub trait Clock: Send {
    /// Nanoseconds since some moment that stays the same.
    fn nanoseconds(&self) -> u64;
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The guest's clock, from a clock of the host's.
#[derive(Debug, Default)]
pub(crate) struct GuestClock {
    clock: Option<Box<dyn Clock>>,
    /// The guest's clock and the host's at one moment.
    begun: (u64, u64),
}

impl GuestClock {
    /// From now on this is the host's clock.
    pub(crate) fn set(&mut self, clock: Box<dyn Clock>) {
        self.clock = Some(clock);
    }

    /// The guest's clock shows `now` at this moment.
    pub(crate) fn begin(&mut self, now: u64) {
        self.begun = (now, self.clock.as_ref().map_or(0, |clock| clock.nanoseconds()));
    }

    /// The guest's clock has shown `seen` already. It was read a little before the VMM's, and the two
    /// need not run alike.
    pub(crate) fn catch_up(&mut self, seen: u64) {
        if self.clock.is_some() && seen > self.now() {
            self.begin(seen);
        }
    }

    /// What the guest's clock shows; 0 if unknown.
    pub(crate) fn now(&self) -> u64 {
        let (guest, host) = self.begun;
        self.clock
            .as_ref()
            .map_or(0, |clock| guest.saturating_add(clock.nanoseconds().saturating_sub(host)))
    }
}

/// A span of time as sentences have it, with one decimal where that says something.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            ..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (1_000, "us"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        write!(f, "{}.{} {name}", self.0 / unit, self.0 % unit * 10 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u64);

    impl Clock for At {
        fn nanoseconds(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_guests_clock_goes_on_from_where_it_was() {
        let mut clock = GuestClock::default();
        assert_eq!(clock.now(), 0);
        clock.set(Box::new(At(100)));
        clock.begin(5000);
        clock.set(Box::new(At(350)));
        assert_eq!(clock.now(), 5250);
        clock.catch_up(5200);
        assert_eq!(clock.now(), 5250);
        clock.catch_up(6000);
        assert_eq!(clock.now(), 6000);
        clock.begin(u64::MAX);
        clock.set(Box::new(At(u64::MAX)));
        assert_eq!(clock.now(), u64::MAX);
    }

    #[test]
    fn spans_are_short() {
        let spans = [0, 999, 1_000, 3_149_000, 59_990_000_000, u64::MAX];
        let texts = spans.map(|span| Span(span).to_string());
        assert_eq!(texts, ["0 ns", "999 ns", "1.0 us", "3.1 ms", "59.9 s", "18446744073.7 s"]);
    }
}
