//! Errors that a function detects and logs (PCIe 6.0, 6.2: Advanced Error Reporting).

use super::route::{self, Refusal};
use super::{CompletionStatus, Fabric, FunctionId, Kind, MAX_ERRORS, Transaction};
use crate::checker::FindingClass;
use crate::pci::{Abort, UncorrectableError};

/// A request that failed, at the function that noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectedError {
    /// The function that logs it.
    pub detector: FunctionId,
    /// Which bit of the Uncorrectable Error Status register.
    pub error: UncorrectableError,
    /// The header of the first TLP that failed, for the Header Log.
    pub header: [u32; 4],
}

impl Fabric {
    /// Logs a failed posted write where hardware would. A failed read needs no log: its completion
    /// tells the requester, and the completer's own log of it is advisory (6.2.3.2.4.1). A port
    /// whose link is down discards posted requests without a word (2.9.1).
    pub(super) fn detect(&mut self, transaction: &Transaction, refusal: Refusal) {
        if transaction.kind == Kind::MemoryRead
            || refusal.class == FindingClass::LinkDown
            || self.errors.len() >= MAX_ERRORS
        {
            return;
        }
        // What the root complex refuses is logged by the root port it came through; a function on
        // the root bus has none, and there is no root complex event collector.
        let port = refusal.detector.or_else(|| route::port_of(&self.map, transaction.function));
        let Some(detector) = port else { return };
        let error = match refusal.class {
            FindingClass::AcsViolation => UncorrectableError::AcsViolation,
            _ => UncorrectableError::UnsupportedRequest,
        };
        self.errors.push(DetectedError { detector, error, header: header(transaction) });
    }

    /// Keeps for the requester of a read how it ended, if that was not well: an unsuccessful
    /// completion shows in its Status register (7.5.1.1.4), one that did not come is an error that
    /// it detects itself (6.2.3.2.4.4).
    pub(super) fn read_ended(&mut self, read: &Transaction, status: CompletionStatus) {
        let abort = match status {
            CompletionStatus::Success => return,
            CompletionStatus::UnsupportedRequest => Abort::Unsupported,
            CompletionStatus::CompleterAbort => Abort::Completer,
            CompletionStatus::Timeout => {
                if self.errors.len() < MAX_ERRORS {
                    let error = UncorrectableError::CompletionTimeout;
                    let header = header(read);
                    self.errors.push(DetectedError { detector: read.function, error, header });
                }
                return;
            }
        };
        if !self.aborts.contains(&(read.function, abort)) {
            self.aborts.push((read.function, abort));
        }
    }
}

/// The header of a run's first TLP (PCIe 6.0, 2.2.1, 2.2.4, 2.2.7).
fn header(transaction: &Transaction) -> [u32; 4] {
    let Some((_, address, length)) = transaction.tlps().next() else { return [0; 4] };
    let [low, high] =
        [address & 0xffff_ffff, address >> 32].map(|half| u32::try_from(half).unwrap_or_default());
    let offset = low & 3;
    let dwords = (offset + length).div_ceil(4);
    let first_enables =
        (0xf << offset) & 0xf & if dwords == 1 { 0xf >> (4 - offset - length) } else { 0xf };
    let last_enables = if dwords == 1 { 0 } else { 0xf >> ((4 - ((offset + length) & 3)) & 3) };
    let with_data = u32::from(transaction.kind == Kind::MemoryWrite) << 30;
    let long = u32::from(high != 0) << 29;
    let request = u32::from(transaction.requester.0) << 16 | last_enables << 4 | first_enables;
    let first = with_data | long | (dwords & 0x3ff);
    if high == 0 { [first, request, low & !3, 0] } else { [first, request, high, low & !3] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Purpose;
    use crate::pci::Bdf;

    fn write(address: u64, length: u64) -> [u32; 4] {
        header(&Transaction {
            sequence: 0,
            requester: Bdf::new(2, 0, 0),
            function: FunctionId(0),
            kind: Kind::MemoryWrite,
            purpose: Purpose::Data,
            address,
            length,
            tlp_limit: 128,
        })
    }

    #[test]
    fn short_addresses_make_three_dword_headers() {
        assert_eq!(write(0x8000_0004, 4), [0x4000_0001, 0x0200_000f, 0x8000_0004, 0]);
    }

    #[test]
    fn byte_enables_tell_odd_ends() {
        assert_eq!(write(0x1_0000_0003, 2), [0x6000_0002, 0x0200_0018, 1, 0]);
        assert_eq!(write(0x1_0000_0001, 2), [0x6000_0001, 0x0200_0006, 1, 0]);
    }
}
