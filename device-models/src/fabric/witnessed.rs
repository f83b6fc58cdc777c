//! The records of the guest's witness: taken before each request is held against them.

use std::sync::Arc;

use super::{Fabric, Input, WitnessInput};
use crate::AddressRange;
use crate::memory::Memory;
use crate::witness::{BadHeader, Bytes, Clock, Counters, Record, Rings};

impl Fabric {
    pub(crate) fn set_witness_clock(&mut self, clock: Box<dyn Clock>) {
        self.witness.clock.set(clock);
    }

    /// What the witness has seen, and what was held against it.
    pub(crate) fn witness_counters(&self) -> &Counters {
        &self.witness.counters
    }

    /// The header of a witness is in this page frame; 0: the witness that there is goes.
    pub(crate) fn attach_witness(&mut self, frame: u32) {
        if self.witness.is_attached() {
            self.observe_input(&Input::Witness { kind: WitnessInput::Detach, data: &[] });
            self.witness.detach();
        }
        if frame == 0 {
            return;
        }
        match self.witness_rings(u64::from(frame) << 12) {
            Ok(rings) => {
                let data = &rings.now().to_le_bytes();
                self.observe_input(&Input::Witness { kind: WitnessInput::Attach, data });
                self.witness.attach(rings.now(), Some(rings));
            }
            Err(error) => self.witness.refuse(&error),
        }
    }

    fn witness_rings(&self, address: u64) -> Result<Rings, BadHeader> {
        let map = &self.map;
        Rings::attach(address, &|address, length| -> Option<(Memory, u64)> {
            let wanted = AddressRange::new(address, length)?;
            let (index, range) = map.ram_at(address)?;
            let memory = map.memories.get(index).filter(|_| range.contains(wanted.last))?;
            Some((memory.clone(), address - range.first))
        })
    }

    /// For replays.
    pub(crate) fn replay_witness(&mut self, kind: WitnessInput, data: &[u8]) {
        self.observe_input(&Input::Witness { kind, data });
        match kind {
            WitnessInput::Attach => {
                let now = <[u8; 8]>::try_from(data).map_or(0, u64::from_le_bytes);
                self.witness.attach(now, None);
            }
            WitnessInput::Detach => self.witness.detach(),
            WitnessInput::Drain => self.drain_slowly(),
            WitnessInput::Record => {}
        }
    }

    /// The guest asks for room in its rings.
    pub(crate) fn drain_witness_for_guest(&mut self) {
        if self.witness.has_records() {
            self.observe_input(&Input::Witness { kind: WitnessInput::Drain, data: &[] });
            self.drain_slowly();
        }
    }

    /// Takes what the guest has reported so far.
    #[inline]
    pub(super) fn drain_witness(&mut self) {
        if self.witness.is_attached()
            && (self.witness.has_records() || (!self.witness.has_rings() && self.watch.is_on()))
        {
            self.drain_slowly();
        }
    }

    #[cold]
    fn drain_slowly(&mut self) {
        match self.witness.take_rings() {
            Some(mut rings) => {
                rings.begin();
                while let Some(bytes) = rings.take() {
                    let (kind, data) = (WitnessInput::Record, &bytes[..]);
                    self.observe_input(&Input::Witness { kind, data });
                    self.take_record(&bytes);
                }
                rings.end();
                self.witness.put_rings(rings);
            }
            None => {
                let mut bytes = [0; size_of::<Bytes>()];
                while let Some(observer) = self.watch.observer()
                    && observer.next_record(&mut bytes)
                {
                    let (kind, data) = (WitnessInput::Record, &bytes[..]);
                    observer.input(&Input::Witness { kind, data });
                    self.take_record(&bytes);
                }
            }
        }
    }

    fn take_record(&mut self, bytes: &Bytes) {
        let record = Record::of(bytes);
        let map = Arc::clone(&self.map);
        let _ = (record, map);
    }
}
