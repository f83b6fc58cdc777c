//! CPU accesses, as the machine makes them, to the lab.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use device_models::lab::Lab;
use device_models::memory::Memory;
use device_models::pci::Bdf;

use super::LabCounters;
use super::engine::{Bell, Engine};
use super::lock::PriorityLock;
use crate::machine::{DeviceBus, HostMemory, MappedMemory};

/// Device memory, as the machine maps it.
#[derive(Debug)]
struct Mapped(Memory);

// SAFETY: a `Memory` maps its `len` bytes shared, readable, writable and page-aligned until its last clone is dropped,
// and everybody accesses it as memory that others write to.
unsafe impl HostMemory for Mapped {
    fn host_address(&self) -> *mut u8 {
        self.0.host_address() as *mut u8
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// A lab on a machine's bus.
#[derive(Debug)]
pub struct LabBus {
    lab: Arc<PriorityLock<Lab>>,
    bell: Arc<Bell>,
    epoch: Arc<AtomicU64>,
    /// What was mapped last: the machine recognises a mapping that stays by its object.
    mapped: Mutex<Vec<MappedMemory>>,
}

impl LabBus {
    /// Puts `lab` onto a bus and starts the thread that steps it; both go on until the engine is dropped.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn new(lab: Lab) -> io::Result<(Arc<Self>, Engine)> {
        let epoch = Arc::new(AtomicU64::new(lab.address_map().epoch));
        let lab = Arc::new(PriorityLock::new(lab));
        let bell = Arc::new(Bell::default());
        let after = {
            let epoch = Arc::clone(&epoch);
            // A device's own reset moves its BARs too.
            move |lab: &Lab| epoch.store(lab.address_map().epoch, Ordering::Release)
        };
        let engine = Engine::start(Arc::clone(&lab), Arc::clone(&bell), after)?;
        Ok((Arc::new(Self { lab, bell, epoch, mapped: Mutex::default() }), engine))
    }

    /// Works on the lab ahead of its engine.
    pub fn with<R>(&self, work: impl FnOnce(&mut Lab) -> R) -> R {
        work(&mut self.lab.urgent())
    }

    /// The lab's counters at this moment.
    pub fn counters(&self) -> LabCounters {
        self.with(LabCounters::of)
    }

    /// A write: afterwards there may be something to do.
    fn change(&self, work: impl FnOnce(&mut Lab)) {
        self.with(|lab| {
            work(lab);
            self.epoch.store(lab.address_map().epoch, Ordering::Release);
        });
        self.bell.ring();
    }
}

impl DeviceBus for LabBus {
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]) {
        let Ok(length) = u8::try_from(data.len()) else { return data.fill(0xff) };
        let value = self.with(|lab| lab.config_read(Bdf(function), offset, length)).to_le_bytes();
        data.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
    }

    fn config_write(&self, function: u16, offset: u16, data: &[u8]) {
        let Ok(length) = u8::try_from(data.len()) else { return };
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(value, byte)| *value = *byte);
        let value = u32::from_le_bytes(value);
        self.change(|lab| lab.config_write(Bdf(function), offset, length, value));
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.with(|lab| lab.mmio_read(address, data));
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.change(|lab| lab.mmio_write(address, data));
    }

    fn memory_epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn memory(&self) -> Vec<MappedMemory> {
        let wanted = self.with(|lab| lab.address_map().guest_mappings());
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |old: &&MappedMemory, address: u64, memory: &Memory| {
            old.address == address && old.memory.host_address() as u64 == memory.host_address()
        };
        let new = wanted.into_iter().map(|mapping| {
            let (address, memory) = (mapping.guest_address, mapping.memory);
            let old = mapped.iter().find(|old| same(old, address, &memory)).cloned();
            old.unwrap_or_else(|| MappedMemory { address, memory: Arc::new(Mapped(memory)) })
        });
        let new: Vec<_> = new.collect();
        mapped.clone_from(&new);
        new
    }
}
