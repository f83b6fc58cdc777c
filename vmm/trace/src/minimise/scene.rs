//! Causes with what came of them, as far as a free replay needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;

use device_models::fabric::{Kind, Purpose};

use super::MinimiseError;
use super::doorbell::Tail;
use crate::event::{Event, TestMark, TlpRun};
use crate::reader::Reader;
use crate::replay::ReplayError;

/// More entries are not kept in memory.
const MAX_ENTRIES: usize = 4_000_000;

/// A cause and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) cause: Event,
    /// What devices read, values from outside, and records of the witness, in their order.
    pub(super) given: Vec<Given>,
    /// The test that was running, by its number in the trace.
    pub(super) test: u32,
    /// It sets up configuration, or the IOMMU: part of the state at the start.
    pub(super) is_state: bool,
    /// What it does to the tail of a peer's ring, if that is not to stay at the trace's index.
    pub(super) tail: Option<Tail>,
}

/// What the devices were given.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// The bytes of a control read, or of a write to registers.
    Read {
        function: Option<u16>,
        purpose: Purpose,
        address: u64,
        data: Arc<[u8]>,
        /// It is the index of a virtqueue's available ring: by how much that had grown.
        grown: Option<u16>,
    },
    /// A transaction without bytes that matter: only its place in the order does.
    Other { function: Option<u16>, address: u64 },
    /// A value from outside.
    Outside { function: usize, data: Arc<[u8]> },
    /// A witness record.
    Record(Arc<[u8]>),
}

/// Reads all of a trace.
pub(super) fn read_scenes<R: BufRead>(reader: Reader<R>) -> Result<Vec<Scene>, MinimiseError> {
    let mut scenes: Vec<Scene> = Vec::new();
    let (mut entries, mut test) = (0_usize, 0);
    for entry in reader {
        let entry = entry?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(MinimiseError::TooLong(MAX_ENTRIES));
        }
        match entry.event {
            Event::Lost { .. } => return Err(ReplayError::Lost(entry.number).into()),
            Event::Test(TestMark { result: None, .. }) => test += 1,
            event if event.is_cause() => {
                let given = Vec::new();
                scenes.push(Scene { cause: event, given, test, is_state: false, tail: None });
            }
            event => {
                if let (Some(scene), Some(given)) = (scenes.last_mut(), given(event)) {
                    scene.given.push(given);
                }
            }
        }
    }
    note_growth(&mut scenes);
    Ok(scenes)
}

fn given(event: Event) -> Option<Given> {
    match event {
        // A device does not read back what it writes into a queue.
        Event::Transaction(TlpRun {
            function,
            purpose: Purpose::VirtQueue,
            kind: Kind::MemoryWrite,
            address,
            ..
        }) => Some(Given::Other { function, address }),
        Event::Transaction(TlpRun { function, purpose, address, data: Some(data), .. }) => {
            Some(Given::Read { function, purpose, address, data: data.into(), grown: None })
        }
        Event::Transaction(TlpRun { function, address, .. }) => {
            Some(Given::Other { function, address })
        }
        Event::Outside { function, data } => Some(Given::Outside { function, data: data.into() }),
        Event::Witness { data, .. } => Some(Given::Record(data.into())),
        _ => None,
    }
}

/// Finds the indices of available rings: what a virtio device reads first in each turn. Where turns
/// are left out, those that are left must see the index grow by as much as they did.
fn note_growth(scenes: &mut [Scene]) {
    let is_index = |given: &Given| match given {
        Given::Read { purpose: Purpose::VirtQueue, address, data, .. } if data.len() == 2 => {
            Some(*address)
        }
        _ => None,
    };
    let first = |scene: &Scene| {
        let queue =
            |given: &&Given| matches!(given, Given::Read { purpose: Purpose::VirtQueue, .. });
        scene.given.iter().find(queue).and_then(is_index)
    };
    let indices: BTreeSet<u64> = scenes.iter().filter_map(first).collect();
    let mut last = BTreeMap::new();
    for given in scenes.iter_mut().flat_map(|scene| &mut scene.given) {
        let Some(address) = is_index(given).filter(|address| indices.contains(address)) else {
            continue;
        };
        if let Given::Read { data, grown, .. } = given
            && let Ok(value) = <[u8; 2]>::try_from(&data[..]).map(u16::from_le_bytes)
        {
            let before = last.insert(address, value).unwrap_or(0);
            *grown = Some(value.wrapping_sub(before));
        }
    }
}
