//! Intel's I/OAT DMA engine ("QuickData"), version 3.3 of its register interface: a device of
//! Intel's design, for drivers that were not written for peerdma.
//!
//! Written from the register interface that Linux's `ioatdma` and the kernel's VFIO selftests rely
//! on; `regs` names the registers. Beyond it there is one register of the lab's own, for
//! misbehaviour on request.

mod channel;
mod descriptor;
mod engine;
pub mod regs;

use std::ops::RangeInclusive;

use crate::endpoint::{
    Endpoint, Kind, Progress, ReadCompletion, ResetKind, Setup, SetupError, dma,
};
use crate::fabric::{Port, Tag};
use crate::pci::{
    AcsCapabilities, BarDescription, BarKind, FunctionDescription, MsixTable, PcieKind,
};
use channel::Channel;
use regs::{bars, device, fault, identity, interrupt_control, value};

/// How many channels there can be: what Linux's driver takes.
pub const CHANNELS: RangeInclusive<u8> = 1..=4;

/// What XFERCAP can be: transfers of up to 4 KiB to 1 MiB, as powers of two.
pub const TRANSFER_CAPACITIES: RangeInclusive<u8> = 12..=value::TRANSFER_CAPACITY;

/// The kind `ioat`, for topologies.
pub const KIND: Kind = Kind {
    name: "ioat",
    about: "Intel I/OAT DMA engine; options model = skylake or atom, channels = 1 to 4, xfercap = \
        12 to 20, fault = none, \
            swap, lose-completion, hide-completion, drop-interrupt or corrupt-data",
    make,
};

/// Misbehaviour from power-on on.
const FAULTS: &[(&str, u32)] = &[
    ("none", fault::NONE),
    ("swap", fault::SWAP),
    ("lose-completion", fault::LOSE_COMPLETION),
    ("hide-completion", fault::HIDE_COMPLETION),
    ("drop-interrupt", fault::DROP_INTERRUPT),
    ("corrupt-data", fault::CORRUPT_DATA),
];

fn make(setup: &Setup<'_>) -> Result<Box<dyn Endpoint>, SetupError> {
    setup.known_options(&["model", "channels", "xfercap", "fault"])?;
    let default = IoatConfig::default();
    let models = [("skylake", Model::Skylake), ("atom", Model::Atom)];
    let device = IoatDevice::new(&IoatConfig {
        model: setup.choice("model", &models, default.model)?,
        channels: setup.number("channels", &CHANNELS, default.channels)?,
        transfer_capacity: setup.number(
            "xfercap",
            &TRANSFER_CAPACITIES,
            default.transfer_capacity,
        )?,
        fault: setup.choice("fault", FAULTS, default.fault)?,
        attachment: setup.attachment,
        acs: setup.acs,
    });
    Ok(Box::new(device.map_err(|error| SetupError::Other(error.to_string()))?))
}

/// The engines that Linux knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Model {
    /// Skylake-SP's, 8086:2021: Linux copies with it.
    #[default]
    Skylake,
    /// The Atom S1200's, 8086:0c50: Linux copies with it and computes XOR.
    Atom,
}

/// What can be chosen about an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoatConfig {
    /// The model, which decides the PCI device ID.
    pub model: Model,
    /// Number of channels, in [`CHANNELS`].
    pub channels: u8,
    /// XFERCAP, in [`TRANSFER_CAPACITIES`].
    pub transfer_capacity: u8,
    /// Misbehaviour of every descriptor, whatever is reset: one of [`fault`], or none.
    pub fault: u32,
    /// How it is attached: over a link, or on a root bus as part of the root complex.
    pub attachment: PcieKind,
    /// Access Control Services, for a function of a device with several.
    pub acs: Option<AcsCapabilities>,
}

impl Default for IoatConfig {
    fn default() -> Self {
        Self {
            model: Model::default(),
            channels: 4,
            transfer_capacity: value::TRANSFER_CAPACITY,
            fault: fault::NONE,
            attachment: PcieKind::Endpoint,
            acs: None,
        }
    }
}

/// Why an engine could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// The number of channels is not in [`CHANNELS`].
    #[error("{0} channels; take 1 to 4")]
    Channels(u8),
    /// XFERCAP is not in [`TRANSFER_CAPACITIES`].
    #[error("an XFERCAP of {0}; take 12 to 20")]
    TransferCapacity(u8),
}

/// The registers that channels share.
#[derive(Debug)]
struct DeviceRegisters {
    transfer_capacity: u8,
    /// Misbehaviour that no reset ends.
    built_in_fault: u32,
    interrupt_control: u8,
    attention: u32,
    delay: u16,
    fault: u32,
}

impl DeviceRegisters {
    /// The state after reset.
    fn new(transfer_capacity: u8, built_in_fault: u32) -> Self {
        Self {
            transfer_capacity,
            built_in_fault,
            interrupt_control: 0,
            attention: 0,
            delay: 0,
            fault: fault::NONE,
        }
    }

    /// Bytes of the longest transfer.
    fn longest_transfer(&self) -> u64 {
        1 << self.transfer_capacity
    }

    /// The misbehaviour asked for of the descriptor that comes now.
    fn take_fault(&mut self) -> u32 {
        let kind = self.fault & !fault::STICKY;
        if self.fault & fault::STICKY == 0 {
            self.fault = fault::NONE;
        }
        if kind == fault::NONE { self.built_in_fault } else { kind }
    }
}

/// An I/OAT engine.
#[derive(Debug)]
pub struct IoatDevice {
    model: Model,
    attachment: PcieKind,
    acs: Option<AcsCapabilities>,
    registers: DeviceRegisters,
    channels: Vec<Channel>,
    /// The channel that comes first in the next step.
    first: usize,
}

impl IoatDevice {
    /// Makes a device in the state after power-on.
    ///
    /// # Errors
    /// When the number of channels or XFERCAP is out of range.
    pub fn new(config: &IoatConfig) -> Result<Self, BadConfig> {
        if !CHANNELS.contains(&config.channels) {
            return Err(BadConfig::Channels(config.channels));
        }
        if !TRANSFER_CAPACITIES.contains(&config.transfer_capacity) {
            return Err(BadConfig::TransferCapacity(config.transfer_capacity));
        }
        Ok(Self {
            model: config.model,
            attachment: config.attachment,
            acs: config.acs,
            registers: DeviceRegisters::new(config.transfer_capacity, config.fault),
            channels: (0..config.channels).map(|_| Channel::new()).collect(),
            first: 0,
        })
    }

    fn vectors(&self) -> u16 {
        u16::try_from(self.channels.len()).unwrap_or(1)
    }

    /// The channel whose registers are at `offset`, and the offset inside them.
    fn channel(&mut self, offset: u64) -> Option<(&mut Channel, u64)> {
        let index = (offset / bars::CHANNEL_STRIDE).checked_sub(1)?;
        let channel = self.channels.get_mut(usize::try_from(index).ok()?)?;
        Some((channel, offset % bars::CHANNEL_STRIDE))
    }

    /// The registers before those of the channels, as bytes.
    fn image(&self) -> [u8; 0x80] {
        let registers = &self.registers;
        let attention = registers.attention != 0;
        let master = registers.interrupt_control & interrupt_control::MASTER != 0;
        let mut control = registers.interrupt_control;
        if attention {
            control |= interrupt_control::STATUS;
        }
        if attention && master {
            control |= interrupt_control::ACTIVE;
        }
        let mut image = [0; 0x80];
        let mut put = |offset: u64, bytes: &[u8]| {
            let at = usize::try_from(offset).unwrap_or(0);
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(device::CHANNEL_COUNT, &self.vectors().to_le_bytes()[..1]);
        put(device::TRANSFER_CAPACITY, &[registers.transfer_capacity]);
        put(device::INTERRUPT_CONTROL, &[control]);
        put(device::ATTENTION, &registers.attention.to_le_bytes());
        put(device::VERSION, &[value::VERSION]);
        put(device::INTERRUPT_DELAY, &(registers.delay | value::DELAY_SUPPORTED).to_le_bytes());
        put(device::STATUS, &value::STATUS_ADDRESS_REMAPPING.to_le_bytes());
        put(device::CAPABILITY, &(value::CAPABILITY_FILL | value::CAPABILITY_XOR).to_le_bytes());
        image
    }

    fn write_byte(&mut self, at: u64, byte: u8) {
        let registers = &mut self.registers;
        let lane = |value: u32, lane: u64| {
            let mut bytes = value.to_le_bytes();
            bytes[usize::try_from(lane % 4).unwrap_or(0)] = byte;
            u32::from_le_bytes(bytes)
        };
        match at {
            device::INTERRUPT_CONTROL => {
                registers.interrupt_control =
                    byte & (interrupt_control::MASTER | interrupt_control::VECTORS);
            }
            _ if (device::INTERRUPT_DELAY..device::INTERRUPT_DELAY + 2).contains(&at) => {
                let value = lane(registers.delay.into(), at - device::INTERRUPT_DELAY);
                registers.delay = u16::try_from(value).unwrap_or(0) & value::DELAY_MASK;
            }
            _ if (device::LAB_FAULT..device::LAB_FAULT + 4).contains(&at) => {
                registers.fault = lane(registers.fault, at - device::LAB_FAULT);
            }
            _ => {}
        }
    }
}

impl Endpoint for IoatDevice {
    fn description(&self) -> FunctionDescription {
        let bar = |index, size, kind| BarDescription { index, size, kind };
        let device = match self.model {
            Model::Skylake => identity::SKYLAKE,
            Model::Atom => identity::ATOM,
        };
        FunctionDescription {
            vendor: identity::VENDOR_ID,
            device,
            revision: 4,
            class: identity::CLASS,
            subsystem_vendor: identity::VENDOR_ID,
            subsystem_id: device,
            bars: vec![
                bar(
                    bars::REGISTERS,
                    bars::REGISTERS_SIZE,
                    BarKind::Memory64 { prefetchable: false },
                ),
                bar(bars::MSIX, MsixTable::bar_size(self.vectors()), BarKind::Memory32),
            ],
            msix_vectors: self.vectors(),
            msix_bar: bars::MSIX,
            flr: true,
            aer: true,
            pcie: Some(self.attachment),
            acs: self.acs,
            ..FunctionDescription::default()
        }
    }

    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if bar != bars::REGISTERS {
            return;
        }
        let image = match self.channel(offset) {
            Some((channel, _)) => channel.image(),
            None if offset < bars::CHANNEL_STRIDE => self.image(),
            None if offset & !3 == device::LAB_FAULT => {
                let mut image = [0; 0x80];
                image[..4].copy_from_slice(&self.registers.fault.to_le_bytes());
                image
            }
            None => return,
        };
        let at = usize::try_from(offset % bars::CHANNEL_STRIDE).unwrap_or(0);
        for (byte, value) in data.iter_mut().zip(&image[at..]) {
            *byte = *value;
        }
        let attention = device::ATTENTION..device::ATTENTION + 4;
        if (offset..offset.saturating_add(data.len() as u64)).contains(&attention.start) {
            self.registers.attention = 0;
        }
    }

    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar != bars::REGISTERS {
            return;
        }
        if let Some((channel, at)) = self.channel(offset) {
            let room = usize::try_from(bars::CHANNEL_STRIDE - at).unwrap_or(0);
            channel.write(at, &data[..data.len().min(room)]);
            return;
        }
        for (at, byte) in (offset..).zip(data) {
            self.write_byte(at, *byte);
        }
    }

    fn asks_for_work(&self, bar: u8, offset: u64, data: &[u8]) -> bool {
        // Channels have equal blocks of registers behind those of the device.
        let in_channel = offset >= bars::CHANNEL_STRIDE;
        bar == bars::REGISTERS
            && in_channel
            && channel::asks_for_work(offset % bars::CHANNEL_STRIDE, data)
    }

    fn completion(&mut self, tag: Tag, completion: ReadCompletion<'_>) {
        let paths = self.channels.iter_mut().map(|channel| &mut channel.path);
        dma::complete(paths, tag, completion, None);
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        engine::step(&mut self.channels, &mut self.registers, &mut self.first, port)
    }

    fn reset(&mut self, _kind: ResetKind) {
        let DeviceRegisters { transfer_capacity, built_in_fault, .. } = self.registers;
        self.registers = DeviceRegisters::new(transfer_capacity, built_in_fault);
        self.channels.iter_mut().for_each(Channel::reset);
        self.first = 0;
    }
}

#[cfg(test)]
mod tests;
