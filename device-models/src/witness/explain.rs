//! Sentences about what the witness knows, and the class and cause of each mistake.

use std::fmt;

use super::clock::Span;
use super::ledger::{Dead, End, Mapping};
use super::record::Event;
use super::{LeadsTo, Mistake, Notice, Placed, Reason, Witness};
use crate::checker::{Cause, FindingClass, Severity};
use crate::fabric::{FunctionId, Kind};

/// A mistake in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) class: FindingClass,
    /// None where the addresses alone tell one mistake from another.
    pub(crate) cause: Option<Cause>,
    pub(crate) text: String,
}

/// When something was, and which task did it; `now` is the guest's clock, 0 if unknown.
struct By {
    event: Event,
    now: u64,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { time, pid, task, caller } = self.event;
        match self.now.saturating_sub(time) {
            0 if self.now == 0 => {}
            0 => f.write_str("just before ")?,
            span => write!(f, "{} earlier ", Span(span))?,
        }
        match pid {
            0 => f.write_str("in an interrupt")?,
            _ => write!(f, "by pid {pid} ({task})")?,
        }
        if caller.is_empty() { Ok(()) } else { write!(f, " in {caller}") }
    }
}

/// A mapping in a few words.
struct Described<'a>(&'a Mapping);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mapping { range, direction, coherent, .. } = *self.0;
        let bytes = u128::from(range.last - range.first) + 1;
        write!(f, "{bytes} bytes at {:#x} (", range.first)?;
        if coherent { f.write_str("coherent)") } else { write!(f, "{direction})") }
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::MemoryRead => "read",
        Kind::MemoryWrite => "write",
    }
}

/// How a mapping ended.
fn ended(dead: &Dead, now: u64) -> String {
    match dead.end {
        End::Unmapped(event) => format!("unmapped {}", By { event, now }),
        End::Translation => "unmapped just now".to_owned(),
        End::Reused(event) => {
            format!("unmapped, and its addresses mapped anew {}", By { event, now })
        }
        End::Unbound(event) => {
            format!("left behind when the driver was unbound {}", By { event, now })
        }
        End::Freed(event) => format!("its dma-buf was freed {}", By { event, now }),
    }
}

impl Witness {
    /// Whether a sentence about this mistake says when something was.
    pub(crate) fn tells_time(mistake: &Mistake) -> bool {
        mistake.reason != Reason::Unmapped
    }

    /// A mistake of `function` in words. `begun` is where the addresses begin that it was given.
    pub(crate) fn explain(
        &self,
        function: FunctionId,
        kind: Kind,
        begun: u64,
        mistake: &Mistake,
        now: u64,
    ) -> Explanation {
        let group = |group| Some(Cause::Mapped { group });
        match mistake.reason {
            Reason::Unmapped => {
                let text = "never mapped for this function".to_owned();
                Explanation { class: FindingClass::WitnessUnmapped, cause: None, text }
            }
            Reason::Recycled(dead) => {
                let (mapping, ended) = (Described(&dead.mapping), ended(&dead, now));
                let text = format!("not mapped for this function since {mapping} was {ended}");
                Explanation { class: FindingClass::WitnessUnmapped, cause: None, text }
            }
            Reason::Stale(dead) => Explanation {
                class: FindingClass::WitnessStale,
                cause: group(dead.mapping.group),
                text: format!("{}, {}", Described(&dead.mapping), ended(&dead, now)),
            },
            Reason::Direction { group: its } => {
                self.explain_direction(function, kind, mistake.first, its, now)
            }
            Reason::PastEnd { group: its } => {
                let byte = mistake.first.saturating_sub(begun);
                let mapping = self.mapping_of(function, mistake.first.saturating_sub(1), its);
                let its_mapping = match mapping {
                    Some(mapping) => {
                        let by = By { event: mapping.event, now };
                        format!("{}, mapped {by}", Described(&mapping))
                    }
                    None => "its mapping".to_owned(),
                };
                Explanation {
                    class: FindingClass::WitnessPastEnd,
                    cause: group(its),
                    text: format!("byte {byte} of the transfer is behind the end of {its_mapping}"),
                }
            }
        }
    }

    fn explain_direction(
        &self,
        function: FunctionId,
        kind: Kind,
        address: u64,
        group: u64,
        now: u64,
    ) -> Explanation {
        let cause = Some(Cause::Mapped { group });
        if let Some((buffer, _, Some(event))) = self.buffers.find(group, address) {
            let text = format!(
                "{} was invalidated {}, and all its fences have signalled: until it is unmapped, \
                 it may be read, but not written",
                self.buffers.name(buffer),
                By { event, now }
            );
            return Explanation { class: FindingClass::WriteAfterInvalidate, cause, text };
        }
        let mapping = self.mapping_of(function, address, group);
        let mapped = match mapping {
            Some(mapping) => {
                format!("{}, mapped {}", Described(&mapping), By { event: mapping.event, now })
            }
            None => "what is mapped there".to_owned(),
        };
        let text = format!("{mapped}: the device may not {} it", verb(kind));
        Explanation { class: FindingClass::WitnessDirection, cause, text }
    }

    /// The mapping in force of `group` that has `address`.
    fn mapping_of(&self, function: FunctionId, address: u64, group: u64) -> Option<Mapping> {
        if let Some((_, segment, _)) = self.buffers.find(group, address) {
            return Some(segment);
        }
        self.functions.get(function.index())?.ledger.find(address, Some(group)).copied()
    }

    /// What is wrong with a request that has failed already; nothing where the guest's kernel has
    /// allowed it, or nothing is known of `function`.
    pub(crate) fn look(
        &self,
        function: FunctionId,
        kind: Kind,
        begun: u64,
        address: u64,
    ) -> Option<Mistake> {
        self.coverage(function).ok()?;
        let mistake =
            self.functions.get(function.index())?.mistake(kind, begun, address, address)?;
        (mistake.reason != Reason::Unmapped).then_some(mistake)
    }

    /// The mistake, if `mistake` is one of a function that nothing translates for: where another
    /// function's mapping has come since its own was unmapped, it is that one's address which the
    /// function has been given. Behind an IOMMU equal addresses of two functions mean nothing.
    pub(crate) fn unless_recycled(&self, function: FunctionId, mistake: &Mistake) -> Mistake {
        let Reason::Stale(dead) = mistake.reason else { return *mistake };
        let recycled = dead.end.event().is_some_and(|end| {
            self.mapped_for_others(function, mistake.first)
                .any(|(_, mapping)| mapping.event.time > end.time)
        });
        let reason = if recycled { Reason::Recycled(dead) } else { mistake.reason };
        Mistake { reason, ..*mistake }
    }

    /// Another function for which `address` is mapped, and the mapping: the latest.
    pub(crate) fn mapped_for_another(
        &self,
        function: FunctionId,
        address: u64,
    ) -> Option<(FunctionId, Mapping)> {
        self.mapped_for_others(function, address).max_by_key(|(_, mapping)| mapping.event.time)
    }

    fn mapped_for_others(
        &self,
        function: FunctionId,
        address: u64,
    ) -> impl Iterator<Item = (FunctionId, Mapping)> {
        let all = (0..).zip(&self.functions).map(|(index, tracked)| (FunctionId(index), tracked));
        all.filter(move |(other, _)| *other != function).filter_map(move |(other, tracked)| {
            tracked.ledger.find(address, None).map(|mapping| (other, *mapping))
        })
    }
}

impl Mapping {
    /// In a few words.
    pub(crate) fn words(&self) -> String {
        format!("{}, mapped {}", Described(self), By { event: self.event, now: 0 })
    }
}

impl Notice {
    /// The function concerned.
    pub(crate) fn function(&self) -> FunctionId {
        match self {
            Self::Leaked { function, .. } | Self::Freed { function, .. } => *function,
            Self::Placed(placed) => placed.function,
        }
    }

    /// The function concerned, the weight, and the words.
    pub(crate) fn explain(&self, now: u64) -> (FunctionId, Severity, Explanation) {
        match self {
            Self::Leaked { function, count, bytes, mapping, gone } => {
                // What is pulled out leaves its driver no time.
                let severity = if *gone { Severity::Note } else { Severity::Finding };
                let by = By { event: mapping.event, now };
                let what = Described(mapping);
                let text = format!(
                    "{count} mappings of {bytes} bytes were left behind by the driver, among them \
                     {what}, mapped {by}"
                );
                let class = FindingClass::WitnessLeaked;
                let cause = Some(Cause::Mapped { group: mapping.group });
                (*function, severity, Explanation { class, cause, text })
            }
            Self::Freed { function, attachment, buffer, mapping, event } => {
                let by = By { event: *event, now };
                let text =
                    format!("{buffer} was freed {by} with {} still mapped", Described(mapping));
                let class = FindingClass::BufferFreed;
                let cause = Some(Cause::Mapped { group: *attachment });
                (*function, Severity::Finding, Explanation { class, cause, text })
            }
            Self::Placed(placed) => {
                let Placed { function, attachment, name, mapping, place, .. } = &**placed;
                let (what, by) = (Described(mapping), By { event: mapping.event, now });
                let cause = Some(Cause::Mapped { group: *attachment });
                let (class, severity, text) = match place {
                    LeadsTo::Memory => (
                        FindingClass::FellBack,
                        Severity::Note,
                        format!(
                            "{name}, which was in another device's memory, was mapped in system \
                             memory as {what} {by}, for an importer without allow_peer2peer"
                        ),
                    ),
                    LeadsTo::Device | LeadsTo::Unknown => (
                        FindingClass::PeerToPeerNotAllowed,
                        Severity::Finding,
                        format!(
                            "{name} was mapped as {what} {by}, which is another device's memory, \
                             for an importer without allow_peer2peer"
                        ),
                    ),
                };
                (*function, severity, Explanation { class, cause, text })
            }
        }
    }
}
