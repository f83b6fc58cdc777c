//! The peer device: local memory in a BAR, and DMA channels that move data between it, guest memory
//! and other devices.
//!
//! `docs/peer-device.md` is the programmer's reference, [`regs`] the one source of every number in
//! it.

mod channel;
mod descriptor;
mod engine;
mod held;
mod job;
mod registers;
pub mod regs;

use std::ops::RangeInclusive;

use crate::endpoint::{Endpoint, Progress, ReadCompletion, ResetKind, dma};
use crate::fabric::{Port, Tag};
use crate::memory::{Memory, MemoryError};
use crate::pci::{
    AcsCapabilities, BarDescription, BarKind, FunctionDescription, MsixTable, PcieKind,
    ResizableBar,
};
use channel::Channel;
use registers::{DeviceRegisters, RegisterFile};
use regs::{identity, layout_of_bars as layout};

/// The smallest and the largest local memory in bytes. The smallest is that of a Resizable BAR
/// (PCIe 6.0, 7.8.6).
pub const LOCAL_SIZES: RangeInclusive<u64> = 1 << 20..=1 << 36;

/// What can be chosen about a peer device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Name for people, for example `peer0`; host tools show it for the local memory.
    pub name: String,
    /// Bytes of local memory: a power of two in [`LOCAL_SIZES`].
    pub local_size: u64,
    /// Number of DMA channels, 1 to 15.
    pub channels: u8,
    /// Device Serial Number, an EUI-64 (PCIe 6.0, 7.9.3).
    pub serial_number: u64,
    /// How it is attached: over a link, or on a root bus as part of the root complex.
    pub attachment: PcieKind,
    /// Access Control Services, for a function of a device with several.
    pub acs: Option<AcsCapabilities>,
}

impl PeerConfig {
    /// The default device: 256 MiB of local memory, four channels.
    pub fn new(name: impl Into<String>, serial_number: u64) -> Self {
        Self {
            name: name.into(),
            local_size: 256 << 20,
            channels: 4,
            serial_number,
            attachment: PcieKind::Endpoint,
            acs: None,
        }
    }
}

/// Why a peer device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The size is not one that a BAR can have.
    #[error("{name}: {size} bytes of local memory; take a power of two from 1 MiB to 64 GiB")]
    LocalSize {
        /// Name of the device.
        name: String,
        /// The size asked for.
        size: u64,
    },
    /// The number of channels does not fit the register BAR.
    #[error("{name}: {channels} channels; take 1 to 15")]
    Channels {
        /// Name of the device.
        name: String,
        /// The number asked for.
        channels: u8,
    },
    /// The host gave no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A peer device.
#[derive(Debug)]
pub struct PeerDevice {
    registers: DeviceRegisters,
    channels: Vec<Channel>,
    local: Memory,
    serial_number: u64,
    attachment: PcieKind,
    acs: Option<AcsCapabilities>,
    vectors: u16,
    /// The channel that comes first in the next step.
    first: usize,
    /// The log has the message that local memory outlives a reset.
    kept: bool,
}

impl PeerDevice {
    /// Makes a device in the state after power-on.
    ///
    /// # Errors
    /// When `config` is out of range or the host has no memory.
    pub fn new(config: &PeerConfig) -> Result<Self, PeerError> {
        let &PeerConfig { ref name, local_size: size, channels, serial_number, attachment, acs } =
            config;
        if !size.is_power_of_two() || !LOCAL_SIZES.contains(&size) {
            return Err(PeerError::LocalSize { name: name.clone(), size });
        }
        if channels == 0 || u64::from(channels) > layout::MAX_CHANNELS {
            return Err(PeerError::Channels { name: name.clone(), channels });
        }
        Ok(Self {
            registers: DeviceRegisters::default(),
            channels: (0..channels).map(|_| Channel::new()).collect(),
            local: Memory::new(name, size)?,
            serial_number,
            attachment,
            acs,
            vectors: u16::from(channels) + 1,
            first: 0,
            kept: false,
        })
    }

    /// The local memory: what BAR 2 shows.
    pub fn local_memory(&self) -> &Memory {
        &self.local
    }

    fn register_file(&mut self) -> RegisterFile<'_> {
        RegisterFile {
            device: &mut self.registers,
            channels: &mut self.channels,
            local_size: self.local.len(),
            vectors: self.vectors,
        }
    }
}

impl Endpoint for PeerDevice {
    fn description(&self) -> FunctionDescription {
        let bar = |index: u64, size, kind| BarDescription { index: number(index), size, kind };
        let local = BarKind::Memory64 { prefetchable: true };
        FunctionDescription {
            vendor: number(identity::VENDOR_ID),
            device: number(identity::DEVICE_ID),
            revision: 1,
            class: identity::CLASS,
            subsystem_vendor: number(identity::VENDOR_ID),
            subsystem_id: number(identity::DEVICE_ID),
            bars: vec![
                bar(layout::BAR_REGISTERS, layout::BAR_REGISTERS_SIZE, BarKind::Memory32),
                bar(layout::BAR_LOCAL, self.local.len(), local),
                bar(layout::BAR_MSIX, MsixTable::bar_size(self.vectors), BarKind::Memory32),
            ],
            msix_vectors: self.vectors,
            msix_bar: number(layout::BAR_MSIX),
            flr: true,
            aer: true,
            resizable_bars: vec![ResizableBar {
                bar: number(layout::BAR_LOCAL),
                sizes: sizes_up_to(self.local.len()),
            }],
            serial_number: Some(self.serial_number),
            pcie: Some(self.attachment),
            acs: self.acs,
            ..FunctionDescription::default()
        }
    }

    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if u64::from(bar) == layout::BAR_REGISTERS {
            self.register_file().read(offset, data);
        }
    }

    fn named_registers(&mut self) -> Vec<(String, u64)> {
        self.register_file().named()
    }

    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if u64::from(bar) == layout::BAR_REGISTERS {
            self.register_file().write(offset, data);
        }
    }

    fn asks_for_work(&self, bar: u8, offset: u64, data: &[u8]) -> bool {
        u64::from(bar) == layout::BAR_REGISTERS && registers::asks_for_work(offset, data)
    }

    fn memory(&self, bar: u8) -> Option<&Memory> {
        (u64::from(bar) == layout::BAR_LOCAL).then_some(&self.local)
    }

    fn completion(&mut self, tag: Tag, completion: ReadCompletion<'_>) {
        let paths = self.channels.iter_mut().map(|channel| &mut channel.path);
        dma::complete(paths, tag, completion, Some(&self.local));
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        engine::step(&mut self.channels, &mut self.first, &self.local, port)
    }

    /// Registers and channels return to power-on, and the local memory reads as zeros.
    ///
    /// Zeros, and not a pattern that would stand out more: the pages go back to the host in one
    /// call, whereas a pattern would have to be written over all of the memory with the system's
    /// lock held, and would commit every page of it. A driver that counts on contents to survive a
    /// reset is caught by both.
    fn reset(&mut self, _kind: ResetKind) {
        self.registers = DeviceRegisters::default();
        self.channels.iter_mut().for_each(Channel::reset);
        self.first = 0;
        if let Err(error) = self.local.discard()
            && !std::mem::replace(&mut self.kept, true)
        {
            log::error!(
                "local memory keeps its contents over a reset, the host does not discard it: \
                 {error}"
            );
        }
    }
}

/// Resizable BAR sizes from 1 MiB to `size`.
fn sizes_up_to(size: u64) -> u32 {
    let largest = size.trailing_zeros().saturating_sub(20).min(27);
    (2 << largest) - 1
}

/// A constant of the register tables in the type that the configuration space wants.
fn number<T: TryFrom<u64> + Default>(constant: impl Into<u64>) -> T {
    T::try_from(constant.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
