//! A CPUID table with lookup and edit.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// The entries of one vCPU.
pub(super) struct Table(Vec<kvm_cpuid_entry2>);

/// An output register.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reg {
    Ecx,
    Edx,
}

/// Bits in an entry.
pub(super) trait Entry {
    /// Sets or clears `bits` of a register.
    fn set(&mut self, reg: Reg, bits: u32, on: bool);
}

impl Entry for kvm_cpuid_entry2 {
    fn set(&mut self, reg: Reg, bits: u32, on: bool) {
        let value = match reg {
            Reg::Ecx => &mut self.ecx,
            Reg::Edx => &mut self.edx,
        };
        *value = if on { *value | bits } else { *value & !bits };
    }
}

impl Table {
    pub(super) fn new(entries: &[kvm_cpuid_entry2]) -> Self {
        Self(entries.to_vec())
    }

    pub(super) fn into_entries(self) -> Vec<kvm_cpuid_entry2> {
        self.0
    }

    /// The first entry of a leaf.
    pub(super) fn get(&self, function: u32) -> Option<&kvm_cpuid_entry2> {
        self.0.iter().find(|entry| entry.function == function)
    }

    /// An entry of a leaf with subleaves.
    pub(super) fn get_sub(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.0.iter().find(|entry| entry.function == function && entry.index == index)
    }

    /// Edits all entries of a leaf; nothing if the processor has none.
    pub(super) fn edit(&mut self, function: u32, change: impl FnMut(&mut kvm_cpuid_entry2)) {
        self.0.iter_mut().filter(|entry| entry.function == function).for_each(change);
    }

    /// Edits one subleaf.
    pub(super) fn edit_sub(
        &mut self,
        function: u32,
        index: u32,
        change: impl FnMut(&mut kvm_cpuid_entry2),
    ) {
        self.0
            .iter_mut()
            .filter(|entry| entry.function == function && entry.index == index)
            .for_each(change);
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&kvm_cpuid_entry2) -> bool) {
        self.0.retain(keep);
    }

    /// Replaces all subleaves of a leaf by `[eax, ebx, ecx, edx]` for index 0, 1, ...
    pub(super) fn replace(&mut self, function: u32, subleaves: &[[u32; 4]]) {
        self.retain(|entry| entry.function != function);
        for (index, &[eax, ebx, ecx, edx]) in (0_u32..).zip(subleaves) {
            let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            self.0.push(kvm_cpuid_entry2 {
                function,
                index,
                flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            });
        }
    }

    /// Highest leaf of the range that starts at `base` (0 or 0x8000_0000).
    pub(super) fn highest(&self, base: u32) -> u32 {
        self.get(base).map_or(base, |entry| entry.eax)
    }
}
