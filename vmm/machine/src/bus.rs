//! The seam between the machine and the devices: what a CPU access that leaves RAM turns into.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use super::error::MachineError;
use super::layout;

/// Host memory that can be mapped into the guest as a memory BAR or a configuration space.
///
/// # Safety
/// `host_address` must point to `len` bytes of page-aligned memory that stay mapped, readable and writable,
/// for as long as the value lives: the guest's CPUs access them without asking.
pub unsafe trait HostMemory: fmt::Debug + Send + Sync {
    /// First byte.
    fn host_address(&self) -> *mut u8;
    /// Bytes, a multiple of 4 KiB.
    fn len(&self) -> u64;
    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: an `MmapRegion` maps its `size` bytes page-aligned until it is dropped.
unsafe impl HostMemory for vm_memory::MmapRegion {
    fn host_address(&self) -> *mut u8 {
        self.as_ptr()
    }

    fn len(&self) -> u64 {
        self.size() as u64
    }
}

/// A memory BAR, or a configuration space, as the guest's CPUs are to see it now.
#[derive(Clone, Debug)]
pub struct MappedMemory {
    /// Guest physical address, 4 KiB aligned.
    pub address: u64,
    /// What is there.
    pub memory: Arc<dyn HostMemory>,
    /// Whether the CPUs write there too. Else their writes go the way of all that is not mapped.
    pub writable: bool,
}

/// What the guest's CPUs reach without asking the bus.
pub trait DirectMap: Send + Sync {
    /// Makes it what `bus` says, and returns when no CPU reaches anything else any more. Not to be called under a lock that
    /// [`DeviceBus::memory`] takes.
    ///
    /// # Errors
    /// What KVM says; the next access of the guest's to a device meets the same.
    fn follow(&self, bus: &dyn DeviceBus) -> Result<(), MachineError>;
}

/// Everything that is not RAM and not in the interrupt controllers: PCI configuration space and BARs.
///
/// Called from vCPU threads, several at once. Data is little endian, 1 to 8 bytes. A function or address that
/// is not there reads as all ones and ignores writes, as on PCIe.
pub trait DeviceBus: Send + Sync {
    /// Configuration read of 1, 2 or 4 bytes that do not cross a dword; `requester` as in PCIe Base 6.0, 7.2.2.
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]);
    /// Configuration write, same rules.
    fn config_write(&self, function: u16, offset: u16, data: &[u8]);
    /// Read from a PCI window, where no memory BAR is mapped.
    fn mmio_read(&self, address: u64, data: &mut [u8]);
    /// Write to a PCI window, where no memory BAR is mapped.
    fn mmio_write(&self, address: u64, data: &[u8]);
    /// Changes whenever [`DeviceBus::memory`] does. Cheap: asked after every access that leaves the guest.
    fn memory_epoch(&self) -> u64;
    /// The memory BARs that decode now, and the configuration spaces that may be read without asking; not overlapping.
    fn memory(&self) -> Vec<MappedMemory>;
    /// Whether [`DeviceBus::witness_attach`] takes anything.
    fn takes_witness(&self) -> bool {
        false
    }
    /// The guest's DMA witness has its header in this page frame; 0: it goes.
    fn witness_attach(&self, frame: u32) {
        let _ = frame;
    }
    /// Takes everything that is in the witness's rings before it returns.
    fn witness_drain(&self) {}
    /// The machine follows [`DeviceBus::memory`] after each access that leaves the guest. A bus that needs it to have
    /// followed before it does something else keeps `map`, and asks it.
    fn attach(&self, map: Weak<dyn DirectMap>) {
        let _ = map;
    }
    /// Memory BARs that decode and are left out of [`DeviceBus::memory`], so that each access to them leaves the guest: for
    /// the caller that reports why.
    fn withheld(&self) -> Vec<Withheld> {
        Vec::new()
    }
}

/// A memory BAR that is not in the direct map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Guest physical addresses.
    pub addresses: Range<u64>,
    /// Whose BAR it is and which, as in `BAR 2 of peer1 (02:00.0)`.
    pub name: String,
}

/// No device at all: reads give all ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBus;

impl DeviceBus for EmptyBus {
    fn config_read(&self, _function: u16, _offset: u16, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn config_write(&self, _function: u16, _offset: u16, _data: &[u8]) {}
    fn mmio_read(&self, _address: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&self, _address: u64, _data: &[u8]) {}
    fn memory_epoch(&self) -> u64 {
        0
    }
    fn memory(&self) -> Vec<MappedMemory> {
        Vec::new()
    }
}

/// An access of a CPU to configuration space, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamAccess {
    /// Requester ID of the function meant: bus, device, function.
    pub function: u16,
    /// Byte offset in its 4 KiB.
    pub offset: u16,
}

/// Takes an ECAM address apart (PCIe Base 6.0, table 7-1). `None`: not ECAM, or an access that crosses a dword,
/// which the specification leaves to the root complex; ours does not answer, except to reads of a space that is mapped.
pub fn decode_ecam(address: u64, len: usize) -> Option<EcamAccess> {
    if !layout::ECAM.contains(&address) || !matches!(len, 1 | 2 | 4) {
        return None;
    }
    let offset = u16::try_from(address & 0xFFF).ok()?;
    if usize::from(offset % 4).checked_add(len)? > 4 {
        return None;
    }
    let function = u16::try_from((address - layout::ECAM.start) >> 12).ok()?;
    Some(EcamAccess { function, offset })
}

/// Serves a read by a CPU from a physical address that is not RAM.
pub(crate) fn read(bus: &dyn DeviceBus, address: u64, data: &mut [u8]) {
    if layout::ECAM.contains(&address) {
        match decode_ecam(address, data.len()) {
            Some(access) => bus.config_read(access.function, access.offset, data),
            None => data.fill(0xFF),
        }
    } else if layout::is_pci(address) {
        bus.mmio_read(address, data);
    } else {
        log::trace!("read of {} bytes at {address:#x}, where nothing is", data.len());
        data.fill(0xFF);
    }
}

/// Serves a write by a CPU to a physical address that is not RAM.
pub(crate) fn write(bus: &dyn DeviceBus, address: u64, data: &[u8]) {
    if layout::ECAM.contains(&address) {
        if let Some(access) = decode_ecam(address, data.len()) {
            bus.config_write(access.function, access.offset, data);
        }
    } else if layout::is_pci(address) {
        bus.mmio_write(address, data);
    } else {
        log::trace!("write of {} bytes at {address:#x}, where nothing is", data.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecam_addresses_come_apart() {
        let access = decode_ecam(layout::ECAM.start + (3 << 20) + (4 << 15) + (1 << 12) + 0x104, 4);
        assert_eq!(access, Some(EcamAccess { function: 0x0321, offset: 0x104 }));
        let last = decode_ecam(layout::ECAM.end - 1, 1);
        assert_eq!(last, Some(EcamAccess { function: 0xFFFF, offset: 0xFFF }));
    }

    #[test]
    fn accesses_that_cross_a_dword_are_not_answered() {
        assert_eq!(decode_ecam(layout::ECAM.start + 3, 2), None);
        assert_eq!(decode_ecam(layout::ECAM.start + 2, 4), None);
        assert_eq!(decode_ecam(layout::ECAM.start, 8), None);
        assert_eq!(decode_ecam(layout::ECAM.end, 4), None);
        let mut data = [0; 8];
        read(&EmptyBus, layout::ECAM.start, &mut data);
        assert_eq!(data, [0xFF; 8]);
    }
}
