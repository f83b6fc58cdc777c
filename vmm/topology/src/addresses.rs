//! Where BARs and bridge windows lie on the bus: what routing by address goes by.

use device_models::AddressRange;
use device_models::fabric::{AddressMap, BarTarget};

use crate::plan::Plan;

/// A memory BAR with its bus addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Bus addresses.
    pub range: AddressRange,
    /// Whether memory that can be shared stands behind it; registers otherwise.
    pub memory: bool,
}

/// What one function claims on its bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// The open windows of a bridge.
    pub windows: Vec<AddressRange>,
}

impl Claims {
    /// Whether one of the bridge's windows holds the bus address.
    pub fn forwards(&self, address: u64) -> bool {
        self.windows.iter().any(|window| window.contains(address))
    }

    /// Whether one of the BARs holds the bus address.
    pub fn has(&self, address: u64) -> bool {
        self.bars.iter().any(|bar| bar.range.contains(address))
    }
}

/// What every function of a [`Plan`] claims, in the order of [`Plan::functions`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<Claims>);

impl Addresses {
    /// Those that the firmware has programmed: `map` is the address map of a system that was built from `plan`.
    pub fn programmed(plan: &Plan, map: &AddressMap) -> Self {
        let claims = |planned: &crate::Planned| {
            let node = map.functions().map(|(_, node)| node);
            let Some(node) = node.into_iter().find(|node| node.requester == planned.bdf) else {
                return Claims::default();
            };
            let bar = |bar: &device_models::fabric::MappedBar| Bar {
                range: bar.range,
                memory: matches!(bar.target, BarTarget::Memory(_)),
            };
            Claims {
                bars: node.bars.iter().map(bar).collect(),
                windows: node.windows.iter().flatten().copied().collect(),
            }
        };
        Self(plan.functions.iter().map(claims).collect())
    }
}
