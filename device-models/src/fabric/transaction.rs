//! The words of the fabric: transactions, completions, purposes.

use std::fmt;

use crate::checker::FindingClass;
use crate::pci::Bdf;

/// A function's place in the system, from power-on to the end; a [`Bdf`] changes when the guest
/// renumbers buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub(crate) u16);

impl FunctionId {
    /// The position among all functions of the system, in the order in which they were built.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a request asks for (PCIe 6.0, 2.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Memory Read: non-posted, completes with data or a status.
    MemoryRead,
    /// Memory Write: posted, the requester never learns what became of it.
    MemoryWrite,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryRead => "MRd",
            Self::MemoryWrite => "MWr",
        })
    }
}

/// Why a device issued a request. Hardware does not know this; the checker's sentences and the
/// trace do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The engine fetches a descriptor.
    DescriptorFetch,
    /// Bulk data of a copy, fill or checksum.
    Data,
    /// The engine reports that a descriptor is done.
    CompletionRecord,
    /// A message-signalled interrupt.
    Interrupt,
    /// A virtqueue: rings, descriptors and buffers.
    VirtQueue,
}

impl Purpose {
    /// Whether the bytes steer what the device does next, so that a replay needs them in full.
    pub fn is_control(self) -> bool {
        matches!(self, Self::DescriptorFetch | Self::VirtQueue)
    }

    /// A short name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::DescriptorFetch => "descriptor",
            Self::Data => "data",
            Self::CompletionRecord => "completion-record",
            Self::Interrupt => "interrupt",
            Self::VirtQueue => "virtqueue",
        }
    }
}

/// How a non-posted request ended (PCIe 6.0, 2.2.9.1; a time-out is the requester's own finding,
/// 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompletionStatus {
    /// Successful Completion.
    Success,
    /// Unsupported Request: no function claims the address, or none takes this kind of request.
    UnsupportedRequest,
    /// Completer Abort: the completer claims the address and cannot serve it.
    CompleterAbort,
    /// No completion came in time.
    Timeout,
}

impl CompletionStatus {
    /// The specification's abbreviation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "SC",
            Self::UnsupportedRequest => "UR",
            Self::CompleterAbort => "CA",
            Self::Timeout => "timeout",
        }
    }
}

/// Distinguishes a function's outstanding reads. Never reused while a completion could still be
/// under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// A run of request TLPs with consecutive addresses, the same route and the same verdict.
///
/// The TLPs are those that a requester makes which cuts at every multiple of `tlp_limit`: none
/// crosses 4 KiB (PCIe 6.0, 2.2.7), none is longer than Max_Payload_Size (writes) or
/// Max_Read_Request_Size (reads).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Number of the first TLP among all TLPs of the system since power-on.
    pub sequence: u64,
    /// Requester ID.
    pub requester: Bdf,
    /// The function that issued it.
    pub function: FunctionId,
    /// Read or write.
    pub kind: Kind,
    /// Why it was issued.
    pub purpose: Purpose,
    /// Address in the requester's TLP, before any translation.
    pub address: u64,
    /// Length in bytes of the whole run.
    pub length: u64,
    /// Max_Payload_Size or Max_Read_Request_Size in bytes: a power of two from 128 to 4096.
    pub tlp_limit: u32,
}

impl Transaction {
    /// How many TLPs the run has; at least one.
    pub fn tlp_count(&self) -> u64 {
        tlp_count(self.address, self.length, self.tlp_limit)
    }

    /// The run's TLPs, one by one: (sequence, address, length).
    pub fn tlps(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<> {
        let limit = u64::from(self.tlp_limit.max(1));
        let Self { address, length, sequence, .. } = *self;
        let mut done = 0;
        (0..self.tlp_count()).map(move |index| {
            let start = address.wrapping_add(done);
            let room = (limit - start % limit).min(length - done);
            done += room;
            (sequence + index, start, u32::try_from(room).unwrap_or(u32::MAX))
        })
    }
}

/// How many TLPs `length` bytes from `address` make when cut at multiples of `limit`, a power of
/// two.
pub(crate) fn tlp_count(address: u64, length: u64, limit: u32) -> u64 {
    let shift = limit.trailing_zeros();
    let last = address.wrapping_add(length.saturating_sub(1));
    (last >> shift).wrapping_sub(address >> shift).wrapping_add(1)
}

/// What became of a read that a [`Port`](super::Port) was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It completed.
    Done {
        /// The status of the completion that ended it.
        status: CompletionStatus,
        /// Bytes that arrived before that: all of them on success.
        bytes: u64,
        /// What the checker found, for the lab-only verdict register; no requester on hardware sees
        /// this.
        verdict: Option<FindingClass>,
    },
    /// The first `bytes` bytes are there; the rest went to a register BAR as a message, and
    /// [`Endpoint::completion`](crate::endpoint::Endpoint::completion) will be called with this
    /// tag.
    Pending {
        /// Which of the requester's reads it is.
        tag: Tag,
        /// Bytes that arrived before the part that is under way.
        bytes: u64,
        /// What the checker found about those.
        verdict: Option<FindingClass>,
    },
    /// Ordering or flow control holds it back after `bytes` bytes: ask again for the rest in a
    /// later step.
    Retry {
        /// Bytes that arrived.
        bytes: u64,
        /// What the checker found about them.
        verdict: Option<FindingClass>,
    },
    /// The function may not issue requests (Bus Master Enable clear, or not in D0): nothing left
    /// the device.
    NotEmitted,
}

/// What became of a write that a [`Port`](super::Port) was asked for. A posted write has no status:
/// "posted" says that it left, not that it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It left the device.
    Posted {
        /// What the checker found, for the lab-only verdict register; no requester on hardware sees
        /// this.
        verdict: Option<FindingClass>,
    },
    /// Ordering or flow control holds it back after `bytes` bytes: ask again for the rest in a
    /// later step.
    Retry {
        /// Bytes that left.
        bytes: u64,
        /// What the checker found about those that left.
        verdict: Option<FindingClass>,
    },
    /// The function may not issue requests (Bus Master Enable clear, or not in D0): nothing left
    /// the device.
    NotEmitted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(address: u64, length: u64, tlp_limit: u32) -> Vec<(u64, u64, u32)> {
        let transaction = Transaction {
            sequence: 7,
            requester: Bdf::new(1, 0, 0),
            function: FunctionId(3),
            kind: Kind::MemoryWrite,
            purpose: Purpose::Data,
            address,
            length,
            tlp_limit,
        };
        let tlps: Vec<_> = transaction.tlps().collect();
        assert_eq!(tlps.len() as u64, transaction.tlp_count());
        tlps
    }

    #[test]
    fn an_aligned_run_is_cut_into_full_tlps() {
        assert_eq!(run(0x1000, 512, 256), [(7, 0x1000, 256), (8, 0x1100, 256)]);
    }

    #[test]
    fn an_odd_run_never_crosses_a_boundary() {
        assert_eq!(run(0x1fff, 258, 256), [(7, 0x1fff, 1), (8, 0x2000, 256), (9, 0x2100, 1)]);
        assert_eq!(run(0x1fff, 1, 256), [(7, 0x1fff, 1)]);
    }
}
