//! The I/O port space of the machine: a serial port, the protocol port, power and reset.

use std::sync::{Mutex, PoisonError};

use guest_protocol::witness::MAGIC;

use super::bus::DeviceBus;
use super::fault::RunEnd;
use super::layout;
use super::protocol_call::{Call, LinearMemory};
use super::protocol_port::ProtocolPort;
use super::serial::SerialPort;

/// `SLP_EN` of the sleep control register (ACPI 6.5, table 4.21).
const SLEEP_ENABLE: u8 = 1 << 5;
/// First bit of `SLP_TYP` in the sleep control register, and its mask once shifted down.
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0x7;

/// All ports. Ports without a device read as all ones.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) serial: SerialPort,
    pub(crate) protocol: Mutex<ProtocolPort>,
}

impl Ports {
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        match port {
            layout::PROTOCOL_PORT => {
                self.protocol.lock().unwrap_or_else(PoisonError::into_inner).read(data)
            }
            layout::SLEEP_STATUS | layout::SLEEP_CONTROL => data.fill(0),
            _ if layout::COM1.contains(&port) => self.serial.read(port, data),
            _ => data.fill(0xFF),
        }
    }

    /// Serves a write; `Some` if it ends the run. `data` holds several values of the same port when the guest
    /// used a string instruction.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Option<RunEnd> {
        match port {
            layout::PROTOCOL_PORT => {
                self.protocol.lock().unwrap_or_else(PoisonError::into_inner).write(data)
            }
            layout::SLEEP_CONTROL => data.iter().find_map(|&value| sleep(value)),
            layout::RESET_REGISTER => data.contains(&layout::RESET_VALUE).then_some(RunEnd::Reset),
            layout::KEYBOARD_COMMAND => {
                data.contains(&layout::KEYBOARD_RESET).then_some(RunEnd::Reset)
            }
            _ if layout::COM1.contains(&port) => {
                self.serial.write(port, data);
                None
            }
            _ => None,
        }
    }

    /// Serves a protocol call; `Some` if it ends the run.
    pub(crate) fn protocol_call(&self, call: Call, memory: &impl LinearMemory) -> Option<RunEnd> {
        call.serve(memory, &mut self.protocol.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves a read of the witness's ports; whether it was one.
pub(crate) fn read_witness(bus: &dyn DeviceBus, port: u16, data: &mut [u8]) -> bool {
    if port != layout::WITNESS_ATTACH || !bus.takes_witness() {
        return false;
    }
    match <&mut [u8; 4]>::try_from(data) {
        Ok(data) => *data = MAGIC.to_le_bytes(),
        // Narrower reads mean nothing there, nor do those of a string instruction.
        Err(_) => return false,
    }
    true
}

/// Serves a write to one of the witness's ports.
pub(crate) fn write_witness(bus: &dyn DeviceBus, port: u16, data: &[u8]) {
    let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
    match port {
        layout::WITNESS_ATTACH => bus.witness_attach(value),
        layout::WITNESS_DRAIN => bus.witness_drain(),
        _ => {}
    }
}

/// Sleep states other than S5 are not offered; a guest that asks for one all the same stays awake.
fn sleep(value: u8) -> Option<RunEnd> {
    let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    (value & SLEEP_ENABLE != 0 && kind == layout::SLEEP_TYPE_S5).then_some(RunEnd::PowerOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Bus(Mutex<Vec<Option<u32>>>);

    impl DeviceBus for Bus {
        fn config_read(&self, _function: u16, _offset: u16, _data: &mut [u8]) {}
        fn config_write(&self, _function: u16, _offset: u16, _data: &[u8]) {}
        fn mmio_read(&self, _address: u64, _data: &mut [u8]) {}
        fn mmio_write(&self, _address: u64, _data: &[u8]) {}
        fn memory_epoch(&self) -> u64 {
            0
        }
        fn memory(&self) -> Vec<crate::MappedMemory> {
            Vec::new()
        }
        fn takes_witness(&self) -> bool {
            true
        }
        fn witness_attach(&self, frame: u32) {
            self.0.lock().unwrap().push(Some(frame));
        }
        fn witness_drain(&self) {
            self.0.lock().unwrap().push(None);
        }
    }

    #[test]
    fn the_witness_is_reached_by_double_words_only() {
        let bus = Bus::default();
        let mut data = [0; 4];
        assert!(read_witness(&bus, layout::WITNESS_ATTACH, &mut data));
        assert_eq!(data, *b"PDWT");
        assert!(!read_witness(&bus, layout::WITNESS_ATTACH, &mut data[..2]));
        assert!(!read_witness(&bus, layout::WITNESS_DRAIN, &mut data));
        assert!(!read_witness(&crate::EmptyBus, layout::WITNESS_ATTACH, &mut data));

        write_witness(&bus, layout::WITNESS_ATTACH, &[1, 2, 3]);
        write_witness(&bus, layout::WITNESS_ATTACH, &[1; 8]);
        write_witness(&bus, layout::WITNESS_ATTACH, &0x1234u32.to_le_bytes());
        write_witness(&bus, layout::WITNESS_DRAIN, &[0; 4]);
        assert_eq!(*bus.0.lock().unwrap(), [Some(0x1234), None]);
    }

    #[test]
    fn only_s5_with_the_enable_bit_switches_off() {
        let s5 = layout::SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT;
        assert!(matches!(sleep(s5 | SLEEP_ENABLE), Some(RunEnd::PowerOff)));
        assert!(sleep(s5).is_none());
        assert!(sleep(3 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE).is_none());
    }
}
