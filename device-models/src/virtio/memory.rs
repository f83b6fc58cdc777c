//! Guest memory as a virtqueue sees it: through a function's handle on the fabric.
//!
//! virtio-queue wants slices of memory that it then reads or writes. Slices of guest RAM would
//! bypass routing, translation and checking, and what a slice shows can change under the reader's
//! eyes. So an access is a transaction: a read copies the bytes once into an [`Arena`] and hands
//! out the copy; a write hands out empty bytes of the arena, which go out as one transaction before
//! the next access, or at [`PortMemory::flush`]. The order of the transactions is that of the
//! accesses, which is what makes a used index visible after its element.

use std::cell::{Cell, RefCell};
use std::io;
use std::iter::{FusedIterator, Once};

use crate::fabric::{CompletionStatus, Port, Purpose, ReadOutcome, WriteOutcome};
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryMmap, MmapRegion, Permissions, VolatileMemory,
    VolatileSlice,
};

/// Bytes of ring data that one step of a device may touch: a chain of the longest queue, and the
/// rings' own fields.
const ARENA: usize = 16 << 10;
/// Every piece begins at a multiple of this, so that the atomic accesses of virtio-queue are
/// aligned.
const ALIGNMENT: usize = 16;

/// Why an access to guest memory did not succeed, as far as a device can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The fabric has no room for the request now: the work can be done again later.
    #[error("the fabric asked to try again later")]
    Later,
    /// The function may not issue requests: there is nothing to do until the driver lets it.
    #[error("the function may not issue requests; set Bus Master Enable")]
    Silent,
    /// The queue breaks the specification, or is not in memory: only a reset helps.
    #[error("{0}")]
    Broken(&'static str),
}

impl Failure {
    /// The failure, when what was begun cannot be begun again.
    pub(crate) fn final_now(self) -> Self {
        match self {
            Self::Later => Self::Broken("a used ring or an answer lies in a device that is busy"),
            Self::Silent | Self::Broken(_) => self,
        }
    }
}

/// The memory that [`PortMemory`] hands out. Reused from step to step.
#[derive(Debug)]
pub(crate) struct Arena {
    region: MmapRegion<()>,
}

impl Arena {
    pub(crate) fn new() -> std::result::Result<Self, MmapRegionError> {
        Ok(Self { region: MmapRegion::new(ARENA)? })
    }
}

/// A write that virtio-queue may still be filling in.
#[derive(Clone, Copy, Debug)]
struct Unflushed {
    address: u64,
    offset: usize,
    length: usize,
}

/// Guest memory for the duration of one step: each access becomes a transaction.
#[derive(Debug)]
pub struct PortMemory<'a, 'port> {
    port: RefCell<&'a mut Port<'port>>,
    arena: &'a Arena,
    used: Cell<usize>,
    unflushed: Cell<Option<Unflushed>>,
    failure: Cell<Option<Failure>>,
    /// An address, and what the last read of two bytes there found.
    remembered: Cell<Option<(u64, Option<u16>)>>,
}

impl<'a, 'port> PortMemory<'a, 'port> {
    pub(crate) fn new(port: &'a mut Port<'port>, arena: &'a Arena) -> Self {
        Self {
            port: RefCell::new(port),
            arena,
            used: Cell::new(0),
            unflushed: Cell::new(None),
            failure: Cell::new(None),
            remembered: Cell::new(None),
        }
    }

    /// From here on keeps what is read of the 16-bit number at `address`.
    pub(crate) fn remember(&self, address: u64) {
        self.remembered.set(Some((address, None)));
    }

    /// What was read there, if it was.
    pub(crate) fn remembered(&self) -> Option<u16> {
        self.remembered.get().and_then(|(_, value)| value)
    }

    /// Sends what was written last.
    ///
    /// # Errors
    ///
    /// The first failure of any access so far: virtio-queue swallows some of them.
    pub fn flush(&self) -> std::result::Result<(), Failure> {
        if let Some(Unflushed { address, offset, length }) = self.unflushed.take()
            && let Ok(slice) = self.arena.region.get_slice(offset, length)
        {
            let outcome = self.port.borrow_mut().write(Purpose::VirtQueue, address, &slice);
            if let Err(failure) = posted(outcome) {
                self.fail(failure);
            }
        }
        self.failure.get().map_or(Ok(()), Err)
    }

    /// Reads a buffer, not a ring: straight into `data`.
    pub fn read_buffer(&self, address: u64, data: &mut [u8]) -> std::result::Result<(), Failure> {
        self.flush()?;
        let mut port = self.port.borrow_mut();
        let outcome = port.read_bytes(Purpose::VirtQueue, address, data);
        completed(&mut port, outcome).inspect_err(|failure| self.fail(*failure))
    }

    /// Writes a buffer, not a ring.
    pub fn write_buffer(&self, address: u64, data: &[u8]) -> std::result::Result<(), Failure> {
        self.flush()?;
        let outcome = self.port.borrow_mut().write_bytes(Purpose::VirtQueue, address, data);
        posted(outcome).inspect_err(|failure| self.fail(*failure))
    }

    /// The function's handle, for what is not an access to a queue.
    pub fn with_port<T>(&self, work: impl FnOnce(&mut Port<'port>) -> T) -> T {
        work(&mut self.port.borrow_mut())
    }

    fn fail(&self, failure: Failure) {
        if self.failure.get().is_none() {
            self.failure.set(Some(failure));
        }
    }

    /// Fresh bytes of the arena.
    fn allocate(&self, length: usize) -> Option<(usize, VolatileSlice<'_>)> {
        let offset = self.used.get();
        let end = offset.checked_add(length)?.checked_next_multiple_of(ALIGNMENT)?;
        let slice = self.arena.region.get_slice(offset, length).ok()?;
        self.used.set(end);
        Some((offset, slice))
    }

    fn access(
        &self,
        address: u64,
        length: usize,
        access: Permissions,
    ) -> std::result::Result<VolatileSlice<'_>, Failure> {
        self.flush()?;
        let (offset, slice) = self
            .allocate(length)
            .ok_or(Failure::Broken("a descriptor chain takes too many ring accesses"))?;
        if access.has_write() {
            // Virtio-queue never reads what it asked to write.
            self.unflushed.set(Some(Unflushed { address, offset, length }));
        } else {
            let mut port = self.port.borrow_mut();
            let outcome = port.read(Purpose::VirtQueue, address, &slice);
            completed(&mut port, outcome)?;
            if let (Some((wanted, _)), 2) = (self.remembered.get(), length)
                && wanted == address
            {
                let mut bytes = [0; 2];
                slice.copy_to(&mut bytes);
                self.remembered.set(Some((address, Some(u16::from_le_bytes(bytes)))));
            }
        }
        Ok(slice)
    }
}

/// What a read comes down to. Registers of another device answer by message, for which a queue does
/// not wait.
fn completed(port: &mut Port<'_>, outcome: ReadOutcome) -> std::result::Result<(), Failure> {
    match outcome {
        ReadOutcome::Done { status: CompletionStatus::Success, .. } => Ok(()),
        ReadOutcome::Done { .. } => {
            Err(Failure::Broken("a read of a ring or buffer completed with an error"))
        }
        ReadOutcome::Pending { tag, .. } => {
            port.abandon(tag);
            Err(Failure::Broken("a ring or buffer lies in the registers of a device"))
        }
        ReadOutcome::Retry { .. } => Err(Failure::Later),
        ReadOutcome::NotEmitted => Err(Failure::Silent),
    }
}

/// What a posted write comes down to: the device does not learn whether it arrived.
fn posted(outcome: WriteOutcome) -> std::result::Result<(), Failure> {
    match outcome {
        WriteOutcome::Posted { .. } => Ok(()),
        WriteOutcome::Retry { .. } => Err(Failure::Later),
        WriteOutcome::NotEmitted => Err(Failure::Silent),
    }
}

impl GuestMemory for PortMemory<'_, '_> {
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    /// Whether a range can be accessed shows when it is accessed, and only then.
    fn check_range(&self, _: GuestAddress, _: usize, _: Permissions) -> bool {
        true
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>> {
        if count == 0 {
            return Ok(OneSlice(None));
        }
        let slice = self.access(addr.0, count, access).map_err(|failure| {
            self.fail(failure);
            Error::IOError(io::Error::other(failure))
        });
        Ok(OneSlice(Some(std::iter::once(slice))))
    }
}

/// The whole range in one piece, or the reason why not.
struct OneSlice<'a>(Option<Once<Result<VolatileSlice<'a>>>>);

impl<'a> Iterator for OneSlice<'a> {
    type Item = Result<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.as_mut()?.next()
    }
}

impl FusedIterator for OneSlice<'_> {}
impl<'a> GuestMemorySliceIterator<'a, ()> for OneSlice<'a> {}
