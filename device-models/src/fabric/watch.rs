//! The observers, and the turn that they have not seen yet.

use super::{FunctionId, Input, Observer};

/// The observers, and the turn that they have not seen yet.
#[derive(Default)]
pub(super) struct Watch {
    observers: Observers,
    /// A turn that has begun. Whether anything comes of it shows later, but an observer hears of
    /// the turn before it hears of what came of it.
    turn: Option<FunctionId>,
}

/// Several observers as one.
#[derive(Default)]
struct Observers(Vec<Box<dyn Observer>>);

impl Watch {
    pub(super) fn add(&mut self, observer: Box<dyn Observer>) {
        self.observers.0.push(observer);
    }

    /// Whether there are observers: without one nothing is prepared for them.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        !self.observers.0.is_empty()
    }

    /// Whether an observer wants the bytes of bulk data.
    pub(super) fn wants_bulk(&self) -> bool {
        self.observers.wants_bulk()
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, function: FunctionId) {
        self.turn = Some(function);
    }

    /// The turn is over; if it `worked`, the observers learn of it even if they saw nothing else.
    pub(super) fn end_turn(&mut self, worked: bool) {
        if worked {
            self.observer();
        }
        self.turn = None;
    }

    /// The observers, if there are any.
    pub(super) fn observer(&mut self) -> Option<&mut (dyn Observer + 'static)> {
        if !self.is_on() {
            return None;
        }
        if let Some(function) = self.turn.take() {
            self.observers.input(&Input::Step { function });
        }
        Some(&mut self.observers)
    }
}

impl Observer for Observers {
    fn transaction(
        &mut self,
        transaction: &super::Transaction,
        delivery: &super::Delivery,
        data: Option<&[u8]>,
    ) {
        for observer in &mut self.0 {
            observer.transaction(transaction, delivery, data);
        }
    }

    fn alternative(&mut self, transaction: &super::Transaction, alternative: &super::Alternative) {
        for observer in &mut self.0 {
            observer.alternative(transaction, alternative);
        }
    }

    fn wants_bulk(&self) -> bool {
        self.0.iter().any(|observer| observer.wants_bulk())
    }

    fn bulk(&mut self, bytes: &[u8]) {
        for observer in &mut self.0 {
            if observer.wants_bulk() {
                observer.bulk(bytes);
            }
        }
    }

    fn finding(&mut self, finding: &crate::checker::Finding) {
        for observer in &mut self.0 {
            observer.finding(finding);
        }
    }

    fn iommu_request(&mut self, number: u64, request: &crate::iommu::virtio::Request) {
        for observer in &mut self.0 {
            observer.iommu_request(number, request);
        }
    }

    fn input(&mut self, input: &Input<'_>) {
        for observer in &mut self.0 {
            observer.input(input);
        }
    }

    fn replace_read(&mut self, transaction: &super::Transaction, data: &mut [u8]) -> bool {
        self.0.iter_mut().any(|observer| observer.replace_read(transaction, data))
    }

    fn next_record(&mut self, record: &mut crate::witness::Bytes) -> bool {
        self.0.iter_mut().any(|observer| observer.next_record(record))
    }

    fn replace_outside(&mut self, function: FunctionId, data: &mut [u8]) {
        for observer in &mut self.0 {
            observer.replace_outside(function, data);
        }
    }
}
