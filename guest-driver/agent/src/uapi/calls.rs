//! The calls: a function each.

use super::constants::IOCTL_BASE;
use super::structures::*;
use rustix::io;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The number of a call that reads and writes a `T`.
const fn number<T>(number: u8) -> Opcode {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the type field of a call number has eight bits"
    )]
    opcode::read_write::<T>(IOCTL_BASE as u8, number)
}

/// Declares a function for each call and the table that the drift test compares.
macro_rules! calls {
    ($($(#[$meta:meta])* $name:literal $function:ident $number:literal $argument:ty;)*) => {
        $(
            $(#[$meta])*
            ///
            /// # Errors
            /// The kernel's; the header says which means what.
            pub fn $function(fd: impl AsFd, argument: &mut $argument) -> io::Result<()> {
                // SAFETY: the number carries the structure's size, and the kernel reads and writes this structure only:
                // none of these calls takes a pointer inside it. Layouts are checked against the header by a test.
                unsafe { ioctl(fd, Updater::<{ number::<$argument>($number) }, $argument>::new(argument)) }
            }
        )*

        /// Every call: its name in the header without `PEERDMA_`, and its number here.
        pub fn calls() -> Vec<(&'static str, Opcode)> {
            vec![$(($name, number::<$argument>($number)),)* ("GET_SEGMENTS", GET_SEGMENTS), ("KERNEL_COPY", KERNEL_COPY)]
        }
    };
}

calls! {
    /// What the function is.
    "GET_INFO" get_info 0x00 Info;
    /// What happened since the driver bound.
    "GET_COUNTERS" get_counters 0x01 Counters;
    /// The kernel's view of the path between two functions.
    "GET_DISTANCE" get_distance 0x02 Distance;
    /// Takes a piece of local memory.
    "ALLOC" alloc 0x10 Alloc;
    /// Makes a dma-buf of one.
    "EXPORT" export 0x11 Export;
    /// Invalidates the importers' mappings.
    "INVALIDATE" invalidate 0x12 Invalidate;
    /// Gives an object back.
    "CLOSE" close 0x13 Handle;
    /// Attaches a dma-buf.
    "IMPORT" import 0x20 Import;
    /// Maps an object.
    "MAP" map 0x21 Map;
    /// Gives the mapping back, not the object.
    "UNMAP" unmap 0x22 Handle;
    /// Hands work to a channel.
    "SUBMIT" submit 0x30 Submit;
    /// Fetches the result.
    "WAIT" wait 0x31 Wait;
    /// Takes system memory.
    "SYSTEM_ALLOC" system_alloc 0x40 SystemAlloc;
    /// Hands system memory over between CPU and device.
    "SYSTEM_SYNC" system_sync 0x41 SystemSync;
    /// Clears, sets or asks for Bus Master Enable. Lab only.
    "LAB_BUS_MASTER" lab_bus_master 0x80 LabBusMaster;
    /// Maps any physical range. Lab only.
    "LAB_MAP_PHYS" lab_map_phys 0x81 LabMapPhys;
    /// Reads or writes a register. Lab only.
    "LAB_REGISTER" lab_register 0x82 LabRegister;
    /// Takes memory of any kind, to be shared.
    "BUFFER_ALLOC" buffer_alloc 0x48 BufferAlloc;
    /// Moves a migrating buffer.
    "BUFFER_MOVE" buffer_move 0x49 BufferMove;
    /// Where a buffer is.
    "BUFFER_STATE" buffer_state 0x4a BufferState;
    /// Looks at the pages of an import's table. Lab only.
    "LAB_READ_PAGE" lab_read_page 0x88 LabReadPage;
    /// Takes an import's attachment away without unmapping or detaching. Lab only.
    "LAB_FORGET" lab_forget 0x89 Handle;
    /// Copies by a channel of any DMA engine; a call of `/dev/peerdma-dma`.
    "DMA_COPY" dma_copy 0x70 DmaCopy;
    /// Where a channel's device finds a byte of a dma-buf; likewise.
    "DMA_ADDRESS" dma_address 0x71 DmaAddress;
}

const GET_SEGMENTS: Opcode = number::<Segments>(0x23);
const KERNEL_COPY: Opcode = number::<KernelCopy>(0x4b);

/// Where an object lies: fills `room` from the segment number `first` on.
///
/// # Errors
/// The kernel's; the header says which means what.
pub fn get_segments(
    fd: impl AsFd,
    handle: u32,
    first: u32,
    room: &mut [Segment],
) -> io::Result<Segments> {
    let mut argument = Segments {
        handle,
        first,
        capacity: u32::try_from(room.len()).unwrap_or(u32::MAX),
        array: room.as_mut_ptr() as u64,
        ..Segments::default()
    };
    // SAFETY: the number belongs to the structure; the kernel writes at most `capacity` segments to `array`, which is
    // `room`, exclusively ours for the duration of the call.
    unsafe { ioctl(fd, Updater::<GET_SEGMENTS, Segments>::new(&mut argument))? };
    Ok(argument)
}

/// Reads bytes of a dma-buf by the kernel's own mapping of it.
///
/// # Errors
/// The kernel's; the header says which means what.
pub fn kernel_read(
    fd: impl AsFd,
    buffer: BorrowedFd<'_>,
    offset: u64,
    data: &mut [u8],
) -> io::Result<()> {
    let mut argument = KernelCopy {
        fd: buffer.as_raw_fd(),
        write: 0,
        offset,
        length: data.len() as u64,
        data: data.as_mut_ptr() as u64,
    };
    // SAFETY: the number belongs to the structure; the kernel writes `length` bytes to `data`, exclusively ours for the
    // duration of the call.
    unsafe { ioctl(fd, Updater::<KERNEL_COPY, KernelCopy>::new(&mut argument)) }
}

/// Writes bytes of a dma-buf likewise.
///
/// # Errors
/// The kernel's; the header says which means what.
pub fn kernel_write(
    fd: impl AsFd,
    buffer: BorrowedFd<'_>,
    offset: u64,
    data: &[u8],
) -> io::Result<()> {
    let mut argument = KernelCopy {
        fd: buffer.as_raw_fd(),
        write: 1,
        offset,
        length: data.len() as u64,
        data: data.as_ptr() as u64,
    };
    // SAFETY: the number belongs to the structure; the kernel only reads `length` bytes at `data`.
    unsafe { ioctl(fd, Updater::<KERNEL_COPY, KernelCopy>::new(&mut argument)) }
}
