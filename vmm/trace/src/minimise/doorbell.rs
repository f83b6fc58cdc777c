//! The tails of the peers' rings. Where work is left out, a doorbell must stand for as much as it
//! did, not at the same index: otherwise the engine would take descriptors that the driver never
//! queued.

use std::collections::BTreeMap;

use device_models::endpoint::peer::regs::{channel, channel_control, layout_of_bars as layout};
use device_models::fabric::{AddressMap, Target, for_cpu};

use super::scene::Scene;
use crate::event::Event;

/// The largest ring, as a binary logarithm, whose indices are followed.
const MAX_SIZE: u32 = 31;

/// What a write to a channel's registers does to its tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It grows by so much, in a ring of which `mask` are the bits of an index.
    Grows { ring: u64, by: u32, mask: u32 },
    /// It is 0 again.
    Reset { ring: u64 },
}

/// The tails as they are after what was left.
#[derive(Debug, Default)]
pub(super) struct Tails(BTreeMap<u64, u32>);

impl Tails {
    /// The value to write instead of the trace's, if this is a doorbell.
    pub(super) fn next(&mut self, tail: Option<Tail>) -> Option<u32> {
        match tail? {
            Tail::Reset { ring } => {
                self.0.remove(&ring);
                None
            }
            Tail::Grows { ring, by, mask } => {
                let value = self.0.entry(ring).or_default();
                *value = value.wrapping_add(by) & mask;
                Some(*value)
            }
        }
    }
}

/// Notes at each doorbell by how much it moved the tail.
pub(super) fn note_tails(map: &AddressMap, scenes: &mut [Scene]) {
    let mut sizes: BTreeMap<u64, u32> = BTreeMap::new();
    let mut tails: BTreeMap<u64, u32> = BTreeMap::new();
    for scene in scenes {
        let Event::RegisterWrite { address, data } = &scene.cause else { continue };
        let Ok(value) = <[u8; 4]>::try_from(data.as_slice()).map(u32::from_le_bytes) else {
            continue;
        };
        let Some((ring, register)) = channel_at(map, *address) else { continue };
        match register {
            channel::RING_SIZE => drop(sizes.insert(ring, value)),
            channel::CTRL if value & channel_control::RESET != 0 => {
                tails.remove(&ring);
                scene.tail = Some(Tail::Reset { ring });
            }
            channel::TAIL => {
                let size = sizes.get(&ring).copied().unwrap_or(MAX_SIZE).min(MAX_SIZE);
                let mask = (1 << size) - 1;
                let before = tails.insert(ring, value).unwrap_or(0);
                let by = value.wrapping_sub(before) & mask;
                scene.tail = Some(Tail::Grows { ring, by, mask });
            }
            _ => {}
        }
    }
}

/// The address of the channel's block that an address is in, and the register.
fn channel_at(map: &AddressMap, address: u64) -> Option<(u64, u64)> {
    let Ok(Target::Registers { function, bar: 0, offset, .. }) = for_cpu(map, address, 1).outcome
    else {
        return None;
    };
    if !map.node(function).name.starts_with("peer") {
        return None;
    }
    let register = offset.checked_sub(layout::CHANNEL_BASE)? % layout::CHANNEL_STRIDE;
    Some((address.checked_sub(register)?, register))
}
