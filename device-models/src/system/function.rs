//! A function of the system: its model, its configuration space, its position.

use std::sync::Arc;

use crate::AddressRange;

use crate::endpoint::Endpoint;
use crate::fabric::{FunctionId, NodeKind};
use crate::memory::Memory;
use crate::pci::{Bdf, ConfigSpace, PortKind};

/// What a function does behind its configuration space.
#[derive(Debug)]
pub(super) enum Model {
    /// Nothing: the host bridge's own function.
    None,
    /// A bridge's work is routing, which the fabric does.
    Bridge(PortKind),
    /// A device.
    Endpoint(Box<dyn Endpoint>),
}

/// A function.
#[derive(Debug)]
pub(super) struct FunctionState {
    pub(super) name: Arc<str>,
    pub(super) device: u8,
    pub(super) function: u8,
    pub(super) parent: Option<FunctionId>,
    pub(super) children: Vec<FunctionId>,
    pub(super) config: ConfigSpace,
    pub(super) model: Model,
    /// The BAR of the MSI-X table.
    pub(super) msix_bar: Option<u8>,
    /// Memories behind BARs.
    pub(super) memories: Vec<(u8, Memory)>,
    /// It is being reset: until its next turn, or the next write to its configuration space, unless
    /// it is held.
    pub(super) resetting: bool,
    /// The requester ID that it captured from the last configuration write that reached it;
    /// requests carry it even after the bridges above have lost their bus numbers (PCIe 6.0,
    /// 2.2.6.2).
    pub(super) captured: Option<Bdf>,
    /// The BARs that it decoded when Memory Space Enable was set last. A reset clears both.
    pub(super) decoded: Vec<AddressRange>,
    /// What is below this port has been pulled out of its slot.
    pub(super) emptied: bool,
    /// Port Number of a bridge (PCIe 6.0, 7.5.3.6): its bit in the egress control vectors of the
    /// ports beside it.
    pub(super) port_number: u8,
}

impl FunctionState {
    pub(super) fn endpoint(&mut self) -> Option<&mut (dyn Endpoint + 'static)> {
        match &mut self.model {
            Model::Endpoint(endpoint) => Some(endpoint.as_mut()),
            Model::None | Model::Bridge(_) => None,
        }
    }

    /// Whether this is a port with a link below it.
    pub(super) fn has_link_below(&self) -> bool {
        matches!(self.model, Model::Bridge(kind) if kind.is_downstream())
    }

    pub(super) fn kind(&self) -> NodeKind {
        match self.model {
            Model::None | Model::Endpoint(_) => NodeKind::Endpoint,
            Model::Bridge(PortKind::RootPort) => NodeKind::RootPort,
            Model::Bridge(PortKind::SwitchUpstream) => NodeKind::SwitchUpstream,
            Model::Bridge(PortKind::SwitchDownstream) => NodeKind::SwitchDownstream,
        }
    }
}
