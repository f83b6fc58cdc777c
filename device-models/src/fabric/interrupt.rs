//! Message-signalled interrupts: memory writes that the interrupt window turns into interrupts.

use vm_memory::{Bytes, VolatileSlice};

use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Purpose, RouteKind, Span, Transaction,
    WriteOutcome,
};
use crate::checker::{Cause, FindingClass, RunKind};
use crate::pci::{MsiMessage, MsiState, MsixFunction, MsixTable, Raised};

/// Where interrupts go: the guest's interrupt controllers.
pub trait InterruptSink: Send {
    /// A write of `data` to `address` in the interrupt window (Intel SDM volume 3, 12.11).
    fn signal_msi(&mut self, address: u64, data: u32);
}

/// What to do with a write into the interrupt window that is not one of the requester's vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InterruptPolicy {
    /// As hardware without interrupt remapping does: it is an interrupt all the same.
    #[default]
    Deliver,
    /// Drop it. The finding is the same.
    Block,
}

/// What a function may signal.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    pub(crate) msix: Option<MsixTable>,
    pub(crate) msix_function: MsixFunction,
    pub(crate) msi: Option<MsiState>,
    /// A pending message found no room where it goes: try again at the function's next turn.
    pub(crate) held_back: bool,
}

impl Interrupts {
    fn owns(&self, address: u64, data: u32) -> bool {
        self.msix.as_ref().is_some_and(|table| table.owns(address, data, self.msix_function))
            || self.msi.as_ref().is_some_and(|msi| msi.owns(address, data))
    }
}

impl Fabric {
    /// Carries out a write that ends in the interrupt window; what was found.
    pub(super) fn interrupt(
        &mut self,
        transaction: Transaction,
        source: &VolatileSlice<'_>,
    ) -> Option<FindingClass> {
        let mut bytes = [0; 4];
        if transaction.length != 4
            || !transaction.address.is_multiple_of(4)
            || source.read_slice(&mut bytes, 0).is_err()
        {
            let explanation =
                "the interrupt window takes aligned dword writes and nothing else; dropped";
            let mistake = match transaction.length {
                ..4 => "short",
                4 => "misaligned",
                _ => "long",
            };
            let cause = self.malformed(&transaction, mistake);
            let class = FindingClass::Malformed;
            return self.refuse_interrupt(&transaction, class, cause, explanation.to_owned());
        }
        if transaction.purpose == Purpose::Data
            && let Some(observer) = self.watch.observer()
        {
            observer.replace_read(&transaction, &mut bytes);
        }
        let data = u32::from_le_bytes(bytes);
        let owned = self.interrupts[transaction.function.index()].owns(transaction.address, data);
        let cause = Cause::Message { address: transaction.address, data };
        if !owned && self.policy == InterruptPolicy::Block {
            let explanation = format!(
                "data {data:#x} is not an enabled MSI or MSI-X vector of this requester; blocked"
            );
            let class = FindingClass::NotAVector;
            return self.refuse_interrupt(&transaction, class, cause, explanation);
        }
        self.stats.of_mut(transaction.function).delivered(
            transaction.kind,
            RouteKind::Interrupt,
            4,
        );
        self.stats.of_mut(transaction.function).interrupts += 1;
        let delivery = Delivery::Delivered {
            route: RouteKind::Interrupt,
            target: None,
            address: transaction.address,
        };
        self.observe(&transaction, &delivery, Some(&bytes));
        self.sink.signal_msi(transaction.address, data);
        self.arrived(&transaction);
        (!owned).then(|| {
            let explanation = format!(
                "data {data:#x} is not an enabled MSI or MSI-X vector of this requester; delivered, as hardware without \
                 interrupt remapping does"
            );
            let class = FindingClass::NotAVector;
            self.find(transaction.function, class, cause, Some(transaction), explanation);
            class
        })
    }

    fn refuse_interrupt(
        &mut self,
        transaction: &Transaction,
        class: FindingClass,
        cause: Cause,
        explanation: String,
    ) -> Option<FindingClass> {
        self.observe(transaction, &Delivery::Failed(CompletionStatus::UnsupportedRequest), None);
        self.find(transaction.function, class, cause, Some(*transaction), explanation);
        Some(class)
    }

    /// What an access that the interrupt window does not take comes from: a copy that runs through the window is one
    /// mistake, as is the same mistake at the same addresses.
    pub(super) fn malformed(&mut self, transaction: &Transaction, mistake: &'static str) -> Cause {
        let first = transaction.address;
        let span = Span { first, last: first.saturating_add(transaction.length.saturating_sub(1)) };
        let class = FindingClass::Malformed;
        let kind = RunKind { function: transaction.function, class, domain: None, target: None };
        let number = self.runs.take(kind, span, 0, |_, _, _| false).number;
        Cause::Malformed { number, mistake }
    }
}

impl Fabric {
    /// Signals an MSI-X vector of `from`; see [`Port::raise`](super::Port::raise).
    pub(crate) fn raise(&mut self, from: FunctionId, vector: u16) -> WriteOutcome {
        let state = &mut self.interrupts[from.index()];
        let raised = state.msix.as_mut().map(|table| table.raise(vector, state.msix_function));
        match raised {
            Some(Raised::Send(MsiMessage { address, data })) => {
                self.write_bytes(from, Purpose::Interrupt, address, &mut data.to_le_bytes())
            }
            _ => WriteOutcome::Posted { verdict: None },
        }
    }
}
