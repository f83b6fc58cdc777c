//! Power-on: from a topology to a lab whose firmware has run.

use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::links;
use super::slot::{Model, Slot};
use super::{Lab, Place, Topology, What};
use crate::fabric::{AddressMap, Fabric, FunctionId, InterruptSink, Span};
use crate::iommu::Iommu;
use crate::memory::Memory;
use crate::pci::Bdf;
use crate::pci::{ConfigSpace, DescriptionError, HostBridgeDescription, MsixTable};

/// Why a lab could not be built.
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
    /// Two functions at one place, or a place that does not exist.
    #[error(
        "{name}: device {device} function {function} is taken or does not exist; take a free one, 0 to 31 and 0 to 7"
    )]
    Place {
        /// Name of the function.
        name: String,
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
    },
    /// More functions than the lab numbers.
    #[error("more than 65535 functions")]
    TooMany,
}

impl Lab {
    /// Builds the lab as it is at power-on: nothing has an address yet.
    ///
    /// # Errors
    /// When the topology cannot exist.
    pub fn new(
        topology: Topology,
        ram: &GuestMemoryMmap<()>,
        iommu: Box<dyn Iommu>,
        sink: Box<dyn InterruptSink>,
    ) -> Result<Self, BuildError> {
        let mut slots = Vec::new();
        let mut root = vec![host_bridge(&mut slots, &topology.host_bridge)?];
        for place in topology.root {
            root.push(add(&mut slots, place, None)?);
        }
        check_places(&slots, &root)?;
        links::connect(&mut slots, &root);
        let mut fabric = Fabric::new(slots.len(), iommu, sink);
        let mut map = AddressMap::default();
        let mut spans = Vec::new();
        for region in ram.iter() {
            if let Some(span) = Span::new(region.start_addr().0, region.len()) {
                spans.push(span);
                map.memories.push(Memory::of_ram(region));
            }
        }
        fabric.map = Arc::new(map);
        for (index, slot) in slots.iter_mut().enumerate() {
            let Model::Endpoint(endpoint) = &mut slot.model else { continue };
            let description = endpoint.description();
            if description.msix_vectors > 0 {
                fabric.interrupts[index].msix = Some(MsixTable::new(description.msix_vectors));
            }
            if endpoint.served_in_exit() && fabric.iommu.as_virtio().is_some() {
                fabric.exempt = u16::try_from(index).ok().map(FunctionId);
            }
        }
        let mut lab = Self { slots, root, fabric, ram: spans, turn: 0, turns: 0 };
        lab.publish();
        Ok(lab)
    }
}

fn host_bridge(
    slots: &mut Vec<Slot>,
    description: &HostBridgeDescription,
) -> Result<FunctionId, BuildError> {
    let config = ConfigSpace::host_bridge(description);
    push(
        slots,
        Slot {
            name: "host-bridge".into(),
            device: 0,
            function: 0,
            parent: None,
            children: Vec::new(),
            config,
            model: Model::None,
            msix_bar: None,
            memories: Vec::new(),
            resetting: false,
            captured: Bdf::default(),
        },
    )
}

fn push(slots: &mut Vec<Slot>, slot: Slot) -> Result<FunctionId, BuildError> {
    let id =
        u16::try_from(slots.len()).ok().filter(|id| *id < u16::MAX).ok_or(BuildError::TooMany)?;
    slots.push(slot);
    Ok(FunctionId(id))
}

fn add(
    slots: &mut Vec<Slot>,
    place: Place,
    parent: Option<FunctionId>,
) -> Result<FunctionId, BuildError> {
    let Place { device, function, name, what } = place;
    if device > 31 || function > 7 {
        return Err(BuildError::Place { name, device, function });
    }
    let describe = |source| BuildError::Description { name: name.clone(), source };
    let mut memories = Vec::new();
    let mut msix_bar = None;
    let (config, model, below) = match what {
        What::Endpoint(endpoint) => {
            let description = endpoint.description();
            let config = ConfigSpace::endpoint(&description).map_err(describe)?;
            msix_bar = (description.msix_vectors > 0).then_some(description.msix_bar);
            for bar in &description.bars {
                memories
                    .extend(endpoint.memory(bar.index).map(|memory| (bar.index, memory.clone())));
            }
            (config, Model::Endpoint(endpoint), Vec::new())
        }
        What::Bridge(description, below) => {
            let config = ConfigSpace::bridge(&description).map_err(describe)?;
            (config, Model::Bridge(description.kind), below)
        }
    };
    let id = push(
        slots,
        Slot {
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
            captured: Bdf::default(),
        },
    )?;
    for place in below {
        let child = add(slots, place, Some(id))?;
        slots[id.index()].children.push(child);
    }
    let children = slots[id.index()].children.clone();
    check_places(slots, &children)?;
    Ok(id)
}

/// No two functions of a bus at the same place.
fn check_places(slots: &[Slot], bus: &[FunctionId]) -> Result<(), BuildError> {
    let mut taken = std::collections::BTreeSet::new();
    for slot in bus.iter().map(|id| &slots[id.index()]) {
        let Slot { name, device, function, .. } = slot;
        if !taken.insert((device, function)) {
            return Err(BuildError::Place {
                name: name.to_string(),
                device: *device,
                function: *function,
            });
        }
    }
    Ok(())
}
