//! What the readers put together, before it becomes a record.

use std::collections::{BTreeMap, BTreeSet};

use crate::field::Field;
use crate::machine::MAX_FUNCTIONS;
use crate::{Address, Bar, Buses, Egress, Error, Header, Names, P2pMemory, Parent, PortType};
use crate::{Root, Service, Window};

/// Most characters of a name or description that a record keeps.
pub(crate) const MAX_NAME: usize = 200;

/// All that was read so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) functions: BTreeMap<Address, Draft>,
    pub(crate) roots: BTreeSet<Root>,
    pub(crate) release: Field<String>,
    pub(crate) p2pdma: Field<bool>,
    pub(crate) command_line: Field<String>,
    pub(crate) cpu_vendor: Field<String>,
    pub(crate) cpu_family: Field<u32>,
    pub(crate) cpu_model: Field<u32>,
    /// The kernel's build configuration is there.
    pub(crate) has_configuration: bool,
    /// sysfs was read, which shows IOMMU groups wherever there are any.
    pub(crate) is_live: bool,
    pub(crate) sources: BTreeSet<&'static str>,
    pub(crate) notes: Notes,
}

/// Notes, those with the same text as one.
#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) BTreeMap<String, (BTreeSet<Address>, Option<usize>)>);

/// Most notes with different texts.
const MAX_NOTES: usize = 200;

impl Notes {
    /// Adds a note about `function`, if it is about one, and `line`, if it is about one.
    pub(crate) fn add(
        &mut self,
        text: impl Into<String>,
        function: Option<Address>,
        line: Option<usize>,
    ) {
        let mut text = text.into();
        if self.0.len() >= MAX_NOTES && !self.0.contains_key(&text) {
            text = "there is more to say than is shown here".into();
        }
        let (functions, first) = self.0.entry(text).or_default();
        functions.extend(function);
        if first.is_none() {
            // What was not read from a text has no line.
            *first = line.filter(|line| *line > 0);
        }
    }
}

/// One function, as stated so far. The fields are those of [`crate::Function`].
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The line that named it first.
    pub(crate) line: usize,
    pub(crate) parent: Field<Parent>,
    pub(crate) vendor: Field<u16>,
    pub(crate) device: Field<u16>,
    pub(crate) subsystem_vendor: Field<u16>,
    pub(crate) subsystem_device: Field<u16>,
    pub(crate) class: Field<u16>,
    pub(crate) programming_interface: Field<u8>,
    pub(crate) revision: Field<u8>,
    pub(crate) description: Option<String>,
    pub(crate) header: Field<Header>,
    pub(crate) multi_function: Field<bool>,
    pub(crate) port: Field<PortType>,
    pub(crate) buses: Field<Buses>,
    /// Secondary and subordinate bus in a tree, which does not show the primary one.
    pub(crate) below: Field<(u8, u8)>,
    /// The first of the two, where they are stated one after the other.
    pub(crate) secondary: Option<u8>,
    pub(crate) memory: Field<Window>,
    pub(crate) prefetchable: Field<Window>,
    pub(crate) acs_present: Field<bool>,
    pub(crate) acs_capabilities: [Field<bool>; 7],
    pub(crate) acs_control: [Field<bool>; 7],
    pub(crate) egress: Field<Egress>,
    pub(crate) bars: BTreeMap<u8, Bar>,
    /// Lines of `resource` in a text.
    pub(crate) resources: usize,
    pub(crate) physical_function: Field<Address>,
    pub(crate) virtual_functions: Field<Virtual>,
    /// How many are enabled, where nothing else is known about them.
    pub(crate) virtual_count: Field<u16>,
    pub(crate) ats: Field<Service>,
    pub(crate) pasid: Field<Service>,
    pub(crate) iommu_group: Field<u32>,
    pub(crate) driver: Field<String>,
    pub(crate) numa_node: Field<u32>,
    pub(crate) p2p_memory: Option<P2pMemory>,
    pub(crate) names: Names,
    /// Something said that capabilities could not be read.
    pub(crate) denied: bool,
    /// Bytes of the configuration space were there, and a note says what they lack.
    pub(crate) has_config: bool,
    /// What a listing shows, beside what it says.
    pub(crate) listing: Listing,
}

/// What may be concluded from what a listing does not show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// It shows the function's command and status registers, so it is no extract.
    pub(crate) whole: bool,
    /// The status register says whether there are capabilities.
    pub(crate) has_capabilities: Option<bool>,
    /// Capabilities listed.
    pub(crate) capabilities: u32,
    /// One of them is the PCIe capability.
    pub(crate) express: bool,
    /// One of them lies beyond the first 256 bytes.
    pub(crate) extended: bool,
    /// Something is left out in the middle, or the end may be missing.
    pub(crate) cut: Option<usize>,
}

/// Virtual functions of a physical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Virtual {
    pub(crate) enabled: u16,
    pub(crate) offset: u16,
    pub(crate) stride: u16,
}

impl Gathered {
    /// The function at `address`, which `line` names.
    pub(crate) fn function(&mut self, address: Address, line: usize) -> Result<&mut Draft, Error> {
        let limit = MAX_FUNCTIONS;
        if self.functions.len() >= limit && !self.functions.contains_key(&address) {
            return Err(Error::TooManyFunctions { line, limit });
        }
        Ok(self.functions.entry(address).or_insert_with(|| Draft { line, ..Draft::default() }))
    }
}

impl Draft {
    /// Bus numbers, from wherever they are known.
    pub(crate) fn bus_numbers(&self, address: Address) -> Option<Buses> {
        let drawn = self.below.get().map(|(secondary, subordinate)| Buses {
            primary: address.bus,
            secondary: *secondary,
            subordinate: *subordinate,
        });
        if self.buses.conflict().is_some() { None } else { self.buses.get().copied().or(drawn) }
    }

    /// A BAR; what another reader found out about the same one is kept.
    pub(crate) fn bar(&mut self, bar: Bar) {
        let known = self.bars.entry(bar.index).or_insert(bar);
        known.bus_address = known.bus_address.or(bar.bus_address);
        known.cpu_address = known.cpu_address.or(bar.cpu_address);
        known.size = known.size.or(bar.size);
    }
}

/// `text` without control characters, no longer than a name may be.
pub(crate) fn name(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}
