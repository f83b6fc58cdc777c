//! Observers: reports, recorders and replays.

use super::route::Target;
use super::{Alternative, CompletionStatus, FunctionId, PostedDelay, RouteKind, Transaction};
use crate::checker::Finding;
use crate::iommu::virtio::Request;
use crate::pci::Bdf;
use crate::witness;

/// What became of a [`Transaction`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It reached memory or registers.
    Delivered {
        /// The route that it took.
        route: RouteKind,
        /// The memory or registers; none for the interrupt window.
        target: Option<Target>,
        /// The address at the target's side: physical, or the bus address if it never reached the
        /// root complex.
        address: u64,
    },
    /// It was answered, or dropped if posted, with this status.
    Failed(CompletionStatus),
}

impl Delivery {
    /// The function whose BAR it arrived in; none for RAM, and if it did not arrive.
    pub(super) fn owner(&self) -> Option<FunctionId> {
        match self {
            Self::Delivered { target, .. } => target.as_ref().and_then(Target::owner),
            Self::Failed(_) => None,
        }
    }
}

/// What a CPU or the VMM did to the system: all that a replay has to repeat, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// A configuration write.
    ConfigWrite {
        /// Address of the function.
        bdf: Bdf,
        /// Byte offset, 0 to 4095.
        offset: u16,
        /// 1, 2 or 4 bytes.
        length: u8,
        /// Value, in the low bytes.
        value: u32,
    },
    /// A configuration read that may have side effects: of a vendor capability, or of a function
    /// whose posted writes its completion pushes.
    ConfigRead {
        /// Address of the function.
        bdf: Bdf,
        /// Byte offset, 0 to 4095.
        offset: u16,
        /// 1, 2 or 4 bytes.
        length: u8,
        /// What was answered.
        value: u32,
    },
    /// A CPU's write to a BAR.
    MmioWrite {
        /// Physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A CPU's read of a BAR.
    MmioRead {
        /// Physical address.
        address: u64,
        /// What was answered.
        data: &'a [u8],
    },
    /// A CPU's request has come to a BAR of `function`, behind what was under way to it. Only where
    /// that changes anything; what the request itself does comes behind it, if it is an input.
    CpuPush {
        /// The function that owns the BAR.
        function: FunctionId,
    },
    /// Everything below a port was pulled out of its slot.
    Unplug {
        /// Address of the port above the slot.
        port: Bdf,
    },
    /// What was pulled out of the slot of a port was plugged in again.
    Plug {
        /// Address of the port above the slot.
        port: Bdf,
    },
    /// Posted writes on a path stay under way from now on, or no longer.
    DelayPosted {
        /// The function that issues them.
        requester: Bdf,
        /// The function whose BARs they go to; none for the root complex: RAM and interrupts.
        target: Option<Bdf>,
        /// When they arrive.
        delay: PostedDelay,
    },
    /// Software has seen a fence that stands for a function's work.
    FenceSeen {
        /// Requester ID of the function.
        requester: Bdf,
    },
    /// The guest's witness has reported something, or has come or gone.
    Witness {
        /// What.
        kind: WitnessInput,
        /// The bytes of a record; those that [`System`](crate::system::System) says for what else
        /// there is.
        data: &'a [u8],
    },
    /// A step in which `function` did something.
    Step {
        /// The function that had its turn.
        function: FunctionId,
    },
    /// A value that no replay can compute from what the record holds.
    Outside {
        /// The function that takes the value.
        function: FunctionId,
        /// The value as bytes, as the function gets it.
        data: &'a [u8],
    },
}

/// What has come from the guest's witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WitnessInput {
    /// It is there. The data: the guest's monotonic clock in nanoseconds, 8 bytes.
    Attach,
    /// It is gone.
    Detach,
    /// Its rings are emptied because it asks for that: records follow.
    Drain,
    /// A record: not a cause of its own, but part of what happens in a turn, an access, or a drain.
    Record,
}

impl WitnessInput {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Attach, Self::Detach, Self::Drain, Self::Record];

    /// The name that traces use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Drain => "drain",
            Self::Record => "record",
        }
    }
}

/// Sees everything, in the order in which it happens. Called with the system's lock held: return
/// quickly.
pub trait Observer: Send {
    /// A transaction was carried out. `data` holds its bytes if it was delivered to or read from
    /// memory or registers and they are at hand in one piece; only [control
    /// transactions](super::Purpose::is_control) need keep them.
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        let _ = (transaction, delivery, data);
    }

    /// A part of the transaction that was shown last would have ended in another way, if what
    /// [`System::set_what_if`](crate::system::System::set_what_if) asks were so.
    fn alternative(&mut self, transaction: &Transaction, alternative: &Alternative) {
        let _ = (transaction, alternative);
    }

    /// Whether [`bulk`](Self::bulk) is wanted, which costs a second copy of the data.
    fn wants_bulk(&self) -> bool {
        false
    }

    /// Bytes of the bulk data of the transaction that is shown next, as they were moved, piece by
    /// piece. Called for those whose `data` is not kept, if the observer [wants](Self::wants_bulk) it.
    fn bulk(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// The checker has found a mistake, or has a note.
    fn finding(&mut self, finding: &Finding) {
        let _ = finding;
    }

    /// The guest's IOMMU driver has made a request, the IOMMU's number `number`; what came of it is
    /// a finding if it was refused.
    fn iommu_request(&mut self, number: u64, request: &Request) {
        let _ = (number, request);
    }

    /// A CPU or the VMM did something.
    fn input(&mut self, input: &Input<'_>) {
        let _ = input;
    }

    /// A control transaction is about to read guest memory: a replay fills in `data` and answers
    /// `true`; any other observer leaves it alone, and memory is read.
    fn replace_read(&mut self, transaction: &Transaction, data: &mut [u8]) -> bool {
        let _ = (transaction, data);
        false
    }

    /// The rings of the guest's witness would be looked at now: a replay that has a record here
    /// puts it into `record` and answers `true`, until there is no more. Asked only of a system
    /// without rings.
    fn next_record(&mut self, record: &mut witness::Bytes) -> bool {
        let _ = record;
        false
    }

    /// A model is about to use a value from outside: a replay puts the recorded one in its place.
    fn replace_outside(&mut self, function: FunctionId, data: &mut [u8]) {
        let _ = (function, data);
    }
}
