//! A peer device driven from user space: one channel, one descriptor at a time, no interrupts.
//!
//! Just enough to have a device do DMA in an address space that iommufd made. Registers and structures are those of
//! `peerdma_regs.h`.

use super::CallError;
use super::PartnerError;
use super::iommufd::AddressSpace;
use super::vfio::Device;
use crate::device::View;
use crate::sys::patience::stretched;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::time::{Duration, Instant};

/// Channel 0's block in BAR 0.
const CHANNEL: usize = 0x1000;
const CH_CTRL: usize = 0x0;
const CH_STATUS: usize = 0x4;
const CH_RING_LO: usize = 0x8;
const CH_RING_HI: usize = 0xc;
const CH_RING_SIZE: usize = 0x10;
const CH_TAIL: usize = 0x18;
const CH_RECORD_LO: usize = 0x20;
const CH_RECORD_HI: usize = 0x24;
const CTRL_ENABLE: u32 = 1;
const CTRL_RESET: u32 = 4;
const OP_COPY: u64 = 1;
const DESC_SOURCE_LOCAL: u64 = 2;
const DESC_DESTINATION_LOCAL: u64 = 4;
const DESC_FLUSH: u64 = 8;
const DESCRIPTOR: usize = 64;
const RECORD: usize = 32;
/// Two descriptors, the smallest ring.
const RING_ORDER: u32 = 1;
const RING_ENTRIES: usize = 1 << RING_ORDER;
const PAGE: usize = 4096;
/// Where the records lie in the page of the rings.
const RECORDS: usize = 2048;
/// How long a copy may take, on a machine that is emulated twice.
const PATIENCE: Duration = Duration::from_secs(30);

/// Source or destination of a copy.
#[derive(Clone, Copy, Debug)]
pub enum Location {
    /// A DMA address.
    Address(u64),
    /// An offset in the device's own memory.
    Local(u64),
}

/// A channel of a peer device, driven by us.
#[derive(Debug)]
pub struct UserDriver<'a> {
    space: &'a AddressSpace,
    registers: View,
    rings: View,
    iova: u64,
    /// Descriptors so far.
    issued: usize,
}

impl<'a> UserDriver<'a> {
    /// Sets channel 0 of `device` up, its rings at `iova` of the address space.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(device: &Device, space: &'a AddressSpace, iova: u64) -> Result<Self, CallError> {
        let registers = device.view(0, 0, CHANNEL + 0x1000)?;
        let memory =
            memfd_create("rings", MemfdFlags::CLOEXEC).map_err(CallError::of("memfd_create"))?;
        ftruncate(&memory, PAGE as u64).map_err(CallError::of("ftruncate"))?;
        let mut rings = View::new(&memory, PAGE, 0).map_err(CallError::of("mmap of the rings"))?;
        // SAFETY: a view is only ever reached by volatile accesses, and it lives in this value, which unmaps it from the
        // device before it is dropped.
        unsafe { space.map_memory(rings.as_mut_ptr(), PAGE as u64, iova) }?;
        let driver = Self { space, registers, rings, iova, issued: 0 };
        device.set_bus_master(true)?;
        driver.write(CH_CTRL, CTRL_RESET);
        driver.write_address(CH_RING_LO, CH_RING_HI, iova);
        driver.write_address(CH_RECORD_LO, CH_RECORD_HI, iova + RECORDS as u64);
        driver.write(CH_RING_SIZE, RING_ORDER);
        driver.write(CH_CTRL, CTRL_ENABLE);
        Ok(driver)
    }

    /// Copies, and reads the last byte back where it was written to.
    ///
    /// # Errors
    /// When the device reports anything but success, or nothing.
    pub fn copy(&mut self, from: Location, to: Location, length: u32) -> Result<(), PartnerError> {
        let (source, source_flag) = match from {
            Location::Address(address) => (address, 0),
            Location::Local(offset) => (offset, DESC_SOURCE_LOCAL),
        };
        let (destination, destination_flag) = match to {
            Location::Address(address) => (address, DESC_FLUSH),
            Location::Local(offset) => (offset, DESC_DESTINATION_LOCAL),
        };
        let flags = source_flag | destination_flag;
        let slot = self.issued % RING_ENTRIES;
        self.issued += 1;
        let cookie = 0xc00c_1e00 + self.issued as u64;
        let head = OP_COPY | flags << 16 | u64::from(length) << 32;
        for (word, value) in [head, source, destination, 0, cookie, 0, 0, 0].into_iter().enumerate()
        {
            self.rings.set_word(slot * DESCRIPTOR + word * 8, value);
        }
        let record = RECORDS + slot * RECORD;
        self.rings.set_word(record + 24, 0);
        // Stores to the rings and the doorbell are volatile, and x86 keeps stores in order.
        self.write(CH_TAIL, u32::try_from(self.issued % RING_ENTRIES).unwrap_or(0));
        let end = Instant::now() + stretched(PATIENCE);
        // The last eight bytes of a record come last: the sequence number is never 0 in a test's few records.
        let last = loop {
            let last = self.rings.word(record + 24);
            if last >> 32 != 0 {
                break last;
            }
            if Instant::now() > end {
                return Err(PartnerError::Wrong(format!(
                    "the device gave no record of a copy of {length} bytes from {from:x?} to {to:x?}; its status is {:#x}",
                    self.read(CH_STATUS)
                )));
            }
            std::thread::yield_now();
        };
        let (status, bytes) = (last & 0xffff, self.rings.word(record + 8));
        if status == 0 && self.rings.word(record) == cookie && bytes == u64::from(length) {
            return Ok(());
        }
        Err(PartnerError::Wrong(format!(
            "a copy of {length} bytes from {from:x?} to {to:x?} ended with status {status} after {bytes} bytes"
        )))
    }

    fn write_address(&self, low: usize, high: usize, address: u64) {
        let bytes = address.to_le_bytes();
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        self.write(low, half(0));
        self.write(high, half(4));
    }

    fn write(&self, register: usize, value: u32) {
        self.registers.set_dword(CHANNEL + register, value);
    }

    fn read(&self, register: usize) -> u32 {
        self.registers.dword(CHANNEL + register)
    }
}

impl Drop for UserDriver<'_> {
    fn drop(&mut self) {
        self.write(CH_CTRL, CTRL_RESET);
        let _ = self.space.unmap(self.iova, PAGE as u64);
    }
}
