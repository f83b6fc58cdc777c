//! Memory that a transaction can land in: a piece of guest RAM or a device's local memory.
//!
//! Both are shared mappings. The guest's CPUs write to them at any time, unseen by the system, so
//! everything here is accessed through [`VolatileSlice`] and never through a Rust reference.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

/// Why a [`Memory`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the memory file.
    #[error("the host gave no memory file of {size} bytes for {name}: {source}")]
    File {
        /// What the memory was for.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The host's reason.
        source: io::Error,
    },
    /// The file could not be mapped.
    #[error("the host did not map {size} bytes for {name}: {source}")]
    Map {
        /// What the memory was for.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The host's reason.
        source: MmapRegionError,
    },
}

/// A contiguous piece of memory shared between the guest and the system.
#[derive(Debug, Clone)]
pub struct Memory {
    region: Arc<MmapRegion<()>>,
}

impl Memory {
    /// Makes `size` bytes of zeroed memory backed by a memfd called `name` (host tools show that
    /// name).
    ///
    /// The host commits pages only as they are touched.
    ///
    /// # Errors
    /// When the host has no file descriptors, address space or memory left.
    pub fn new(name: &str, size: u64) -> Result<Self, MemoryError> {
        let file_error = |error: rustix::io::Errno| MemoryError::File {
            name: name.to_owned(),
            size,
            source: error.into(),
        };
        let fd = memfd_create(name, MemfdFlags::CLOEXEC).map_err(file_error)?;
        ftruncate(&fd, size).map_err(file_error)?;
        let length = usize::try_from(size).map_err(|_| file_error(rustix::io::Errno::NOMEM))?;
        let region = MmapRegion::from_file(FileOffset::new(File::from(fd), 0), length)
            .map_err(|source| MemoryError::Map { name: name.to_owned(), size, source })?;
        Ok(Self { region: Arc::new(region) })
    }

    /// The memory behind a region of guest RAM: the same mapping, not a copy.
    pub fn of_ram(region: &GuestRegionMmap<()>) -> Self {
        Self { region: region.get_mmap() }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.region.size() as u64
    }

    /// Whether the memory has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` bytes from `offset`, or nothing when they are not all inside.
    pub fn slice(&self, offset: u64, length: usize) -> Option<VolatileSlice<'_>> {
        self.region.get_slice(usize::try_from(offset).ok()?, length).ok()
    }

    /// The file behind the memory, for mapping it into a guest or another process, with the offset
    /// of the first byte.
    pub fn file(&self) -> Option<&FileOffset> {
        self.region.file_offset()
    }

    /// Where the memory is mapped in this process, for registering it as a guest's memory slot.
    pub fn host_address(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    /// Gives all pages back to the host: what is read afterwards is zero.
    ///
    /// # Errors
    /// When the memory is not backed by a file that can have holes; nothing is changed then.
    pub fn discard(&self) -> io::Result<()> {
        let file = self.file().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(file.file(), mode, file.start(), self.len())?)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn slices_end_where_the_memory_ends() {
        let memory = Memory::new("test", 0x2000).unwrap();
        assert_eq!(memory.len(), 0x2000);
        assert_eq!(memory.slice(0x1fff, 1).unwrap().len(), 1);
        assert!(memory.slice(0x1fff, 2).is_none());
        assert!(memory.slice(u64::MAX, 1).is_none());
    }

    #[test]
    fn discarded_memory_reads_zero() {
        let memory = Memory::new("test", 0x2000).unwrap();
        memory.slice(0x1000, 4).unwrap().write_obj(0x1234_5678u32, 0).unwrap();
        memory.discard().unwrap();
        assert_eq!(memory.slice(0x1000, 4).unwrap().read_obj::<u32>(0).unwrap(), 0);
    }
}
