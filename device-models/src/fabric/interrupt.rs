//! Message-signalled interrupts: memory writes that the interrupt window turns into interrupts.

use vm_memory::{Bytes, VolatileSlice};

use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Purpose, RouteKind, Transaction, WriteOutcome,
};
use crate::AddressRange;
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
pub(super) struct Interrupts {
    pub(super) msix: Option<MsixTable>,
    msix_function: MsixFunction,
    msi: Option<MsiState>,
    /// A pending message found no room where it goes: try again at the function's next turn.
    held_back: bool,
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
                "data {data:#x} is not an enabled MSI or MSI-X vector of this requester; \
                 delivered, as hardware without \
                 interrupt remapping does"
            );
            let class = FindingClass::NotAVector;
            self.report(transaction.function, class, cause, Some(transaction), explanation);
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
        self.report(transaction.function, class, cause, Some(*transaction), explanation);
        Some(class)
    }

    /// What an access that the interrupt window does not take comes from: a copy that runs through
    /// the window is one mistake, as is the same mistake at the same addresses.
    pub(super) fn malformed(&mut self, transaction: &Transaction, mistake: &'static str) -> Cause {
        let first = transaction.address;
        let range = AddressRange {
            first,
            last: first.saturating_add(transaction.length.saturating_sub(1)),
        };
        let class = FindingClass::Malformed;
        let kind = RunKind { function: transaction.function, class, domain: None, target: None };
        let set = self.runs.take(kind, range, 0, |_, _, _| false).id;
        Cause::Malformed { set, mistake }
    }
}

impl Fabric {
    /// Gives `function` its MSI-X table.
    pub(crate) fn set_msix_table(&mut self, function: FunctionId, table: MsixTable) {
        self.interrupts[function.index()].msix = Some(table);
    }

    /// The MSI-X table of `function`, if it has one.
    pub(crate) fn msix_table(&mut self, function: FunctionId) -> Option<&mut MsixTable> {
        self.interrupts[function.index()].msix.as_mut()
    }

    /// Takes the interrupt enables and masks of the configuration space of `function` over.
    pub(crate) fn set_interrupt_enables(
        &mut self,
        function: FunctionId,
        msi: Option<MsiState>,
        msix: MsixFunction,
    ) {
        let state = &mut self.interrupts[function.index()];
        state.msi = msi;
        state.msix_function = msix;
    }

    /// Takes a pending MSI-X vector that is no longer masked and its message, if `function` may
    /// send one.
    pub(crate) fn take_pending_vector(
        &mut self,
        function: FunctionId,
    ) -> Option<(u16, MsiMessage)> {
        let node = self.map.node(function);
        let may_issue = node.bus_master && node.operational;
        let state = &mut self.interrupts[function.index()];
        state.held_back = false;
        let table = state.msix.as_mut().filter(|_| may_issue)?;
        table.take_pending(state.msix_function)
    }

    /// The message of `vector` found no room: it is pending again, until the function's next turn.
    pub(crate) fn hold_back_vector(&mut self, function: FunctionId, vector: u16) {
        let state = &mut self.interrupts[function.index()];
        state.held_back = true;
        if let Some(table) = &mut state.msix {
            table.put_back(vector);
        }
    }

    /// Whether a message of `function` was held back.
    pub(crate) fn holds_back_vector(&self, function: FunctionId) -> bool {
        self.interrupts[function.index()].held_back
    }

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
