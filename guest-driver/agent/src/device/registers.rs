//! The register BAR, past the driver.

use super::{DeviceError, Peer};
use crate::uapi;

impl Peer {
    /// The 32-bit register at `offset` of the register BAR.
    ///
    /// # Errors
    /// The driver's.
    pub fn read_register(&self, offset: u32) -> Result<u32, DeviceError> {
        let mut argument =
            uapi::LabRegister { offset: offset.into(), width: 4, ..uapi::LabRegister::default() };
        uapi::lab_register(&self.file, &mut argument).map_err(self.failed("LAB_REGISTER"))?;
        Ok(u32::try_from(argument.value & u64::from(u32::MAX)).unwrap_or(u32::MAX))
    }

    /// Writes it, whatever the driver is doing.
    ///
    /// # Errors
    /// The driver's.
    pub fn write_register(&self, offset: u32, value: u32) -> Result<(), DeviceError> {
        let mut argument =
            uapi::LabRegister { offset: offset.into(), width: 4, write: 1, value: value.into() };
        uapi::lab_register(&self.file, &mut argument).map_err(self.failed("LAB_REGISTER"))
    }
}
