//! Memory of any kind, to be shared, and what can be done to it.

use super::{DeviceError, Object, Peer, Work};
use crate::uapi;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

impl Peer {
    /// A buffer of one of the `BUFFER_*` kinds, in `ranges` pieces (local memory only), with `BUFFER_LAB_*` flags. The
    /// CPU reaches it by its dma-bufs only.
    ///
    /// # Errors
    /// The driver's.
    pub fn buffer(
        &self,
        kind: u32,
        size: u64,
        ranges: u32,
        flags: u32,
    ) -> Result<Object, DeviceError> {
        let mut argument = uapi::BufferAlloc { size, kind, ranges, flags, handle: 0 };
        uapi::buffer_alloc(&self.file, &mut argument).map_err(self.failed("BUFFER_ALLOC"))?;
        Ok(Object { handle: argument.handle, size: argument.size, mmap_offset: None })
    }

    /// Moves a migrating buffer to one of the `PLACE_*`, with `MOVE_*` flags.
    ///
    /// # Errors
    /// The driver's; `EBUSY` when it has to stay.
    pub fn move_buffer(&self, object: Object, place: u32, flags: u32) -> Result<(), DeviceError> {
        let mut argument =
            uapi::BufferMove { handle: object.handle, place, flags, ..uapi::BufferMove::default() };
        uapi::buffer_move(&self.file, &mut argument).map_err(self.failed("BUFFER_MOVE"))
    }

    /// Where a buffer is and which importers have it. Local memory of the plain kind has no such
    /// state (`EINVAL`).
    ///
    /// # Errors
    /// The driver's.
    pub fn buffer_state(&self, object: Object) -> Result<uapi::BufferState, DeviceError> {
        let mut argument =
            uapi::BufferState { handle: object.handle, ..uapi::BufferState::default() };
        uapi::buffer_state(&self.file, &mut argument).map_err(self.failed("BUFFER_STATE"))?;
        Ok(argument)
    }

    /// Reads a dma-buf by the kernel's own mapping of it, at most 64 KiB.
    ///
    /// # Errors
    /// The driver's; `EINVAL` when the exporter has no such mapping.
    pub fn kernel_read(
        &self,
        buffer: BorrowedFd<'_>,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), DeviceError> {
        uapi::kernel_read(&self.file, buffer, offset, data).map_err(self.failed("KERNEL_COPY"))
    }

    /// Writes a dma-buf likewise.
    ///
    /// # Errors
    /// As [`Self::kernel_read`].
    pub fn kernel_write(
        &self,
        buffer: BorrowedFd<'_>,
        offset: u64,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        uapi::kernel_write(&self.file, buffer, offset, data).map_err(self.failed("KERNEL_COPY"))
    }

    /// Looks into the pages behind an import's table, as no importer may: how many entries claim to have some, and the
    /// first word in the first page.
    ///
    /// # Errors
    /// The driver's; `EFAULT` when there is no page.
    pub fn read_page(&self, import: Object) -> Result<uapi::LabReadPage, DeviceError> {
        let mut argument =
            uapi::LabReadPage { handle: import.handle, ..uapi::LabReadPage::default() };
        uapi::lab_read_page(&self.file, &mut argument).map_err(self.failed("LAB_READ_PAGE"))?;
        Ok(argument)
    }

    /// Takes an import's attachment away without unmapping or detaching, as no importer may.
    ///
    /// # Errors
    /// The driver's.
    pub fn forget(&self, import: Object) -> Result<(), DeviceError> {
        let mut argument = uapi::Handle { handle: import.handle, ..uapi::Handle::default() };
        uapi::lab_forget(&self.file, &mut argument).map_err(self.failed("LAB_FORGET"))
    }

    /// Hands work to a channel; gives the cookie, and a `sync_file` that signals when it has ended.
    ///
    /// # Errors
    /// The driver's.
    pub fn submit_fenced(&self, work: Work) -> Result<(u64, OwnedFd), DeviceError> {
        let mut argument = work.with(uapi::SUBMIT_OUT_FENCE).argument();
        uapi::submit(self.file.as_fd(), &mut argument).map_err(self.failed("SUBMIT"))?;
        if argument.out_fence < 0 {
            return Err(self.failed("SUBMIT")(Errno::BADF));
        }
        // SAFETY: the driver has just installed this descriptor for us, and nothing else owns it.
        Ok((argument.cookie, unsafe { OwnedFd::from_raw_fd(argument.out_fence) }))
    }
}
