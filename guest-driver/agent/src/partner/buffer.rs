//! System memory that others make dma-bufs of: the kernel's dma-heaps, and udmabuf over a file in memory.

use super::call::{call, descriptor, number};
use super::{CallError, open};
use crate::device::View;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

/// The heap of ordinary pages.
pub const SYSTEM_HEAP: &str = "/dev/dma_heap/system";
/// The device that makes dma-bufs of files in memory.
pub const UDMABUF: &str = "/dev/udmabuf";

/// `struct dma_heap_allocation_data`.
#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// `struct udmabuf_create_item`; `struct udmabuf_create` is the same with the flags in place of the padding.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct UdmabufItem {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// Most pieces of a udmabuf here; `struct udmabuf_create_list` has any number.
const PIECES: usize = 8;

#[repr(C)]
struct UdmabufList {
    flags: u32,
    count: u32,
    list: [UdmabufItem; PIECES],
}

/// What stands in the number of the call is the structure without its pieces.
#[repr(C)]
struct UdmabufListHead {
    flags: u32,
    count: u32,
}

const HEAP_ALLOC: u32 = number::<HeapAllocation>(true, b'H', 0);
const UDMABUF_CREATE_LIST: u32 = number::<UdmabufListHead>(false, b'u', 0x43);
const UDMABUF_CLOEXEC: u32 = 1;
const DMA_BUF_SYNC: u32 = number::<u64>(false, b'b', 0);
/// `DMA_BUF_SYNC_RW`; `DMA_BUF_SYNC_START` is 0.
const SYNC_RW: u64 = 3;
const SYNC_END: u64 = 4;

/// System memory behind a dma-buf.
#[derive(Debug)]
pub struct Buffer {
    dma_buf: OwnedFd,
    /// The same memory for the CPU, piece by piece.
    views: Vec<View>,
}

impl Buffer {
    /// `size` bytes, a multiple of the page size, from the system heap.
    ///
    /// # Errors
    /// The kernel's.
    pub fn from_heap(size: usize) -> Result<Self, CallError> {
        let heap = open(SYSTEM_HEAP, "opening /dev/dma_heap/system")?;
        let mut data = HeapAllocation {
            len: size as u64,
            fd: 0,
            fd_flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
            heap_flags: 0,
        };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&heap, HEAP_ALLOC, &mut data) }
            .map_err(CallError::of("DMA_HEAP_IOCTL_ALLOC"))?;
        // SAFETY: the heap has just installed this descriptor for us.
        let dma_buf = unsafe { descriptor(data.fd.cast_signed()) }
            .map_err(CallError::of("DMA_HEAP_IOCTL_ALLOC"))?;
        Self::from_dma_buf(dma_buf, size)
    }

    /// Whatever `dma_buf` is, if its exporter lets the CPU map it.
    ///
    /// # Errors
    /// The exporter's.
    pub fn from_dma_buf(dma_buf: OwnedFd, size: usize) -> Result<Self, CallError> {
        let view = View::new(&dma_buf, size, 0).map_err(CallError::of("mmap of a dma-buf"))?;
        Ok(Self { dma_buf, views: vec![view] })
    }

    /// A udmabuf of pieces of one file, (offset, size) each, multiples of the page size; at most eight.
    ///
    /// # Errors
    /// The kernel's.
    pub fn from_file(pieces: &[(usize, usize)]) -> Result<Self, CallError> {
        let file = memfd_create("udmabuf", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(CallError::of("memfd_create"))?;
        let end = pieces.iter().map(|(offset, size)| offset + size).max().unwrap_or(0);
        ftruncate(&file, end as u64).map_err(CallError::of("ftruncate"))?;
        // Its pages must stay: udmabuf refuses a file that can shrink.
        fcntl_add_seals(&file, SealFlags::SHRINK).map_err(CallError::of("F_ADD_SEALS"))?;
        let mut list = UdmabufList {
            flags: UDMABUF_CLOEXEC,
            count: 0,
            list: [UdmabufItem::default(); PIECES],
        };
        for (item, (offset, size)) in list.list.iter_mut().zip(pieces) {
            *item = UdmabufItem {
                memfd: file.as_raw_fd().cast_unsigned(),
                flags: 0,
                offset: *offset as u64,
                size: *size as u64,
            };
            list.count += 1;
        }
        let device = open(UDMABUF, "opening /dev/udmabuf")?;
        // SAFETY: the structure of the call with `count` valid pieces behind it, as it demands.
        let fd = unsafe { call(&device, UDMABUF_CREATE_LIST, &mut list) }
            .map_err(CallError::of("UDMABUF_CREATE_LIST"))?;
        // SAFETY: the call returns a descriptor that it has just installed for us.
        let dma_buf = unsafe { descriptor(fd) }.map_err(CallError::of("UDMABUF_CREATE_LIST"))?;
        let views = pieces
            .iter()
            .map(|(offset, size)| View::new(&file, *size, *offset as u64))
            .collect::<Result<_, _>>()
            .map_err(CallError::of("mmap of a file in memory"))?;
        Ok(Self { dma_buf, views })
    }

    /// The memory for the CPU: one view for each piece, in the order of the buffer.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// The CPU is about to touch it.
    ///
    /// # Errors
    /// The exporter's.
    pub fn begin_access(&self) -> Result<(), CallError> {
        self.sync(SYNC_RW)
    }

    /// The CPU has touched it.
    ///
    /// # Errors
    /// The exporter's.
    pub fn end_access(&self) -> Result<(), CallError> {
        self.sync(SYNC_RW | SYNC_END)
    }

    fn sync(&self, mut flags: u64) -> Result<(), CallError> {
        loop {
            // SAFETY: `struct dma_buf_sync` is this one number.
            match unsafe { call(&self.dma_buf, DMA_BUF_SYNC, &mut flags) } {
                Err(Errno::INTR | Errno::AGAIN) => {}
                result => return result.map(drop).map_err(CallError::of("DMA_BUF_IOCTL_SYNC")),
            }
        }
    }
}

impl AsFd for Buffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dma_buf.as_fd()
    }
}
