//! From what the readers found to a record: what can be concluded is concluded, the rest is unknown.

use std::collections::BTreeMap;

use crate::field::Field;
use crate::gather::{Draft, Gathered, Notes, Virtual};
use crate::machine::SCHEMA;
use crate::{Acs, AcsFlags, Address, Bridge, Cpu, Error, Function, Header, Kernel, Machine, Note};
use crate::{Parent, PortType, Root, Service, Window};

mod conclude;
mod parents;

/// Makes the record.
pub(crate) fn assemble(mut gathered: Gathered) -> Result<Machine, Error> {
    identities(&gathered)?;
    let mut notes = std::mem::take(&mut gathered.notes);
    let extended = gathered.functions.values().any(|draft| draft.listing.extended);
    let physical = parents::physical_functions(&gathered, &mut notes);
    let parents = parents::parents(&gathered, &physical, &mut notes);
    let mut functions = Vec::with_capacity(gathered.functions.len());
    for (address, draft) in &gathered.functions {
        let mut function = function(*address, draft, extended, &mut notes);
        function.parent = parents.get(address).copied().unwrap_or_default();
        function.physical_function = physical.get(address).copied();
        functions.push(function);
    }
    several_functions(&mut functions);
    let roots = functions.iter().filter(|function| function.parent == Parent::Root);
    gathered.roots.extend(roots.map(|function| {
        let Address { segment, bus, .. } = function.address;
        Root { segment, bus }
    }));
    let groups = functions.iter().any(|function| function.iommu_group.is_some());
    let kernel = Kernel {
        iommu_groups: (groups || gathered.is_live).then_some(groups),
        release: taken(&gathered.release, "the kernel release", None, &mut notes),
        p2pdma: taken(&gathered.p2pdma, "CONFIG_PCI_P2PDMA", None, &mut notes)
            .or(gathered.has_configuration.then_some(false)),
        command_line: taken(&gathered.command_line, "the command line", None, &mut notes),
    };
    let cpu = Cpu {
        vendor: taken(&gathered.cpu_vendor, "the processor's vendor", None, &mut notes),
        family: taken(&gathered.cpu_family, "the processor's family", None, &mut notes),
        model: taken(&gathered.cpu_model, "the processor's model", None, &mut notes),
    };
    if cpu == Cpu::default() {
        notes.add(
            "the processor is not known: Linux lets AMD's since Zen route between any two root ports",
            None,
            None,
        );
    }
    if kernel.p2pdma.is_none() {
        notes.add("whether the kernel has CONFIG_PCI_P2PDMA is not known", None, None);
    }
    let notes = notes.0.into_iter().map(|(text, (functions, line))| Note {
        text,
        functions: functions.into_iter().collect(),
        line,
    });
    Ok(Machine {
        schema: SCHEMA.into(),
        source: gathered.sources.into_iter().collect::<Vec<_>>().join(", "),
        kernel,
        cpu: (cpu != Cpu::default()).then_some(cpu),
        roots: gathered.roots.into_iter().collect(),
        functions,
        notes: notes.collect(),
    })
}

/// Two machines in one file have different functions at the same address.
fn identities(gathered: &Gathered) -> Result<(), Error> {
    for (address, draft) in &gathered.functions {
        let conflicts = [
            ("vendor", draft.vendor.conflict()),
            ("device ID", draft.device.conflict()),
            ("class", draft.class.conflict()),
        ];
        for (what, conflict) in conflicts {
            if let Some((before, line)) = conflict {
                return Err(Error::TwoMachines { address: *address, what, before, line });
            }
        }
    }
    Ok(())
}

/// The value of a field, with a note if two lines differ about it.
fn taken<T: Clone + PartialEq>(
    field: &Field<T>,
    what: &str,
    function: Option<Address>,
    notes: &mut Notes,
) -> Option<T> {
    if let Some((first, second)) = field.conflict() {
        let text = format!("{what} is stated in two ways (lines {first} and {second}): not known");
        notes.add(text, function, Some(first));
    }
    field.get().cloned()
}

fn function(address: Address, draft: &Draft, extended: bool, notes: &mut Notes) -> Function {
    let conclusion = conclude::conclude(address, draft, extended, notes);
    let mut take = Taker { address, notes };
    take.of(&draft.buses, "bus numbers");
    take.of(&draft.below, "bus numbers");
    let buses = draft.bus_numbers(address);
    let memory: Option<Window> = take.of(&draft.memory, "memory window");
    let prefetchable = take.of(&draft.prefetchable, "prefetchable window");
    let port = take.of(&draft.port, "PCIe type").unwrap_or(conclusion.port);
    let class = draft.class.get().copied();
    let header = take.of(&draft.header, "header type").unwrap_or(match class {
        _ if buses.is_some() || port.is_bridge() => Header::Bridge,
        Some(0x0604 | 0x0609) => Header::Bridge,
        Some(0x0607) | None => Header::Unknown,
        Some(_) => Header::Endpoint,
    });
    let bridge = (header == Header::Bridge).then_some(Bridge { buses, memory, prefetchable });
    let virtuals: Option<Virtual> = take.of(&draft.virtual_functions, "virtual functions");
    Function {
        vendor: draft.vendor.get().copied(),
        device: draft.device.get().copied(),
        subsystem_vendor: take.of(&draft.subsystem_vendor, "subsystem vendor"),
        subsystem_device: take.of(&draft.subsystem_device, "subsystem ID"),
        class,
        programming_interface: draft.programming_interface.get().copied(),
        revision: draft.revision.get().copied(),
        description: draft.description.clone(),
        header,
        multi_function: draft.multi_function.get().copied(),
        port,
        bridge,
        acs: take.acs(draft, conclusion.acs_absent),
        bars: draft.bars.values().copied().collect(),
        virtual_functions: virtuals
            .map(|virtuals| virtuals.enabled)
            .or_else(|| take.of(&draft.virtual_count, "number of virtual functions")),
        ats: take.of(&draft.ats, "ATS").unwrap_or(conclusion.service),
        pasid: take.of(&draft.pasid, "PASID").unwrap_or(conclusion.service),
        iommu_group: take.of(&draft.iommu_group, "IOMMU group"),
        driver: take.of(&draft.driver, "driver"),
        numa_node: take.of(&draft.numa_node, "NUMA node"),
        p2p_memory: draft.p2p_memory,
        names: draft.names.clone(),
        ..Function::new(address)
    }
}

struct Taker<'a> {
    address: Address,
    notes: &'a mut Notes,
}

impl Taker<'_> {
    fn of<T: Clone + PartialEq>(&mut self, field: &Field<T>, what: &str) -> Option<T> {
        taken(field, what, Some(self.address), self.notes)
    }

    fn acs(&mut self, draft: &Draft, absent: bool) -> Acs {
        match self.of(&draft.acs_present, "whether there is an ACS capability") {
            Some(true) => Acs::Present {
                capabilities: self.flags(&draft.acs_capabilities, "ACS capability"),
                control: self.flags(&draft.acs_control, "ACS control"),
                egress: self.of(&draft.egress, "egress control vector"),
            },
            Some(false) => Acs::Absent,
            None if draft.acs_present.conflict().is_none() && absent => Acs::Absent,
            None => Acs::Unknown,
        }
    }

    fn flags(&mut self, fields: &[Field<bool>; 7], what: &str) -> AcsFlags {
        let mut flags = AcsFlags::default();
        for (index, field) in fields.iter().enumerate() {
            let what = format!("{what} {}", AcsFlags::NAMES[index]);
            *flags.slot(index) = self.of(field, &what);
        }
        flags
    }
}

/// A device with a function other than 0 has several.
fn several_functions(functions: &mut [Function]) {
    let device = |address: Address| (address.segment, address.bus, address.device);
    let mut highest = BTreeMap::new();
    for function in functions.iter() {
        let known: &mut u8 = highest.entry(device(function.address)).or_default();
        *known = (*known).max(function.address.function);
    }
    for function in functions {
        // A virtual function's number says nothing about a bit that its device has not.
        let is_virtual = function.physical_function.is_some();
        if function.multi_function.is_none()
            && !is_virtual
            && highest[&device(function.address)] > 0
        {
            function.multi_function = Some(true);
        }
    }
}

/// What a listing allows to conclude.
struct Conclusion {
    port: PortType,
    acs_absent: bool,
    service: Service,
}
