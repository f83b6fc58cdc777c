//! The system's firmware: what a BIOS has done by the time the guest's kernel starts.

use super::System;
use crate::pci::Bdf;
use crate::pci::firmware::{Assignment, ConfigAccess, FirmwareError, HostResources, assign};

impl ConfigAccess for System {
    fn config_read(&mut self, function: Bdf, offset: u16, len: u8) -> u32 {
        Self::config_read(self, function, offset, len)
    }

    fn config_write(&mut self, function: Bdf, offset: u16, len: u8, value: u32) {
        Self::config_write(self, function, offset, len, value);
    }
}

impl System {
    /// Numbers the buses, assigns all BARs and bridge windows from `resources` and switches the
    /// bridges on.
    ///
    /// # Errors
    /// When something does not fit; the message says what, and where it was to go.
    pub fn run_firmware(&mut self, resources: &HostResources) -> Result<Assignment, FirmwareError> {
        assign(self, resources)
    }
}
