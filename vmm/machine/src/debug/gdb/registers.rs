//! Registers as gdb has them.

use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{kvm_fpu, kvm_regs};

use crate::fault::Registers;

/// A processor's registers in gdb's order.
pub(super) fn to_gdb(registers: &Registers, vectors: &kvm_fpu) -> X86_64CoreRegs {
    let Registers { general, system } = registers;
    let mut all = X86_64CoreRegs {
        regs: [
            general.rax,
            general.rbx,
            general.rcx,
            general.rdx,
            general.rsi,
            general.rdi,
            general.rbp,
            general.rsp,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ],
        // The upper half is reserved.
        eflags: u32::try_from(general.rflags & 0xffff_ffff).unwrap_or_default(),
        rip: general.rip,
        mxcsr: vectors.mxcsr,
        ..X86_64CoreRegs::default()
    };
    all.segments.cs = system.cs.selector.into();
    all.segments.ss = system.ss.selector.into();
    all.segments.ds = system.ds.selector.into();
    all.segments.es = system.es.selector.into();
    all.segments.fs = system.fs.selector.into();
    all.segments.gs = system.gs.selector.into();
    for (ours, theirs) in all.xmm.iter_mut().zip(vectors.xmm) {
        *ours = u128::from_le_bytes(theirs);
    }
    for (ours, theirs) in all.st.iter_mut().zip(vectors.fpr) {
        ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours = theirs);
    }
    all.fpu.fctrl = vectors.fcw.into();
    all.fpu.fstat = vectors.fsw.into();
    all.fpu.ftag = vectors.ftwx.into();
    all.fpu.fop = vectors.last_opcode.into();
    all
}

/// The general registers of what gdb sends; the others stay as they are.
pub(super) fn from_gdb(all: &X86_64CoreRegs) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = all.regs;
    let (rip, rflags) = (all.rip, all.eflags.into());
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_sregs;

    #[test]
    fn general_registers_survive_the_way_to_gdb_and_back() {
        let general = kvm_regs {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rsp: 7,
            rbp: 8,
            r8: 9,
            r15: 10,
            rip: u64::MAX,
            rflags: 0x246,
            ..kvm_regs::default()
        };
        let registers = Registers { general, system: kvm_sregs::default() };
        let all = to_gdb(&registers, &kvm_fpu::default());
        // gdb has RBP before RSP, KVM has it behind.
        assert_eq!((all.regs[6], all.regs[7]), (8, 7));
        assert_eq!(from_gdb(&all), general);
    }
}
