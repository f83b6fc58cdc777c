//! The I/O port space of the machine: a serial port, the protocol port, power and reset.

use std::sync::{Mutex, PoisonError};

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

/// Sleep states other than S5 are not offered; a guest that asks for one all the same stays awake.
fn sleep(value: u8) -> Option<RunEnd> {
    let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    (value & SLEEP_ENABLE != 0 && kind == layout::SLEEP_TYPE_S5).then_some(RunEnd::PowerOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_with_the_enable_bit_switches_off() {
        let s5 = layout::SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT;
        assert!(matches!(sleep(s5 | SLEEP_ENABLE), Some(RunEnd::PowerOff)));
        assert!(sleep(s5).is_none());
        assert!(sleep(3 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE).is_none());
    }
}
