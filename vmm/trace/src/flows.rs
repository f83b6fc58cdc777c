//! Which doorbell brought a transaction about: register write, descriptor fetch, transfers, interrupt.

use std::collections::BTreeMap;

use device_models::fabric::{Kind, Purpose};

use super::event::{Event, FindingEvent, Header, TlpRun};
use super::filter::Context;
use super::owners::{Owners, Register};
use super::reader::Entry;

/// What is known of where an entry belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Number of the doorbell's entry that it follows from.
    pub(crate) doorbell: Option<u64>,
    /// The work ends with this entry, an interrupt.
    pub(crate) ends: bool,
    /// The register that a CPU accesses.
    pub(crate) register: Option<Register>,
}

/// Follows the doorbells of a trace.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    owners: Owners,
    /// By function, its last register write, if it has not looked for work since.
    rung: BTreeMap<u16, u64>,
    /// The doorbell of what each function works on.
    work: BTreeMap<u16, u64>,
}

impl Flows {
    /// At the beginning of a trace.
    pub(crate) fn new(header: &Header) -> Self {
        Self { owners: Owners::new(header), ..Self::default() }
    }

    /// Takes notice of an entry. Entries come in their order, none left out.
    pub(crate) fn follow(&mut self, entry: &Entry, context: &Context) -> Flow {
        self.owners.follow(&entry.event);
        match &entry.event {
            Event::RegisterWrite { .. } | Event::RegisterRead { .. } => {
                let register = self.owners.of(&entry.event);
                if let (Some(register), Event::RegisterWrite { .. }) = (register, &entry.event) {
                    self.rung.insert(register.function, entry.number);
                }
                Flow { register, ..Flow::default() }
            }
            Event::Transaction(run) => self.transaction(run).unwrap_or_default(),
            Event::Finding(FindingEvent { transaction: Some(_), function, .. }) => {
                let is_its = |number: &u16| context.name(usize::from(*number)) == Some(function);
                let doorbell = self.work.iter().find(|(number, _)| is_its(number));
                Flow { doorbell: doorbell.map(|(_, doorbell)| *doorbell), ..Flow::default() }
            }
            _ => Flow::default(),
        }
    }

    fn transaction(&mut self, run: &TlpRun) -> Option<Flow> {
        let function = run.function?;
        // What a function looks for first because it was told of work.
        let looks = match run.purpose {
            Purpose::DescriptorFetch => true,
            Purpose::VirtQueue => run.kind == Kind::MemoryRead,
            _ => false,
        };
        if looks && let Some(doorbell) = self.rung.remove(&function) {
            self.work.insert(function, doorbell);
        }
        let ends = run.purpose == Purpose::Interrupt;
        let doorbell =
            if ends { self.work.remove(&function) } else { self.work.get(&function).copied() };
        Some(Flow { doorbell, ends, register: None })
    }
}
