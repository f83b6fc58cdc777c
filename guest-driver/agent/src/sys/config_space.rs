//! Configuration space read back through the kernel: enough of PCIe Base 6.0 section 7.5 to judge it.
//!
//! Written on its own, not with the models' code: it is the other opinion.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Capability IDs (PCI Code and ID Assignment).
pub mod capability {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
}

/// Extended capability IDs.
pub mod extended {
    /// Advanced error reporting.
    pub const AER: u16 = 0x0001;
    /// Access control services.
    pub const ACS: u16 = 0x000d;
    /// Resizable BAR.
    pub const RESIZABLE_BAR: u16 = 0x0015;
}

/// A function's configuration space. Read dword by dword when asked for: each costs an exit of the virtual CPU, and all
/// 1024 of them would take a quarter of a second where exits are emulated.
#[derive(Debug)]
pub struct ConfigSpace {
    source: Source,
    dwords: RefCell<BTreeMap<usize, u32>>,
}

#[derive(Debug)]
enum Source {
    File(File),
    #[cfg(test)]
    Bytes(Vec<u8>),
}

impl ConfigSpace {
    /// From the `config` attribute.
    pub fn new(file: File) -> Self {
        Self { source: Source::File(file), dwords: RefCell::default() }
    }

    /// How many bytes there are: 4096 for PCIe.
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::File(file) => file.metadata().map_or(0, |metadata| metadata.len()),
            #[cfg(test)]
            Source::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether nothing can be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dword at `at`, a multiple of four; all ones where there is none, as hardware answers.
    fn dword(&self, at: usize) -> u32 {
        *self.dwords.borrow_mut().entry(at).or_insert_with(|| {
            let mut bytes = [u8::MAX; 4];
            match &self.source {
                Source::File(file) => {
                    let _ = file.read_exact_at(&mut bytes, at as u64);
                }
                #[cfg(test)]
                Source::Bytes(all) => {
                    bytes
                        .iter_mut()
                        .zip(all.iter().skip(at))
                        .for_each(|(byte, &value)| *byte = value);
                }
            }
            u32::from_le_bytes(bytes)
        })
    }

    /// A byte.
    pub fn u8(&self, at: usize) -> u8 {
        self.dword(at & !3).to_le_bytes()[at & 3]
    }

    /// Two bytes, little endian.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.u8(at), self.u8(at.saturating_add(1))])
    }

    /// Four bytes, little endian.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at.saturating_add(2))) << 16
    }

    /// The capabilities in list order: (ID, offset).
    ///
    /// # Errors
    /// What is wrong with the list.
    pub fn capabilities(&self) -> Result<Vec<(u8, usize)>, String> {
        const STATUS: usize = 0x06;
        const STATUS_CAPABILITIES: u16 = 1 << 4;
        const POINTER: usize = 0x34;
        if self.u16(STATUS) & STATUS_CAPABILITIES == 0 {
            return Ok(Vec::new());
        }
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        let mut at = usize::from(self.u8(POINTER));
        while at != 0 {
            if at % 4 != 0 || at < 0x40 {
                return Err(format!(
                    "a capability pointer is {at:#x}: not a multiple of 4 above the header"
                ));
            }
            if !seen.insert(at) {
                return Err(format!("the list of capabilities comes back to {at:#x}"));
            }
            list.push((self.u8(at), at));
            at = usize::from(self.u8(at + 1));
        }
        Ok(list)
    }

    /// The extended capabilities in list order: (ID, offset).
    ///
    /// # Errors
    /// What is wrong with the list.
    pub fn extended_capabilities(&self) -> Result<Vec<(u16, usize)>, String> {
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        let mut at = 0x100;
        while at != 0 {
            if at % 4 != 0 || !(0x100..0x1000).contains(&at) {
                return Err(format!("an extended capability pointer is {at:#x}"));
            }
            if !seen.insert(at) {
                return Err(format!("the list of extended capabilities comes back to {at:#x}"));
            }
            let header = self.u32(at);
            if header == 0 || header == u32::MAX {
                // No extended capability at all (7.6.3): legal only as the very first.
                return if list.is_empty() {
                    Ok(list)
                } else {
                    Err(format!("an empty extended capability at {at:#x}"))
                };
            }
            list.push((self.u16(at), at));
            at = usize::from(self.u16(at + 2) >> 4);
        }
        Ok(list)
    }

    /// Offset of the capability with this ID.
    pub fn find(&self, id: u8) -> Option<usize> {
        self.capabilities().ok()?.into_iter().find_map(|(found, at)| (found == id).then_some(at))
    }

    /// Offset of the extended capability with this ID.
    pub fn find_extended(&self, id: u16) -> Option<usize> {
        self.extended_capabilities()
            .ok()?
            .into_iter()
            .find_map(|(found, at)| (found == id).then_some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(bytes: Vec<u8>) -> ConfigSpace {
        ConfigSpace { source: Source::Bytes(bytes), dwords: RefCell::default() }
    }

    fn space(edit: impl Fn(&mut [u8])) -> ConfigSpace {
        let mut bytes = vec![0; 4096];
        bytes[0x06] = 0x10;
        edit(&mut bytes);
        from(bytes)
    }

    #[test]
    fn lists_are_walked() {
        let space = space(|b| {
            b[0x34] = 0x40;
            b[0x40..0x42].copy_from_slice(&[0x01, 0x50]);
            b[0x50..0x52].copy_from_slice(&[0x10, 0x00]);
            b[0x100..0x104].copy_from_slice(&0x1481_0001_u32.to_le_bytes());
            b[0x148..0x14c].copy_from_slice(&0x0001_0015_u32.to_le_bytes());
        });
        assert_eq!(space.capabilities().unwrap(), [(1, 0x40), (0x10, 0x50)]);
        assert_eq!(space.extended_capabilities().unwrap(), [(1, 0x100), (0x15, 0x148)]);
        assert_eq!(space.find(capability::PCI_EXPRESS), Some(0x50));
        assert_eq!(space.find_extended(extended::RESIZABLE_BAR), Some(0x148));
        assert_eq!(space.find(capability::MSI_X), None);
    }

    #[test]
    fn loops_and_wild_pointers_are_errors_not_hangs() {
        let looped = space(|b| {
            b[0x34] = 0x40;
            b[0x41] = 0x40;
        });
        assert!(looped.capabilities().is_err());
        assert!(space(|b| b[0x34] = 0x41).capabilities().is_err());
        assert!(space(|b| b[0x34] = 0x10).capabilities().is_err());
        let looped = space(|b| b[0x100..0x104].copy_from_slice(&0x1001_0001_u32.to_le_bytes()));
        assert!(looped.extended_capabilities().is_err());
    }

    #[test]
    fn beyond_the_end_everything_is_ones() {
        let short = from(vec![0; 64]);
        assert_eq!(short.u32(62), 0xffff_0000);
        assert!(short.extended_capabilities().unwrap().is_empty());
    }
}
