//! Doing to a system what was done to the recorded one.

use std::fmt;

use device_models::fabric::{FunctionId, WitnessInput};
use device_models::pci::Bdf;
use device_models::system::System;
use peerdma_support::warnings::Warnings;

use crate::event::{ConfigAccess, Event};

/// Does to the system what was done to it. For a read: what it answers now.
pub(crate) fn perform(
    system: &mut System,
    cause: &Event,
    refused: Option<&Warnings>,
) -> Option<Event> {
    let refuse = |error: &dyn fmt::Display| {
        if let Some(refused) = refused {
            refused.warn(format_args!("{error}"));
        }
    };
    match cause {
        Event::ConfigWrite(ConfigAccess { function, offset, length, value }) => {
            system.config_write(Bdf(*function), *offset, *length, *value);
        }
        Event::ConfigRead(access) => {
            let ConfigAccess { function, offset, length, .. } = *access;
            let value = system.config_read(Bdf(function), offset, length);
            return Some(Event::ConfigRead(ConfigAccess { value, ..*access }));
        }
        Event::RegisterWrite { address, data } => {
            system.mmio_write(*address, data);
        }
        Event::RegisterRead { address, data } => {
            let mut now = vec![0; data.len()];
            system.mmio_read(*address, &mut now);
            return Some(Event::RegisterRead { address: *address, data: now });
        }
        Event::CpuPush { function } => {
            if let Some(id) = function_at(system, *function) {
                system.cpu_push(id);
            }
        }
        Event::Unplug { port } | Event::Plug { port } => {
            let filled = matches!(cause, Event::Plug { .. });
            let done = if filled { system.plug(Bdf(*port)) } else { system.unplug(Bdf(*port)) };
            // One that fails is not in the trace: then what follows differs and is reported.
            done.unwrap_or_else(|error| refuse(&error));
        }
        Event::DelayPosted { requester, target, delay } => {
            // A path too many is in the trace too, and fails here as it did then. Functions that do not exist are not in
            // it: then what follows differs and is reported.
            match delay.parse() {
                Ok(delay) => {
                    let done = system.delay_posted(Bdf(*requester), target.map(Bdf), delay);
                    done.unwrap_or_else(|error| refuse(&error));
                }
                Err(error) => refuse(&error),
            }
        }
        Event::FenceSeen { requester } => {
            system.fence_seen(Bdf(*requester)).unwrap_or_else(|error| refuse(&error));
        }
        // A witness record is part of what else happens: the stage hands it out.
        Event::Witness { kind: WitnessInput::Record, .. } => {}
        Event::Witness { kind, data } => system.witness_input(*kind, data),
        Event::Step { function } => {
            if let Some(id) = function_at(system, *function) {
                system.step_function(id);
            }
        }
        // No causes.
        Event::Outside { .. }
        | Event::Transaction(_)
        | Event::Finding(_)
        | Event::Test(_)
        | Event::Other { .. }
        | Event::Lost { .. }
        | Event::End { .. }
        | Event::Cut { .. } => {}
    }
    None
}

/// The function with an index in the trace.
fn function_at(system: &System, index: usize) -> Option<FunctionId> {
    system.address_map().functions().nth(index).map(|(id, _)| id)
}
