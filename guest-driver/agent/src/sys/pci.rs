//! PCI functions as sysfs shows them.

use super::{FileError, read, write};
use crate::sys::config_space::ConfigSpace;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/bus/pci/devices";

/// One PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its address as the kernel writes it: `0000:01:00.0`.
    pub name: String,
}

impl Function {
    /// The function with this segment and requester ID.
    pub fn new(segment: u32, bdf: u32) -> Self {
        Self {
            name: format!(
                "{segment:04x}:{:02x}:{:02x}.{}",
                bdf >> 8 & 0xff,
                bdf >> 3 & 0x1f,
                bdf & 7
            ),
        }
    }

    /// Its address without the segment, as the VMM writes it: `01:00.0`.
    pub fn address(&self) -> &str {
        self.name.split_once(':').map_or(self.name.as_str(), |(_, address)| address)
    }

    /// Segment and requester ID; `None` for a name that is none.
    pub fn segment_and_requester_id(&self) -> Option<(u32, u32)> {
        let mut parts = self.name.split([':', '.']).map(|part| u32::from_str_radix(part, 16).ok());
        let mut part = || parts.next().flatten();
        let (segment, bus, device, function) = (part()?, part()?, part()?, part()?);
        Some((segment, bus << 8 | device << 3 | function))
    }

    /// Whether the kernel knows it at present.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// All functions, ordered by address.
    ///
    /// # Errors
    /// When sysfs is not there.
    pub fn all() -> Result<Vec<Self>, FileError> {
        let directory = Path::new(DEVICES);
        let entries = std::fs::read_dir(directory).map_err(|source| FileError {
            what: "listing".into(),
            path: directory.to_owned(),
            source,
        })?;
        let mut all: Vec<Self> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .map(|name| Self { name })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Its directory in sysfs.
    pub fn path(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.name)
    }

    /// One of its attributes, as text.
    ///
    /// # Errors
    /// When there is no such attribute.
    pub fn attribute(&self, name: &str) -> Result<String, FileError> {
        read(self.path().join(name))
    }

    /// Writes an attribute.
    ///
    /// # Errors
    /// When there is no such attribute or the kernel refuses the value.
    pub fn set_attribute(&self, name: &str, value: &str) -> Result<(), FileError> {
        write(self.path().join(name), value)
    }

    /// A hexadecimal attribute such as `vendor`; `None` when it is missing or none.
    pub fn hexadecimal(&self, name: &str) -> Option<u32> {
        u32::from_str_radix(self.attribute(name).ok()?.strip_prefix("0x")?, 16).ok()
    }

    /// Whether vendor and device ID are these.
    pub fn is(&self, vendor: u32, device: u32) -> bool {
        self.hexadecimal("vendor") == Some(vendor) && self.hexadecimal("device") == Some(device)
    }

    /// Its configuration space.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn config_space(&self) -> Result<ConfigSpace, FileError> {
        let path = self.path().join("config");
        match std::fs::File::open(&path) {
            Ok(file) => Ok(ConfigSpace::new(file)),
            Err(source) => Err(FileError { what: "opening".into(), path, source }),
        }
    }

    /// Writes the dword at `offset` of its configuration space, past the kernel's own idea of it.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn write_config(&self, offset: u16, value: u32) -> Result<(), FileError> {
        let path = self.path().join("config");
        let file = std::fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.write_all_at(&value.to_le_bytes(), offset.into()))
            .map_err(|source| FileError { what: "writing".into(), path, source })
    }

    /// The bridge above it: the last directory but one of its real path. `None` on a root bus.
    pub fn upstream(&self) -> Option<Self> {
        let real = std::fs::canonicalize(self.path()).ok()?;
        let name = real.parent()?.file_name()?.to_str()?;
        (name.len() == self.name.len() && name.contains('.'))
            .then(|| Self { name: name.to_owned() })
    }

    /// Its IOMMU group; `None` without an IOMMU.
    pub fn iommu_group(&self) -> Option<String> {
        let target = std::fs::read_link(self.path().join("iommu_group")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The name of the driver that is bound to it.
    pub fn driver(&self) -> Option<String> {
        let target = std::fs::read_link(self.path().join("driver")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The address ranges of its BARs and windows: (index, first, last, flags), empty ones left out.
    ///
    /// # Errors
    /// When there is no such attribute.
    pub fn resources(&self) -> Result<Vec<Resource>, FileError> {
        Ok(parse_resources(&self.attribute("resource")?))
    }

    /// The sum of all errors that the kernel has counted for this function in one of its AER attributes
    /// (`aer_dev_nonfatal`, ...), and the number for one kind in it (`UnsupReq`). `None` without AER.
    pub fn aer_count(&self, attribute: &str, kind: &str) -> Option<u64> {
        parse_aer_count(&self.attribute(attribute).ok()?, kind)
    }
}

/// One line of the `resource` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// 0 to 5 are BARs, 6 is the ROM, a bridge's windows follow.
    pub index: usize,
    /// First address.
    pub first: u64,
    /// Last address, inclusive.
    pub last: u64,
    /// The kernel's `IORESOURCE_*` flags.
    pub flags: u64,
}

impl Resource {
    /// The kernel's flag for prefetchable memory.
    pub const PREFETCH: u64 = 0x2000;
    /// The kernel's flag for 64-bit memory.
    pub const MEM_64: u64 = 0x0010_0000;

    /// Whether `other` lies wholly inside.
    pub fn holds(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

fn parse_resources(text: &str) -> Vec<Resource> {
    let number = |word: Option<&str>| u64::from_str_radix(word?.strip_prefix("0x")?, 16).ok();
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let mut words = line.split_whitespace();
            let (first, last, flags) =
                (number(words.next())?, number(words.next())?, number(words.next())?);
            (last != 0).then_some(Resource { index, first, last, flags })
        })
        .collect()
}

fn parse_aer_count(text: &str, kind: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, count) = line.trim().rsplit_once(' ')?;
        (name.trim() == kind).then(|| count.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_the_kernels_name() {
        assert_eq!(Function::new(0, 0x0100).name, "0000:01:00.0");
        assert_eq!(Function::new(1, 0xfffa).name, "0001:ff:1f.2");
        for (segment, bdf) in [(0, 0x0100), (1, 0xfffa)] {
            assert_eq!(
                Function::new(segment, bdf).segment_and_requester_id(),
                Some((segment, bdf))
            );
        }
        assert_eq!(Function { name: "0000:01:00".into() }.segment_and_requester_id(), None);
    }

    #[test]
    fn resources_are_read_and_empty_ones_left_out() {
        let all = parse_resources(
            "0x00000000c0000000 0x00000000c000ffff 0x0000000000040200\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000001000000000 0x000000100fffffff 0x000000000014220c\nrubbish",
        );
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].index, 2);
        assert_ne!(all[1].flags & Resource::MEM_64, 0);
        assert_ne!(all[1].flags & Resource::PREFETCH, 0);
        assert!(!all[0].overlaps(&all[1]) && all[0].holds(&all[0]));
    }

    #[test]
    fn aer_counts_are_found_by_name() {
        let text = "Undefined 0\nDLP 0\nUnsupReq 3\nTOTAL_ERR_NONFATAL 3";
        assert_eq!(parse_aer_count(text, "UnsupReq"), Some(3));
        assert_eq!(parse_aer_count(text, "DLP"), Some(0));
        assert_eq!(parse_aer_count(text, "ECRC"), None);
    }
}
