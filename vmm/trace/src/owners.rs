//! Whose registers an address leads to: the devices of a trace's header, with the configuration writes of the trace.

use device_models::fabric::{Target, for_cpu};
use device_models::pci::Bdf;
use device_models::system::System;

use super::event::{ConfigAccess, Event, Header};
use super::replay::build;

/// A register of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register {
    /// Number of the function.
    pub(crate) function: u16,
    pub(crate) bar: u8,
    pub(crate) offset: u64,
}

/// Follows where BARs are.
#[derive(Debug, Default)]
pub(crate) struct Owners(Option<System>);

impl Owners {
    /// At the beginning of a trace. Where its devices cannot be built, nothing is known.
    pub(crate) fn new(header: &Header) -> Self {
        Self(build(header).ok())
    }

    /// Takes notice of an entry, before it is looked at.
    pub(crate) fn follow(&mut self, event: &Event) {
        if let (Some(system), Event::ConfigWrite(access)) = (&mut self.0, event) {
            let ConfigAccess { function, offset, length, value } = *access;
            system.config_write(Bdf(function), offset, length, value);
        }
    }

    /// The register that a CPU's access is about.
    pub(crate) fn of(&self, event: &Event) -> Option<Register> {
        let (Event::RegisterWrite { address, data } | Event::RegisterRead { address, data }) =
            event
        else {
            return None;
        };
        let map = self.0.as_ref()?.address_map();
        match for_cpu(map, *address, data.len() as u64).outcome {
            Ok(Target::Registers { function, bar, offset, .. }) => {
                let function = u16::try_from(function.index()).ok()?;
                Some(Register { function, bar, offset })
            }
            _ => None,
        }
    }
}
