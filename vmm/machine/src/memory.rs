//! The guest's RAM: one memfd, seen by the guest through KVM memory slots and by all else through
//! `vm-memory`.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::mm::Advice;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::error::MachineError;
use super::layout;

/// Smallest RAM that a kernel and its initramfs fit into; anything less is a mistake in the configuration.
pub const MIN_RAM_MIB: u32 = 4;

/// RAM of a guest. Clones share the same memory.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: Arc<GuestMemoryMmap>,
    file: Arc<File>,
    bytes: u64,
}

impl GuestRam {
    /// Reserves `mib` MiB of zeroed memory; the host only spends what the guest touches.
    ///
    /// # Errors
    /// [`MachineError::RamSize`] when `mib` is outside of what the layout has room for,
    /// [`MachineError::RamReserve`] when the host refuses.
    pub fn new(mib: u32) -> Result<Self, MachineError> {
        let bytes = u64::from(mib) << 20;
        if mib < MIN_RAM_MIB || bytes > layout::MAX_RAM {
            return Err(MachineError::RamSize { mib, max: layout::MAX_RAM >> 20 });
        }
        let reserve = |source: std::io::Error| MachineError::RamReserve { mib, source };
        let file = rustix::fs::memfd_create("guest-ram", MemfdFlags::CLOEXEC)
            .map_err(|e| reserve(e.into()))?;
        let file = Arc::new(File::from(file));
        file.set_len(bytes).map_err(reserve)?;

        let mut offset = 0;
        let mut regions = Vec::new();
        for range in layout::ram_ranges(bytes) {
            let length = range.end - range.start;
            let size = usize::try_from(length).map_err(|e| reserve(std::io::Error::other(e)))?;
            regions.push((
                GuestAddress(range.start),
                size,
                Some(FileOffset::from_arc(Arc::clone(&file), offset)),
            ));
            offset += length;
        }
        let memory = GuestMemoryMmap::from_ranges_with_files(regions)
            .map_err(|e| reserve(std::io::Error::other(e)))?;
        prefer_large_pages(&memory);
        Ok(Self { memory: Arc::new(memory), file, bytes })
    }

    /// The mapped memory, by guest physical address.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// The memfd behind the RAM, for callers that want a mapping of their own: offset 0 is guest
    /// address 0, what lies above 4 GiB follows what lies below the hole without a gap.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// First address behind the RAM that lies below the hole.
    pub fn low_end(&self) -> u64 {
        self.bytes.min(layout::LOW_RAM_END)
    }
}

/// Asks the host to back RAM by large pages, where its `shmem_enabled` says `advise`: the guest then faults once for
/// 2 MiB and not for each 4 KiB, which in the nested test host is most of what a boot costs.
fn prefer_large_pages(memory: &GuestMemoryMmap) {
    for region in memory.iter() {
        let Ok(length) = usize::try_from(region.len()) else { continue };
        // SAFETY: the range is one mapping of ours; the advice changes how it is backed, not what it holds.
        let advised =
            unsafe { rustix::mm::madvise(region.as_ptr().cast(), length, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            log::debug!("no large pages for guest RAM: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn sizes_outside_the_layout_are_refused() {
        assert!(matches!(GuestRam::new(0), Err(MachineError::RamSize { mib: 0, .. })));
        assert!(matches!(GuestRam::new(u32::MAX), Err(MachineError::RamSize { .. })));
    }

    #[test]
    fn ram_above_the_hole_follows_in_the_file() {
        let ram = GuestRam::new(3 * 1024 + 8).unwrap();
        ram.memory().write_obj(0x5A5A_u16, GuestAddress(layout::HIGH_RAM_START)).unwrap();
        let mut bytes = [0; 2];
        std::os::unix::fs::FileExt::read_at(&**ram.file(), &mut bytes, layout::LOW_RAM_END)
            .unwrap();
        assert_eq!(bytes, [0x5A, 0x5A]);
        assert!(!ram.memory().address_in_range(GuestAddress(layout::LOW_RAM_END)));
        assert_eq!(ram.low_end(), layout::LOW_RAM_END);
    }
}
