//! Requests that were not answered `S_OK`. Linux does not look at the status of a MAP, so the
//! checker must.

use super::spec::request_type;
use super::{Status, VirtioIommu};
use crate::AddressRange;
use std::fmt;

/// How many refusals wait for the checker at most.
const MAX_REFUSALS: usize = 256;

/// A request as the driver made it, with whatever it contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// ATTACH.
    Attach {
        /// The domain to attach to.
        domain: u32,
        /// The endpoint ID.
        endpoint: u32,
        /// See [`AttachFlags`](super::AttachFlags).
        flags: u32,
    },
    /// DETACH.
    Detach {
        /// The domain to detach from.
        domain: u32,
        /// The endpoint ID.
        endpoint: u32,
    },
    /// MAP.
    Map {
        /// The domain.
        domain: u32,
        /// The first address.
        virt_start: u64,
        /// The last address.
        virt_end: u64,
        /// The guest physical address of the first.
        phys_start: u64,
        /// See [`MapFlags`](super::MapFlags).
        flags: u32,
    },
    /// UNMAP.
    Unmap {
        /// The domain.
        domain: u32,
        /// The first address.
        virt_start: u64,
        /// The last address.
        virt_end: u64,
    },
    /// PROBE.
    Probe {
        /// The endpoint ID.
        endpoint: u32,
    },
    /// None of the above, or too short to be one.
    Unknown {
        /// The type, if there was one.
        request_type: Option<u8>,
        /// The bytes the device may read.
        readable: usize,
        /// The bytes the device may write.
        writable: usize,
    },
}

impl Request {
    /// The request type (virtio 1.3, 5.13.6); 0 if there was none.
    #[must_use]
    pub fn request_type(&self) -> u8 {
        match self {
            Self::Attach { .. } => request_type::ATTACH,
            Self::Detach { .. } => request_type::DETACH,
            Self::Map { .. } => request_type::MAP,
            Self::Unmap { .. } => request_type::UNMAP,
            Self::Probe { .. } => request_type::PROBE,
            Self::Unknown { request_type, .. } => request_type.unwrap_or(0),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach { domain, endpoint, flags } => {
                write!(f, "ATTACH domain={domain} endpoint={endpoint:#06x} flags={flags:#x}")
            }
            Self::Detach { domain, endpoint } => {
                write!(f, "DETACH domain={domain} endpoint={endpoint:#06x}")
            }
            Self::Map { domain, virt_start, virt_end, phys_start, flags } => write!(
                f,
                "MAP domain={domain} virt={virt_start:#x}..={virt_end:#x} phys={phys_start:#x} \
                 flags={flags:#x}"
            ),
            Self::Unmap { domain, virt_start, virt_end } => {
                write!(f, "UNMAP domain={domain} virt={virt_start:#x}..={virt_end:#x}")
            }
            Self::Probe { endpoint } => write!(f, "PROBE endpoint={endpoint:#06x}"),
            Self::Unknown { request_type: Some(number), readable, writable } => {
                write!(
                    f,
                    "request of type {number} with {readable} readable and {writable} writable \
                     bytes"
                )
            }
            Self::Unknown { request_type: None, readable, writable } => {
                write!(
                    f,
                    "request without a type, {readable} readable and {writable} writable bytes"
                )
            }
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("`flags` has a bit that does not exist or was not negotiated")]
    Flags,
    #[error("`reserved` is not zero")]
    ReservedField,
    #[error("the IOMMU serves no endpoint of this ID")]
    NoEndpoint,
    #[error("the domain number is outside `domain_range`")]
    DomainRange,
    #[error("the domain exists and its bypass mode is another")]
    BypassMismatch,
    #[error("the endpoint is not attached to this domain")]
    NotAttached,
    #[error("no endpoint is attached to this domain, so it does not exist")]
    NoDomain,
    #[error("a bypass domain has no mappings")]
    BypassDomain,
    #[error("an address is not aligned to the granularity of {granularity:#x} bytes")]
    Alignment { granularity: u64 },
    #[error("the range ends before it begins")]
    Empty,
    #[error("the range is not inside `input_range`")]
    InputRange,
    #[error("the physical range wraps around the end of the address space")]
    TargetWraps,
    #[error("the range overlaps the reserved region {0}")]
    Reserved(AddressRange),
    #[error("the range overlaps the mapping {0}")]
    Overlap(AddressRange),
    #[error("the range would split the mapping {0}")]
    Split(AddressRange),
    #[error("all {limit} mappings are in use")]
    TooMany { limit: usize },
    #[error("`properties` has fewer than `probe_size` bytes")]
    ShortProperties,
    #[error("the request is too short for its type")]
    Truncated,
    #[error("the request type does not exist or was not negotiated")]
    UnknownType,
}

impl Reason {
    /// The status the driver reads, as section 5.13.6 wants it for each case; where the request
    /// cannot be answered, the one that a driver shall assume when it finds that nothing was
    /// written.
    fn status(self) -> Status {
        match self {
            Self::Truncated | Self::UnknownType => Status::IoErr,
            Self::NoEndpoint | Self::NoDomain => Status::NoEnt,
            Self::DomainRange
            | Self::Alignment { .. }
            | Self::InputRange
            | Self::TargetWraps
            | Self::Split(_) => Status::Range,
            Self::TooMany { .. } => Status::NoMem,
            Self::Flags
            | Self::ReservedField
            | Self::BypassMismatch
            | Self::NotAttached
            | Self::BypassDomain
            | Self::Empty
            | Self::Reserved(_)
            | Self::Overlap(_)
            | Self::ShortProperties => Status::Inval,
        }
    }
}

/// A request that the IOMMU refused, for the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's place in the sequence of all requests, counted from 1.
    pub sequence: u64,
    /// What was asked.
    pub request: Request,
    /// What the driver reads; [`Status::IoErr`] if the request was so malformed that nothing could
    /// be written.
    pub status: Status,
    reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "request #{} {} answered {}: {}",
            self.sequence, self.request, self.status, self.reason
        )
    }
}

impl VirtioIommu {
    /// Ends the request in progress: a refusal is kept for the checker.
    pub(super) fn conclude<T>(
        &mut self,
        outcome: Result<T, Reason>,
        request: impl FnOnce() -> Request,
    ) -> Result<T, Status> {
        outcome.map_err(|reason| self.refuse(reason, request()))
    }

    #[cold]
    fn refuse(&mut self, reason: Reason, request: Request) -> Status {
        let status = reason.status();
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(Refusal { sequence: self.requests, request, status, reason });
        } else {
            self.dropped_refusals = self.dropped_refusals.saturating_add(1);
        }
        status
    }

    /// Takes the oldest refused request that the checker has not seen.
    pub fn next_refusal(&mut self) -> Option<Refusal> {
        self.refusals.pop_front()
    }

    /// Refusals that were dropped because the earlier ones had not been taken in time.
    #[must_use]
    pub fn dropped_refusals(&self) -> u64 {
        self.dropped_refusals
    }
}
