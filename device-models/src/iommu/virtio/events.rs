//! Fault reports on their way to the guest (5.13.6.9).

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::super::{Access, Fault, FaultReason};
use super::VirtioIommu;
use super::spec::{FAULT_REPORT_LENGTH, FaultFlags, FaultReport, fault_reason};

impl VirtioIommu {
    pub(super) fn queue_fault(&mut self, fault: &Fault) {
        self.reported_faults = self.reported_faults.saturating_add(1);
        if self.faults.len() < self.config.max_pending_faults {
            self.faults.push_back(*fault);
        } else {
            self.dropped_faults = self.dropped_faults.saturating_add(1);
        }
    }

    /// Whether a fault report waits for a buffer of the event queue.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The oldest fault report, in the layout of `struct virtio_iommu_fault`.
    #[must_use]
    pub fn event(&self) -> Option<[u8; FAULT_REPORT_LENGTH]> {
        let fault = self.faults.front()?;
        let report = FaultReport {
            reason: match fault.reason {
                FaultReason::Domain { .. } => fault_reason::DOMAIN,
                FaultReason::Unmapped { .. }
                | FaultReason::Permission { .. }
                | FaultReason::Stale { .. } => fault_reason::MAPPING,
            },
            reserved: [0; 3],
            flags: U32::new(
                (FaultFlags::ADDRESS
                    | match fault.access {
                        Access::Read => FaultFlags::READ,
                        Access::Write => FaultFlags::WRITE,
                    })
                .bits(),
            ),
            endpoint: U32::new(fault.requester.0.into()),
            reserved1: U32::ZERO,
            address: U64::new(fault.address),
        };
        let mut bytes = [0; FAULT_REPORT_LENGTH];
        bytes.copy_from_slice(report.as_bytes());
        Some(bytes)
    }

    /// The oldest fault report has reached the guest.
    pub fn event_delivered(&mut self) {
        self.faults.pop_front();
    }

    /// How many faults there have been, delivered or not.
    #[must_use]
    pub fn reported_faults(&self) -> u64 {
        self.reported_faults
    }

    /// How many fault reports were dropped because too many were waiting.
    #[must_use]
    pub fn dropped_faults(&self) -> u64 {
        self.dropped_faults
    }
}
