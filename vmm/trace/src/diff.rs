//! Comparing two traces: where they part, and what each adds up to.

use std::io::BufRead;

use super::event::Event;
use super::filter::{Context, Filter};
use super::reader::{Entry, Reader, TraceError};
use super::stats::Stats;

/// What two traces have in common and what not.
#[derive(Debug)]
pub struct Diff {
    /// Entries before the first that differs.
    pub same: u64,
    /// The first that differs, in one and in the other; none where one has ended. None if nothing differs.
    pub first: Option<(Option<Entry>, Option<Entry>)>,
    /// What each adds up to.
    pub stats: (Stats, Stats),
}

struct Side<R: BufRead> {
    reader: Reader<R>,
    context: Context,
    stats: Stats,
}

impl<R: BufRead> Side<R> {
    fn new(reader: Reader<R>) -> Self {
        let context = Context::new(reader.header(), reader.begun());
        Self { reader, context, stats: Stats::default() }
    }

    fn next(&mut self, filter: &Filter) -> Result<Option<Entry>, TraceError> {
        while let Some(entry) = self.reader.next().transpose()? {
            self.context.follow(&entry);
            let fits = filter.fits(&entry, &self.context);
            if fits {
                self.stats.add(&entry, self.reader.header(), &self.context);
            }
            self.context.leave(&entry);
            if fits && !entry.event.is_last() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Compares what fits to `filter` in two traces: everything but times, and digests where one of them has none.
///
/// # Errors
/// When one cannot be read to its end, with its number, 0 or 1.
pub fn diff<A: BufRead, B: BufRead>(
    a: Reader<A>,
    b: Reader<B>,
    filter: &Filter,
) -> Result<Diff, (usize, TraceError)> {
    let (mut a, mut b) = (Side::new(a), Side::new(b));
    let (mut same, mut first) = (0, None);
    loop {
        let one = a.next(filter).map_err(|error| (0, error))?;
        let other = b.next(filter).map_err(|error| (1, error))?;
        match (one, other) {
            (None, None) => break,
            (Some(one), Some(other)) if first.is_none() && is_same(&one.event, &other.event) => {
                same += 1;
            }
            pair => drop(first.get_or_insert(pair)),
        }
    }
    Ok(Diff { same, first, stats: (a.stats, b.stats) })
}

fn is_same(one: &Event, other: &Event) -> bool {
    let digests = match (one, other) {
        (Event::Transaction(one), Event::Transaction(other)) => {
            one.digest.is_none() || other.digest.is_none() || one.digest == other.digest
        }
        _ => true,
    };
    digests && one.is_same(other)
}
