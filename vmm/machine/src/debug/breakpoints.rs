//! Breakpoints in the guest's code.
//!
//! Usually a debugger puts INT3 there, and KVM has the processor leave the guest at it (`KVM_GUESTDBG_USE_SW_BP`). QEMU's
//! emulated processor, in which most guests of the lab run, does not let a hypervisor intercept INT3 and delivers it to the
//! guest. An I/O instruction leaves the guest everywhere: `OUT DX, AL` has one byte, as INT3, and changes no register. What
//! it would put out is not. Two limits come with it: the code must run in the kernel (a program has no right to I/O), and
//! where DX happens to hold a port of the interrupt controllers or the timer, which KVM serves by itself, the breakpoint
//! is passed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `OUT DX, AL` (Intel SDM vol. 2, OUT).
pub(super) const INSTRUCTION: u8 = 0xee;

/// By linear address, the byte that was there.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    /// Whether there are any. Looked at without the lock, at each output of the guest's.
    in_use: AtomicBool,
    replaced: Mutex<BTreeMap<u64, u8>>,
}

impl Breakpoints {
    fn replaced(&self) -> MutexGuard<'_, BTreeMap<u64, u8>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are any.
    pub(crate) fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// Whether there is one at `address`.
    pub(crate) fn is_at(&self, address: u64) -> bool {
        self.replaced().contains_key(&address)
    }

    /// There is one at `address` from now on, in the place of `byte`.
    pub(super) fn add(&self, address: u64, byte: u8) {
        let mut replaced = self.replaced();
        replaced.entry(address).or_insert(byte);
        self.in_use.store(true, Ordering::Release);
    }

    /// It is gone; the byte that belongs there.
    pub(super) fn remove(&self, address: u64) -> Option<u8> {
        let mut replaced = self.replaced();
        let byte = replaced.remove(&address);
        self.in_use.store(!replaced.is_empty(), Ordering::Release);
        byte
    }

    /// Any of them, with the byte that belongs there.
    pub(super) fn first(&self) -> Option<(u64, u8)> {
        self.replaced().first_key_value().map(|(address, byte)| (*address, *byte))
    }

    /// Puts back into `bytes`, read from `start`, what breakpoints have replaced.
    pub(super) fn hide(&self, start: u64, bytes: &mut [u8]) {
        for (address, byte) in self.replaced().iter() {
            let at = address.checked_sub(start).and_then(|at| usize::try_from(at).ok());
            if let Some(place) = at.and_then(|at| bytes.get_mut(at)) {
                *place = *byte;
            }
        }
    }

    /// Keeps breakpoints where `bytes` is about to be written from `start` on: what is written there is put in their
    /// place later.
    pub(super) fn keep(&self, start: u64, bytes: &mut [u8]) {
        for (address, replaced) in self.replaced().iter_mut() {
            let at = address.checked_sub(start).and_then(|at| usize::try_from(at).ok());
            if let Some(place) = at.and_then(|at| bytes.get_mut(at)) {
                *replaced = std::mem::replace(place, INSTRUCTION);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debugger_sees_the_code_as_it_was() {
        let breakpoints = Breakpoints::default();
        assert!(!breakpoints.in_use());
        breakpoints.add(0x1002, 7);
        // A second one at the same place does not take the first for the code.
        breakpoints.add(0x1002, INSTRUCTION);
        assert!(breakpoints.in_use() && breakpoints.is_at(0x1002) && !breakpoints.is_at(0x1003));
        let mut seen = [1, 2, INSTRUCTION, 4];
        breakpoints.hide(0x1000, &mut seen);
        assert_eq!(seen, [1, 2, 7, 4]);
        breakpoints.hide(0x1003, &mut seen);
        assert_eq!(seen, [1, 2, 7, 4]);
        let mut written = [8, 9];
        breakpoints.keep(0x1001, &mut written);
        assert_eq!(written, [8, INSTRUCTION]);
        assert_eq!(breakpoints.first(), Some((0x1002, 9)));
        assert_eq!((breakpoints.remove(0x1002), breakpoints.remove(0x1002)), (Some(9), None));
        assert!(!breakpoints.in_use());
    }
}
