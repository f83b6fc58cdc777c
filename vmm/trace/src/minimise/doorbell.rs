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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Header;
    use crate::replay::build;

    /// The registers of a channel of a function.
    fn channel_of(map: &AddressMap, name: &str, number: u64) -> u64 {
        let (_, node) = map.functions().find(|(_, node)| *node.name == *name).unwrap();
        let bar = node.bars.iter().find(|bar| bar.index == 0).unwrap();
        bar.range.first + layout::CHANNEL_BASE + number * layout::CHANNEL_STRIDE
    }

    fn scene(address: u64, value: u32) -> Scene {
        let cause = Event::RegisterWrite { address, data: value.to_le_bytes().to_vec() };
        Scene { cause, given: Vec::new(), test: 0, is_state: false, tail: None }
    }

    #[test]
    fn a_doorbell_stands_for_as_much_as_it_did() {
        let header = Header { ram: vec![(0, 1 << 20)], ..Header::nothing() };
        let mut system = build(&header).unwrap();
        let functions: Vec<_> =
            system.address_map().functions().map(|(_, node)| node.requester).collect();
        // Memory Space Enable, so that addresses lead somewhere.
        functions.into_iter().for_each(|function| system.config_write(function, 4, 2, 6));
        let map = system.address_map().clone();
        let (one, two) = (channel_of(&map, "peer0", 0), channel_of(&map, "peer0", 1));
        let other = channel_of(&map, "peer1", 0);
        let mut scenes = vec![
            scene(one + channel::RING_SIZE, 3),
            scene(one + channel::TAIL, 5),
            scene(one + channel::TAIL, 7),
            // The ring has eight places: on to the third of the next round.
            scene(one + channel::TAIL, 2),
            // Another channel, and another function, have tails of their own.
            scene(two + channel::TAIL, 4),
            scene(other + channel::TAIL, 6),
            scene(one + channel::CTRL, channel_control::RESET),
            scene(one + channel::TAIL, 1),
            // Other registers, an address without any, and a write of another size.
            scene(one + channel::CTRL, channel_control::ENABLE),
            scene(0x1000, 9),
        ];
        if let Event::RegisterWrite { address, .. } = scene(one + channel::TAIL, 0).cause {
            let short = Event::RegisterWrite { address, data: vec![3] };
            scenes.push(Scene { cause: short, ..scene(0, 0) });
        }
        note_tails(&map, &mut scenes);
        let moves: Vec<_> = scenes
            .iter()
            .map(|scene| match scene.tail {
                Some(Tail::Grows { ring, by, .. }) => Some((ring, Some(by))),
                Some(Tail::Reset { ring }) => Some((ring, None)),
                None => None,
            })
            .collect();
        let grows = |ring, by| Some((ring, Some(by)));
        let wanted = [
            None,
            grows(one, 5),
            grows(one, 2),
            grows(one, 3),
            grows(two, 4),
            grows(other, 6),
            Some((one, None)),
            grows(one, 1),
            None,
            None,
            None,
        ];
        assert_eq!(moves, wanted);
        // Without the first doorbell the others move as far as they did, from where the tail then is.
        let mut tails = Tails::default();
        let left = scenes.iter().enumerate().filter(|(at, _)| *at != 1);
        let values: Vec<_> = left.map(|(_, scene)| tails.next(scene.tail)).collect();
        let tails_of_one = [Some(2), Some(5)];
        assert_eq!(values[1..3], tails_of_one);
        assert_eq!(values[3..], [Some(4), Some(6), None, Some(1), None, None, None]);
    }
}
