//! A virtqueue of a device: its registers, and whether there is anything to do.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::Chain;
use super::device::VirtioDevice;
use super::memory::{Arena, Failure, PortMemory};
use super::spec::{AVAIL_INDEX, AVAIL_NO_INTERRUPT, NO_VECTOR};
use crate::fabric::{Port, WriteOutcome};

/// What became of looking for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// A chain was used up; with whether to notify the driver.
    One {
        /// Whether the driver wants an interrupt.
        notify: bool,
        /// Whether the driver had made another one available. It notifies of any that it makes
        /// available later.
        more: bool,
    },
    /// There was none.
    None,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct VirtQueue {
    pub(crate) ring: Queue,
    /// The MSI-X vector for used buffers.
    pub(crate) vector: u16,
    /// There may be a chain: the driver has notified the device since the queue was last found
    /// empty.
    pub(crate) notified: bool,
    /// An interrupt is due that could not be sent at once.
    interrupt_due: bool,
    /// How often the next chain has been tried in vain.
    attempts: u8,
}

/// How often a chain is tried that the fabric has no room for. The fabric empties itself between
/// two attempts, so a chain that fails as often asks for more than there can ever be room for.
const MOST_ATTEMPTS: u8 = 64;

impl VirtQueue {
    /// A queue of at most `size` descriptors, a power of two; nothing else is possible.
    pub(crate) fn new(size: u16) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            ring: Queue::new(size)?,
            vector: NO_VECTOR,
            notified: false,
            interrupt_due: false,
            attempts: 0,
        })
    }

    pub(crate) fn reset(&mut self) {
        self.ring.reset();
        self.vector = NO_VECTOR;
        self.notified = false;
        self.interrupt_due = false;
        self.attempts = 0;
    }

    /// Takes the next chain, lets `device` use it up, and gives it back.
    pub(crate) fn serve(
        &mut self,
        index: u16,
        device: &mut dyn VirtioDevice,
        port: &mut Port<'_>,
        arena: &Arena,
    ) -> Result<Served, Failure> {
        let (next_avail, next_used) = (self.ring.next_avail(), self.ring.next_used());
        let memory = PortMemory::new(port, arena);
        let outcome = self.serve_over(index, device, &memory);
        if let Err(Failure::Later | Failure::Silent) = outcome {
            // As if nothing had happened: the chain is still the driver's next.
            self.ring.set_next_avail(next_avail);
            self.ring.set_next_used(next_used);
        }
        self.attempts = if outcome == Err(Failure::Later) { self.attempts + 1 } else { 0 };
        if self.attempts >= MOST_ATTEMPTS {
            return Err(Failure::Broken(
                "a chain asks for more posted writes than fit on their way",
            ));
        }
        outcome
    }

    fn serve_over(
        &mut self,
        index: u16,
        device: &mut dyn VirtioDevice,
        memory: &PortMemory<'_, '_>,
    ) -> Result<Served, Failure> {
        let size = self.ring.size();
        memory.remember(self.ring.avail_ring() + AVAIL_INDEX);
        // An error without a failed access is an index that lies.
        let chain = self.ring.iter(memory).map(|mut chains| chains.next());
        memory.flush()?;
        let chain = chain.map_err(|_| {
            Failure::Broken("more chains are available than the queue has descriptors")
        })?;
        let Some(chain) = chain else { return Ok(Served::None) };
        let chain = Chain::fetch(chain, memory, size)?;
        let written = device.serve(index, &chain, memory)?;
        // From here on the chain has been used and must not be given to the device again.
        let added = self.ring.add_used(memory, chain.head(), written);
        memory.flush().map_err(Failure::final_now)?;
        added.map_err(|_| {
            Failure::Broken("the available ring names a descriptor that does not exist")
        })?;
        let more = memory.remembered() != Some(self.ring.next_avail());
        Ok(Served::One { notify: self.vector != NO_VECTOR && self.driver_listens(memory)?, more })
    }

    /// Whether the driver wants an interrupt for used buffers (2.7.7.2). One too many does no harm.
    fn driver_listens(&self, memory: &PortMemory<'_, '_>) -> Result<bool, Failure> {
        let flags: Result<u16, _> = memory.read_obj(GuestAddress(self.ring.avail_ring()));
        match memory.flush() {
            Err(Failure::Later) => return Ok(true),
            outcome => outcome?,
        }
        let flags =
            u16::from_le(flags.map_err(|_| Failure::Broken("the available ring cannot be read"))?);
        Ok(flags & AVAIL_NO_INTERRUPT == 0)
    }

    /// Sends the queue's interrupt, now or at a later turn.
    pub(crate) fn interrupt(&mut self, port: &mut Port<'_>) {
        self.interrupt_due = matches!(port.raise(self.vector), WriteOutcome::Retry { .. });
    }

    /// Sends an interrupt that had to wait; whether there was one.
    pub(crate) fn interrupt_late(&mut self, port: &mut Port<'_>) -> bool {
        let due = self.interrupt_due;
        if due {
            self.interrupt(port);
        }
        due
    }
}
