//! Which doorbell brought a transaction about: register write, descriptor fetch, transfers, interrupt.

use std::collections::BTreeMap;

use device_models::fabric::Purpose;

use super::event::{Event, FindingEvent, TlpRun};
use super::filter::Context;
use super::reader::Entry;

/// The work that a doorbell has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Number of the doorbell's entry.
    pub(crate) doorbell: u64,
    /// The work ends with this entry, an interrupt.
    pub(crate) ends: bool,
}

/// Follows the doorbells of a trace.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    /// The register write before, if no descriptor has been fetched since.
    rung: Option<u64>,
    /// The doorbell of what each function works on.
    work: BTreeMap<u16, u64>,
}

impl Flows {
    /// The doorbell that this entry follows from. Entries come in their order, none left out.
    pub(crate) fn follow(&mut self, entry: &Entry, context: &Context) -> Option<Flow> {
        match &entry.event {
            Event::RegisterWrite { .. } => {
                self.rung = Some(entry.number);
                None
            }
            Event::Transaction(run) => self.transaction(run),
            Event::Finding(FindingEvent { transaction: Some(_), function, .. }) => {
                let is_its = |number: &u16| context.name(usize::from(*number)) == Some(function);
                let doorbell = *self.work.iter().find(|(number, _)| is_its(number))?.1;
                Some(Flow { doorbell, ends: false })
            }
            _ => None,
        }
    }

    fn transaction(&mut self, run: &TlpRun) -> Option<Flow> {
        let function = run.function?;
        // A descriptor is fetched because a doorbell was rung; the first one takes the flow over.
        if run.purpose == Purpose::DescriptorFetch
            && let Some(doorbell) = self.rung.take()
        {
            self.work.insert(function, doorbell);
        }
        let ends = run.purpose == Purpose::Interrupt;
        let doorbell =
            if ends { self.work.remove(&function) } else { self.work.get(&function).copied() };
        Some(Flow { doorbell: doorbell?, ends })
    }
}
