//! iommufd: I/O address spaces that user space fills.

use super::call::call;
use super::{CallError, open};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// The device.
pub const PATH: &str = "/dev/iommu";

const IOAS_ALLOC: u32 = 0x3b81;
const IOAS_MAP: u32 = 0x3b85;
const IOAS_UNMAP: u32 = 0x3b86;
const IOAS_MAP_FILE: u32 = 0x3b8f;
/// At the address that is asked for, for reading and writing.
const FIXED_READ_WRITE: u32 = 7;

/// `struct iommu_ioas_alloc`.
#[repr(C)]
struct IoasAlloc {
    size: u32,
    flags: u32,
    out_ioas_id: u32,
}

/// `struct iommu_ioas_map`.
#[repr(C)]
struct IoasMap {
    size: u32,
    flags: u32,
    ioas_id: u32,
    reserved: u32,
    user_va: u64,
    length: u64,
    iova: u64,
}

/// `struct iommu_ioas_map_file`.
#[repr(C)]
struct IoasMapFile {
    size: u32,
    flags: u32,
    ioas_id: u32,
    fd: i32,
    start: u64,
    length: u64,
    iova: u64,
}

/// `struct iommu_ioas_unmap`.
#[repr(C)]
struct IoasUnmap {
    size: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
}

#[expect(clippy::cast_possible_truncation, reason = "the structures above have a few dozen bytes")]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// One I/O address space of its own iommufd.
#[derive(Debug)]
pub struct AddressSpace {
    file: OwnedFd,
    /// Its number, for devices that are attached to it.
    pub id: u32,
}

impl AddressSpace {
    /// A new one, empty.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Self, CallError> {
        let file = open(PATH, "opening /dev/iommu")?;
        let mut argument = IoasAlloc { size: size::<IoasAlloc>(), flags: 0, out_ioas_id: 0 };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&file, IOAS_ALLOC, &mut argument) }
            .map_err(CallError::of("IOMMU_IOAS_ALLOC"))?;
        Ok(Self { file, id: argument.out_ioas_id })
    }

    /// Maps `length` bytes of a dma-buf, from its start, at `iova`.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` for dma-bufs that iommufd does not take.
    pub fn map_file(&self, file: impl AsFd, length: u64, iova: u64) -> Result<(), Errno> {
        let mut argument = IoasMapFile {
            size: size::<IoasMapFile>(),
            flags: FIXED_READ_WRITE,
            ioas_id: self.id,
            fd: file.as_fd().as_raw_fd(),
            start: 0,
            length,
            iova,
        };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.file, IOAS_MAP_FILE, &mut argument) }.map(drop)
    }

    /// Maps memory of this process at `iova`.
    ///
    /// # Safety
    /// Devices read and write `[start, start + length)` until it is unmapped: it must stay mapped until then, and
    /// nothing may hold references into it.
    ///
    /// # Errors
    /// The kernel's.
    pub unsafe fn map_memory(
        &self,
        start: *mut u8,
        length: u64,
        iova: u64,
    ) -> Result<(), CallError> {
        let mut argument = IoasMap {
            size: size::<IoasMap>(),
            flags: FIXED_READ_WRITE,
            ioas_id: self.id,
            reserved: 0,
            user_va: start as u64,
            length,
            iova,
        };
        // SAFETY: this is the structure of the call; the caller vouches for the memory.
        unsafe { call(&self.file, IOAS_MAP, &mut argument) }
            .map(drop)
            .map_err(CallError::of("IOMMU_IOAS_MAP"))
    }

    /// Takes what is mapped there away.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when nothing is.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<(), CallError> {
        let mut argument = IoasUnmap { size: size::<IoasUnmap>(), ioas_id: self.id, iova, length };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.file, IOAS_UNMAP, &mut argument) }
            .map(drop)
            .map_err(CallError::of("IOMMU_IOAS_UNMAP"))
    }
}

impl AsFd for AddressSpace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
