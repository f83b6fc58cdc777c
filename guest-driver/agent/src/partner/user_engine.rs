//! An I/OAT engine driven from user space: one channel, one descriptor at a time, no interrupts.
//!
//! Just enough to have it copy in an address space that VFIO made. The numbers are those of the register interface as
//! the kernel's driver has them (`drivers/dma/ioat/registers.h`, `hw.h`).

use super::CallError;
use super::PartnerError;
use super::container::{Container, Mapping};
use super::vfio::Device;
use crate::device::View;
use crate::sys::patience::stretched;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of BAR 0.
const REGISTERS: usize = 0x4000;
/// The first channel's block in it.
const CHANNEL: usize = 0x80;
const COMMAND: usize = 0x04;
const COUNT: usize = 0x06;
const STATUS: usize = 0x08;
const CHAIN: usize = 0x10;
const COMPLETION: usize = 0x18;
const ERROR: usize = 0x28;
const COMMAND_RESET: u8 = 0x20;
/// CHANSTS: the lower three bits say how it stands, the others where the last descriptor that is done was.
const STATE: u64 = 7;
const DONE: u64 = 1;
const HALTED: u64 = 3;
/// CHANERR: a read was not answered with data.
pub const READ_DATA: u32 = 0x100;
/// A descriptor's control word: a copy that leaves a completion record.
const COPY: u64 = 1 << 3;

/// What descriptor and record lie in.
const PAGE: usize = 4096;
/// Where the record is in that page; the descriptor is at its start.
const RECORD: usize = 2048;
/// How long a copy may take, on a machine that is emulated twice.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first channel of an engine, driven by us.
#[derive(Debug)]
pub struct UserEngine {
    registers: View,
    memory: Mapping,
}

impl UserEngine {
    /// Takes the engine; its descriptor and record lie at `iova` of the address space.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(device: &Device, container: &Arc<Container>, iova: u64) -> Result<Self, CallError> {
        let registers = device.view(0, 0, REGISTERS)?;
        let memory = memfd_create("descriptor", MemfdFlags::CLOEXEC)
            .map_err(CallError::of("memfd_create"))?;
        ftruncate(&memory, PAGE as u64).map_err(CallError::of("ftruncate"))?;
        let page = View::new(&memory, PAGE, 0).map_err(CallError::of("mmap of the descriptor"))?;
        device.set_bus_master(true)?;
        Ok(Self { registers, memory: container.map(page, iova)? })
    }

    /// Writes the descriptor of a copy from one address to another.
    pub fn describe(&self, from: u64, to: u64, length: u32) {
        let page = self.memory.view();
        let head = COPY << 32 | u64::from(length);
        for (word, value) in [head, from, to, 0, 0, 0, 0, 0].into_iter().enumerate() {
            page.set_word(word * 8, value);
        }
    }

    /// Has the engine do what the descriptor says; gives CHANERR, which is 0 when it has done it.
    ///
    /// # Errors
    /// When the engine does not come to an end, or says one thing in its registers and another in its record.
    pub fn run(&self) -> Result<u32, PartnerError> {
        self.registers.set_byte(CHANNEL + COMMAND, COMMAND_RESET);
        self.registers.set_dword(CHANNEL + ERROR, self.error());
        let page = self.memory.view();
        page.set_word(RECORD, 0);
        self.registers.set_word(CHANNEL + COMPLETION, self.memory.iova + RECORD as u64);
        self.registers.set_word(CHANNEL + CHAIN, self.memory.iova);
        // Stores to the page and the registers are volatile, and x86 keeps stores in order.
        self.registers.set_half(CHANNEL + COUNT, 1);
        let end = Instant::now() + stretched(PATIENCE);
        let status = loop {
            let status = self.registers.word(CHANNEL + STATUS);
            if matches!(status & STATE, DONE | HALTED) {
                break status;
            }
            if Instant::now() > end {
                return Err(PartnerError::Wrong(format!(
                    "the engine does not come to an end: CHANSTS is {status:#x}, CHANERR {:#x}",
                    self.error()
                )));
            }
            std::thread::yield_now();
        };
        let (error, record) = (self.error(), page.word(RECORD));
        let right = match error {
            0 => (self.memory.iova | DONE, self.memory.iova | DONE),
            // No record of errors has been asked for.
            _ => (HALTED, 0),
        };
        if (status, record) == right {
            return Ok(error);
        }
        Err(PartnerError::Wrong(format!(
            "CHANERR is {error:#x}, CHANSTS {status:#x}, and the completion record says {record:#x}: not {right:#x?}"
        )))
    }

    fn error(&self) -> u32 {
        self.registers.dword(CHANNEL + ERROR)
    }
}

impl Drop for UserEngine {
    fn drop(&mut self) {
        self.registers.set_byte(CHANNEL + COMMAND, COMMAND_RESET);
    }
}
