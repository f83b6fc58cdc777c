//! What a finding comes from: findings of one function and class with the same cause are one
//! mistake.

use crate::fabric::FunctionId;

/// The address that Linux's DMA API gives for a mapping that failed (`DMA_MAPPING_ERROR`).
pub const DMA_MAPPING_ERROR: u64 = u64::MAX;

/// What a finding comes from. Request numbers are those of the IOMMU's, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The function's own state, or what it does on its own.
    Function,
    /// The function is attached to no domain.
    Detached {
        /// The request that detached it, if it ever was attached.
        request: Option<u64>,
    },
    /// A mapping. What was mapped in one go, piece by piece, is one.
    Mapping {
        /// The MAP request of the first piece.
        request: u64,
    },
    /// A mapping was removed. What was unmapped in one go is one.
    Unmapping {
        /// The first UNMAP request.
        request: u64,
    },
    /// Two mappings that lie side by side.
    Neighbours {
        /// The MAP request of the first, by address.
        first: u64,
        /// That of the second.
        second: u64,
    },
    /// A function that was to take the requests, and does not.
    Target {
        /// That function.
        function: FunctionId,
        /// The MAP request of the first piece of the mapping that leads there; none if no mapping
        /// of the IOMMU's does.
        mapping: Option<u64>,
    },
    /// A port that does not let the requests through, and which function they are for, if that is
    /// known.
    Port {
        /// The port; none for the root complex.
        port: Option<FunctionId>,
        /// The function behind the addresses.
        target: Option<FunctionId>,
        /// The MAP request, as in [`Target`](Self::Target).
        mapping: Option<u64>,
    },
    /// Addresses that lead nowhere: neighbouring ones, or those of BARs of one function.
    Addresses {
        /// Identifies one such set.
        set: u64,
    },
    /// An address that stands for a mapping that failed: [`DMA_MAPPING_ERROR`], or its low half.
    MappingFailed {
        /// The request to the IOMMU that mapped or unmapped something there last; none if none did,
        /// and for an address that never became a request.
        request: Option<u64>,
    },
    /// A descriptor in memory.
    Descriptor {
        /// DMA address of its first byte.
        address: u64,
        /// What is wrong with it: the device's name for that kind of mistake.
        mistake: &'static str,
    },
    /// A write that would be an interrupt, but not one of the requester's.
    Message {
        /// Its address in the interrupt window.
        address: u64,
        /// The data of the write: the vector, on x86.
        data: u32,
    },
    /// Accesses to neighbouring addresses that the interrupt window does not take.
    Malformed {
        /// Identifies one such set of addresses.
        set: u64,
        /// What is wrong with them: `short`, `long`, `misaligned` or `read`.
        mistake: &'static str,
    },
    /// What the guest's kernel mapped in one go, as its witness reported it.
    Mapped {
        /// The ticket of the first record, or what else tells the group from others.
        group: u64,
    },
    /// Requests to the IOMMU that were refused in the same way.
    Refused {
        /// The request type (virtio 1.3, 5.13.6); 0 for one that could not be read.
        request: u8,
        /// The status that the driver reads.
        status: u8,
    },
}

/// What a DMA address, the first one of what a descriptor or a request names, says about a mapping
/// that failed; nothing for any other. Only the exact value is one: what lies beside it is an
/// address of something else.
pub fn failed_mapping(first: u64) -> Option<&'static str> {
    match first {
        DMA_MAPPING_ERROR => Some(
            "0xffffffffffffffff is DMA_MAPPING_ERROR: the mapping failed, and the driver did not check",
        ),
        0xffff_ffff => Some(
            "0xffffffff is the low half of DMA_MAPPING_ERROR: if the address was cut to 32 bits, \
             the mapping failed, and the driver did not check",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_itself_is_a_failed_mapping() {
        assert!(failed_mapping(u64::MAX).is_some_and(|text| !text.contains("low half")));
        assert!(failed_mapping(0xffff_ffff).is_some_and(|text| text.contains("low half")));
        let others = [
            0,
            0xfff,
            u64::MAX - 1,
            0xffff_ffff_ffff_f000,
            0xffff_fffe,
            0xffff_f000,
            0x1_0000_0000,
            0xffff_ffff_0000_0000,
            0x1_ffff_ffff,
        ];
        assert!(others.into_iter().all(|address| failed_mapping(address).is_none()));
    }
}
