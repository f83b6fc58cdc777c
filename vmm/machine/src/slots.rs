//! KVM memory slots: RAM once, memory BARs and configuration spaces as they come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use peerdma_support::warnings::Warnings;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::bus::{DeviceBus, DirectMap, MappedMemory};
use super::error::MachineError;
use super::layout;
use super::memory::GuestRam;

/// The memory slots of one VM. Keeps alive whatever a slot maps.
#[derive(Debug)]
pub(crate) struct MemorySlots {
    vm: Arc<VmFd>,
    /// Held so that RAM outlives its slots.
    _ram: GuestRam,
    /// Epoch of the bus that `devices` reflects. Read without the lock to skip the common case.
    epoch: AtomicU64,
    devices: Mutex<DeviceSlots>,
}

#[derive(Debug)]
struct DeviceSlots {
    first: u32,
    limit: u32,
    /// Index plus `first` is the slot number.
    installed: Vec<Option<MappedMemory>>,
    // Where a BAR stands is the guest's doing, and how often it moves one.
    misplaced: Warnings,
    crowded_out: Warnings,
    refused: Warnings,
}

impl MemorySlots {
    /// Installs the slots of the RAM.
    pub(crate) fn new(vm: Arc<VmFd>, ram: GuestRam, limit: usize) -> Result<Self, MachineError> {
        let mut slot = 0;
        for region in ram.memory().iter() {
            let host = region.as_ptr() as u64;
            // SAFETY: the region is mapped for as long as `ram`, of which we keep a clone, and is plain memory
            // that may change at any time: it is only ever accessed through vm-memory.
            unsafe { set_slot(&vm, slot, 0, region.start_addr().raw_value(), region.len(), host)? };
            slot += 1;
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let devices = Mutex::new(DeviceSlots::new(slot, limit));
        Ok(Self { vm, _ram: ram, epoch: AtomicU64::new(u64::MAX), devices })
    }
}

/// Installs memory in a slot at an address of the guest, or empties the slot: `None`.
type SetSlot<'a> = dyn FnMut(u32, u64, Option<&MappedMemory>) -> Result<(), MachineError> + 'a;

impl DirectMap for MemorySlots {
    /// Makes the slots what the bus says they are, if it says something new. KVM gives a slot up only when every vCPU has
    /// left the pages behind it.
    fn follow(&self, bus: &dyn DeviceBus) -> Result<(), MachineError> {
        if self.epoch.load(Ordering::Acquire) == bus.memory_epoch() {
            return Ok(());
        }
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the map: if it changes in between we merely look once more.
        let epoch = bus.memory_epoch();
        let wanted = bus.memory();
        let mut set = |slot, address, memory: Option<&MappedMemory>| match memory {
            Some(memory) => {
                let flags = if memory.writable { 0 } else { KVM_MEM_READONLY };
                let host = memory.memory.host_address() as u64;
                // SAFETY: `HostMemory` promises `len` mapped bytes for as long as the value lives, and
                // `DeviceSlots` keeps the value until the slot is gone.
                unsafe { set_slot(&self.vm, slot, flags, address, memory.memory.len(), host) }
            }
            // SAFETY: size 0 removes the slot; nothing stays mapped.
            None => unsafe { set_slot(&self.vm, slot, 0, address, 0, 0) },
        };
        devices.replace(&mut set, wanted)?;
        self.epoch.store(epoch, Ordering::Release);
        Ok(())
    }
}

impl DeviceSlots {
    /// Slots from `first` on, below `limit`; none is in use.
    fn new(first: u32, limit: u32) -> Self {
        Self {
            first,
            limit,
            installed: Vec::new(),
            misplaced: Warnings::of("device memories in places that cannot be mapped"),
            crowded_out: Warnings::of("device memories without a slot"),
            refused: Warnings::of("device memories that KVM does not map"),
        }
    }

    /// Makes the slots hold `wanted`, as far as they can. Memory is kept alive for as long as a slot
    /// holds it.
    ///
    /// # Errors
    /// A slot could not be removed.
    fn replace(
        &mut self,
        set: &mut SetSlot<'_>,
        mut wanted: Vec<MappedMemory>,
    ) -> Result<(), MachineError> {
        // What stays is not touched: its pages remain mapped in the guest. Removal comes first, because KVM
        // refuses slots that overlap.
        for (index, place) in self.installed.iter_mut().enumerate() {
            let Some(current) = place else { continue };
            match wanted.iter().position(|new| same(current, new)) {
                Some(at) => drop(wanted.swap_remove(at)),
                None => {
                    set(slot_number(self.first, index), current.address, None)?;
                    *place = None;
                }
            }
        }
        // What must not be without a slot comes first: a BAR is memory to programs, a configuration
        // space is read seldom.
        wanted.sort_by_key(|memory| !memory.writable);
        for memory in wanted {
            if let Err(reason) = check(&memory) {
                // The guest's doing: on hardware, too, nothing would answer there.
                let address = memory.address;
                self.misplaced
                    .warn(format_args!("device memory at {address:#x} is not mapped: {reason}"));
                continue;
            }
            let index = match self.installed.iter().position(Option::is_none) {
                Some(free) => free,
                None => {
                    self.installed.push(None);
                    self.installed.len() - 1
                }
            };
            let slot = slot_number(self.first, index);
            if slot >= self.limit {
                self.crowded_out.warn(format_args!(
                    "device memory at {:#x} is not mapped: KVM has no memory slot left",
                    memory.address
                ));
                continue;
            }
            let address = memory.address;
            if let Err(error) = set(slot, address, Some(&memory)) {
                // No reason to end the guest's run.
                self.refused
                    .warn(format_args!("device memory at {address:#x} is not mapped: {error}"));
                continue;
            }
            if let Some(place) = self.installed.get_mut(index) {
                *place = Some(memory);
            }
        }
        Ok(())
    }
}

fn slot_number(first: u32, index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX).saturating_add(first)
}

fn same(a: &MappedMemory, b: &MappedMemory) -> bool {
    a.address == b.address
        && a.writable == b.writable
        && std::ptr::addr_eq(Arc::as_ptr(&a.memory), Arc::as_ptr(&b.memory))
}

/// Whether it can be mapped, as far as we know before KVM does.
fn check(memory: &MappedMemory) -> Result<(), &'static str> {
    let len = memory.memory.len();
    let aligned = [memory.address, len, memory.memory.host_address() as u64]
        .iter()
        .all(|value| value.is_multiple_of(layout::PAGE_SIZE));
    if !aligned || len == 0 {
        return Err("address and size are not multiples of 4 KiB");
    }
    let end = memory.address.checked_add(len);
    let inside = |window: &std::ops::Range<u64>| {
        memory.address >= window.start && end.is_some_and(|end| end <= window.end)
    };
    let windows: &[_] =
        if memory.writable { &[layout::PCI_WINDOW_32, layout::PCI_HIGH] } else { &[layout::ECAM] };
    if windows.iter().any(inside) {
        Ok(())
    } else {
        Err("it lies outside of the windows for its kind")
    }
}

/// # Safety
/// `len` bytes at `host` must stay mapped until the slot is removed, and must be memory that the guest may
/// change at any time.
unsafe fn set_slot(
    vm: &VmFd,
    slot: u32,
    flags: u32,
    address: u64,
    len: u64,
    host: u64,
) -> Result<(), MachineError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: address,
        memory_size: len,
        userspace_addr: host,
    };
    // SAFETY: the caller's promise.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(MachineError::kvm("KVM_SET_USER_MEMORY_REGION"))
}

#[cfg(test)]
mod tests {
    use peerdma_support::testing::logged;
    use vm_memory::MmapRegion;

    use super::super::bus::HostMemory;
    use super::*;

    #[test]
    fn warnings_about_a_guest_that_moves_its_bars_are_limited() {
        let memory: Arc<dyn HostMemory> = Arc::new(MmapRegion::<()>::new(0x1000).unwrap());
        let at = |address| MappedMemory { address, memory: Arc::clone(&memory), writable: true };
        let window = layout::PCI_WINDOW_32.start;
        let mut installed = Vec::new();
        let lines = logged(|| {
            let mut slots = DeviceSlots::new(3, 4);
            let mut set = |slot, address, memory: Option<&MappedMemory>| {
                installed.push((slot, address, memory.is_some()));
                Ok(())
            };
            for turn in 0..500 {
                let misplaced = at(0x1000 + turn);
                let crowded_out = at(window + 0x1000 * (turn + 1));
                slots.replace(&mut set, vec![at(window), misplaced, crowded_out]).unwrap();
            }
        });
        assert_eq!(installed, [(3, window, true)], "memory that stays is not touched");
        let about = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(about("500 in all"), 2, "{lines:#?}");
        assert_eq!(lines.len(), 2 * (8 + 1 + 1), "{lines:#?}");
        assert_eq!(about("no memory slot left"), 8);
    }

    #[test]
    fn memory_that_moves_leaves_its_old_slot_first() {
        let memory: Arc<dyn HostMemory> = Arc::new(MmapRegion::<()>::new(0x1000).unwrap());
        let at = |address| MappedMemory { address, memory: Arc::clone(&memory), writable: true };
        let window = layout::PCI_WINDOW_32.start;
        let mut calls = Vec::new();
        let mut slots = DeviceSlots::new(0, 2);
        let mut set = |slot, address, memory: Option<&MappedMemory>| {
            calls.push((slot, address, memory.is_some()));
            Ok(())
        };
        slots.replace(&mut set, vec![at(window)]).unwrap();
        slots.replace(&mut set, vec![at(window + 0x1000)]).unwrap();
        slots.replace(&mut set, Vec::new()).unwrap();
        let (old, new) = (window, window + 0x1000);
        assert_eq!(calls, [(0, old, true), (0, old, false), (0, new, true), (0, new, false)]);
    }
}
