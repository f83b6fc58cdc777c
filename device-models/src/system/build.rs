//! Power-on: from a topology to a system whose firmware has run.

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::function::{FunctionState, Model};
use super::guest_mapping::Withheld;
use super::links;
use super::{Function, FunctionKind, HostBridge, Root, System, Topology};
use crate::AddressRange;
use crate::fabric::{AddressMap, Fabric, FunctionId, InterruptSink, RootComplex};
use crate::iommu::Iommu;
use crate::memory::Memory;
use crate::pci::{ConfigSpace, DescriptionError, HostBridgeDescription, MsixTable};

/// Why a system could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A function's description contradicts itself.
    #[error("{name}: {source}")]
    Description {
        /// Name of the function.
        name: String,
        /// What is wrong.
        source: DescriptionError,
    },
    /// Two functions with one device and function number, or numbers out of range.
    #[error(
        "{name}: device {device} function {function} is taken or does not exist; take a free one, \
         0 to 31 and 0 to 7"
    )]
    DeviceFunction {
        /// Name of the function.
        name: String,
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
    },
    /// More functions than the system numbers.
    #[error("more than 65535 functions")]
    TooMany,
}

impl System {
    /// Builds the system as it is at power-on: nothing has an address yet.
    ///
    /// # Errors
    /// When the topology cannot exist.
    pub fn new(
        topology: Topology,
        ram: &GuestMemoryMmap<()>,
        iommu: Box<dyn Iommu>,
        sink: Box<dyn InterruptSink>,
    ) -> Result<Self, BuildError> {
        let mut states = Vec::new();
        let mut roots = Vec::new();
        for bridge in topology.host_bridges {
            roots.push(add_root(&mut states, bridge)?);
        }
        links::connect(&mut states);
        let mut fabric = Fabric::new(states.len(), iommu, sink);
        let mut map = AddressMap::default();
        let mut ranges = Vec::new();
        for region in ram.iter() {
            if let Some(range) = AddressRange::new(region.start_addr().0, region.len()) {
                ranges.push(range);
                map.memories.push(Memory::of_ram(region));
            }
        }
        fabric.publish(map);
        for (state, function) in states.iter_mut().zip((0u16..).map(FunctionId)) {
            let Model::Endpoint(endpoint) = &mut state.model else { continue };
            let description = endpoint.description();
            if description.msix_vectors > 0 {
                let table = MsixTable::new(description.msix_vectors);
                fabric.set_msix_table(function, table);
            }
            fabric.set_physical(function, endpoint.takes_physical_addresses());
            if endpoint.served_in_exit() && fabric.virtio_iommu().is_some() {
                fabric.set_untranslated(function);
            }
        }
        let withheld = Withheld::default();
        let mut system = Self { states, roots, fabric, withheld, ram: ranges, turn: 0, turns: 0 };
        system.publish();
        Ok(system)
    }
}

/// Adds a host bridge and all that is below it.
fn add_root(states: &mut Vec<FunctionState>, bridge: HostBridge) -> Result<Root, BuildError> {
    let HostBridge { name, description, first_bus, windows, peer_routing, root } = bridge;
    let mut functions = vec![host_bridge(states, &name, &description)?];
    for child in root {
        functions.push(add(states, child, None)?);
    }
    check_places(states, &functions)?;
    links::mark_multi_function(states, &functions);
    let routing = RootComplex { functions, windows, peer_routing };
    Ok(Root { first_bus, routing })
}

fn host_bridge(
    states: &mut Vec<FunctionState>,
    name: &str,
    description: &HostBridgeDescription,
) -> Result<FunctionId, BuildError> {
    let config = ConfigSpace::host_bridge(description);
    push(
        states,
        FunctionState {
            name: name.into(),
            device: 0,
            function: 0,
            parent: None,
            children: Vec::new(),
            config,
            model: Model::None,
            msix_bar: None,
            memories: Vec::new(),
            resetting: false,
            captured: None,
            decoded: Vec::new(),
            emptied: false,
            port_number: 0,
        },
    )
}

fn push(states: &mut Vec<FunctionState>, state: FunctionState) -> Result<FunctionId, BuildError> {
    let id =
        u16::try_from(states.len()).ok().filter(|id| *id < u16::MAX).ok_or(BuildError::TooMany)?;
    states.push(state);
    Ok(FunctionId(id))
}

fn add(
    states: &mut Vec<FunctionState>,
    child: Function,
    parent: Option<FunctionId>,
) -> Result<FunctionId, BuildError> {
    let Function { device, function, name, kind } = child;
    if device > 31 || function > 7 {
        return Err(BuildError::DeviceFunction { name, device, function });
    }
    let describe = |source| BuildError::Description { name: name.clone(), source };
    let mut memories = Vec::new();
    let mut msix_bar = None;
    let mut port_number = 0;
    let (config, model, below) = match kind {
        FunctionKind::Endpoint(endpoint) => {
            let description = endpoint.description();
            let config = ConfigSpace::endpoint(&description).map_err(describe)?;
            msix_bar = (description.msix_vectors > 0).then_some(description.msix_bar);
            for bar in &description.bars {
                memories
                    .extend(endpoint.memory(bar.index).map(|memory| (bar.index, memory.clone())));
            }
            (config, Model::Endpoint(endpoint), Vec::new())
        }
        FunctionKind::Bridge(description, below) => {
            let config = ConfigSpace::bridge(&description).map_err(describe)?;
            port_number = description.port_number;
            (config, Model::Bridge(description.kind), below)
        }
    };
    let id = push(
        states,
        FunctionState {
            name: name.into(),
            device,
            function,
            parent,
            children: Vec::new(),
            config,
            model,
            msix_bar,
            memories,
            resetting: false,
            captured: None,
            decoded: Vec::new(),
            emptied: false,
            port_number,
        },
    )?;
    for child in below {
        let child = add(states, child, Some(id))?;
        states[id.index()].children.push(child);
    }
    let children = states[id.index()].children.clone();
    check_places(states, &children)?;
    Ok(id)
}

/// No two functions of a bus at the same place.
fn check_places(states: &[FunctionState], bus: &[FunctionId]) -> Result<(), BuildError> {
    let mut taken = std::collections::BTreeSet::new();
    for state in bus.iter().map(|id| &states[id.index()]) {
        let FunctionState { name, device, function, .. } = state;
        if !taken.insert((device, function)) {
            return Err(BuildError::DeviceFunction {
                name: name.to_string(),
                device: *device,
                function: *function,
            });
        }
    }
    Ok(())
}
