use std::fmt;

use super::Access;
use crate::AddressRange;
use crate::pci::Bdf;

/// A translation that failed: what was asked, and why the answer is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Requester ID of the transaction.
    pub requester: Bdf,
    /// The first address that could not be used.
    pub address: u64,
    /// What it was wanted for.
    pub access: Access,
    /// Why not.
    pub reason: FaultReason,
    /// How many requests the guest had made to the IOMMU by then. The yardstick for the request
    /// numbers in `reason`.
    pub requests: u64,
}

/// Why an address could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// The requester is not attached to any domain, and unattached endpoints may not access memory.
    Domain {
        /// The request that detached it, if it ever was attached.
        detached: Option<u64>,
    },
    /// The domain has no mapping at the address, nor had one as far back as its history goes.
    Unmapped {
        /// The domain the requester is attached to.
        domain: u32,
    },
    /// The domain maps the address, but not for this access.
    Permission {
        /// The domain the requester is attached to.
        domain: u32,
        /// The mapping may be read.
        readable: bool,
        /// The mapping may be written.
        writable: bool,
        /// The request that made the mapping.
        born: u64,
    },
    /// The domain has no mapping at the address any more.
    Stale {
        /// The domain the requester is attached to.
        domain: u32,
        /// The mapping that was there last.
        retired: Retired,
    },
}

/// A mapping that is gone. Requests are counted from 1, so that a replay gives the same sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The addresses it covered.
    pub range: AddressRange,
    /// The guest physical address its first byte stood for.
    pub target: u64,
    /// The request that made it.
    pub born: u64,
    /// The request that removed it.
    pub died: u64,
}

impl Fault {
    /// How many requests the guest has made since request number `number`.
    fn age(&self, number: u64) -> u64 {
        self.requests.saturating_sub(number)
    }
}

impl fmt::Display for Fault {
    /// The reason as a clause, without requester and address: `stale mapping, unmapped by request
    /// #97, 14 requests ago (...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            FaultReason::Domain { detached: None } => f.write_str("never attached to a domain"),
            FaultReason::Domain { detached: Some(by) } => {
                write!(
                    f,
                    "not attached to a domain, detached by request #{by}, {}",
                    Ago(self.age(by))
                )
            }
            FaultReason::Unmapped { domain } => write!(f, "not mapped in domain {domain}"),
            FaultReason::Permission { domain, readable, writable, born } => {
                let allowed = match (readable, writable) {
                    (true, true) => "reading and writing",
                    (true, false) => "reading only",
                    (false, true) => "writing only",
                    (false, false) => "no access",
                };
                write!(f, "mapped in domain {domain} for {allowed} by request #{born}")
            }
            FaultReason::Stale { domain, retired } => write!(
                f,
                "stale mapping, unmapped by request #{}, {} (domain {domain}, {} mapped by \
                 request #{})",
                retired.died,
                Ago(self.age(retired.died)),
                retired.range,
                retired.born,
            ),
        }
    }
}

/// A distance counted in requests.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the latest one"),
            1 => f.write_str("1 request ago"),
            n => write!(f, "{n} requests ago"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(reason: FaultReason) -> String {
        Fault {
            requester: Bdf::default(),
            address: 0x1000,
            access: Access::Write,
            reason,
            requests: 111,
        }
        .to_string()
    }

    #[test]
    fn reasons_read_as_sentences() {
        assert_eq!(fault(FaultReason::Domain { detached: None }), "never attached to a domain");
        assert_eq!(fault(FaultReason::Unmapped { domain: 3 }), "not mapped in domain 3");
        let retired = Retired {
            range: AddressRange { first: 0x1000, last: 0x1fff },
            target: 0,
            born: 12,
            died: 97,
        };
        assert_eq!(
            fault(FaultReason::Stale { domain: 1, retired }),
            "stale mapping, unmapped by request #97, 14 requests ago \
             (domain 1, 0x1000..=0x1fff mapped by request #12)"
        );
        assert_eq!(
            fault(FaultReason::Permission { domain: 1, readable: true, writable: false, born: 4 }),
            "mapped in domain 1 for reading only by request #4"
        );
        assert!(fault(FaultReason::Domain { detached: Some(111) }).ends_with("the latest one"));
    }
}
